/*
 * Handles of other processes: their memory, descriptors and names.
 */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { EBADF, EFAULT, EPERM, ESRCH, SystemError } from '../../../src/host/errno.ts'
import { type Arena, mapArena } from '../../../src/host/memory/mapping.ts'
import { fileIdentity } from '../../../src/host/memory/memfd.ts'
import {
  closeProcess,
  fdTarget,
  isSame,
  mayAccess,
  openProcess,
  type ProcessHandle,
  pidfdGetfd,
  procFolder,
  readAt,
  readv,
  searchFd,
  writev,
} from '../../../src/host/memory/process.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { commandName, hasCapability } from '../../../src/host/process-status.ts'
import { repoRoot } from '../../paths.ts'
import { requireTool } from '../../tools.ts'
import { halves, onePiece, writeAt } from '../copy-arguments.ts'
import { startPeer } from '../peer-control.ts'

const SIZE = 1 << 20
const PAGE = 4096
/** Offset of the peer's read-only page. */
const READ_ONLY = 4 * PAGE
const local: Arena = mapArena(SIZE)
const peer = startPeer()
let handle: ProcessHandle
let remote = 0

const opened = (pid: number): ProcessHandle => {
  const result = openProcess(pid)
  if (result instanceof SystemError) throw result
  return result
}

/** A system call copies at most this many elements. */
const MAX_ELEMENTS = 1024

/** The initial byte at an offset of the peer's arena (peer.ts). */
const initialByte = (offset: number): number => offset % 251
/** Writes the peer's initial bytes again. */
const restore = (offset: number, length: number): void => {
  for (let i = 0; i < length; i++) local.bytes[i] = initialByte(offset + i)
  writeAt(handle, remote + offset, local, 0, length)
}

before(async () => {
  remote = (await peer.request('arena', { bytes: SIZE, protect: READ_ONLY })).address
  handle = opened(peer.pid)
})

after(async () => {
  closeProcess(handle)
  await peer.kill()
})

test("another process's memory can be read and written", async () => {
  assert.equal(readAt(handle, remote + 1000, local, 64, 300), 300)
  for (let i = 0; i < 300; i++) assert.equal(local.bytes[64 + i], initialByte(1000 + i))
  local.bytes.set([9, 8, 7], 0)
  assert.equal(writeAt(handle, remote + 10, local, 0, 3), 3)
  assert.deepEqual((await peer.request('read', { offset: 9, length: 5 })).bytes, [
    initialByte(9),
    9,
    8,
    7,
    initialByte(13),
  ])
  restore(10, 3)
})

test('a read fills elements of any size, gap and number', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300 }),
      fc.integer({ min: 0, max: 100 }),
      fc.integer({ min: 0, max: 60000 }),
      fc.integer({ min: 0, max: 5000 }),
      fc.integer({ min: 0, max: 5000 }),
      (chunk, gap, total, offset, from) => {
        const stride = chunk + gap
        fc.pre(offset + Math.ceil(total / chunk) * stride <= SIZE)
        local.bytes.fill(255)
        assert.equal(readv(handle, ...halves(remote + from), local, offset, chunk, stride, total), total)
        const expected = new Uint8Array(SIZE).fill(255)
        for (let i = 0; i < total; i++)
          expected[offset + Math.floor(i / chunk) * stride + (i % chunk)] = initialByte(from + i)
        assert.ok(Buffer.from(local.buffer).equals(expected))
      },
    ),
    {
      numRuns: 60,
      examples: [
        [1, 1, 3000, 0, 0],
        [64, 0, 50000, 8, 1],
        [16, 16, 16 * MAX_ELEMENTS, 0, 0],
        [16, 16, 16 * (MAX_ELEMENTS + 1), 0, 0],
      ],
    },
  )
})

test('a write gathers elements, with more than one system call', async () => {
  const [chunk, stride, count, at] = [3, 7, 2500, 8 * PAGE]
  for (let i = 0; i < SIZE; i++) local.bytes[i] = i % 253
  const total = count * chunk - 1
  assert.equal(writev(handle, ...halves(remote + at), local, 5, chunk, stride, total), total)
  const { bytes } = await peer.request('read', { offset: at, length: count * chunk })
  const expected = bytes.map((_, i) => (5 + Math.floor(i / chunk) * stride + (i % chunk)) % 253)
  // `total` ends before the last byte.
  expected[expected.length - 1] = initialByte(at + expected.length - 1)
  assert.deepEqual(bytes, expected)
  restore(at, count * chunk)
})

