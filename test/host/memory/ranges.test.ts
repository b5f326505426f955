/*
 * The mappings of a process, queried by the text of its maps file and by ioctl.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { Guest } from '../../../src/host/memory/guest.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { mappedRanges, queriedRanges, Rights, SLICE, textRanges } from '../../../src/host/memory/ranges.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { startPeer } from '../peer-control.ts'

const PAGE = 4096
const PAGES = 8
/** Index of the read-only page. */
const READ_ONLY = 3
const OTHER_USER = 1234
const PROT = { READ: 1, WRITE: 2 } as const
const { READ, WRITE } = Rights
const peer = startPeer()
let base = 0

before(async () => {
  base = (await peer.request('arena', { bytes: PAGES * PAGE, protect: READ_ONLY * PAGE, protection: PROT.READ }))
    .address
})
after(() => peer.kill())

const guests: ProcessHandle[] = []
after(() => guests.forEach(closeProcess))
const guestOf = (pid: number): Guest | undefined => {
  const handle = openProcess(pid, { guestUid: OTHER_USER })
  assert.ok('pid' in handle)
  guests.push(handle)
  return handle.guest
}

const readers = {
  text: textRanges,
  ioctl: queriedRanges,
  'text, read by a mover': (pid: number) => textRanges(pid, guestOf(pid)),
  'ioctl, made by a mover': (pid: number) => queriedRanges(pid, guestOf(pid)),
}

for (const [name, open] of Object.entries(readers))
  test(`permits checks the rights of a range, by ${name}`, t => {
    const ranges = open(peer.pid)
    if (ranges === undefined) return t.skip('this kernel answers no queries of mappings')
    // The last argument of `ranges.permits` is the turn of the event loop.
    const permits = (from: number, to: number, rights: number) => ranges.permits(base + from, base + to, rights, 0)
    assert.equal(permits(0, PAGES * PAGE, READ), true, 'across mappings of different rights')
    assert.equal(permits(0, PAGES * PAGE, READ | WRITE), false)
    assert.equal(permits(0, READ_ONLY * PAGE, READ | WRITE), true)
    assert.equal(permits(0, READ_ONLY * PAGE + 1, WRITE), false)
    assert.equal(permits(READ_ONLY * PAGE + 5, READ_ONLY * PAGE + 6, READ), true)
    assert.equal(permits((READ_ONLY + 1) * PAGE, PAGES * PAGE, WRITE), true)
    assert.equal(ranges.permits(16, 17, READ, 0), false, 'nothing is mapped in the first page')
    assert.equal(ranges.permits(2 ** 55, 2 ** 55 + 1, READ, 0), false, 'nothing is mapped beyond user space')
    assert.equal(ranges.permits(base, 2 ** 55, READ, 0), false)
    ranges.close()
  })

test('the text and the ioctl agree about any range near the arena', t => {
  const text = textRanges(peer.pid)
  const queried = queriedRanges(peer.pid)
  if (queried === undefined) return t.skip('this kernel answers no queries of mappings')
  const edges = readFileSync(`/proc/${peer.pid}/maps`, 'latin1')
    .split('\n')
    .flatMap(line => /^([0-9a-f]+)-([0-9a-f]+) /.exec(line)?.slice(1) ?? [])
    .map(edge => Number.parseInt(edge, 16))
    .filter(edge => edge > base - 2 ** 30 && edge < base + 2 ** 30)
  const range = fc.record({
    edge: fc.constantFrom(...edges),
    from: fc.integer({ min: -3 * PAGE, max: 3 * PAGE }),
    length: fc.integer({ min: 1, max: 20 * PAGE }),
    rights: fc.constantFrom(READ, WRITE, READ | WRITE),
  })
  fc.assert(
    fc.property(range, ({ edge, from, length, rights }) => {
      const start = edge + from
      assert.equal(
        queried.permits(start, start + length, rights, 0),
        text.permits(start, start + length, rights, 0),
        `${start.toString(16)}, ${length} bytes, rights ${rights}`,
      )
    }),
    { numRuns: 300 },
  )
  queried.close()
  text.close()
})

