/*
 * The registered ranges of a program: the end of its userfaultfd, and very many mappings.
 */
import assert from 'node:assert/strict'
import { fstatSync, openSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { RegisteredRanges } from '../../../src/daemon/memory/registered-ranges.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { startPeer } from '../../host/peer-control.ts'
import { until } from '../../tools.ts'

const isClosed = (fd: number): boolean => {
  try {
    fstatSync(fd)
    return false
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'EBADF')
    return true
  }
}

for (const hasEnded of [false, true])
  test(`a program that ${hasEnded ? 'has ended' : 'runs'} keeps one userfaultfd, which is closed with the ranges`, async t => {
    const peer = startPeer()
    t.after(() => peer.kill())
    const { pid } = peer
    // The answer shows that the process runs.
    await peer.request('arena', { bytes: 4096 })
    const handle = openProcess(pid) as ProcessHandle
    const ranges = new RegisteredRanges(handle)
    // /dev/null stands for a userfaultfd.
    const [fd, second] = [openSync('/dev/null', 'r'), openSync('/dev/null', 'r')]
    ranges.setUserfault(fd)
    ranges.setUserfault(second)
    await until(() => isClosed(second))
    fstatSync(fd)
    if (hasEnded) await peer.kill()
    ranges.close()
    await until(() => isClosed(fd))
    closeProcess(handle)
  })

const PAGE = 4096
const sys = libcFunctions({
  mmap: 'int64_t mmap(int64_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  mprotect: 'int mprotect(int64_t address, uint64_t length, int protection)',
  syscall: 'int64_t syscall(int64_t number, int64_t flags)',
})
const USERFAULTFD = process.arch === 'arm64' ? 282 : 323
const CLOEXEC_NONBLOCK_USER_MODE = 0x80801

/** The pages of this process's memory from `start` that a userfaultfd watches. */
const watchedPages = (start: number, pages: number): number[] => {
  const watched: number[] = []
  let at = 0
  for (const line of readFileSync('/proc/self/smaps', 'latin1').split('\n')) {
    const range = /^([0-9a-f]+)-[0-9a-f]+ /.exec(line)
    if (range) at = (Number.parseInt(range[1]!, 16) - start) / PAGE
    else if (/^VmFlags:.* uw/.test(line) && at >= 0 && at < pages) watched.push(at)
  }
  return watched
}

for (const isFound of [true, false])
  test(`memory of many mappings is watched slice by slice, and ${isFound ? 'stays so' : 'at its registration if it is refused first'}`, t => {
    const fd = Number(sys().syscall(USERFAULTFD, CLOEXEC_NONBLOCK_USER_MODE))
    if (fd < 0) return t.skip('this process may not create a userfaultfd')
    const pages = 12
    const start = sys().mmap(0, pages * PAGE, 1, 0x22, -1, 0)
    for (let i = 0; i < pages; i += 2) sys().mprotect(start + i * PAGE, PAGE, 3)
    const handle = openProcess(process.pid) as ProcessHandle
    const ranges = new RegisteredRanges(handle, { ignoreLimit: true })
    t.after(() => {
      ranges.close()
      closeProcess(handle)
    })
    ranges.setUserfault(fd)
    function* search(): Generator<number, boolean> {
      for (let reached = 4; reached < pages; reached += 4) yield start + reached * PAGE
      return isFound
    }
    const job = ranges.watching(start, pages * PAGE, search())
    const counts: number[] = []
    for (let result = job.next(); ; result = job.next()) {
      counts.push(watchedPages(start, pages).length)
      if (result.done) {
        assert.equal(result.value, isFound)
        break
      }
    }
    assert.deepEqual(counts, [4, 8, isFound ? pages : 8])
    ranges.register(start, pages * PAGE, () => {})
    assert.equal(watchedPages(start, pages).length, pages)
  })
