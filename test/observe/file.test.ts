/*
 * The observation file when a program has overwritten its ring: the rest of the ring is skipped, and nothing fails.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ObservationFile } from '../../src/observe/file.ts'
import { ObserveFile, ObserveStructs, RecordKind } from '../../src/spec/observe.ts'
import { offsetsOf } from '../../src/spec/session.ts'
import { temporaryFolder } from '../system/programs.ts'

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
