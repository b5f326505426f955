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
import { compareSwap, fetchAdd, readSpace, writeSpace } from '../../core/memory/address-space.ts'
import { halves } from '../../host/copy-arguments.ts'
import { startPeer } from '../../host/peer-control.ts'

const PAGE = 4096

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
/** An address in the first page, which no process has mapped. */
const UNMAPPED = 0x10

test('`check` is true if every page is mapped and permits the access', async () => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE, protect: READ_ONLY * PAGE, protection: PROT_READ })
  const { space, handle } = spaceOf(peer.pid)
  const check = (from: number, length: number, needsWrite: boolean) =>
    space.check(...halves(address + from), length, needsWrite)
  assert.equal(check(0, 8 * PAGE, false), true, 'across mappings of different protection')
  assert.equal(check(0, 8 * PAGE, true), false)
  assert.equal(check(0, READ_ONLY * PAGE, true), true)
  assert.equal(check(0, READ_ONLY * PAGE + 1, true), false)
  assert.equal(check((READ_ONLY + 1) * PAGE, 4 * PAGE, true), true)
  assert.equal(check(100, 1, true), true)
  assert.equal(space.check(0, 0, 0, true), true, 'an empty range is valid everywhere')
  assert.equal(space.check(0, UNMAPPED, 1, false), false)
  assert.equal(space.check(0x7fff, 0xfffff000, 2 * PAGE, false), false, 'beyond the end of user space')
  assert.equal(space.check(0xffffffff, 0xfffff000, PAGE, false), false, 'the last page of the address space')
  assert.equal(check(0, 2 ** 50, false), false)
  space.close()
  closeProcess(handle)
})

test("answers are not stored in a guest's read-only pages", async t => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE, protect: READ_ONLY * PAGE, protection: PROT_READ })
  const handle = openProcess(peer.pid, { guestUid: 1000 }) as ProcessHandle
  assert.ok('pid' in handle)
  const space = new ProcessSpace(handle, () => 0)
  t.after(() => {
    space.close()
    closeProcess(handle)
  })
  if (!space.ignoresProtection) return t.skip('needs Linux 6.11')
  const at = BigInt(address + READ_ONLY * PAGE)
  const before = space.copyIn(at - 8n, 16)
  assert.throws(() => space.copyOut(at, new Uint8Array(8)), /not accessible memory/)
  assert.throws(() => space.copyOut(at - 8n, new Uint8Array(16)), /not accessible memory/)
  assert.deepEqual(space.copyIn(at - 8n, 16), before)
  space.copyOut(at - 8n, new Uint8Array(8))
  assert.deepEqual(space.copyIn(at - 8n, 8), new Uint8Array(8))
})

test('copies are strided and obey page protection', async () => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE, protect: READ_ONLY * PAGE, protection: PROT_READ })
  const { space, handle } = spaceOf(peer.pid)
  const local = mapArena(8 * PAGE)
  assert.equal(readSpace(space, address, local, { chunk: 100, stride: 200, total: 250 }), 0)
  for (const [localOffset, peerOffset] of [
    [0, 0],
    [200, 100],
    [449, 249],
  ] as const)
    assert.equal(local.bytes[localOffset], peerOffset % 251)
  const readOnlyPage = address + READ_ONLY * PAGE
  assert.equal(writeSpace(space, readOnlyPage - 8, local, { total: 8 }), 0)
  assert.equal(writeSpace(space, readOnlyPage - 8, local, { total: 16 }), Errno.EFAULT)
  assert.equal(writeSpace(space, readOnlyPage, local, { total: 8 }), Errno.EFAULT)
  space.close()
  closeProcess(handle)
})

test('compare-and-swap and fetch-and-add work on 64 bits, and obey page protection', async () => {
  const { address } = await peer.request('arena', { bytes: 8 * PAGE, protect: READ_ONLY * PAGE, protection: PROT_READ })
  const { space, handle } = spaceOf(peer.pid)
  const local = mapArena(PAGE)
  local.view.setBigUint64(0, 0x7_ffff_ffffn, true)
  assert.equal(writeSpace(space, address, local, { total: 8 }), 0)
  const word = async (): Promise<bigint> =>
    Buffer.from((await peer.request('read', { offset: 0, length: 8 })).bytes).readBigUInt64LE()
  assert.equal(fetchAdd(space, address, 0xffff_ffff_0000_0001n), 0x7_ffff_ffffn)
  assert.equal(await word(), 0x7_0000_0000n, '64-bit sum with carry, modulo 2^64')
  assert.equal(compareSwap(space, address, 0x7_0000_0001n, 0x9_0000_0009n), 0x7_0000_0000n)
  assert.equal(await word(), 0x7_0000_0000n, 'with another value the word is unchanged')
  assert.equal(compareSwap(space, address, 0x7_0000_0000n, 0xfedc_ba98_7654_3210n), 0x7_0000_0000n)
  assert.equal(await word(), 0xfedc_ba98_7654_3210n)
  assert.equal(fetchAdd(space, address, 0x1_0000_0010n), 0xfedc_ba98_7654_3210n)
  assert.equal(await word(), 0xfedc_ba99_7654_3220n, 'without carry')
  assert.equal(compareSwap(space, address, 0n, 0n), 0xfedc_ba99_7654_3220n)
  assert.equal(compareSwap(space, UNMAPPED, 0n, 0n), Errno.EFAULT)
  assert.equal(fetchAdd(space, UNMAPPED, 1n), Errno.EFAULT)
  assert.equal(fetchAdd(space, address + READ_ONLY * PAGE, 1n), Errno.EFAULT)
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
  const read = (): number => readSpace(space, address, local, { total: 8 })
  assert.equal(read(), 0)
  await other.kill()
  assert.equal(read(), Errno.ESRCH)
  turn++
  assert.equal(read(), Errno.ESRCH)
  assert.equal(writeSpace(space, address, local, { total: 8 }), Errno.ESRCH)
  assert.equal(fetchAdd(space, address, 1n), Errno.ESRCH)
  assert.equal(space.check(...halves(address), 8, false), false)
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
  const read = (): number => readSpace(space, address, local, { total: 8 })
  assert.equal(read(), 0)
  assert.equal(space.check(...halves(address), 8, true), true)
  await other.kill()
  turn++
  assert.equal(read(), Errno.ESRCH)
  assert.equal(writeSpace(space, address, local, { total: 8 }), Errno.ESRCH)
  assert.equal(space.check(...halves(address), 8, true), false)
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
  assert.equal(readSpace(space, address, mapArena(PAGE), { total: 8 }), 0)
  assert.equal(space.check(...halves(address), 8, true), true)
  // The second call has no effect.
  space.close()
  space.close()
  assert.equal(readSpace(space, address, mapArena(PAGE), { total: 8 }), Errno.ESRCH)
  assert.throws(() => space.copyOut(BigInt(address), new Uint8Array(1)), { code: 'EFAULT' })
  assert.equal(space.check(...halves(address), 8, true), false)
  closeProcess(handle)
  assert.equal(descriptors(), before)
})

test('mappings are queried in each turn', async () => {
  let turn = 0
  const { space, handle } = spaceOf(peer.pid, () => turn)
  assert.equal(space.check(0, UNMAPPED, 1, false), false)
  const { address } = await peer.request('arena', { bytes: 4 * PAGE })
  const isMapped = () => space.check(...halves(address), 4 * PAGE, true)
  turn++
  assert.equal(isMapped(), true)
  space.close()
  closeProcess(handle)
})
