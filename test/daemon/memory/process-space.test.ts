/*
 * Another process's memory as an address space.
 */
import assert from 'node:assert/strict'
import { openSync, readdirSync } from 'node:fs'
import { after, test } from 'node:test'
import { MAX_COPY_BYTES, ProcessSpace } from '../../../src/daemon/memory/process-space.ts'
import { mapArena } from '../../../src/host/memory/mapping.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { startPeer } from '../../host/peer-control.ts'

const PAGE = 4096
const TWO_32 = 2 ** 32
const hi = (address: number): number => Math.floor(address / TWO_32)
const lo = (address: number): number => address % TWO_32

const peer = startPeer()
after(() => peer.kill())

const spaceOf = (pid: number, turn: () => number = () => 0): { space: ProcessSpace; handle: ProcessHandle } => {
  const handle = openProcess(pid) as ProcessHandle
  assert.ok('pid' in handle)
  return { space: new ProcessSpace(handle, turn), handle }
}

/** Number of the read-only page in the other process's arenas. Byte i of an arena is i % 251 (peer.ts). */
const READ_ONLY = 3
const PROT_READ = 1

test('`check` is true if every page is mapped and permits the access', async () => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE, protect: READ_ONLY * PAGE, protection: PROT_READ })
  const { space, handle } = spaceOf(peer.pid)
  const check = (from: number, length: number, writable: boolean) =>
    space.check(hi(address + from), lo(address + from), length, writable)
  assert.equal(check(0, 8 * PAGE, false), true, 'across mappings of different protection')
  assert.equal(check(0, 8 * PAGE, true), false)
  assert.equal(check(0, READ_ONLY * PAGE, true), true)
  assert.equal(check(0, READ_ONLY * PAGE + 1, true), false)
  assert.equal(check((READ_ONLY + 1) * PAGE, 4 * PAGE, true), true)
  assert.equal(check(100, 1, true), true)
  // The first page, the end of user space, and addresses beyond are not mapped.
  assert.equal(space.check(0, 0x10, 1, false), false)
  assert.equal(space.check(0, 0, 0, true), true, 'an empty range is valid everywhere')
  assert.equal(space.check(0x7fff, 0xfffff000, 2 * PAGE, false), false)
  assert.equal(space.check(0xffffffff, 0xfffff000, PAGE, false), false)
  assert.equal(space.check(hi(address), lo(address), 2 ** 50, false), false)
  space.close()
  closeProcess(handle)
})

test('copies obey page protection; compare-and-swap and fetch-and-add work on 64 bits', async () => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE, protect: READ_ONLY * PAGE, protection: PROT_READ })
  const { space, handle } = spaceOf(peer.pid)
  const local = mapArena(8 * PAGE)
  assert.equal(space.read(hi(address), lo(address), local, 0, 100, 200, 250), 0)
  for (const [at, from] of [
    [0, 0],
    [200, 100],
    [449, 249],
  ])
    assert.equal(local.bytes[at], from % 251)
  const last = address + READ_ONLY * PAGE - 8
  assert.equal(space.write(hi(last), lo(last), local, 0, 8, 8, 8), 0)
  assert.equal(space.write(hi(last), lo(last), local, 0, 16, 16, 16), Errno.EFAULT)
  assert.equal(space.write(hi(last), lo(last + 8), local, 0, 8, 8, 8), Errno.EFAULT)

  const original = new Uint32Array(2)
  local.u32[0] = 0xffffffff
  local.u32[1] = 7
  assert.equal(space.write(hi(address), lo(address), local, 0, 8, 8, 8), 0)
  const value = async (): Promise<string> =>
    Buffer.from((await peer.request('read', { offset: 0, length: 8 })).bytes).toString('hex')
  assert.equal(space.fetchAdd(hi(address), lo(address), 0xffffffff, 1, original), 0)
  assert.deepEqual([...original], [0xffffffff, 7])
  assert.equal(await value(), '0000000007000000', '64-bit sum with carry, modulo 2^64')
  assert.equal(space.compareSwap(hi(address), lo(address), 7, 1, 9, 9, original), 0)
  assert.deepEqual([...original], [0, 7])
  assert.equal(await value(), '0000000007000000', 'with another value the word is unchanged')
  assert.equal(space.compareSwap(hi(address), lo(address), 7, 0, 0xfedcba98, 0x76543210, original), 0)
  assert.equal(await value(), '1032547698badcfe')
  assert.equal(space.fetchAdd(hi(address), lo(address), 1, 0x10, original), 0)
  assert.deepEqual([...original], [0x76543210, 0xfedcba98])
  assert.equal(await value(), '2032547699badcfe', 'without carry')
  assert.equal(space.compareSwap(hi(address), lo(address), 0, 0, 0, 0, original), 0)
  assert.deepEqual([...original], [0x76543220, 0xfedcba99])
  assert.equal(space.compareSwap(0, 0x10, 0, 0, 0, 0, original), Errno.EFAULT)
  assert.equal(space.fetchAdd(0, 0x10, 0, 0, original), Errno.EFAULT)
  const page = address + READ_ONLY * PAGE
  assert.equal(space.fetchAdd(hi(page), lo(page), 0, 1, original), Errno.EFAULT)
  space.close()
  closeProcess(handle)
})

