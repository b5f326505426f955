/*
 * Root's daemon accesses the memory of another user's program only in the address space that connected, and only while
 * that user could access it too. An exec replaces the address space.
 */
import assert from 'node:assert/strict'
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, closeSync, copyFileSync, existsSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { after, test } from 'node:test'
import { EFAULT, EPERM, ESRCH, SystemError } from '../../src/host/errno.ts'
import { nativeLibraryPath } from '../../src/host/library.ts'
import { mapArena } from '../../src/host/memory/mapping.ts'
import { createMemfd } from '../../src/host/memory/memfd.ts'
import { createMoves } from '../../src/host/memory/moves.ts'
import {
  closeProcess,
  fdFile,
  isSame,
  isStillOwned,
  mayAccess,
  openProcess,
  type ProcessHandle,
  pidfdGetfd,
  readAt,
} from '../../src/host/memory/process.ts'
import { needsOwner, openOwner } from '../../src/host/owner.ts'
import { repoRoot } from '../paths.ts'
import { takeDescriptors } from '../soft-limits.ts'
import { halves, onePiece, writeAt } from './copy-arguments.ts'

const NOBODY = 65534
/**
 * The page that test/programs/failures/identity.c maps. The client fills it with 'c', the program after exec with 's'.
 */
const ADDRESS = 0x20_0000_0000
const PAGE = 4096
const program = join(repoRoot, 'build', 'programs', 'identity')
const skip =
  (process.getuid?.() !== 0 && 'needs root: a program of another user is served') ||
  (!existsSync(program) && 'build/programs/identity was not built') ||
  (!needsOwner(NOBODY) && 'root has no CAP_SYS_PTRACE here: the kernel refuses other users by itself')

const folder = mkdtempSync('/tmp/userdma-owner-')
chmodSync(folder, 0o755)
const children = new Set<ChildProcessByStdio<Writable, Readable, null>>()
after(() => {
  for (const child of children) {
    child.stdin.destroy()
    child.kill('SIGKILL')
  }
  rmSync(folder, { recursive: true, force: true })
})

const local = mapArena(PAGE)

/** A copy of the program, with file mode `mode`. */
const copyOf = (name: string, mode: number): string => {
  const path = join(folder, name)
  if (!existsSync(path)) copyFileSync(program, path)
  chmodSync(path, mode)
  return path
}

const startClient = (...args: string[]) => {
  const child: ChildProcessByStdio<Writable, Readable, null> = spawn(copyOf('identity', 0o755), args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    uid: NOBODY,
    gid: NOBODY,
    cwd: '/',
  })
  children.add(child)
  child.once('exit', () => children.delete(child))
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  return { child, pid: child.pid ?? 0, next: async (): Promise<string> => (await lines.next()).value ?? '(ended)' }
}

const openClient = (pid: number): ProcessHandle => {
  const handle = openProcess(pid, { owner: { uid: NOBODY, gid: NOBODY } })
  if (!('pid' in handle)) throw handle
  return handle
}

for (const [clientOption, name, mode] of [
  ['keep', 'a set-uid program, the address space kept alive', 0o4755],
  ['', 'a set-uid program', 0o4755],
  ['', 'a set-gid program', 0o2755],
  ['', 'a program that may be executed and not read', 0o711],
] as const) {
  test(`40 clients become ${name}: none of its bytes is read or written`, { skip }, async context => {
    const path = copyOf(`victim-${mode.toString(8)}`, mode)
    for (let i = 0; i < 40; i++) {
      const client = startClient(...['client', clientOption, path].filter(arg => arg !== ''))
      assert.equal(await client.next(), 'ready')
      const handle = openClient(client.pid)
      assert.equal(readAt(handle, ADDRESS, local, 0, PAGE), PAGE)
      assert.equal(local.bytes[5], 'c'.charCodeAt(0))
      let output: string | undefined
      client.next().then(line => {
        output = line
      })
      client.child.stdin.write('go\n')
      // Accesses during and after the exec.
      for (let roundsAfterExec = 0; roundsAfterExec < 20; ) {
        const moved = readAt(handle, ADDRESS, local, 0, PAGE)
        if (moved > 0) assert.notEqual(local.bytes[0], 's'.charCodeAt(0), 'read')
        local.bytes.fill('w'.charCodeAt(0))
        writeAt(handle, ADDRESS, local, 0, PAGE)
        await new Promise(setImmediate)
        if (output !== undefined) roundsAfterExec++
      }
      assert.match(String(output), /^victim/)
      // The program after exec prints its effective UID.
      if (mode === 0o4755 && output !== 'victim 0') {
        closeProcess(handle)
        context.skip(`${folder} is on a file system without set-uid programs`)
        return
      }
      assert.equal(isStillOwned(handle), false)
      assert.equal(isSame(handle), false)
      assert.equal(pidfdGetfd(handle, 0), -EPERM)
      assert.equal(fdFile(handle, 0), undefined)
      // A client that connected before the exec, and is opened after it.
      const late = openClient(client.pid)
      assert.equal(mayAccess(late), false)
      assert.equal(readAt(late, ADDRESS, local, 0, 8), -EPERM)
      closeProcess(late)
      client.child.stdin.end()
      assert.equal(await client.next(), 'intact', 'the page of the program after exec')
      closeProcess(handle)
    }
  })
}

