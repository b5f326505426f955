/*
 * The joints of the stream of program events: a producer and a consumer that know nothing but the events, and a
 * recording between them.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { createCause } from '../../../../src/spec/check/causes.ts'
import type { ProgramProbes } from '../../../../src/spec/check/probes.ts'
import type { ProgramConsumer, ProgramEvent } from '../../../../src/spec/check/program-events.ts'
import type { RequestWatcher } from '../../../../src/spec/check/requests.ts'
import type { SessionEvent } from '../../../../src/spec/session-events.ts'
import { Checker } from '../../../../src/tools/check/checker.ts'
import { ConsumerRank, ProgramStream } from '../../../../src/tools/events/stream.ts'
import { recordProgramEvents } from '../../../../src/tools/record/program/journal.ts'
import { SessionReplay } from '../../../../src/tools/record/program/replay.ts'
import { plainValue, richValue } from '../../../../src/tools/record/program/values.ts'
import { bytesSource, openSession } from '../../../../src/tools/record/reader.ts'
import { SessionWriter } from '../../../../src/tools/record/writer.ts'
import { workRequest } from '../../check/requests.ts'
import { createMemorySink } from '../memory-sink.ts'

const program = { pid: 7, command: 'stub' }
const at = { device: 'stub0', deviceNumber: 0, context: 1, program, args: {}, out: {}, why: 'call' } as const

/** A producer of a device that exists nowhere: a program creates a queue pair, posts a request that fails, and ends. */
const produce = (stream: ProgramStream, requests: RequestWatcher): void => {
  const object = { id: 1, handle: 3, class: { name: 'rc_qp' } }
  const event = (name: 'create' | 'destroy', why: 'call' | 'close', out: object = {}): void =>
    stream.event({
      event: 'called',
      ...at,
      time: stream.next(),
      class: 'rc_qp',
      method: name,
      object,
      out: out as Record<string, unknown>,
      why,
      stack: [`${name} in stub.c`],
    })
  event('create', 'call', { qpNum: 17 })
  const request = workRequest({ owner: 1, number: 17, wrId: 5n, time: 2 })
  stream.at(request.time)
  requests.posted(request)
  stream.begin()
  requests.ended(request)
  stream.event({
    event: 'failed',
    ...at,
    time: stream.next(),
    failure: {
      kind: 'send',
      device: 'stub0',
      qpn: 17,
      opcode: 0,
      wrId: 5n,
      status: 10,
      cause: createCause('RKEY_UNKNOWN', { key: 9 }),
    },
    peerDevice: undefined,
  })
  event('destroy', 'close')
}

/** A consumer that knows nothing of checks: it counts events and requests, and remembers their times. */
const createCounter = (stream: ProgramStream) => {
  const seen: string[] = []
  const note = (name: string) => (): void => void seen.push(`${name} at ${stream.time}`)
  const requests: RequestWatcher = {
    posted: note('posted'),
    ended: note('ended'),
    completed: note('completed'),
    receiveLost: note('receiveLost'),
    receiverNotReady: note('receiverNotReady'),
    polled: note('polled'),
    queueReset: note('queueReset'),
  }
  const consumer: ProgramConsumer = { event: ({ event }) => note(event)() }
  return { seen, requests, consumer }
}

const probes: ProgramProbes = {
  deviceName: () => 'stub0',
  deviceWithGid: () => undefined,
  postStack: (_context, _queue, _number, wrId) => [`post ${wrId} in stub.c`],
}