test('a copy through /proc/PID/mem (a handle with an owner) ends with the last element', async () => {
  const owned = openProcess(peer.pid, { owner: { uid: process.getuid?.() ?? -1, gid: process.getgid?.() ?? -1 } })
  assert.ok(!(owned instanceof SystemError))
  // The third and last element has 3 bytes.
  const [chunk, stride, total, at] = [8, 16, 8 * 3 - 5, 8 * PAGE]
  local.bytes.fill(255)
  assert.equal(readv(owned, ...halves(remote + at), local, 0, chunk, stride, total), total)
  const end = 2 * stride + (total - 2 * chunk)
  assert.deepEqual([...local.bytes.subarray(end - 1, end + 7)], [initialByte(at + total - 1), ...Array(7).fill(255)])
  assert.equal(writev(owned, ...halves(remote + at), local, 0, chunk, stride, total), total)
  const assertInitial = async (offset: number): Promise<void> => {
    const { bytes } = await peer.request('read', { offset, length: 32 })
    assert.deepEqual(
      bytes,
      bytes.map((_, i) => initialByte(offset + i)),
    )
  }
  await assertInitial(at)
  // Also if the last element is in a second system call.
  const long = MAX_ELEMENTS * chunk + 3
  const start = READ_ONLY - long
  assert.equal(writev(owned, ...halves(remote + start), local, 0, chunk, stride, long), long)
  await assertInitial(READ_ONLY)
  restore(start, long)
  closeProcess(owned)
})

test('a copy to a page without permission is -EFAULT, and a copy that begins before the page ends there', async () => {
  local.bytes.fill(1)
  assert.equal(writeAt(handle, remote + READ_ONLY, local, 0, 8), -EFAULT)
  assert.equal(readAt(handle, remote + READ_ONLY, local, 0, 8), 8)
  local.bytes.fill(1)
  assert.equal(writeAt(handle, remote + READ_ONLY - 100, local, 0, 300), 100)
  const from = READ_ONLY - 101
  const { bytes } = await peer.request('read', { offset: from, length: 103 })
  const expected = [initialByte(from), ...new Array(100).fill(1), initialByte(READ_ONLY), initialByte(READ_ONLY + 1)]
  assert.deepEqual(bytes, expected)
  // The fault is in the second system call, after 100 bytes or at the first byte. The bytes before it are counted.
  const [chunk, stride] = [2, 4]
  const firstCall = MAX_ELEMENTS * chunk
  for (const before of [firstCall + 100, firstCall]) {
    const to = remote + READ_ONLY - before
    assert.equal(writev(handle, ...halves(to), local, 0, chunk, stride, before + 50), before)
  }
  restore(READ_ONLY - firstCall - 100, firstCall + 100)
})

test('a copy at an unmapped address is -EFAULT, up to the last address', () => {
  assert.equal(readAt(handle, 0, local, 0, 8), -EFAULT)
  assert.equal(readv(handle, 0xffffffff, 0xfffffff8, local, ...onePiece(8)), -EFAULT)
  assert.equal(readv(handle, 0xffffffff, 0xffffffff, local, ...onePiece(8)), -EFAULT)
  assert.equal(readv(handle, -1, -8, local, ...onePiece(8)), -EFAULT)
})

