/*
 * The observation file: what is read from the rings, and when. A ring that its program has overwritten is skipped, and
 * nothing fails.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { offsetsOf } from '../../../src/spec/message-layout.ts'
import { ObservationFile } from '../../../src/tools/observe/file.ts'
import { ObserveFile, ObserveStructs, RecordKind } from '../../../src/tools/observe/file-layout.ts'
import { temporaryFolder } from '../../system/programs.ts'
import { recordBytes, structBytes } from './structs.ts'

const { ringBytes, firstRing, ringHeader } = ObserveFile
const capacity = ringBytes - ringHeader
const Ring = offsetsOf(ObserveStructs.observeRing)
const Header = offsetsOf(ObserveStructs.record)
const Post = offsetsOf(ObserveStructs.postRecord)

interface Written {
  readonly kind: number
  readonly size: number
  readonly tail?: number
  /** Of the records in a POST. */
  readonly count?: number
}

const cases: Readonly<Record<string, Written>> = {
  'a size of 0': { kind: RecordKind.CALL, size: 0 },
  'a size below the header': { kind: RecordKind.CALL, size: 8 },
  'a size that is no multiple of 8': { kind: RecordKind.END, size: 29 },
  'padding that is no multiple of 8': { kind: RecordKind.PAD, size: 9 },
  'a size beyond the ring': { kind: RecordKind.PAD, size: 0xffff_fff8 },
  'a header at the end of the ring': { kind: RecordKind.END, size: 24, tail: capacity - 8 },
  'a position that is no multiple of 8': { kind: RecordKind.END, size: 24, tail: 4 },
  'more requests than the record has': { kind: RecordKind.POST, size: 64, count: 0xffff_ffff },
}

for (const [title, { kind, size, tail = 0, count = 0 }] of Object.entries(cases))
  test(title, t => {
    const path = join(temporaryFolder(t), 'file')
    const file = new ObservationFile(path)
    t.after(() => file.close())
    const bytes = Buffer.alloc(ringBytes)
    bytes.writeUInt32LE(process.pid, Ring.pid)
    bytes.writeBigUInt64LE(BigInt(tail), Ring.tail)
    bytes.writeBigUInt64LE(BigInt(tail + 128), Ring.head)
    const at = ringHeader + tail
    bytes.writeUInt32LE(size, at + Header.size)
    bytes.writeUInt32LE(kind, at + Header.kind)
    if (count > 0) bytes.writeUInt32LE(count, at + ObserveStructs.record.size + Post.count)
    const fd = openSync(path, 'r+')
    writeSync(fd, bytes, 0, ringBytes, firstRing)
    closeSync(fd)
    assert.deepEqual(file.read(1n), [])
    assert.deepEqual(file.read(1n), [])
  })

test('records of all rings come in the order of time, once they are complete, and losses are counted', t => {
  const path = join(temporaryFolder(t), 'file')
  const file = new ObservationFile(path)
  const fd = openSync(path, 'r+')
  t.after(() => {
    file.close()
    closeSync(fd)
  })
  const ring = (number: number, values: Record<string, number>): void =>
    void writeSync(
      fd,
      structBytes('observeRing', { pid: process.pid, ...values }),
      0,
      undefined,
      firstRing + number * ringBytes,
    )
  const record = (number: number, position: number, tid: number, time: number): void => {
    const at = firstRing + number * ringBytes + ringHeader + (position % capacity)
    writeSync(fd, recordBytes(RecordKind.END, { tid, time }), 0, undefined, at)
  }
  const read = (now: bigint) =>
    file.read(now).map(one => (one.kind === 'lost' ? `lost ${one.count}` : `${one.kind} of ${one.tid} at ${one.time}`))
  const { size } = ObserveStructs.record
  // The records of ring 0 wrap.
  const tail = capacity - size
  record(0, tail, 1, 30)
  record(0, tail + size, 1, 50)
  record(1, 0, 2, 40)
  record(1, size, 2, 90)
  ring(0, { tail, head: tail + 2 * size })
  ring(1, { tail: 0, head: 2 * size })
  assert.deepEqual(read(60n), ['end of 1 at 30', 'end of 2 at 40', 'end of 1 at 50'])
  assert.deepEqual(read(89n), [])
  assert.deepEqual(read(90n), ['end of 2 at 90'])
  const head = 2 * size
  ring(1, { tail: head, head, lost: 5, lostAt: head })
  assert.deepEqual(read(100n), ['lost 5'])
  ring(1, { tail: head, head, lost: 7, lostAt: head })
  assert.deepEqual([...read(110n), ...read(120n)], ['lost 2'])
})
