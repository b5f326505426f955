/*
 * Session files: what is written is read, also from files that end early, are damaged, or overwrite their oldest part.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { AnyEvent, SessionEvent } from '../../../src/spec/session-events.ts'
import {
  BLOCK_TRAILER,
  BlockHeader,
  FileHeader,
  fieldOffsets,
  IndexBlock,
  packetKey,
  SegmentFooter,
} from '../../../src/spec/session-file.ts'
import { opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { checksum } from '../../../src/tools/record/checksum.ts'
import { copyEvent } from '../../../src/tools/record/copy.ts'
import { viewOf, type WantedEvents } from '../../../src/tools/record/decode.ts'
import { SessionFileError } from '../../../src/tools/record/error.ts'
import { expandPackets } from '../../../src/tools/record/packets.ts'
import { bytesSource, type EventRange, openSession, type Session } from '../../../src/tools/record/reader.ts'
import { readSymbols } from '../../../src/tools/record/symbols.ts'
import { readLastWaits, SessionWaits } from '../../../src/tools/record/waits.ts'
import { SessionWriter, type WriterOptions } from '../../../src/tools/record/writer.ts'
import { inLongRun } from '../../long-run.ts'
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
        // Symbols come last, where a reader finds them without reading the file.
        const isSymbol = ({ kind }: AnyEvent): boolean => kind === 'symbol'
        const inOrder = [...events.filter(event => !isSymbol(event)), ...events.filter(isSymbol)]
        assert.deepEqual(read, [...inOrder, { kind: 'end', reason: 'done' }] satisfies AnyEvent[])
      }),
      { numRuns: 50 },
    )
  })

  it('has the events that a reader wants, block by block', async () => {
    const objectOf = (event: AnyEvent): number | undefined => {
      switch (event.kind) {
        case 'posted':
          return event.request.owner
        case 'ended':
        case 'receiveLost':
        case 'queueReset':
          return event.owner
        case 'completed':
        case 'receiverNotReady':
          return event.qp
        case 'counters':
          return event.object
      }
    }
    const kinds = ['posted', 'ended', 'completed', 'packets', 'counters', 'polled', 'object', 'queueReset'] as const
    const id = fc.integer({ min: 1, max: 50 })
    const choice = fc.record({
      kinds: fc.subarray([...kinds]).map(some => new Set<AnyEvent['kind']>(some)),
      objects: fc.option(fc.uniqueArray(id, { minLength: 10, maxLength: 40, size: 'max' })),
      isOneDestination: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(anyEvent, { maxLength: 60, size: 'max' }), choice, async (events, chosen) => {
        const { sink, writer } = start()
        for (const [i, event] of events.entries()) {
          copyEvent(writer, i, event)
          if (i % 9 === 0) writer.flush()
        }
        await writer.end(events.length, 'done')
        const all = await readAll(sink.bytes)
        const destinationOf = (event: AnyEvent) =>
          event.kind === 'packets' ? (event.bytes[5] << 16) | (event.bytes[6] << 8) | event.bytes[7] : undefined
        const destination = chosen.isOneDestination ? all.map(destinationOf).find(one => one !== undefined) : undefined
        const wanted = {
          kinds: chosen.kinds,
          ...(chosen.objects && { objects: new Set(chosen.objects) }),
          ...(destination !== undefined && { destinations: new Set([destination]) }),
        }
        const session = await openSession(bytesSource(sink.bytes))
        const read: SessionEvent[] = []
        for await (const block of session.eventsByBlock({ from: 3 }, wanted)) read.push(...block)
        const expected = all.filter(event => {
          const object = objectOf(event)
          return (
            event.time >= 3 &&
            chosen.kinds.has(event.kind) &&
            (object === undefined || wanted.objects?.has(object) !== false) &&
            (destination === undefined || event.kind !== 'packets' || destinationOf(event) === destination)
          )
        })
        assert.deepEqual(read, expected)
      }),
      { numRuns: 50 },
    )
  })

  it('has the newest events after its oldest were overwritten, also for a reader that follows it', async () => {
    const isWritten = ({ kind }: AnyEvent): boolean => kind !== 'symbol' && kind !== 'checkpoint' && kind !== 'end'
    const readAllOf = async (session: Session, range?: EventRange): Promise<SessionEvent[]> => {
      const events: SessionEvent[] = []
      for await (const event of session.eventsIn(range)) events.push(event)
      return events
    }
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyEvent, { minLength: 20, maxLength: 60, size: 'max' }),
        fc.integer({ min: 0, max: 80_000 }),
        fc.integer({ min: 1, max: 9 }),
        async (events, before, parts) => {
          const { sink, writer } = start({ limit: LIMIT })
          const written: AnyEvent[] = []
          let followed: Session | undefined
          for (let part = 0; part < parts; part++) {
            for (let i = 0; i < before / parts; i++) {
              written.push({ kind: 'polled', cq: 60, count: i })
              writer.polled(written.length, 60, i)
            }
            for (const event of events) {
              written.push(event)
              copyEvent(writer, written.length, event)
            }
            writer.flush()
            const source = bytesSource(sink.bytes.slice())
            followed = followed === undefined ? await openSession(source) : await followed.continued(source)
          }
          await writer.end(written.length + 1, 'done')
          const source = bytesSource(sink.bytes)
          const session = await openSession(source)
          const all = await readAllOf(session)
          const expected = written.filter(isWritten)
          const read = withoutTimes(all.filter(isWritten))
          assert.ok(read.length >= Math.min(expected.length, 2000), `${read.length} of ${expected.length}`)
          assert.deepEqual(read, expected.slice(expected.length - read.length))
          assert.equal(session.damaged, 0)
          followed = await followed?.continued(source)
          assert.ok(followed)
          assert.deepEqual(await readAllOf(followed), all)
          // What the index leaves out is not of the object, and not in the time.
          const key = 7
          const isOfKey = (event: AnyEvent): boolean => 'object' in event && event.object === key
          const from = written.length / 2
          const ofKey = await readAllOf(session, { keys: [key], from })
          assert.deepEqual(
            ofKey.filter(isOfKey),
            all.filter(event => event.time >= from && isOfKey(event)),
          )
        },
      ),
      { numRuns: inLongRun(20, 8) },
    )
  })

  it('names no block that is longer than one: its index may be from somebody else', async () => {
    const { sink, writer } = start({ limit: LIMIT })
    writePolls(writer, 100_000)
    await writer.end(100_000, '')
    const before = await readAll(sink.bytes)
    const { header, blocks } = await openSession(bytesSource(sink.bytes))
    // The index of the oldest segment says that its second block, the first of events, is as long as the file.
    const position = FileHeader.bytes + ((blocks[0]!.sequence - 1) % header.segments) * header.segmentBytes
    const view = viewOf(sink.bytes)
    const footer = fieldOffsets(SegmentFooter)
    const at = position + header.segmentBytes - SegmentFooter.size
    const index = position + view.getUint32(at + footer.offset, true)
    const length = view.getUint32(at + footer.length, true)
    view.setUint32(
      index + BlockHeader.size + 4 + IndexBlock.size + fieldOffsets(IndexBlock).length,
      sink.bytes.length,
      true,
    )
    view.setUint32(
      index + length - BLOCK_TRAILER,
      checksum(viewOf(sink.bytes.subarray(index)), length - BLOCK_TRAILER),
      true,
    )
    let longest = 0
    const { size, read } = bytesSource(sink.bytes)
    const session = await openSession({
      size,
      read(offset, wanted) {
        longest = Math.max(longest, wanted)
        return read(offset, wanted)
      },
    })
    await readSymbols(session, () => {})
    const events: SessionEvent[] = []
    for await (const event of session.eventsIn()) events.push(event)
    assert.deepEqual(events, before)
    assert.ok(longest <= 2 ** 18, `${longest} bytes at once`)
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

  describe('has runs of packets', () => {
    const BYTES = 40
    const flow = {
      source: new Uint8Array(16),
      destination: new Uint8Array(16),
      sourcePort: 1,
      trafficClass: 0,
      hopLimit: 64,
      flowLabel: 0,
    }
    /** Packets of an opcode as [PSN, where another byte is, the byte]; the last one has 36 bytes. */
    const recorded = async (
      payload: number,
      opcode: number,
      list: readonly (readonly [psn: number, at?: number, byte?: number])[],
    ) => {
      const { sink, writer } = start({ payload })
      const bytes = new Uint8Array(list.length * BYTES).fill(0x55)
      const view = new DataView(bytes.buffer)
      list.forEach(([psn, at, byte = 0], i) => {
        view.setUint32(i * BYTES, (opcode << 24) | 0xffff)
        view.setUint32(i * BYTES + 4, 0x11)
        view.setUint32(i * BYTES + 8, 0x8000_0000 + psn)
        if (at !== undefined) bytes[i * BYTES + at] = byte
      })
      const facts = { device: 0, direction: 1, outcome: 0, flow, identification: 0xffff }
      writer.packets(5, facts, bytes, view, 0, BYTES, list.length, 36)
      await writer.end(6, '')
      const runs = (await readAll(sink.bytes)).filter(event => event.kind === 'packets')
      const single = runs.flatMap(run => [...expandPackets(run)])
      // Each packet has its own bytes, length and number.
      single.forEach((packet, i) => {
        const { length } = packet.bytes
        assert.deepEqual(packet.bytes, bytes.slice(i * BYTES, i * BYTES + length), `packet ${i}`)
        assert.deepEqual(
          [packet.length, packet.psn, packet.identification],
          [i === list.length - 1 ? 36 : BYTES, list[i][0], (0xffff + i) & 0xffff],
        )
      })
      assert.equal(single.length, list.length)
      return runs.map(({ count, headerBytes, bytes }) => [count, headerBytes, bytes.length])
    }
    const { RC_SEND_MIDDLE, RC_WRITE_ONLY } = opcodeNumber

    it('of packets that differ only in ascending PSNs', async () => {
      const changes = [
        [1],
        [2],
        [3, 8, 0],
        [4, 8, 0],
        [6, 8, 0],
        [7],
        [8, 7, 0x12],
        [9],
        [10, 1, 0x40],
        [11, 1, 0x40],
      ] as const
      const counts = [2, 2, 1, 1, 1, 1, 2]
      assert.deepEqual(
        await recorded(0, RC_SEND_MIDDLE, changes),
        counts.map(count => [count, 12, 12]),
      )
    })

    it('of packets with the same extension headers, whatever their payload is', async () => {
      const changes = [[0xff_ffff], [0], [1, 12, 9], [2, 27, 9], [3]] as const
      assert.deepEqual(
        await recorded(0, RC_WRITE_ONLY, changes),
        [2, 1, 1, 1].map(count => [count, 28, 28]),
      )
      assert.deepEqual(
        await recorded(0, RC_WRITE_ONLY, [
          [1, 28, 1],
          [2, 28, 2],
        ]),
        [[2, 28, 28]],
      )
    })

    it('of one packet, if the payload is recorded', async () =>
      assert.deepEqual(await recorded(10, RC_WRITE_ONLY, [[1], [2], [3]]), [
        [1, 28, 38],
        [1, 28, 38],
        [1, 28, 36],
      ]))
  })

  it('has times to the nanosecond which never go back, and ranges of time with both ends', async () => {
    const { sink, writer } = start()
    for (const time of [1.5, 1.25, 2.001, 3]) {
      writer.polled(time, 1, 1)
      writer.flush()
    }
    const session = await openSession(bytesSource(sink.bytes))
    const timesOf = async (range: { from?: number; to?: number }): Promise<number[]> => {
      const times: number[] = []
      for await (const { time } of session.eventsIn(range)) times.push(time)
      return times
    }
    assert.deepEqual(await timesOf({}), [1.5, 1.5, 2.001, 3])
    assert.deepEqual(await timesOf({ from: 2.001, to: 3 }), [2.001, 3])
    assert.deepEqual(await timesOf({ from: 1.6, to: 2.9 }), [2.001])
    assert.deepEqual([session.start, session.end, session.events], [1.5, 3, 4])
  })

  it('has the time of a request in it', async () => {
    const { sink, writer } = start()
    const [event] = fc.sample(
      anyEvent.filter(({ kind }) => kind === 'posted'),
      { numRuns: 1, seed: 1 },
    )
    copyEvent(writer, 7.5, event)
    await writer.end(8, '')
    const [read] = await readAll(sink.bytes)
    assert.deepEqual(read.kind === 'posted' && [read.time, read.request.time], [7.5, 7.5])
  })

  it('says at its end, and in each segment, what programs wait for and how they ended, without reading all of it', async () => {
    const facts = (text: string, objects: number[]) =>
      ({ id: 'both-receive', device: 'rxe0', pid: 7, command: 'server', text, since: 1, objects }) as const
    const lastWaits = async (bytes: Uint8Array) => {
      const session = await openSession(bytesSource(bytes))
      const waits = new SessionWaits()
      await readLastWaits(session, event => waits.add(event))
      return { waits, session }
    }
    const texts = ({ waits }: { waits: SessionWaits }) => waits.lasting.map(one => `${one.facts.text} ${one.state}`)
    for (const limit of [undefined, LIMIT]) {
      const { sink, writer } = start({ limit })
      writer.wait(1, { wait: 1, change: 'began', facts: facts('lasts', [5]) })
      writer.wait(1, { wait: 2, change: 'began', facts: facts('is over', [6]) })
      writer.wait(2, { wait: 2, change: 'over', facts: facts('is over', [6]) })
      writePolls(writer, 200_000)
      writer.flush()
      // As after a kill.
      assert.deepEqual(texts(await lastWaits(sink.bytes)), ['lasts waits'])
      writer.programEnd(200_000, { pid: 7, command: 'server', status: 139, signal: 'SIGSEGV' })
      writePolls(writer, 5000)
      await writer.end(200_000, 'done')
      const last = await lastWaits(sink.bytes)
      assert.deepEqual(texts(last), ['lasts closed'])
      assert.deepEqual(
        last.waits.programEnds.map(({ command, signal }) => `${command} ${signal}`),
        ['server SIGSEGV'],
      )
      assert.deepEqual(
        last.waits.of(5).map(one => one.facts.text),
        ['lasts'],
      )
    }
  })

  it('finds the last checkpoint before a time, without devices that were removed', async () => {
    const { sink, writer } = start({ limit: LIMIT })
    const device = (change: 'added' | 'removed' | 'renamed', device: number, name: string): void =>
      writer.device(0, { change, device, name, address: '' })
    device('added', 0, 'a')
    device('added', 1, 'b')
    device('renamed', 1, 'c')
    device('removed', 0, 'a')
    writePolls(writer, 60_000)
    await writer.end(60_000, '')
    const session = await openSession(bytesSource(sink.bytes))
    const ends = session.blocks.filter(({ isCheckpoint }) => isCheckpoint).map(block => block.end)
    assert.ok(ends.length > 2)
    for (const time of [0, ...ends.flatMap(at => [at, at + 1]), 60_000]) {
      const { end, events } = await session.checkpointBefore(time)
      assert.equal(end, ends.findLast(at => at < time) ?? ends[0], `before ${time}`)
      assert.deepEqual(
        events.map(event => (event.kind === 'device' ? `${event.change} ${event.name}` : event.kind)),
        ['checkpoint', 'exists c'],
      )
    }
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

  it('a block with a damaged record is damaged, whichever events are wanted', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyEvent, { minLength: 1, maxLength: 9 }),
        fc.nat(),
        fc.nat(),
        async (events, at, byte) => {
          const { sink, writer } = start()
          for (const [i, event] of events.entries()) copyEvent(writer, i, event)
          await writer.end(events.length, 'done')
          const [block] = (await openSession(bytesSource(sink.bytes))).blocks.filter(
            ({ isCheckpoint }) => !isCheckpoint,
          )
          const bytes = sink.bytes.subarray(block.position, block.position + block.length)
          const end = block.length - BLOCK_TRAILER
          bytes[BlockHeader.size + (at % (end - BlockHeader.size))] = byte
          const view = viewOf(bytes)
          view.setUint32(end, checksum(view, end), true)
          const damagedOf = async (wanted?: WantedEvents): Promise<number> => {
            const session = await openSession(bytesSource(sink.bytes))
            for await (const _ of session.eventsByBlock({}, wanted));
            return session.damaged
          }
          assert.equal(await damagedOf({ kinds: new Set() }), await damagedOf())
        },
      ),
      { numRuns: 200 },
    )
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