test('copyIn and copyOut access the program’s memory, and throw EFAULT for other addresses', async () => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE, protect: READ_ONLY * PAGE, protection: PROT_READ })
  const { space, handle } = spaceOf(peer.pid)
  assert.deepEqual([...space.copyIn(BigInt(address) + 250n, 3)], [250, 0, 1])
  space.copyOut(BigInt(address) + 1n, Uint8Array.of(5, 6))
  assert.deepEqual((await peer.request('read', { offset: 0, length: 4 })).bytes, [0, 5, 6, 3])
  for (const at of [0n, 0x10n, 1n << 56n, (1n << 63n) + 5n, (1n << 64n) - 1n]) {
    assert.throws(() => space.copyIn(at, 8), { code: 'EFAULT' })
    assert.throws(() => space.copyOut(at, new Uint8Array(8)), { code: 'EFAULT' })
  }
  assert.throws(() => space.copyOut(BigInt(address + READ_ONLY * PAGE), new Uint8Array(1)), { code: 'EFAULT' })
  assert.throws(
    () => space.copyIn(BigInt(address), MAX_COPY_BYTES + 1),
    { code: 'EFAULT' },
    'beyond the maximum length',
  )
  assert.throws(() => space.copyOut(BigInt(address), new Uint8Array(MAX_COPY_BYTES + 1)), { code: 'EFAULT' })
  space.close()
  closeProcess(handle)
})

test('every access to the memory of an exited process fails', async () => {
  const other = startPeer()
  const { address } = await other.request('arena', { bytes: PAGE })
  let turn = 1
  const { space, handle } = spaceOf(other.pid, () => turn)
  const local = mapArena(PAGE)
  const read = (): number => space.read(hi(address), lo(address), local, 0, 8, 8, 8)
  assert.equal(read(), 0)
  await other.kill()
  assert.equal(read(), Errno.ESRCH)
  turn++
  assert.equal(read(), Errno.ESRCH)
  assert.equal(space.write(hi(address), lo(address), local, 0, 8, 8, 8), Errno.ESRCH)
  assert.equal(space.fetchAdd(hi(address), lo(address), 0, 1, new Uint32Array(2)), Errno.ESRCH)
  assert.equal(space.check(hi(address), lo(address), 8, false), false)
  assert.throws(() => space.copyIn(BigInt(address), 8), { code: 'EFAULT' })
  space.close()
  closeProcess(handle)
})

test('from the next turn on, no access reaches another process with the pid of an exited one', async () => {
  const other = startPeer()
  const { address } = await peer.request('arena', { bytes: PAGE })
  const handle = openProcess(other.pid) as ProcessHandle
  let turn = 1
  // As if `peer` had got the pid.
  const space = new ProcessSpace({ ...handle, pid: peer.pid }, () => turn)
  const local = mapArena(PAGE)
  const read = (): number => space.read(hi(address), lo(address), local, 0, 8, 8, 8)
  assert.equal(read(), 0)
  assert.equal(space.check(hi(address), lo(address), 8, true), true)
  await other.kill()
  turn++
  assert.equal(read(), Errno.ESRCH)
  assert.equal(space.write(hi(address), lo(address), local, 0, 8, 8, 8), Errno.ESRCH)
  assert.equal(space.check(hi(address), lo(address), 8, true), false)
  space.close()
  closeProcess(handle)
})

test('every access by a closed space fails although the process still runs, and its descriptors are closed', async () => {
  const { address } = await peer.request('arena', { bytes: PAGE })
  const descriptors = (): number => readdirSync('/proc/self/fd').length
  const before = descriptors()
  const { space, handle } = spaceOf(peer.pid)
  const fd = openSync('/dev/null', 'r') // stands for a userfaultfd
  space.watchUnmapping(fd)
  assert.equal(space.read(hi(address), lo(address), mapArena(PAGE), 0, 8, 8, 8), 0)
  assert.equal(space.check(hi(address), lo(address), 8, true), true)
  space.close()
  space.close()
  assert.equal(space.read(hi(address), lo(address), mapArena(PAGE), 0, 8, 8, 8), Errno.ESRCH)
  assert.throws(() => space.copyOut(BigInt(address), new Uint8Array(1)), { code: 'EFAULT' })
  assert.equal(space.check(hi(address), lo(address), 8, true), false)
  closeProcess(handle)
  assert.equal(descriptors(), before)
})

test('mappings are queried in each turn', async () => {
  let turn = 0
  const { space, handle } = spaceOf(peer.pid, () => turn)
  assert.equal(space.check(0, 0x10, 1, false), false)
  const { address } = await peer.request('arena', { bytes: 4 * PAGE })
  const isMapped = () => space.check(hi(address), lo(address), 4 * PAGE, true)
  turn++
  assert.equal(isMapped(), true)
  space.close()
  closeProcess(handle)
})