test('the text of the maps file is read once in a turn, and again in the next', async () => {
  const other = startPeer()
  const ranges = textRanges(other.pid)
  const { address } = await other.request('arena', { bytes: PAGE })
  assert.equal(ranges.permits(address, address + PAGE, READ, 1), true)
  const second = (await other.request('arena', { bytes: PAGE })).address
  assert.equal(ranges.permits(second, second + PAGE, READ, 2), true)
  await other.kill()
  assert.equal(ranges.permits(address, address + PAGE, READ, 2), true, 'the text is not read again in this turn')
  assert.equal(ranges.permits(address, address + PAGE, READ, 3), false, 'the process is gone')
  ranges.close()
})

test('an exited process and an unused PID have no mappings', async () => {
  const other = startPeer()
  const { address } = await other.request('arena', { bytes: PAGE })
  const ranges = mappedRanges(other.pid)
  assert.equal(ranges.permits(address, address + PAGE, READ | WRITE, 1), true)
  await other.kill()
  assert.equal(ranges.permits(address, address + PAGE, READ, 2), false)
  ranges.close()
  const none = mappedRanges(2 ** 30)
  assert.equal(none.permits(address, address + 1, READ, 1), false)
  none.close()
})

const MAPPINGS = 4000
/** Fewer bytes than any line of a maps file has. */
const LINE_BYTES = 40
const MAP_PRIVATE_ANONYMOUS = 0x22
const sys = libcFunctions({
  mmap: 'int64_t mmap(int64_t a, uint64_t n, int prot, int flags, int fd, int64_t offset)',
  mprotect: 'int mprotect(int64_t a, uint64_t n, int prot)',
  munmap: 'int munmap(int64_t a, uint64_t n)',
})

/** Maps pages, of which every second one is writable, so that each is a mapping of its own. Returns their address. */
const mapAlternating = (pages: number): number => {
  const start = sys().mmap(0, pages * PAGE, PROT.READ, MAP_PRIVATE_ANONYMOUS, -1, 0)
  for (let i = 0; i < pages; i += 2) sys().mprotect(start + i * PAGE, PAGE, PROT.READ | PROT.WRITE)
  return start
}

for (const [name, open] of Object.entries(readers))
  test(`a scan of very many mappings runs in slices, and agrees with \`permits\`, by ${name}`, t => {
    const own = open(process.pid)
    if (own === undefined) return t.skip('this kernel answers no queries of mappings')
    const start = mapAlternating(MAPPINGS)
    const end = start + MAPPINGS * PAGE
    const query = (rights: number, turn: number): { slices: number; answer: boolean } => {
      const job = own.search(start, end, rights, () => turn)
      for (let slices = 0; ; slices++) {
        const { done, value } = job.next()
        if (done) return { slices, answer: value }
      }
    }
    const { slices, answer } = query(READ, 1)
    assert.equal(answer, true)
    assert.ok(slices >= MAPPINGS / Math.max(SLICE.queries, SLICE.bytes / LINE_BYTES), `${slices} slices`)
    assert.equal(query(WRITE, 2).answer, false)
    assert.equal(own.permits(start, end, READ, 1), true)
    assert.equal(own.permits(start, end, WRITE, 2), false)
    // A result is valid within its turn.
    query(READ, 3)
    sys().munmap(start, MAPPINGS * PAGE)
    assert.equal(own.permits(start, end, READ, 3), true)
    assert.equal(own.permits(start, end, READ, 4), false)
    own.close()
  })

test('a search that continues after `close` queries no other file', t => {
  const ranges = queriedRanges(process.pid)
  if (ranges === undefined) return t.skip('this kernel answers no queries of mappings')
  const start = mapAlternating(MAPPINGS)
  const search = ranges.search(start, start + MAPPINGS * PAGE, READ, () => 1)
  assert.equal(search.next().done, false)
  ranges.close()
  // gets the number of the closed descriptor
  const other = openSync('/proc/self/maps', 'r')
  assert.deepEqual(search.next(), { done: true, value: false })
  closeSync(other)
  sys().munmap(start, MAPPINGS * PAGE)
})
