/*
 * Session files: what is written is read, also from files that end early, are damaged, or overwrite their oldest part.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { copyEvent } from '../../src/record/copy.ts'
import { SessionFileError } from '../../src/record/error.ts'
import type { AnyEvent, SessionEvent } from '../../src/record/events.ts'
import { expandPackets } from '../../src/record/packets.ts'
import { bytesSource, openSession } from '../../src/record/reader.ts'
import { SessionWriter, type WriterOptions } from '../../src/record/writer.ts'
import { FileHeader, packetKey } from '../../src/spec/session-file.ts'
import { opcodeNumber } from '../../src/spec/wire/opcodes.ts'
import { anyEvent } from './arbitrary.ts'
import { createMemorySink } from './memory-sink.ts'

const OPTIONS: WriterOptions = { application: 'test 1', machine: 'none', origin: 1000, payload: 0 }
const LIMIT = 2 ** 20

const start = (options: Partial<WriterOptions> = {}) => {
  const sink = createMemorySink()
  return { sink, writer: new SessionWriter(sink, { ...OPTIONS, ...options }) }
}

const readAll = async (bytes: Uint8Array): Promise<SessionEvent[]> => {
  const events: SessionEvent[] = []
  for await (const event of (await openSession(bytesSource(bytes))).eventsIn()) events.push(event)
  return events
}

/** Events without their times, as they were written. */
const withoutTimes = (events: readonly SessionEvent[]): unknown[] =>
  events.map(({ time: _, ...event }) =>
    event.kind === 'posted' ? { ...event, request: { ...event.request, time: 0 } } : event,
  )

/** A recording with `count` polled events of a CQ per microsecond, of objects 1 to 9 in turn. */
const writePolls = (writer: SessionWriter, count: number): void => {
  for (let i = 0; i < count; i++) writer.polled(i, (i % 9) + 1, i)
}

describe('a session file', () => {
  it('has the events that were written, in their order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyEvent, { maxLength: 40, size: 'max' }), async events => {
        const { sink, writer } = start()
        for (const [i, event] of events.entries()) {
          copyEvent(writer, i, event)
          if (i % 7 === 0) writer.flush()
        }
        await writer.end(events.length, 'done')
        const read = withoutTimes(await readAll(sink.bytes))
        assert.deepEqual(read, [...events, { kind: 'end', reason: 'done' }] satisfies AnyEvent[])
      }),
      { numRuns: 50 },
    )
  })

  it('says on its first line what it has', () => {
    const { sink } = start({ payload: 16 })
    const [line] = new TextDecoder().decode(sink.bytes).split('\n')
    assert.match(line, /^userdma session 1: .*packet headers.*the first 16 bytes of the payload.*no environment$/)
  })

  it('is readable at any length, as after a kill', async () => {
    const { sink, writer } = start()
    for (let i = 0; i < 300; i++) {
      writer.polled(i, 1, i)
      if (i % 50 === 49) writer.flush()
    }
    for (let length = FileHeader.bytes; length <= sink.bytes.length; length += 97) {
      const events = await readAll(sink.bytes.subarray(0, length))
      assert.equal(events.length % 50, 0)
      assert.ok(events.every((event, i) => event.kind === 'polled' && event.count === i))
    }
    assert.equal((await readAll(sink.bytes)).length, 300)
  })

  it('has checkpoints with the devices and objects of each segment', async () => {
    const { sink, writer } = start({ limit: LIMIT })
    writer.device(0, { change: 'added', device: 0, name: 'rxe0', address: '10.0.0.1' })
    const base = {
      device: 0,
      context: 1,
      program: undefined,
      class: 'rc_qp',
      handle: 3,
      number: 17,
      stack: [],
      why: 'call',
    }
    const change = (object: number, what: 'created' | 'changed' | 'destroyed', values: Record<string, unknown>) =>
      writer.object(0, { ...base, change: what, object, method: 'm', details: { uses: [7], values } })
    change(1, 'created', { a: 1 })
    change(2, 'created', { a: 1 })
    change(1, 'changed', { state: 'RTR' })
    change(2, 'destroyed', {})
    writePolls(writer, 60_000)
    await writer.end(60_000, '')
    const session = await openSession(bytesSource(sink.bytes))
    const { events, end } = await session.checkpointBefore(Number.POSITIVE_INFINITY)
    assert.deepEqual(
      events.map(event => (event.kind === 'object' ? event.details : event.kind)),
      ['checkpoint', 'device', { uses: [7], values: { a: 1, state: 'RTR' } }],
    )
    assert.ok(end > session.start)
  })

  it('keeps the newest events within a limit', async () => {
    const { sink, writer } = start({ limit: LIMIT })
    writePolls(writer, 100_000)
    await writer.end(100_000, '')
    assert.ok(sink.bytes.length <= LIMIT, `${sink.bytes.length} bytes`)
    const events = await readAll(sink.bytes)
    const counts = events.flatMap(event => (event.kind === 'polled' ? [event.count] : []))
    assert.deepEqual(
      counts,
      counts.map((_, i) => 100_000 - counts.length + i),
    )
    assert.ok(counts.length > 15_000, `${counts.length} events`)
  })

  it('drops and counts events while the sink hangs, and says so', async () => {
    const { sink, writer } = start()
    sink.hang()
    writePolls(writer, 200_000)
    const { lost } = writer
    assert.ok(lost > 0)
    sink.resume()
    writer.polled(200_000, 1, 7)
    await writer.end(200_000, '')
    const events = await readAll(sink.bytes)
    const polls = events.filter(({ kind }) => kind === 'polled').length
    assert.equal(polls + lost, 200_001)
    assert.deepEqual(
      events.flatMap(event => (event.kind === 'lost' ? [event.count] : [])),
      [lost],
    )
  })

  it('opens a session of a million events by reading less than 8 MB, and finds times and objects', async () => {
    const { sink, writer } = start()
    for (let i = 0; i < 1_000_000; i++) writer.polled(i, i < 1000 ? 42 : 43, i)
    await writer.end(1_000_000, '')
    let bytesRead = 0
    const session = await openSession({
      size: sink.bytes.length,
      read: async (offset, length) => {
        const bytes = sink.bytes.subarray(offset, offset + length)
        bytesRead += bytes.length
        return bytes
      },
    })
    const screen: SessionEvent[] = []
    for await (const event of session.eventsIn({ from: 500_000, to: 500_999 })) screen.push(event)
    assert.equal(screen.length, 1000)
    await session.checkpointBefore(500_000)
    const before = bytesRead
    assert.ok(before < 2_000_000, `${before} bytes`)
    let found = 0
    for await (const event of session.eventsIn({ keys: [42] })) if (event.kind === 'polled' && event.cq === 42) found++
    assert.equal(found, 1000)
    // The last segment has no index yet, so its blocks are read.
    assert.ok(bytesRead - before < 5_000_000, `${bytesRead - before} bytes`)
  })

  it('records a run with one record, and finds its packets by their destination', async () => {
    const { sink, writer } = start()
    const packets = { name: opcodeNumber.RC_SEND_MIDDLE, qpn: 0x11 }
    const bytes = new Uint8Array(3 * 32)
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < 3; i++) {
      view.setUint8(i * 32, packets.name)
      view.setUint32(i * 32 + 4, packets.qpn)
      view.setUint32(i * 32 + 8, (0xff_ffff + i) & 0xff_ffff)
    }
    const flow = {
      source: new Uint8Array(16),
      destination: new Uint8Array(16),
      sourcePort: 1,
      trafficClass: 0,
      hopLimit: 64,
      flowLabel: 0,
    }
    writer.packets(5, { device: 0, direction: 0, outcome: 0, flow, identification: 9 }, bytes, view, 0, 32, 3, 20)
    await writer.end(6, '')
    const session = await openSession(bytesSource(sink.bytes))
    for await (const event of session.eventsIn({ keys: [packetKey(0x11)] })) {
      if (event.kind !== 'packets') continue
      assert.equal(event.count, 3)
      assert.deepEqual(
        [...expandPackets(event)].map(({ psn, length, identification }) => [psn, length, identification]),
        [
          [0xff_ffff, 32, 9],
          [0, 32, 10],
          [1, 20, 11],
        ],
      )
      return
    }
    assert.fail('no packets')
  })
})

