/*
 * A recorder leaves nothing behind: when it stops, nobody listens to a device, also beside the checker.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemDevice } from '../../../../src/core/devices/system.ts'
import type { QueuePairObject } from '../../../../src/core/driver-contract.ts'
import { hasFailureHandlers } from '../../../../src/core/failures.ts'
import type { CoreObject } from '../../../../src/core/model.ts'
import { SCRATCH_BYTES } from '../../../../src/spec/check/requests.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../../../src/spec/work.ts'
import { startRecorder } from '../../../../src/tools/clients/record/recorder.ts'
import type { RequestFeed } from '../../../../src/tools/clients/requests/feed.ts'
import { watchRequests } from '../../../../src/tools/clients/requests/watch.ts'
import { SessionObjects } from '../../../../src/tools/record/objects.ts'
import { bytesSource, openSession } from '../../../../src/tools/record/reader.ts'
import { SessionWriter } from '../../../../src/tools/record/writer.ts'
import type { Port } from '../../../../src/transport/phy/port.ts'
import { addTap } from '../../../../src/transport/phy/tap.ts'
import { addressText } from '../../../../src/transport/wire/address.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { completionsOf } from '../../../drivers/machine.ts'
import { fabric, program as mlx5Program, SEND } from '../../../drivers/mlx5/machine.ts'
import { connectQps, machine, makeChannel, makeCq, makeQp, program } from '../../../drivers/rxe/machine.ts'
import { createMemorySink } from '../../record/memory-sink.ts'

const nothing = () => {}

/** A device whose listeners can be seen, and a function that starts to record it. */
const start = () => {
  const m = machine(1, { path: 'direct' })
  const { device } = m.devices[0]
  const about = { application: 'userdma 0', machine: 'a machine', origin: 0, payload: 0 }
  const listeners = () => ({
    ...device.taps,
    table: device.table,
    systemTable: systemDevice(m.core).table,
    tap: m.ports[0].tap,
    watchesFailures: hasFailureHandlers(m.core),
    descriptors: m.core.descriptorEnds.size,
  })
  const sink = createMemorySink()
  const record = () => {
    const writer = new SessionWriter(sink, about)
    const recorder = startRecorder(m.core, writer, {
      now: () => m.now,
      program: () => undefined,
      addTap: (_, tap) => addTap(m.ports[0], tap, false),
    })
    return { recorder, writer, sink }
  }
  return { m, device, listeners, record }
}

test('a queue pair that exists at the start has its state and its peer', async () => {
  const { m, record } = start()
  const user = program(m)
  const cq = makeCq(user)
  const [one, other] = [makeQp(user, cq), makeQp(user, cq)]
  connectQps(one, other)
  const { recorder, writer, sink } = record()
  recorder.stop()
  await writer.end(m.now, 'test')
  const objects = new SessionObjects()
  for await (const event of (await openSession(bytesSource(sink.bytes))).eventsIn())
    if (event.kind === 'object') objects.add(event)
  const found = [...objects.queuePairs.values()].find(({ qpn }) => qpn === one.qpn)!
  assert.deepEqual([found.states.map(({ state }) => state), found.peerQpn], [['RTS'], other.qpn])
})

test('packets between InfiniBand ports of the daemon are recorded once, with LIDs, service level and GRH', async () => {
  const ports: Port[] = []
  const m = fabric(2, { fault: 'drop=0.0000001', onPort: (port, i) => ports.splice(i, 0, port) })
  const sink = createMemorySink()
  const about = { application: 'userdma 0', machine: 'a machine', origin: 0, payload: 0 }
  const writer = new SessionWriter(sink, about)
  const recorder = startRecorder(m.core, writer, {
    now: () => m.time.now,
    program: () => undefined,
    addTap: ({ index }, tap) => addTap(ports[index]!, tap, false),
  })
  const [a, b] = [mlx5Program(m, 0), mlx5Program(m, 1)]
  const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  qb.receive(b.element(0, 64))
  qa.post({ opcode: SEND, data: [a.element(0, 64)] })
  completionsOf(m, a, 1)
  recorder.stop()
  await writer.end(m.time.now, 'test')
  const events = []
  for await (const event of (await openSession(bytesSource(sink.bytes))).eventsIn()) events.push(event)
  assert.deepEqual(
    events.flatMap(event => (event.kind === 'device' ? [event.address] : [])),
    ['LID 1', 'LID 2'],
  )
  assert.deepEqual(
    events.flatMap(event => {
      if (event.kind !== 'packets') return []
      const { direction, flow } = event
      return [[direction, addressText(flow.source), addressText(flow.destination), flow.sl, flow.grh]]
    }),
    [
      ['sent', 'LID 1', 'LID 2', 3, undefined],
      ['sent', 'LID 2', 'LID 1', 3, undefined],
    ],
  )
})

