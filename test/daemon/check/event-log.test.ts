/*
 * The daemon's reader of event logs.
 */
import assert from 'node:assert/strict'
import { closeSync, readSync, writeSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { EventLogs } from '../../../src/daemon/check/event-log.ts'
import type { Contexts } from '../../../src/daemon/context/contexts.ts'
import { nowMicroseconds } from '../../../src/host/event-loop/clock.ts'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import { EventLog } from '../../../src/spec/context-logs.ts'
import { offsetsOf } from '../../../src/spec/message-layout.ts'
import { ContextFile, EventKind, Messages } from '../../../src/spec/session.ts'
import { eventTime } from '../../../src/tools/events/stream.ts'

const ENTRY = offsetsOf(Messages.event)
const HEADER = offsetsOf(Messages.eventLog)
const ENTRY_BYTES = Messages.event.size
const CONTEXT = 5
const OWNER = 4711

/** A context with an event log, and the daemon's reader. Only `sleep` advances the clock. */
const setUp = (t: TestContext) => {
  let milliseconds = performance.now()
  t.mock.method(performance, 'now', () => milliseconds)
  const fd = createMemfd('event-log', ContextFile.bytes)
  t.after(() => closeSync(fd))
  const context = { id: CONTEXT }
  const contexts = { withMemory: () => [{ context, memory: { fd } }] } as unknown as Contexts
  const logs = new EventLogs(contexts, (_, pid) => OWNER + pid)
  const writeWord = (at: number, value: bigint): void => {
    writeSync(fd, BigUint64Array.of(value), 0, 8, EventLog.offset + at)
  }
  return {
    logs,
    /** Writes an entry; its number, from 0, is also its wr_id. */
    write(number: number, time = process.hrtime.bigint()): void {
      const view = new DataView(new ArrayBuffer(ENTRY_BYTES))
      view.setBigUint64(ENTRY.sequence, BigInt(number + 1), true)
      view.setBigUint64(ENTRY.time, time, true)
      view.setBigUint64(ENTRY.acquired, time - 1000n, true)
      view.setBigUint64(ENTRY.wrId, BigInt(number), true)
      const words = { pid: 1, tid: 2, kind: EventKind.POLL, number: 3, count: 4, stack: 6 }
      for (const [name, value] of Object.entries(words)) view.setUint32(ENTRY[name as keyof typeof words], value, true)
      writeSync(
        fd,
        view,
        0,
        ENTRY_BYTES,
        EventLog.offset + EventLog.firstEntry + (number % EventLog.entries) * ENTRY_BYTES,
      )
    },
    writeBytes: (at: number, bytes: Uint8Array): void =>
      void writeSync(fd, bytes, 0, bytes.length, EventLog.offset + at),
    claim: (head: bigint | number): void => writeWord(HEADER.head, BigInt(head)),
    /** The number of entries that the daemon has marked as read. */
    tail(): number {
      const word = new BigUint64Array(1)
      readSync(fd, word, 0, 8, EventLog.offset + HEADER.tail)
      return Number(word[0])
    },
    /** Reads the new entries. */
    read(): [numbers: number[], isLost: boolean] {
      const { entries, lost } = logs.read()
      return [entries.map(({ wrId }) => Number(wrId)), lost.includes(CONTEXT)]
    },
    sleep(microseconds: number): void {
      milliseconds += microseconds / 1000
    },
  }
}

test('an entry is read once, with its fields, and is marked as read', t => {
  const log = setUp(t)
  assert.deepEqual(log.read(), [[], false])
  log.write(0)
  log.claim(1)
  const { entries, lost } = log.logs.read()
  assert.deepEqual(lost, [])
  const [{ time, acquired, ...fields }] = entries
  const kind = EventKind.POLL
  const expected = { wrId: 0n, process: OWNER + 1, thread: 2, kind, context: CONTEXT, number: 3, count: 4, stack: 6 }
  assert.deepEqual(fields, expected)
  assert.ok(Math.abs(time - acquired - 1) < 0.01, `${time - acquired} µs`)
  // The entry was written less than a minute after the clock stopped.
  assert.ok(time >= nowMicroseconds() - 1e6 && time <= nowMicroseconds() + 60e6)
  assert.equal(log.tail(), 1)
  assert.deepEqual(log.read(), [[], false])
})

test('a time more than a second in the future is replaced by the time of reading', t => {
  const log = setUp(t)
  log.write(0, process.hrtime.bigint() + 3600n * 1_000_000_000n)
  log.claim(1)
  const [{ time, acquired }] = log.logs.read().entries
  const now = eventTime(nowMicroseconds())
  assert.deepEqual([time, acquired], [now, now])
})

test('entries are read in order across the end of the ring', t => {
  const log = setUp(t)
  const first = EventLog.entries - 10
  for (let number = 0; number < first; number++) log.write(number)
  log.claim(first)
  assert.deepEqual(log.read()[0].length, first)
  const numbers = Array.from({ length: 25 }, (_, i) => first + i)
  for (const number of numbers) log.write(number)
  log.claim(first + 25)
  assert.deepEqual(log.read(), [numbers, false])
  assert.equal(log.tail(), first + 25)
})

test('if the ring overflows, the oldest entries are lost', t => {
  const log = setUp(t)
  for (let number = 0; number < EventLog.entries + 3; number++) log.write(number)
  log.claim(EventLog.entries + 3)
  const [numbers, isLost] = log.read()
  assert.deepEqual([numbers[0], numbers.length, isLost], [3, EventLog.entries, true])
  assert.deepEqual(log.read(), [[], false])
})

test('the reader waits at most a second for an entry that is claimed and not written; only this entry is lost', t => {
  const log = setUp(t)
  log.write(0)
  log.write(2)
  log.claim(3)
  assert.deepEqual(log.read(), [[0], false])
  log.sleep(999_000)
  assert.deepEqual(log.read(), [[], false])
  log.write(1)
  assert.deepEqual(log.read(), [[1, 2], false])
  log.write(4)
  log.claim(5)
  log.sleep(500_000)
  assert.deepEqual(log.read(), [[], false], 'the reader begins to wait for entry 3')
  log.sleep(1_001_000)
  assert.deepEqual(log.read(), [[4], true])
})

test('the wait for an entry does not count the wait for an earlier entry that was overwritten', t => {
  const log = setUp(t)
  log.claim(1)
  assert.deepEqual(log.read(), [[], false], 'the reader begins to wait for entry 0')
  log.sleep(900_000)
  log.write(EventLog.entries)
  log.claim(EventLog.entries)
  assert.deepEqual(log.read(), [[], true], 'entry 0 is overwritten; the reader begins to wait for entry 1')
  log.sleep(900_000)
  assert.deepEqual(log.read(), [[], false])
  log.write(1)
  assert.deepEqual(log.read(), [[1], false])
  log.sleep(900_000)
  log.claim(EventLog.entries + 3)
  assert.deepEqual(log.read(), [[], true], 'the ring overflows; the reader begins to wait for entry 3')
  log.sleep(900_000)
  assert.deepEqual(log.read(), [[], false])
  log.write(3)
  assert.deepEqual(log.read(), [[3], false])
})

test('an entry is lost if a later entry overwrites it', t => {
  const log = setUp(t)
  log.write(EventLog.entries) // in the slot of entry 0
  log.write(1)
  log.claim(2)
  assert.deepEqual(log.read(), [[1], true])
})

test('with any bytes in the log, a read returns at most the entries of the ring, and never throws', t => {
  const log = setUp(t)
  const head = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 40_000n }))
  const bytes = fc.uint8Array({ maxLength: 4096, size: 'max' })
  fc.assert(
    fc.property(head, fc.nat(EventLog.firstEntry + 200 * ENTRY_BYTES), bytes, (claimed, at, garbage) => {
      log.writeBytes(at, garbage)
      log.claim(claimed)
      assert.ok(log.read()[0].length <= EventLog.entries)
    }),
  )
})
