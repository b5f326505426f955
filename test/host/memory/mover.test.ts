/*
 * Movers hold none of our descriptors but those that they keep, also on kernels without close_range(2).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nativeLibraryPath } from '../../../src/host/library.ts'
import { MAX_WAIT } from '../../../src/host/memory/budget.ts'
import { mapArena } from '../../../src/host/memory/mapping.ts'
import { createMover } from '../../../src/host/memory/mover.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { close, recvSmall, socketPair } from '../../../src/host/net/sockets.ts'

const skip = nativeLibraryPath() === undefined && 'the native library was not built'
const sys = libcFunctions({ prctl: 'int prctl(int option, uint64_t a, int64_t b, uint64_t c, uint64_t d)' })

/** From now on close_range(2) fails with ENOSYS in this thread and its children: seccomp(2). */
const withoutCloseRange = (): void => {
  const CLOSE_RANGE = 436
  const ENOSYS = 38
  const arena = mapArena(4096)
  const { view, address } = arena
  const program: [code: number, ifNot: number, value: number][] = [
    [0x20, 0, 0],
    [0x15, 1, CLOSE_RANGE],
    [0x06, 0, 0x0005_0000 | ENOSYS],
    [0x06, 0, 0x7fff_0000],
  ]
  for (const [i, [code, ifNot, value]] of program.entries()) {
    view.setUint16(16 + 8 * i, code, true)
    view.setUint8(16 + 8 * i + 3, ifNot)
    view.setUint32(16 + 8 * i + 4, value, true)
  }
  view.setUint16(0, program.length, true)
  view.setBigUint64(8, BigInt(address + 16), true)
  const [NO_NEW_PRIVS, SECCOMP, FILTER] = [38, 22, 2]
  assert.equal(sys().prctl(NO_NEW_PRIVS, 1, 0, 0, 0), 0)
  assert.equal(sys().prctl(SECCOMP, FILTER, address, 0, 0), 0)
}

const copiesAndHoldsNothing = (): void => {
  const mover = createMover()
  assert.ok(mover !== undefined)
  const arena = mapArena(4096)
  const [ours, theirs] = socketPair()
  arena.bytes[0] = 7
  const [high, low] = [Math.floor(arena.address / 2 ** 32), arena.address % 2 ** 32]
  assert.equal(mover.move(false, process.pid, -1, high, low, arena, 8, 1, 1, 1, MAX_WAIT), 1)
  assert.equal(arena.bytes[8], 7)
  close(ours)
  assert.equal(recvSmall(theirs, new Uint8Array(1)), 0, 'the end of the stream: nobody else has the socket')
  close(theirs)
  mover.close()
}

test('a mover holds none of our descriptors', { skip }, copiesAndHoldsNothing)

test('a mover holds none of our descriptors without close_range(2)', { skip }, () => {
  withoutCloseRange()
  copiesAndHoldsNothing()
})