describe('a file that is no session file, or a damaged one', () => {
  const refused = (name: string, bytes: () => Uint8Array, message: RegExp) =>
    it(`${name}: is refused with a sentence`, () =>
      assert.rejects(openSession(bytesSource(bytes())), error => {
        assert.ok(error instanceof SessionFileError)
        assert.match(error.message, message)
        return true
      }))
  refused('an empty file', () => new Uint8Array(0), /no session file/)
  refused('another file', () => new TextEncoder().encode('\x7fELF'), /no session file/)
  refused('another version', () => new TextEncoder().encode('userdma session 2: x'), /version 2.*reads version 1/)
  refused('a header that was cut', () => start().sink.bytes.slice(0, 300), /header .* damaged/)

  it('a block with a changed byte is left out and counted', async () => {
    const { sink, writer } = start()
    for (let i = 0; i < 300; i++) {
      writer.polled(i, 1, i)
      if (i % 100 === 99) writer.flush()
    }
    const file = sink.bytes.slice()
    const session = await openSession(bytesSource(file))
    const [, second] = session.blocks.filter(({ isCheckpoint }) => !isCheckpoint)
    file[second.position + 100] ^= 1
    let count = 0
    for await (const _ of session.eventsIn()) count++
    assert.deepEqual([count, session.damaged], [200, 1])
  })

  it('never throws anything else, whatever the bytes are', async () => {
    const { sink, writer } = start({ limit: LIMIT })
    writePolls(writer, 100_000)
    for (const [i, event] of fc.sample(anyEvent, { numRuns: 200, seed: 1 }).entries())
      copyEvent(writer, 100_000 + i, event)
    await writer.end(200_000, '')
    const damage = fc.array(fc.tuple(fc.nat({ max: sink.bytes.length - 1 }), fc.nat({ max: 255 })), {
      maxLength: 40,
      size: 'max',
    })
    await fc.assert(
      fc.asyncProperty(damage, fc.nat({ max: sink.bytes.length }), async (changes, length) => {
        const bytes = sink.bytes.slice(0, length)
        for (const [at, value] of changes) if (at < length) bytes[at] = value
        try {
          const session = await openSession(bytesSource(bytes))
          for (const block of session.blocks.slice(-8)) await session.read(block)
        } catch (error) {
          assert.ok(error instanceof SessionFileError, String(error))
        }
      }),
      { numRuns: 100 },
    )
  })
})
