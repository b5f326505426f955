/*
 * Records of a daemon's event descriptors.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { hasNative } from '../../../../src/host/native.ts'
import { close, sendBytes, socketPair } from '../../../../src/host/net/sockets.ts'
import { readRecords } from '../../../../src/library/verbs/remote/records.ts'

test('each record is passed on, also a short one, and the end once', { skip: !hasNative() }, async t => {
  const [ours, daemons] = socketPair()
  const recordBytes = 8
  const seen: unknown[] = []
  const reader = readRecords(
    ours,
    recordBytes,
    record => seen.push([record.byteLength, record.getUint8(0)]),
    () => seen.push('end'),
  )
  t.after(() => {
    reader.stop()
    close(ours)
  })
  sendBytes(daemons, new Uint8Array(recordBytes).fill(1))
  sendBytes(daemons, Uint8Array.of(2, 2))
  while (seen.length < 2) await nextTurn()
  close(daemons)
  while (seen.length < 3) await nextTurn()
  // A second end would follow within a few turns.
  for (let i = 0; i < 10; i++) await nextTurn()
  assert.deepEqual(seen, [[8, 1], [2, 2], 'end'])
})
