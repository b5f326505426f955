/*
 * A mover accesses a guest's files and memory, for as long as the guest's user has waiting time (budget.ts). Another
 * program may kill the mover.
 */
import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { test } from 'node:test'
import { ESRCH, ETIMEDOUT, SystemError } from '../../../src/host/errno.ts'
import { nativeLibraryPath } from '../../../src/host/library.ts'
import { charged } from '../../../src/host/memory/budget.ts'
import { createGuest } from '../../../src/host/memory/guest.ts'
import { mapArena } from '../../../src/host/memory/mapping.ts'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import type { Mover } from '../../../src/host/memory/mover.ts'
import { createMoves } from '../../../src/host/memory/moves.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { close, recvBytes, socketPair } from '../../../src/host/net/sockets.ts'
import { moversOf } from '../../tools.ts'

const skip = nativeLibraryPath() === undefined && 'the native library was not built'

/** Users without other guests: each test has its own, so that no other test uses up the user's waiting time. */
const [FIRST_USER, SECOND_USER, THIRD_USER, FOURTH_USER, FIFTH_USER] = [
  4_000_000, 4_000_001, 4_000_002, 4_000_003, 4_000_004,
]

/** Kills the movers of this process; returns their number. */
const killMovers = (): number => {
  const movers = moversOf(process.pid)
  for (const pid of movers) process.kill(pid, 'SIGKILL')
  return movers.length
}

test('a file of a guest is accessible after another program has killed the mover', { skip }, () => {
  const self = openProcess(process.pid) as ProcessHandle
  const guest = createGuest(process.pid, self.pidfd, FIRST_USER)!
  const fd = createMemfd('guest', 4096)
  try {
    const file = guest.file(fd)
    const text = Buffer.from('first')
    assert.equal(file.write(text, 0, text.length, 100), text.length)
    const read = Buffer.alloc(text.length)
    for (const round of ['read', 'write'] as const) {
      assert.equal(killMovers(), 1, 'the mover of this guest')
      if (round === 'write') assert.equal(file.write(Buffer.from('F'), 0, 1, 100), 1)
      assert.equal(file.read(read, 0, read.length, 100), read.length)
      assert.equal(read.toString(), round === 'read' ? 'first' : 'First')
    }
    assert.equal(guest.isLate, false)
    file.close()
  } finally {
    guest.close()
    closeSync(fd)
    closeProcess(self)
  }
})

test('a file may outlive its guest: its mover inherits no descriptors, and ends with the last file', {
  skip,
}, async () => {
  const handle = openProcess(process.pid, { guestUid: SECOND_USER }) as ProcessHandle
  const fds = [createMemfd('guest', 4096), createMemfd('guest', 4096)]
  const [first, second] = fds.map(fd => handle.guest!.file(fd))
  const text = Buffer.from('text')
  assert.equal(first!.write(text, 0, text.length, 8), text.length)
  closeProcess(handle)
  // the numbers of the handle's descriptors become those of sockets
  const pairs = Array.from({ length: 4 }, socketPair)
  for (const file of [first!, second!]) {
    const read = Buffer.alloc(text.length)
    assert.equal(file.read(read, 0, read.length, 8), read.length)
    assert.equal(read.toString(), file === first ? 'text' : '\0\0\0\0')
  }
  for (const [ours] of pairs) close(ours)
  for (const [, theirs] of pairs) {
    assert.equal(recvBytes(theirs, new Uint8Array(1)), 0, 'the end of the stream: no other process has the socket')
    close(theirs)
  }
  first!.close()
  assert.equal(second!.write(text, 0, text.length, 8), text.length)
  second!.close()
  // zombies are reaped later
  while (moversOf(process.pid, '[^Z]').length > 0) await new Promise(setImmediate)
  for (const fd of fds) closeSync(fd)
})

test('a guest whose user has no waiting time left is late, which is reported once; the user’s next guest is refused', {
  skip,
}, () => {
  // regained at a twentieth of the time, so for the whole test there is none left
  const hour = 3600e6
  charged(THIRD_USER, { waited: () => hour, delayed: () => 0 } as Mover, () => 0)
  const self = openProcess(process.pid) as ProcessHandle
  const guest = createGuest(process.pid, self.pidfd, THIRD_USER)!
  let reports = 0
  guest.whenLate(() => reports++)
  for (let i = 0; i < 2; i++) assert.equal(guest.openMemory(), -ETIMEDOUT)
  assert.deepEqual([guest.isLate, reports], [true, 1])
  guest.close()
  closeProcess(self)
  const refused = openProcess(process.pid, { guestUid: THIRD_USER })
  assert.ok(refused instanceof SystemError)
  assert.equal(refused.code, 'ETIMEDOUT')
})

test('a query of the mappings of a closed guest fails, and starts no mover', { skip }, async () => {
  const handle = openProcess(process.pid, { guestUid: FIFTH_USER }) as ProcessHandle
  const range = { arena: mapArena(4096), at: 0, length: 4096 }
  assert.ok(handle.guest!.readMaps(0, range) > 0)
  closeProcess(handle)
  // zombies are reaped later
  while (moversOf(process.pid, '[^Z]').length > 0) await new Promise(setImmediate)
  assert.equal(handle.guest!.readMaps(0, range), -ESRCH)
  assert.equal(handle.guest!.ioctlMaps(0, range), -ESRCH)
  assert.deepEqual(moversOf(process.pid, '[^Z]'), [])
})

test('a copy of no bytes succeeds, even at an address that is not mapped', { skip }, () => {
  const handle = openProcess(process.pid, { guestUid: FOURTH_USER }) as ProcessHandle
  const moves = createMoves(handle)
  const local = mapArena(4096)
  // from and to the addresses 0 and 8 of the guest
  assert.equal(moves.read(0, 0, local, 0, 0, 0, 0, 0), 0)
  assert.equal(moves.write(0, 8, local, 0, 0, 0, 0, 0), 0)
  moves.close()
  closeProcess(handle)
})