/** What the checker finds of the stub producer, and the recording of it. */
const runOnce = async () => {
  let now = 0
  const stream = new ProgramStream(() => (now += 1.0004))
  const sink = createMemorySink()
  const about = { application: 'stub', machine: 'none', origin: 0, payload: 0 }
  const writer = new SessionWriter(sink, { ...about, check: { probes: ['deviceName', 'deviceWithGid', 'postStack'] } })
  const found: unknown[] = []
  const checker = new Checker(finding => found.push(finding), { now: () => stream.time, ...stream.probed(probes) })
  stream.add(ConsumerRank.CHECK, checker)
  const end = recordProgramEvents(stream, writer)
  const requests: RequestWatcher = {
    ...checker.requests,
    posted(request) {
      writer.posted(stream.time, request, '')
      checker.requests.posted(request)
    },
    ended(request) {
      writer.ended(stream.time, request)
      checker.requests.ended(request)
    },
  }
  produce(stream, requests)
  end()
  await writer.end(now, 'the stub has ended')
  return { found, session: await openSession(bytesSource(sink.bytes)) }
}

describe('the stream of program events', () => {
  it('takes a producer and a consumer that know only the events', () => {
    let now = 0
    const stream = new ProgramStream(() => ++now)
    const { seen, requests, consumer } = createCounter(stream)
    const remove = stream.add(ConsumerRank.CHECK, consumer)
    produce(stream, requests)
    assert.deepEqual(seen, ['called at 1', 'posted at 2', 'ended at 2', 'failed at 3', 'called at 4'])
    remove()
    stream.event({ event: 'logged' })
    assert.equal(seen.length, 5)
  })

  it('gives a recording events before the consumers that ask, whatever the order of their coming', () => {
    const stream = new ProgramStream(() => 0)
    const order: string[] = []
    stream.add(ConsumerRank.CHECK, { event: () => order.push('check') })
    stream.add(ConsumerRank.RECORD, { event: () => order.push('record') })
    stream.event({ event: 'logged' })
    assert.deepEqual(order, ['record', 'check'])
  })

  it('has the same findings from a recording', async () => {
    const { found, session } = await runOnce()
    assert.deepEqual(
      found.map(finding => (finding as { id: string }).id),
      ['unknown-rkey', 'leak'],
    )
    const read: unknown[] = []
    const replay = new SessionReplay(session.header, own => new Checker(finding => read.push(finding), own))
    for await (const event of session.eventsIn()) replay.take(event)
    replay.finish()
    assert.deepEqual(read, found)
    assert.equal(replay.damaged, 0)
  })

  it('survives records of any content', async () => {
    const { session } = await runOnce()
    const texts = [
      '',
      'null',
      '[]',
      '{"event":"called"}',
      '{"event":"none"}',
      '{"event":"waits","wait":{}}',
      '{"$n":"x"}',
    ]
    const replay = new SessionReplay(session.header, own => new Checker(() => {}, own))
    for (const kind of ['program', 'answer'] as const)
      for (const text of texts) replay.take({ kind, hasMore: false, text, time: 1 } as SessionEvent)
    replay.finish()
    assert.ok(replay.damaged > 0)
  })

  it('keeps the values that JSON lacks', () => {
    const name = (id: number, handle: number, of: string) => ({ id, handle, class: { name: of } })
    const leaf = fc.oneof(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.integer(),
      fc.constant(Number.POSITIVE_INFINITY),
      fc.uint8Array({ maxLength: 16, size: 'max' }),
      fc.string(),
      fc.tuple(fc.nat(), fc.nat(), fc.string()).map(([id, handle, of]) => name(id, handle, of)),
    )
    const values = fc.dictionary(fc.stringMatching(/^[a-z]{1,6}$/), fc.oneof(leaf, fc.array(leaf, { maxLength: 4 })), {
      noNullPrototype: true,
    })
    fc.assert(
      fc.property(values, value => {
        assert.deepEqual(richValue(JSON.parse(JSON.stringify(plainValue(value))), name), value)
      }),
    )
    const ends: ProgramEvent = { event: 'contextEnds', context: 1, how: 'exit', pendingSends: new Map([[1, 2]]) }
    assert.deepEqual(richValue(JSON.parse(JSON.stringify(plainValue(ends))), name), ends)
  })
})