test('a descriptor whose class has no destroy ends with its context', async () => {
  const { m, record } = start()
  const { recorder, writer, sink } = record()
  const own = program(m)
  makeChannel(own)
  own.close()
  recorder.stop()
  await writer.end(m.now, 'test')
  const objects = new SessionObjects()
  for await (const event of (await openSession(bytesSource(sink.bytes))).eventsIn())
    if (event.kind === 'object') objects.add(event)
  const [channel] = [...objects.objects.values()].filter(object => object.class === 'comp_channel')
  assert.deepEqual(
    channel?.history.map(({ change, why }) => `${change} ${why}`),
    ['created call', 'destroyed close'],
  )
})

test('when a recorder stops, nobody listens', () => {
  const { listeners, record } = start()
  const original = listeners()
  const { recorder } = record()
  const recording = listeners()
  for (const name of ['requests', 'table', 'systemTable', 'tap', 'watchesFailures', 'descriptors'] as const)
    assert.notEqual(recording[name], original[name], name)
  recorder.stop()
  assert.deepEqual(listeners(), original)
})

test('a checker that watches longer than the recorder keeps its reports', () => {
  const { device, listeners, record } = start()
  const original = listeners()
  const { recorder } = record()
  const watcher = {
    posted: nothing,
    ended: nothing,
    completed: nothing,
    receiveLost: nothing,
    receiverNotReady: nothing,
    polled: nothing,
    queueReset: nothing,
  }
  const poll = watchRequests(device, watcher, plainArena(SCRATCH_BYTES))
  recorder.stop()
  assert.notEqual(listeners().requests, undefined)
  assert.equal(listeners().tap, original.tap)
  poll.end()
  assert.equal(listeners().requests, undefined)
})

test('a poll is noticed soon after it, also beside completions that nobody polls', t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { device, record } = start()
  const { recorder } = record()
  const feed = device.taps.requests as RequestFeed
  assert.ok(feed)
  let looks = 0
  t.mock.method(feed, 'reportUnpolled', () => {
    looks++
    return true
  })
  const requests = device.driver.requests as Required<NonNullable<typeof device.driver.requests>>
  t.mock.method(requests, 'completions', () => ({ polled: 0, written: 1 }))
  const cq = { id: 2, class: { name: 'cq' }, state: {}, parents: [] } as unknown as CoreObject
  const qp = { id: 1, class: { name: 'rc_qp' }, state: { qpn: 17 }, parents: [] } as unknown as QueuePairObject
  const complete = (): void => {
    feed.loaded(qp, {
      wrId: 1n,
      opcode: WrOpcode.values.SEND,
      flags: 0,
      isSignaled: true,
      length: 0,
      elements: [],
      remote: undefined,
      destQpn: undefined,
      destination: undefined,
    })
    feed.retired(qp, 1, false)
    const { SUCCESS } = WcStatus.values
    const opcode = WcOpcode.values.SEND
    feed.completed(qp, cq, { status: SUCCESS, opcode, bytes: 0, solicited: false, position: 1, sourceQpn: 0 })
  }
  complete()
  // It looks less and less often.
  for (let ms = 0; ms < 1000; ms++) t.mock.timers.tick(1)
  const before = looks
  for (let ms = 0; ms < 100; ms++) t.mock.timers.tick(1)
  assert.ok(looks - before <= 3, `${looks - before}`)
  // Between two looks.
  t.mock.timers.tick(10)
  const then = looks
  complete()
  t.mock.timers.tick(1)
  assert.ok(looks > then)
  recorder.stop()
})