test('a non-dumpable program is inaccessible, as for its own user', { skip }, async () => {
  const client = startClient('alone')
  assert.equal(await client.next(), 'ready')
  const handle = openClient(client.pid)
  assert.equal(mayAccess(handle), true)
  assert.equal(isSame(handle), true)
  client.child.stdin.write('off\n')
  assert.equal(await client.next(), 'done')
  assert.equal(isSame(handle), false)
  assert.equal(mayAccess(handle), false)
  const other = openClient(client.pid)
  assert.equal(mayAccess(other), false)
  closeProcess(other)
  client.child.stdin.write('on\n')
  assert.equal(await client.next(), 'done')
  assert.equal(isSame(handle), true)
  client.child.stdin.end()
  await once(client.child, 'exit')
  assert.equal(isSame(handle), false)
  closeProcess(handle)
})

test('a guest whose memory was refused stays refused, and its addresses are not offsets in files opened later', {
  skip: skip || (nativeLibraryPath() === undefined && 'the native library was not built'),
}, async () => {
  const client = startClient('alone')
  assert.equal(await client.next(), 'ready')
  client.child.stdin.write('off\n')
  assert.equal(await client.next(), 'done')
  const handle = openProcess(client.pid, { owner: { uid: NOBODY, gid: NOBODY }, guestUid: NOBODY })
  assert.ok(!(handle instanceof SystemError))
  // Files of another client, opened later, have bytes at the offset ADDRESS.
  const files = Array.from({ length: 8 }, () => createMemfd('other', ADDRESS + PAGE))
  for (const fd of files) writeSync(fd, 'secret', ADDRESS)
  client.child.stdin.write('on\n')
  assert.equal(await client.next(), 'done')
  const moves = createMoves(handle)
  const now = 0
  assert.equal(moves.read(...halves(ADDRESS), local, ...onePiece(PAGE), now), -EPERM)
  assert.equal(moves.write(...halves(ADDRESS), local, ...onePiece(PAGE), now), -EPERM)
  moves.close()
  closeProcess(handle)
  for (const fd of files) closeSync(fd)
  client.child.stdin.end()
  await once(client.child, 'exit')
})

test('a copy through /proc/PID/mem ends with the mapping, is -EFAULT at an unmapped address, -ESRCH after exit', {
  skip,
}, async () => {
  const client = startClient('alone')
  assert.equal(await client.next(), 'ready')
  const handle = openClient(client.pid)
  local.bytes.fill(7, 0, 100)
  assert.equal(writeAt(handle, ADDRESS + PAGE - 60, local, 0, 100), 60, 'up to the end of the mapping')
  assert.equal(readAt(handle, ADDRESS + PAGE - 60, local, 200, 60), 60)
  assert.ok(local.bytes.subarray(200, 260).every(byte => byte === 7))
  assert.equal(readAt(handle, 0x1000, local, 0, 8), -EFAULT)
  assert.equal(writeAt(handle, 0x1000, local, 0, 8), -EFAULT)
  client.child.stdin.end()
  await once(client.child, 'exit')
  assert.equal(readAt(handle, ADDRESS, local, 0, 8), -ESRCH)
  closeProcess(handle)
})

/** Runs `body` while no descriptor is free. */
const withoutDescriptors = (body: () => void): void => {
  const taken = takeDescriptors()
  try {
    body()
  } finally {
    taken.release()
  }
}

test('openOwner fails if the process does not exist, or if no descriptor is free', () => {
  const own = openOwner(process.pid, 0, 0)
  assert.ok(!(own instanceof SystemError))
  const maxPid = 2 ** 22
  const absent = openOwner(maxPid + 1, 0, 0)
  assert.ok(absent instanceof SystemError)
  assert.deepEqual([absent.code, absent.message], ['ESRCH', `open: ESRCH: /proc/${maxPid + 1}/ns`])
  withoutDescriptors(() => {
    const full = openOwner(process.pid, 0, 0)
    assert.ok(full instanceof SystemError)
    assert.equal(full.code, 'EMFILE')
    const handle = openProcess(process.pid, { pidfd: own.fd, owner: { uid: 0, gid: 0 } })
    assert.ok(handle instanceof SystemError)
    assert.equal(handle.code, 'EMFILE')
  })
})

test('openProcess fails if no descriptor is free for the memory: without one, an exec is not noticed', () => {
  const pidfd = openSync('/dev/null', 'r') // any descriptor
  withoutDescriptors(() => {
    const handle = openProcess(process.pid, { pidfd })
    assert.ok(handle instanceof SystemError)
    assert.deepEqual([handle.code, handle.message], ['EMFILE', `open: EMFILE: /proc/${process.pid}/mem`])
  })
})
