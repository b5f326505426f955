/*
 * Shared mappings of disk files are distinguished from shared mappings of memory files.
 */
import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileMappings } from '../../../src/host/memory/file-mappings.ts'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import { mappingAt } from '../../../src/host/memory/ranges.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { repoRoot } from '../../paths.ts'

const sys = libcFunctions({
  mmap: 'int64_t mmap(int64_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  munmap: 'int munmap(int64_t address, uint64_t length)',
})
const PROT_READ_WRITE = 3
const MAP_SHARED = 1
const PAGE = 4096
/** Times, in microseconds. */
const START = 0
const SECOND = 1_000_000
/** File systems on disks: ext, XFS, btrfs. */
const ON_DISK = new Set([0xef53, 0x58465342, 0x9123683e])
const skip = !ON_DISK.has(statfsSync(repoRoot).type) && `${repoRoot} is not on ext4, XFS or btrfs`

for (const [method, query] of [
  ['by PROCMAP_QUERY', mappingAt],
  ['by the text of the maps file', (): 'unsupported' => 'unsupported'],
] as const)
  test(`writes to mappings of disk files may wait, writes to mappings of memory files do not (${method})`, {
    skip,
  }, t => {
    const folder = mkdtempSync(join(repoRoot, 'build', 'mapped-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const path = join(folder, 'file')
    writeFileSync(path, Buffer.alloc(2 * PAGE))
    const files = [openSync(path, 'r+'), createMemfd('mapped', 2 * PAGE)]
    const addresses = files.map(fd => sys().mmap(0, 2 * PAGE, PROT_READ_WRITE, MAP_SHARED, fd, 0))
    const mappings = fileMappings(process.pid, query)
    const mayWait = addresses.map(address => mappings.mayWait(address + 100, address + PAGE + 100, START))
    assert.deepEqual(mayWait, [true, false])
    const [diskAddress = 0] = addresses
    assert.equal(mappings.mayWait(diskAddress + PAGE, diskAddress + PAGE + 1, START), true, 'a part of the mapping')
    assert.equal(mappings.mayWait(0x1000, 0x2000, START), false, 'nothing is mapped there')
    for (const address of addresses) sys().munmap(address, 2 * PAGE)
    // results are valid for a second, or for a hundred times as long as the maps file was read
    assert.equal(mappings.mayWait(diskAddress, diskAddress + 1, 600 * SECOND), false, 'unmapped since')
    mappings.close()
    for (const fd of files) closeSync(fd)
  })

/** The number, as 8:1, of the first mounted device whose file system is not in memory. */
const [device = ''] = readFileSync('/proc/self/mountinfo', 'latin1')
  .split('\n')
  .filter(line => / - (?!tmpfs|ramfs|hugetlbfs|devtmpfs)/.test(line))
  .map(line => line.split(' ')[2] ?? '')

test('a mapping is queried once in a second, then again; its former range no longer counts', () => {
  let queries = 0
  let mapping: { start: number; end: number } | undefined = { start: 4 * PAGE, end: 8 * PAGE }
  const openFiles = (): number => readdirSync('/proc/self/fd').length
  const before = openFiles()
  const mappings = fileMappings(process.pid, (_, address) => {
    queries++
    const isInside = mapping !== undefined && mapping.start <= address && address < mapping.end
    return isInside ? { ...mapping!, device, isShared: true } : undefined
  })
  assert.equal(mappings.mayWait(4 * PAGE, 5 * PAGE, START), true)
  assert.equal(mappings.mayWait(8 * PAGE - 1, 8 * PAGE, SECOND), true)
  assert.equal(queries, 1)
  assert.equal(mappings.mayWait(8 * PAGE, 9 * PAGE, SECOND), false, 'after the end')
  assert.equal(mappings.mayWait(3 * PAGE, 4 * PAGE, SECOND), false, 'before the start')
  assert.equal(queries, 3)
  mapping = { start: 4 * PAGE, end: 6 * PAGE }
  assert.equal(mappings.mayWait(4 * PAGE, 5 * PAGE, SECOND + 1), true)
  assert.equal(queries, 4)
  assert.equal(mappings.mayWait(6 * PAGE, 7 * PAGE, SECOND + 1), false)
  mappings.close()
  assert.equal(openFiles(), before)
})

test('a disk file is found as the first of very many mappings in a range', () => {
  const MAPPINGS = 200
  const mappings = fileMappings(process.pid, (_, address) => {
    const start = address - (address % PAGE)
    return { start, end: start + PAGE, device, isShared: start === 0 }
  })
  assert.equal(mappings.mayWait(0, MAPPINGS * PAGE, START), true)
  assert.equal(mappings.mayWait(PAGE, MAPPINGS * PAGE, START), false, 'the other mappings')
  mappings.close()
})
