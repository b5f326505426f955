/*
 * Copies never block for long: this process copies resident pages, and a mover copies all others.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { ESRCH } from '../../../src/host/errno.ts'
import { nativeLibraryPath } from '../../../src/host/library.ts'
import { mapArena } from '../../../src/host/memory/mapping.ts'
import { createMover } from '../../../src/host/memory/mover.ts'
import { createMoves } from '../../../src/host/memory/moves.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { residentPages } from '../../../src/host/memory/resident.ts'
import { halves, onePiece } from '../copy-arguments.ts'
import { startPeer } from '../peer-control.ts'

const PAGE = 4096
/** Microseconds. */
const MINUTE = 60_000_000
const NOW = 0

const skip = nativeLibraryPath() === undefined && 'the native library was not built, so there are no movers'
const peer = startPeer()
after(() => peer.kill())

const handleOf = (pid: number): ProcessHandle => {
  const handle = openProcess(pid)
  assert.ok('pid' in handle)
  return handle
}

test('touched pages are resident, others are not, and a resident page is not checked again for a millisecond', {
  skip,
}, async () => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE })
  const pages = residentPages(peer.pid)
  assert.ok(pages)
  assert.equal(pages.areResident(...halves(address), 8 * PAGE, NOW), true)
  assert.equal(pages.areResident(...halves(address + 100), 1, NOW), true)
  const { address: fresh } = await peer.request('fresh', { bytes: 4 * PAGE })
  const areResident = (offset: number, length: number, microsecondsLater = 0): boolean =>
    pages.areResident(...halves(fresh + offset), length, NOW + microsecondsLater)
  assert.equal(areResident(0, 1), false)
  await peer.request('touch', { offset: PAGE })
  assert.equal(areResident(PAGE, PAGE), true)
  assert.equal(areResident(2 * PAGE - 1, 2), false, 'the second page is not resident')
  await peer.request('drop', {})
  assert.equal(areResident(PAGE, PAGE, 500), true, 'the page is not queried again so soon')
  assert.equal(areResident(PAGE, PAGE, 5000), false)
  pages.close()
})

test('copies to untouched pages are complete, and a copy ends at a page that is not mapped', {
  skip,
}, async () => {
  const { address } = await peer.request('fresh', { bytes: 700 * PAGE })
  const handle = handleOf(peer.pid)
  const moves = createMoves(handle)
  const local = mapArena(1024 * PAGE)
  for (let i = 0; i < local.length; i++) local.bytes[i] = i % 253
  // 300 pieces of 5000 bytes, the last of 77, are more than a mover's buffer.
  const CHUNK = 5000
  const total = 299 * CHUNK + 77
  const from = { offset: 10, stride: 6000 }
  const to = { offset: 3, stride: 7000 }
  assert.equal(moves.write(...halves(address), local, from.offset, CHUNK, from.stride, total, NOW), total)
  const target = mapArena(1024 * PAGE)
  assert.equal(moves.read(...halves(address), target, to.offset, CHUNK, to.stride, total, NOW), total)
  for (let i = 0; i < total; i += 997) {
    const indexIn = ({ offset, stride }: typeof from) => offset + Math.floor(i / CHUNK) * stride + (i % CHUNK)
    assert.equal(target.bytes[indexIn(to)], local.bytes[indexIn(from)], `byte ${i}`)
  }
  // The page after the last one is not mapped.
  const lastPage = address + 699 * PAGE
  assert.equal(moves.write(...halves(lastPage), local, ...onePiece(2 * PAGE), NOW), PAGE)
  moves.close()
  closeProcess(handle)
})

test('a copy to an exited process is -ESRCH, also by a mover that was closed before', { skip }, async () => {
  const other = startPeer()
  const { address } = await other.request('fresh', { bytes: PAGE })
  const mover = createMover()
  assert.ok(mover)
  const local = mapArena(PAGE)
  const [isWrite, noFd] = [true, -1]
  const write = (): number => mover.move(isWrite, other.pid, noFd, ...halves(address), local, ...onePiece(8), MINUTE)
  assert.equal(write(), 8)
  assert.ok(mover.waited() < MINUTE)
  await other.kill()
  assert.equal(write(), -ESRCH)
  mover.close()
  assert.equal(write(), -ESRCH, 'the next copy after close starts a process again')
  mover.close()
})

test('with an owner, a mover copies through the open /proc/PID/mem, even if another process has the pid', {
  skip,
}, async context => {
  const { address } = await peer.request('fresh', { bytes: 2 * PAGE })
  const handle = openProcess(peer.pid, { owner: { uid: process.geteuid!(), gid: process.getegid!() } })
  assert.ok('pid' in handle)
  const other = startPeer()
  context.after(() => other.kill())
  const moves = createMoves({ ...handle, pid: other.pid })
  const local = mapArena(PAGE)
  local.bytes.fill(7)
  assert.equal(moves.write(...halves(address), local, ...onePiece(8), NOW), 8)
  const target = mapArena(PAGE)
  assert.equal(moves.read(...halves(address), target, ...onePiece(16), NOW), 16)
  assert.deepEqual([...target.bytes.subarray(6, 10)], [7, 7, 0, 0], 'the 8 bytes were written')
  moves.close()
  closeProcess(handle)
})
