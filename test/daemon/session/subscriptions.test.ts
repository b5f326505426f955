/*
 * Subscriptions of tools to a daemon, over its socket.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import { hasNative } from '../../../src/host/native.ts'
import { close, connect, recv, send } from '../../../src/host/net/sockets.ts'
import { MessageType } from '../../../src/spec/session.ts'
import { applyPatch } from '../../../src/uapi/merge-patch.ts'
import { messageBuffer, newReply, readReply, writeHello, writeTool } from '../../../src/uapi/session-codec.ts'
import { type StatView, type ToolRecord, traceReader } from '../../../src/uapi/tool.ts'
import { scratchFolder } from '../../tools.ts'
import { Command, createCq, createRcQp, daemonOf, dial, eventually } from '../client.ts'

const folder = scratchFolder()
const skip = !hasNative()

/** A tool that has subscribed to all calls, and reads nothing until `read`. */
const deafTool = (socket: string) => {
  const fd = connect(socket)
  const buffer = messageBuffer()
  const post = (length: number): void => void send(fd, buffer.bytes.subarray(0, length))
  post(writeHello(buffer, { serial: 1 }))
  post(writeTool(buffer, { serial: 2 }, JSON.stringify({ kind: 'subscribe', topic: 'trace' })))
  const readTrace = traceReader()
  return {
    /** The received records; undefined: the next message has not arrived. */
    read(): ToolRecord | undefined {
      for (;;) {
        const { length } = recv(fd, buffer.bytes)
        if (length <= 0) return undefined
        const reply = newReply()
        assert.equal(readReply(buffer, length, reply), undefined)
        const record = reply.type === MessageType.TRACE ? readTrace(reply.text) : undefined
        if (record !== undefined) return record
      }
    },
    close: () => close(fd),
  }
}

test('programs do not wait for a tool that does not read; afterwards it gets the records, and the number of lost ones', {
  skip,
}, async t => {
  const daemon = await daemonOf(t, folder)
  const deaf = deafTool(daemon.socket)
  t.after(deaf.close)
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  const charged = async (): Promise<number> => (await client.stat()).charged.bytes
  const before = await charged()
  const CALLS = 11_500
  for (let i = 0; i < CALLS; i++) await client.command(context, Command.DEALLOC_PD, [0xdead])
  const queued = (await charged()) - before
  assert.ok(queued > 0 && queued <= 8 * 2 ** 20, `${queued} bytes are queued`)
  let calls = 0
  let lost = 0
  // GET_CONTEXT, and the calls of the loop.
  while (calls + lost < CALLS + 1) {
    const record = deaf.read()
    if (record === undefined) await nextTurn()
    else if ('lost' in record) lost += record.lost
    else {
      assert.equal(lost, 0, 'the gap is at the end')
      calls++
    }
  }
  assert.ok(lost > 0, `${calls} calls arrived, ${lost} were lost`)
  assert.equal(await charged(), before)
})

test('a tool that dies with a full queue leaves nothing behind', { skip }, async t => {
  const daemon = await daemonOf(t, folder)
  const deaf = deafTool(daemon.socket)
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  const before = (await client.stat()).charged.bytes
  for (let i = 0; i < 2000; i++) await client.command(context, Command.DEALLOC_PD, [0xdead])
  assert.ok((await client.stat()).charged.bytes > before)
  deaf.close()
  await eventually(client, ({ sessions, charged }) => sessions === 0 && charged.bytes === before)
})

