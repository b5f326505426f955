import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, readFileSync, readlinkSync } from 'node:fs'
import { test } from 'node:test'
import { createRingPool, mapArena } from '../../src/host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_SHRINK } from '../../src/host/memory/memfd.ts'
import { hasNative, libcFunctions } from '../../src/host/native.ts'
import {
  confinementOf,
  hasCapability,
  hasVariable,
  INITIAL_USER_NAMESPACE,
  isCopiedByFork,
  lockLimit,
  readDescriptors,
  roleOf,
} from '../../src/host/process-status.ts'
import { NOBODY, noGuests } from '../system/programs.ts'

const skip = !hasNative() && 'needs native calls'
const PAGE = 4096
/** No process has this pid. */
const UNUSED_PID = 2 ** 30
const sys = libcFunctions({ madvise: 'int madvise(int64_t address, uint64_t length, int advice)' })

test('isCopiedByFork is true for private memory, and undefined for an absent address or process', { skip }, () => {
  const arena = mapArena(PAGE)
  assert.equal(isCopiedByFork(process.pid, arena.address), true)
  assert.equal(isCopiedByFork(process.pid, 1), undefined)
  assert.equal(isCopiedByFork(UNUSED_PID, arena.address), undefined)
})

test('isCopiedByFork is false for shared memory, after MADV_DONTFORK, and after MADV_WIPEONFORK', { skip }, t => {
  const fd = createMemfd('shared', PAGE)
  t.after(() => closeSync(fd))
  addSeals(fd, SEAL_SHRINK)
  assert.equal(isCopiedByFork(process.pid, createRingPool().map(fd, 0, PAGE).address), false)
  const { address } = mapArena(4 * PAGE)
  const [MADV_DONTFORK, MADV_WIPEONFORK] = [10, 18]
  assert.equal(sys().madvise(address + PAGE, PAGE, MADV_DONTFORK), 0)
  assert.equal(sys().madvise(address + 3 * PAGE, PAGE, MADV_WIPEONFORK), 0)
  assert.deepEqual(
    [0, PAGE - 1, PAGE, 2 * PAGE - 1, 2 * PAGE, 3 * PAGE].map(at => isCopiedByFork(process.pid, address + at)),
    [true, true, false, false, true, false],
  )
})

test("nothing is read that waits for the address space of another user's process", {
  skip: skip || noGuests(),
}, async () => {
  const other = spawn('sh', ['-c', 'echo $$; exec cat'], {
    uid: NOBODY,
    env: { MARK: 'yes', PATH: process.env.PATH },
  })
  await once(other.stdout, 'data')
  const { pid } = other
  assert.deepEqual([roleOf(pid!), hasVariable(pid!, 'MARK'), readDescriptors(pid!).size], ['', false, 0])
  other.stdin.end()
  await once(other, 'close')
})

test('lockLimit is RLIMIT_MEMLOCK of the process in bytes, and infinite for an absent process', { skip }, async () => {
  const program = spawn('sh', ['-c', 'ulimit -l 48; echo; exec cat'])
  await once(program.stdout, 'data')
  assert.equal(lockLimit(program.pid!), 48 * 1024)
  program.stdin.end()
  await once(program, 'close')
  assert.equal(lockLimit(UNUSED_PID), Number.POSITIVE_INFINITY)
})

test('an absent process has no capability', () => {
  const CAP_LAST_CAP = 40
  for (let capability = 0; capability <= CAP_LAST_CAP; capability++)
    assert.deepEqual(
      [hasCapability(UNUSED_PID, capability), hasCapability(UNUSED_PID, capability, INITIAL_USER_NAMESPACE)],
      [false, false],
    )
})

test('readDescriptors tells what a process reads from, and nothing of an absent process', async () => {
  const program = spawn('cat')
  const target = readlinkSync(`/proc/${program.pid}/fd/0`)
  while (!readDescriptors(program.pid!).has(0)) await new Promise(setImmediate)
  assert.deepEqual([...readDescriptors(program.pid!)], [[0, target]])
  program.stdin.end()
  await once(program, 'close')
  assert.deepEqual([...readDescriptors(UNUSED_PID)], [])
})

test('a container that makes PID namespaces inside its own stays one', { skip }, async t => {
  const inside = ['--user', '--map-root-user', '--pid', '--fork', '--kill-child']
  const child = spawn('unshare', [...inside, 'unshare', ...inside, 'sh', '-c', 'echo ready; exec sleep 60'])
  t.after(() => child.kill('SIGKILL'))
  const [printed] = await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
  if (!Buffer.isBuffer(printed)) {
    t.skip('this machine does not let users make namespaces')
    return
  }
  const childOf = (pid: number): number => Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'))
  const outer = childOf(child.pid!)
  const [first, second] = [outer, childOf(outer)].map(confinementOf)
  assert.ok(first! > 0)
  assert.equal(second, first)
  assert.equal(confinementOf(process.pid), undefined)
})
