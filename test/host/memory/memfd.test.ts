import assert from 'node:assert/strict'
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readdirSync, readSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { EINVAL } from '../../../src/host/errno.ts'
import { createRingPool } from '../../../src/host/memory/mapping.ts'
import {
  addSeals,
  createMemfd,
  fileIdentity,
  isHeld,
  openHeld,
  SEAL_FUTURE_WRITE,
  SEAL_GROW,
  SEAL_SEAL,
  SEAL_SHRINK,
  sealsOf,
} from '../../../src/host/memory/memfd.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { closesOnExec } from '../../tools.ts'

const newFile = (t: { after(fn: () => void): void }, size: number): number => {
  const fd = createMemfd('test', size)
  t.after(() => closeSync(fd))
  return fd
}

test('a memory file has its size, uses no memory yet, and closes on exec', t => {
  const fd = newFile(t, 1 << 30)
  assert.equal(fstatSync(fd).size, 1 << 30)
  assert.equal(fstatSync(fd).blocks, 0)
  assert.ok(closesOnExec(fd))
})

test('a memory file that cannot have its size leaves no descriptor', () => {
  const before = readdirSync('/proc/self/fd').length
  assert.throws(() => createMemfd('test', -1), { errno: EINVAL })
  assert.equal(readdirSync('/proc/self/fd').length, before)
})

test('a held descriptor has the requested access mode', t => {
  const fd = newFile(t, 4096)
  const { O_RDONLY, O_WRONLY } = constants
  const [reader, writer] = [openHeld(fd, O_RDONLY), openHeld(fd, O_WRONLY)]
  assert.throws(() => writeSync(reader, 'x'), { code: 'EBADF' })
  assert.throws(() => readSync(writer, new Uint8Array(1)), { code: 'EBADF' })
  closeSync(writer)
  assert.equal(isHeld(fd), true)
  closeSync(reader)
})

test('openHeld leaves no descriptor open if flock(2) fails', t => {
  const LOCK_EX = 2
  const fd = newFile(t, 4096)
  assert.equal(libcFunctions({ flock: 'int flock(int fd, int operation)' })().flock(fd, LOCK_EX), 0)
  const before = readdirSync('/proc/self/fd').length
  assert.throws(() => openHeld(fd), { call: 'flock' })
  assert.equal(readdirSync('/proc/self/fd').length, before)
})

test('a file is held until its held descriptor is closed; a file that cannot be queried counts as held', t => {
  const fd = newFile(t, 4096)
  assert.equal(isHeld(fd), false)
  const held = openHeld(fd)
  assert.equal(isHeld(fd), true)
  closeSync(held)
  assert.equal(isHeld(fd), false)
  // flock(2) fails with EBADF
  const O_PATH = 0o10000000
  const path = openSync(`/proc/self/fd/${fd}`, O_PATH)
  t.after(() => closeSync(path))
  assert.equal(isHeld(path), true)
})

test('two descriptors of one file have the same identity, two files have different ones', t => {
  const [a, b] = [newFile(t, 4096), newFile(t, 4096)]
  const again = openSync(`/proc/self/fd/${a}`, 'r')
  t.after(() => closeSync(again))
  assert.deepEqual(fileIdentity(again), fileIdentity(a))
  assert.notEqual(fileIdentity(b).ino, fileIdentity(a).ino)
})

test('shrink and grow seals each refuse their own direction', t => {
  const fd = newFile(t, 8192)
  addSeals(fd, SEAL_SHRINK)
  assert.throws(() => ftruncateSync(fd, 4096), { code: 'EPERM' })
  ftruncateSync(fd, 12288)
  addSeals(fd, SEAL_GROW)
  assert.throws(() => ftruncateSync(fd, 16384), { code: 'EPERM' })
  assert.throws(() => writeSync(fd, 'x', 12288), { code: 'EPERM' })
  assert.equal(sealsOf(fd), SEAL_SHRINK | SEAL_GROW)
})

test('the seal on seals refuses further seals', t => {
  const fd = newFile(t, 4096)
  addSeals(fd, SEAL_SEAL | SEAL_SHRINK)
  assert.throws(() => addSeals(fd, SEAL_GROW), { code: 'EPERM', call: 'fcntl(F_ADD_SEALS)' })
})

test('after the future-write seal an existing mapping can write; new mappings and write(2) cannot', t => {
  const fd = newFile(t, 4096)
  const pool = createRingPool()
  addSeals(fd, SEAL_SHRINK)
  const mapping = pool.map(fd, 0, 4096)
  addSeals(fd, SEAL_FUTURE_WRITE)
  mapping.bytes[0] = 77
  assert.throws(() => writeSync(fd, 'x', 0), { code: 'EPERM' })
  assert.throws(() => pool.map(fd, 0, 4096), { code: 'EPERM', call: 'mmap' })
  const read = Buffer.alloc(1)
  readSync(fd, read, 0, 1, 0)
  assert.equal(read[0], 77)
  pool.release(mapping)
})

test('a file that does not support seals is reported as -EINVAL', t => {
  const fd = openSync('/proc/self/exe', 'r')
  t.after(() => closeSync(fd))
  assert.equal(sealsOf(fd), -EINVAL)
})
