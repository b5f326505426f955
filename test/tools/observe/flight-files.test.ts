/*
 * Files of flight recorders: rings that are read while their program overwrites them, and files that it has damaged.
 */
import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { FlightFile, ObserveFile, RecordKind } from '../../../src/tools/observe/file-layout.ts'
import { FlightFiles } from '../../../src/tools/observe/flight-files.ts'
import { temporaryFolder } from '../../system/programs.ts'
import { recordBytes, structBytes } from './structs.ts'

const RING = 4096
const CAPACITY = RING - ObserveFile.ringHeader
const poll = (time: number): Uint8Array =>
  recordBytes(RecordKind.POLL, { time, tid: 7 }, structBytes('pollRecord', { fd: 3, cq: 1 }))

interface RingOf {
  readonly head: number
  readonly tail: number
  /** By offset. */
  readonly records: Readonly<Record<number, Uint8Array>>
}

const fileOf = (prefix: string, rings: readonly RingOf[], head = {}): string => {
  const path = `${prefix}5-1`
  const bytes = Buffer.alloc(FlightFile.firstRing + FlightFile.rings * RING)
  bytes.set(structBytes('flightHead', { version: FlightFile.version, pid: 5, ringBytes: RING, ...head }))
  for (const [i, { head: end, tail, records }] of rings.entries()) {
    const at = FlightFile.firstRing + i * RING
    bytes.set(structBytes('observeRing', { pid: 7, head: end, tail }), at)
    for (const [offset, record] of Object.entries(records))
      bytes.set(record, at + ObserveFile.ringHeader + (Number(offset) % CAPACITY))
  }
  writeFileSync(path, bytes)
  return path
}

const opened = (prefix: string): FlightFiles => {
  const files = new FlightFiles(prefix)
  files.scan()
  return files
}

test('records from the tail to the head, around the end of the ring', t => {
  const prefix = join(temporaryFolder(t), 'flight-')
  const size = poll(0).length
  const before = CAPACITY - size
  // One at the end of the ring, one at its beginning, and one that was overwritten.
  fileOf(prefix, [
    { head: CAPACITY + size, tail: before, records: { [before]: poll(1), [CAPACITY]: poll(2), [size]: poll(9) } },
    { head: size, tail: 0, records: { 0: poll(3) } },
  ])
  const files = opened(prefix)
  const [flight] = files.flights
  assert.deepEqual(
    files.read(flight!).map(({ pid, tid, time }) => [pid, tid, Number(time)]),
    [
      [5, 7, 1],
      [5, 7, 2],
      [5, 7, 3],
    ],
  )
  files.close()
  assert.equal(existsSync(`${prefix}5-1`), false)
})

test('a ring that its program has damaged ends at the damage, and others are read', t => {
  const size = poll(0).length
  const damaged: readonly RingOf[] = [
    { head: 64, tail: 0, records: {} },
    { head: 2 * size, tail: 0, records: { 0: poll(1), [size]: Uint8Array.of(0xff, 0xff, 0xff, 0xff) } },
    { head: 8 * CAPACITY, tail: 0, records: { 0: poll(1) } },
    { head: 0, tail: 64, records: {} },
    { head: size, tail: 4, records: { 0: poll(1) } },
    { head: 64, tail: 2 ** 40, records: {} },
  ]
  for (const one of damaged) {
    const prefix = join(temporaryFolder(t), 'flight-')
    fileOf(prefix, [one, { head: size, tail: 0, records: { 0: poll(5) } }])
    const files = opened(prefix)
    const times = files.read(files.flights[0]!).map(({ time }) => Number(time))
    assert.equal(times.at(-1), 5, JSON.stringify(one))
    files.close()
  }
})

test('completions in error are told once, and a file of another version is none', t => {
  const prefix = join(temporaryFolder(t), 'flight-')
  fileOf(prefix, [], { trigger: 2, frozen: 1 })
  const files = opened(prefix)
  assert.equal(files.triggered().length, 1)
  assert.equal(files.triggered().length, 0)
  files.thaw(files.flights[0]!)
  files.close()
  fileOf(prefix, [], { version: 99 })
  const others = opened(prefix)
  assert.equal(others.flights.length, 0)
})