test('a copy may cross address 2^32', t => {
  const sys = libcFunctions({
    mmap: 'int64_t mmap(int64_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  })
  const PROT_READ_WRITE = 3
  const MAP_PRIVATE_ANONYMOUS = 0x22
  const MAP_FIXED_NOREPLACE = 0x100000
  const at = 2 ** 32 - PAGE
  if (sys().mmap(at, 2 * PAGE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !== at) {
    t.skip('the addresses are in use')
    return
  }
  const own = opened(process.pid)
  for (let i = 0; i < 3000; i++) local.bytes[2 * i] = i % 241
  const low = 2 ** 32 - 1030
  assert.equal(writev(own, 0, low, local, 0, 1, 2, 3000), 3000)
  local.bytes.fill(0)
  assert.equal(readv(own, 0, low, local, ...onePiece(3000)), 3000)
  for (let i = 0; i < 3000; i++) assert.equal(local.bytes[i], i % 241)
  closeProcess(own)
})

test('a copy of zero bytes returns 0, and elements outside the arena throw a RangeError', () => {
  assert.equal(readv(handle, 0, 0, local, 0, 0, 0, 0), 0)
  const refused: [at: number, chunk: number, stride: number, total: number][] = [
    [SIZE - 7, 8, 8, 8],
    [-1, 8, 8, 8],
    [0, 8, 4, 16],
    [0, 0, 8, 16],
    [0, 8, SIZE, 16],
    [0, Number.NaN, 8, 8],
  ]
  for (const args of refused)
    assert.throws(() => readv(handle, ...halves(remote), local, ...args), RangeError, String(args))
  assert.equal(readv(handle, ...halves(remote), local, SIZE - 8, 4, 4, 8), 8)
})

test('this process can read its own memory', () => {
  const own = opened(process.pid)
  const other = mapArena(PAGE)
  other.bytes.set([1, 2, 3])
  assert.equal(isSame(own), true)
  assert.equal(readAt(own, other.address, local, 0, 3), 3)
  assert.deepEqual([...local.bytes.subarray(0, 3)], [1, 2, 3])
  closeProcess(own)
})

/** The result of a search in one slice. */
const found = (target: string): number | undefined => {
  const { done, value } = searchFd(peer.pid, target).next()
  assert.ok(done)
  return value
}

test("another process's descriptors can be duplicated, named and found", async () => {
  const { fd, ino } = await peer.request('file', { text: 'content' })
  const duplicate = pidfdGetfd(handle, fd)
  assert.equal(fileIdentity(duplicate).ino, ino)
  closeSync(duplicate)
  assert.equal(pidfdGetfd(handle, 9999), -EBADF)
  assert.equal(fdTarget(peer.pid, fd), '/memfd:peer (deleted)')
  assert.equal(found('/memfd:peer (deleted)'), fd)
  const absent = fdTarget(peer.pid, 9999)
  assert.ok(absent instanceof SystemError && absent.code === 'ENOENT')
  assert.equal(found('socket:[0]'), undefined)
  assert.equal(commandName(peer.pid), commandName(process.pid))
})

test("another user's process can be opened, and the kernel refuses access to it", {
  skip: process.getuid?.() === 0 && 'root may',
}, () => {
  const init = opened(1)
  assert.equal(init.mem, -1, 'its /proc/PID/mem cannot be opened')
  assert.equal(isSame(init), true)
  assert.equal(readAt(init, remote, local, 0, 8), -EPERM)
  assert.equal(pidfdGetfd(init, 0), -EPERM)
  const target = fdTarget(1, 0)
  assert.ok(target instanceof SystemError && target.code === 'EACCES')
  closeProcess(init)
})

test('a process whose memory was opened can be copied after the kernel refuses access by its pid', t => {
  // As another user than root. Process 1 stands for one that has become undumpable, or has permitted another tracer.
  const isRoot = process.getuid?.() === 0
  if (isRoot && !requireTool('setpriv', t)) return
  const folder = new URL('../../../src/host/memory/', import.meta.url).href
  const script = `
    const { openProcess, readAt } = await import('${folder}process.js')
    const { mapArena } = await import('${folder}mapping.js')
    const [from, to] = [mapArena(4096), mapArena(4096)]
    from.bytes[0] = 7
    const refused = { ...openProcess(process.pid), pid: 1 }
    console.log(readAt({ ...refused, mem: -1 }, from.address, to, 0, 1), readAt(refused, from.address, to, 0, 1), to.bytes[0])`
  const node = [process.execPath, '--input-type=module', '-e', script]
  const command = isRoot ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', ...node] : node
  const { stdout, stderr } = spawnSync(command[0]!, command.slice(1), { encoding: 'utf8', cwd: '/' })
  // a file in a folder that a user may not search does not exist for Node's resolver
  if (/EACCES|ERR_MODULE_NOT_FOUND/.test(stderr)) return void t.skip('another user may not read the compiled files')
  assert.equal(stdout, `${-EPERM} 1 7\n`, stderr)
})

test('mayAccess is true for a process of this user, and false for one of another user, unless this user is root', () => {
  assert.equal(mayAccess(handle), true)
  const own = opened(process.pid)
  assert.equal(mayAccess(own), true)
  closeProcess(own)
  if (process.getuid?.() === 0) return
  const init = opened(1)
  assert.equal(mayAccess(init), false)
  closeProcess(init)
})

test('isSame is false for a dead process, which cannot be opened, read or queried', async () => {
  const killed = startPeer()
  const { address } = await killed.request('arena', { bytes: PAGE })
  const held = opened(killed.pid)
  assert.equal(isSame(held), true)
  await killed.kill()
  assert.equal(isSame(held), false)
  assert.equal(isSame({ ...held, mem: -1 }), false)
  assert.equal(readAt(held, address, local, 0, 8), -ESRCH)
  assert.equal(pidfdGetfd(held, 0), -ESRCH)
  assert.equal(commandName(killed.pid), undefined)
  const again = openProcess(killed.pid)
  assert.ok(again instanceof SystemError && again.code === 'ESRCH')
  closeProcess(held)
})

test('isSame is false after exec', async () => {
  const child = spawn('sh', ['-c', 'echo ready; read line; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  const held = opened(child.pid ?? 0)
  assert.equal(isSame(held), true)
  child.stdin.write('go\necho\n')
  // cat's echo shows that exec has happened
  await once(child.stdout, 'data')
  assert.equal(isSame(held), false)
  closeProcess(held)
  const exit = once(child, 'exit')
  child.stdin.end()
  await exit
})

const identity = join(repoRoot, 'build', 'programs', 'identity')
/** Milliseconds of the fastest of ten calls. */
const fastest = (call: () => void): number =>
  Math.min(
    ...Array.from({ length: 10 }, () => {
      const begin = performance.now()
      call()
      return performance.now() - begin
    }),
  )

test('a process whose main thread has ended is found by another thread, without a search of all threads', {
  skip: !existsSync(identity) && 'build/programs/identity was not built',
}, async t => {
  const child = spawn(identity, ['threads', '8000'], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const pid = child.pid!
  const [started] = await once(child.stdout, 'data')
  while (!/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))) await new Promise(setImmediate)
  assert.match(procFolder(pid), new RegExp(`^/proc/${pid}/task/(?!${pid}$)\\d+$`))
  assert.match(String(fdTarget(pid, 1)), /^(pipe|socket):/)
  if (Number(started) < 4000) return
  const all = fastest(() => readdirSync(`/proc/${pid}/task`))
  const one = fastest(() => procFolder(pid))
  assert.ok(one < all / 2, `${one} ms, and ${all} ms for all threads`)
})

test('hasCapability agrees with /proc/PID/status, and is false for a pid without a process', () => {
  const capabilities = BigInt(`0x${/CapEff:\s*([0-9a-f]+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]}`)
  const LAST_CAPABILITY = 40
  for (let number = 0; number <= LAST_CAPABILITY; number++)
    assert.equal(hasCapability(process.pid, number), ((capabilities >> BigInt(number)) & 1n) === 1n)
  assert.equal(hasCapability(0x7fffffff, 0), false)
})

test('a closed handle gives no descriptors of another process whose pidfd has the same number', async t => {
  const other = spawn('sleep', ['1000'], { stdio: ['pipe', 'ignore', 'ignore'] })
  t.after(() => other.kill('SIGKILL'))
  await once(other, 'spawn')
  const closed = opened(peer.pid)
  closeProcess(closed)
  const reusing = opened(other.pid!)
  assert.equal(reusing.pidfd, closed.pidfd)
  assert.equal(pidfdGetfd(closed, 0), -ESRCH)
  closeProcess(reusing)
})

test('a process without a pid in our namespace is not accessible', () => {
  const visible = opened(peer.pid)
  assert.equal(mayAccess(visible), true)
  // The kernel reports pid 0 as the peer of a socket.
  const hidden = openProcess(0, { pidfd: visible.pidfd })
  assert.ok('pidfd' in hidden)
  assert.equal(mayAccess(hidden), false)
  closeProcess(visible)
})