test('a subscription to stat has a snapshot, then what has changed', { skip }, async t => {
  const daemon = await daemonOf(t, folder)
  const tool = await openToolSession(daemon.socket)
  t.after(() => tool.close())
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  let view: StatView | undefined
  let patches = 0
  let onView = (_view: StatView): void => {}
  const subscription = await tool.subscribe('stat', { interval: 100, qps: true }, record => {
    if ('snapshot' in record) {
      assert.equal(view, undefined, 'one snapshot')
      view = record.snapshot
    } else if ('change' in record) {
      patches++
      assert.ok(!('pid' in (record.change as { daemon: object }).daemon), 'only what has changed')
      view = applyPatch(view, record.change) as StatView
    }
    onView(view as StatView)
  })
  const until = (condition: (view: StatView) => boolean): Promise<StatView> =>
    new Promise(resolve => {
      onView = now => {
        if (condition(now)) resolve(now)
      }
      if (view !== undefined) onView(view)
    })
  assert.deepEqual((await until(() => true)).qps, {})
  const pd = (await client.command(context, Command.ALLOC_PD, [], 1)).response[0]!
  const qpn = await createRcQp(client, context, pd, await createCq(client, context))
  const seen = await until(({ qps }) => Object.keys(qps ?? {}).length === 1)
  assert.ok(patches > 0)
  assert.deepEqual(Object.keys(seen.qps!), [`rxe0/${qpn}`])
  assert.deepEqual(seen.devices.rxe0?.objects, (await client.stat()).devices[0]?.objects)
  await client.tool({ kind: 'device', add: { name: 'rxe1', address: '127.0.0.2' } })
  await until(({ devices }) => 'rxe1' in devices)
  await client.tool({ kind: 'device', remove: 'rxe1' })
  await until(({ devices }) => !('rxe1' in devices))
  assert.equal(await subscription.end(), 0)
})

test('an interval of a subscription has limits', { skip }, async t => {
  const daemon = await daemonOf(t, folder)
  const tool = await openToolSession(daemon.socket)
  t.after(() => tool.close())
  for (const interval of [99, 3_600_001, -1])
    await assert.rejects(
      tool.subscribe('stat', { interval }, () => {}),
      new RegExp(`refuses the topic stat: interval ${interval} is not from 100 to 3600000 milliseconds`),
    )
})

test('two subscriptions of a session have records of their own; one ends without the other', { skip }, async t => {
  const daemon = await daemonOf(t, folder)
  const tool = await openToolSession(daemon.socket)
  t.after(() => tool.close())
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  const counts = [0, 0]
  const [first] = [
    await tool.subscribe('trace', { tag: '', pcap: undefined }, () => counts[0]!++),
    await tool.subscribe('trace', { tag: '', pcap: undefined }, () => counts[1]!++),
  ]
  await client.command(context, Command.DEALLOC_PD, [0xdead])
  assert.equal(await first.end(), 0)
  await client.command(context, Command.DEALLOC_PD, [0xdead])
  await tool.config()
  assert.deepEqual(counts, [1, 2])
})

test('subscriptions to devices and faults have the state, then what it has become', { skip }, async t => {
  const daemon = await daemonOf(t, folder)
  const tool = await openToolSession(daemon.socket)
  t.after(() => tool.close())
  const seen: unknown[] = []
  const named = (devices: readonly { readonly name: string }[]): string => devices.map(({ name }) => name).join()
  const devices = await tool.subscribe('devices', {}, record => {
    if (!('lost' in record)) seen.push('snapshot' in record ? named(record.snapshot) : [named(record.change)])
  })
  await tool.changeDevices({ add: { name: 'rxe1', address: '127.0.0.2' } })
  await tool.changeDevices({ remove: 'rxe0' })
  assert.equal(await devices.end(), 0)
  await tool.changeDevices({ remove: 'rxe1' })
  assert.deepEqual(seen, ['rxe0', ['rxe0,rxe1'], ['rxe1']])
  const rules: string[][] = []
  await new Promise<void>(resolve => {
    void tool.subscribe('faults', { interval: 100 }, record => {
      if ('lost' in record) return
      rules.push(('snapshot' in record ? record.snapshot : record.change).map(({ rule }) => rule))
      if ('change' in record) resolve()
      else void tool.faults('drop=1')
    })
  })
  assert.deepEqual(rules, [[], ['drop=1']])
})

test('many subscriptions to a state read it once', { skip }, async t => {
  const daemon = await daemonOf(t, folder)
  const tools = await Promise.all(Array.from({ length: 8 }, () => openToolSession(daemon.socket)))
  t.after(() => {
    for (const tool of tools) tool.close()
  })
  // A look at the daemon's memory is part of each state.
  const reads = t.mock.method(process, 'memoryUsage').mock
  let changes = 0
  let before = 0
  await new Promise<void>(resolve => {
    const record = (): void => {
      changes++
      // All have had their snapshots.
      if (changes === 128) before = reads.callCount()
      if (changes === 512) resolve()
    }
    for (const tool of tools) for (let i = 0; i < 16; i++) void tool.subscribe('stat', { interval: 100 }, record)
  })
  const count = reads.callCount() - before
  assert.ok(count > 0 && count < 192, `${count} reads for 384 changes`)
})
