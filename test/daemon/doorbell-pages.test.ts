/*
 * Doorbell pages: what is protected before the loop parks, and what a store does. The kernel's part is simulated;
 * test/system/devices/doorbells.test.ts has programs.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ScanScope } from '../../src/core/driver-contract.ts'
import type { OpenContext } from '../../src/daemon/context/contexts.ts'
import { DoorbellPages, type DoorbellProgram, MAX_RANGES } from '../../src/daemon/doorbell-pages.ts'
import { Loop } from '../../src/daemon/loop.ts'
import type { StoreListener } from '../../src/daemon/memory/registered-ranges.ts'
import { ProgramLines } from '../../src/daemon/program-lines.ts'
import type { Client } from '../../src/daemon/session/client.ts'
import { DoorbellRanges } from '../../src/daemon/session/doorbell-ranges.ts'
import { nowMicroseconds } from '../../src/host/event-loop/clock.ts'
import type { Protected, UserfaultWatch } from '../../src/host/memory/userfault.ts'
import { ParkedPage } from '../../src/spec/session.ts'

const PAGE = 4096
/** Longer than any time for which a range is not protected after a store. Microseconds. */
const LONG = 10_000

/** Of the pages; not one of a test that ends it. */
const CONTEXT = { memory: {} } as unknown as OpenContext

const stopClock = (t: TestContext): ((microseconds: number) => void) => {
  let now = performance.now()
  t.mock.method(performance, 'now', () => now)
  return microseconds => {
    now += microseconds / 1000
  }
}

/** A program with a simulated userfaultfd, which records its protected pages. */
const createProgram = () => {
  const protectedAt = new Set<number>()
  const program = {
    protectedAt,
    /** What the next changes of protection return, in order; then `done`. */
    results: [] as Protected[],
    /** Called when events are read. */
    onRead: () => {},
    isWatchable: true,
    listener: undefined as StoreListener | undefined,
    watchStores(listener: StoreListener): UserfaultWatch {
      program.listener = listener
      const change = (start: number, apply: () => void): Protected => {
        const result = program.results.shift() ?? 'done'
        if (result === 'done') apply()
        assert.equal(start % PAGE, 0)
        return result
      }
      return {
        fd: -1,
        add: () => program.isWatchable,
        addReads: () => program.isWatchable,
        admit: start => change(start, () => void protectedAt.delete(start)),
        remove() {},
        protect: start => change(start, () => void protectedAt.add(start)),
        unprotect: start => change(start, () => void protectedAt.delete(start)),
        read: () => program.onRead(),
        stop() {},
      }
    },
  }
  return program satisfies DoorbellProgram
}

const setUp = (t: TestContext) => {
  const advance = stopClock(t)
  const stores: string[] = []
  const pages = new DoorbellPages(() => stores.push('store'))
  return { advance, pages, stores, program: createProgram() }
}

/** A thread stores to a protected page; the loop polls, and releases it. */
const store = (pages: DoorbellPages, program: ReturnType<typeof createProgram>, address: number): void => {
  program.listener?.stored(address)
  pages.find(nowMicroseconds())
}

test('a thread that waits is released after the loop has polled, so that the receiver of its message runs first', t => {
  const { pages, stores, program } = setUp(t)
  pages.watch(program, PAGE, 2 * PAGE, CONTEXT)
  pages.arm()
  program.listener?.stored(PAGE)
  assert.equal(stores.length, 1)
  assert.equal(program.protectedAt.size, 1)
  pages.find(nowMicroseconds())
  assert.equal(program.protectedAt.size, 0)
})

test('all pages are protected at first; later only those of which a store has removed the protection', t => {
  const { advance, pages, stores, program } = setUp(t)
  for (const page of [1, 2, 3]) assert.equal(pages.watch(program, page * PAGE, (page + 1) * PAGE, CONTEXT), undefined)
  assert.equal(pages.arm(), true)
  assert.deepEqual([...program.protectedAt], [PAGE, 2 * PAGE, 3 * PAGE])
  store(pages, program, 2 * PAGE + 8)
  assert.deepEqual([...program.protectedAt], [PAGE, 3 * PAGE])
  assert.equal(stores.length, 1)
  advance(LONG)
  const changed: number[] = []
  program.protectedAt.add = function (page) {
    changed.push(page)
    return Set.prototype.add.call(this, page)
  }
  assert.equal(pages.arm(), true)
  assert.deepEqual(changed, [2 * PAGE])
})

test('a page is not protected again before the thread had time for its store, and the time grows', t => {
  const { advance, pages, program } = setUp(t)
  pages.watch(program, PAGE, 2 * PAGE, CONTEXT)
  const holds: number[] = []
  for (let i = 0; i < 4; i++) {
    assert.equal(pages.arm(), true)
    store(pages, program, PAGE)
    let hold = 0
    for (; !pages.arm(); hold += 10) advance(10)
    holds.push(hold)
  }
  // 100, 200, 400, 800, but for the rounding of the clock.
  for (const [i, hold] of holds.entries()) assert.ok(Math.abs(hold - 100 * 2 ** i) <= 10, `${holds}`)
  advance(LONG)
  store(pages, program, PAGE)
  // more than 50, since the clock rounds
  advance(51)
  assert.equal(pages.arm(), true)
})

test('several threads wait in one page: each gets its event', t => {
  const { pages, stores, program } = setUp(t)
  pages.watch(program, PAGE, 2 * PAGE, CONTEXT)
  pages.arm()
  store(pages, program, PAGE)
  store(pages, program, PAGE + 4)
  assert.equal(program.protectedAt.size, 0)
  assert.equal(stores.length, 2)
})

test('ranges that were unmapped, or whose process has ended, are forgotten', t => {
  const { pages, program } = setUp(t)
  for (const page of [1, 2, 3]) pages.watch(program, page * PAGE, (page + 1) * PAGE, CONTEXT)
  program.listener?.unmapped(PAGE, 2 * PAGE)
  assert.equal(pages.rangeCount, 2)
  program.results.push('gone')
  assert.equal(pages.arm(), true)
  assert.equal(pages.rangeCount, 1)
  program.listener?.closed()
  assert.equal(pages.rangeCount, 0)
  assert.equal(pages.arm(), true)
})

test('while the kernel has an unread event of the process, the loop does not park, and a thread is released later', async t => {
  const { pages, program } = setUp(t)
  let reads = 0
  program.onRead = () => reads++
  pages.watch(program, PAGE, 2 * PAGE, CONTEXT)
  program.results.push('busy', 'busy')
  assert.equal(pages.arm(), false)
  assert.equal(reads, 1)
  assert.equal(pages.arm(), true)
  program.results.push('busy', 'busy')
  store(pages, program, PAGE)
  assert.equal(program.protectedAt.size, 1)
  for (let turns = 0; turns < 3; turns++) await new Promise(setImmediate)
  assert.equal(program.protectedAt.size, 0)
})

test('a clock is brought up to date while programs can read it, and by the read that wakes the loop', t => {
  const { pages, program, stores } = setUp(t)
  let ticks = 0
  const page = { tick: () => ticks++, isReadable: true }
  const hideClock = () => {
    page.isReadable = false
    program.protectedAt.add(PAGE)
    return true
  }
  const memory = { clock: { page, offset: 0, length: PAGE }, hideClock }
  const context = { whenEnded: new Set<() => void>(), memory } as unknown as OpenContext
  pages.addClock(context)
  pages.watch(program, PAGE, 2 * PAGE, context, true)
  pages.find(0)
  assert.equal(ticks, 1)
  assert.equal(pages.arm(), true)
  assert.equal(page.isReadable, false)
  pages.find(1)
  assert.equal(ticks, 1)
  program.listener?.stored(PAGE + 4)
  assert.deepEqual([ticks, page.isReadable, program.protectedAt.size, stores.length], [2, true, 0, 1])
  pages.find(2)
  assert.equal(ticks, 3)
  for (const ended of context.whenEnded) ended()
  pages.find(3)
  assert.equal(ticks, 3)
})

test('of very many pages, some are protected at a time', t => {
  const { pages, program } = setUp(t)
  for (let page = 1; page <= 3000; page++) pages.watch(program, page * PAGE, (page + 1) * PAGE, CONTEXT)
  let calls = 1
  for (; !pages.arm(); calls++) assert.ok(program.protectedAt.size < 3000)
  assert.equal(program.protectedAt.size, 3000)
  assert.equal(calls, 3)
})

test('a page that is in no known range is released', t => {
  const { pages, program } = setUp(t)
  pages.watch(program, PAGE, 2 * PAGE, CONTEXT)
  program.protectedAt.add(7 * PAGE)
  store(pages, program, 7 * PAGE + 12)
  assert.equal(program.protectedAt.size, 0)
})

test('a program has a limited number of ranges; a range that is mapped again counts once', t => {
  const { pages, program } = setUp(t)
  for (let page = 1; page <= MAX_RANGES; page++)
    assert.equal(pages.watch(program, page * PAGE, (page + 1) * PAGE, CONTEXT), undefined)
  assert.equal(pages.watch(program, PAGE, 2 * PAGE, CONTEXT), undefined)
  const beyond = (MAX_RANGES + 1000) * PAGE
  assert.match(pages.watch(program, beyond, beyond + PAGE, CONTEXT) ?? '', new RegExp(`${MAX_RANGES} watched ranges`))
  assert.equal(pages.rangeCount, MAX_RANGES)
})

test('while a context has pages that are not watched, the loop polls by a timer after work', async t => {
  const words = new Int32Array(ParkedPage.bytes / 4)
  let polls = 0
  let hasWork = true
  const pages = new DoorbellPages(() => loop.kick(ScanScope.BEGIN))
  const device = {
    poll() {
      polls++
      const had = hasWork
      hasWork = false
      return had
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  }
  const loop = new Loop(words, [device], undefined, undefined, pages)
  t.after(() => loop.stop())
  const context = { whenEnded: new Set<() => void>() } as unknown as OpenContext
  pages.addUnwatched(context)
  loop.kick()
  while (words[ParkedPage.PARKED] === 0) await new Promise(setImmediate)
  // Nothing wakes the loop but its timer: a request that was posted by a store alone is found.
  hasWork = true
  while (hasWork) await new Promise(setImmediate)
  for (const ended of context.whenEnded) ended()
  let before = -1
  while (words[ParkedPage.PARKED] === 0 || before !== polls) {
    before = polls
    await new Promise(resolve => setTimeout(resolve, 5))
  }
})

test('a store that is found while the loop is awake has all queues polled', () => {
  const words = new Int32Array(ParkedPage.bytes / 4)
  const scopes: ScanScope[] = []
  let finds = 0
  const device = {
    poll(_now: number, scope: ScanScope) {
      scopes.push(scope)
      return false
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  }
  const doorbells = {
    arm: () => true,
    protectNew: () => true,
    find() {
      if (++finds === 1) loop.kick(ScanScope.BEGIN)
    },
  }
  const loop = new Loop(words, [device], undefined, undefined, doorbells)
  loop.kick()
  assert.deepEqual(scopes, [ScanScope.USED, ScanScope.BEGIN, ScanScope.BEGIN])
  assert.equal(words[ParkedPage.PARKED], 1)
  loop.stop()
})

test('doorbells of very many queues are protected one by one, without a poll of all queues for each', t => {
  const { pages, program } = setUp(t)
  let rounds = 0
  const device = {
    poll(_now: number, scope: ScanScope) {
      if (scope === ScanScope.BEGIN) rounds++
      return false
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  }
  const loop = new Loop(new Int32Array(ParkedPage.bytes / 4), [device], undefined, undefined, pages)
  t.after(() => loop.stop())
  assert.equal(loop.protect(), false, 'the loop has not parked yet')
  loop.kick()
  assert.equal(rounds, 1)
  for (let i = 1; i <= 1000; i++) {
    pages.watch(program, i * PAGE, (i + 1) * PAGE, CONTEXT)
    assert.equal(loop.protect(), true)
    assert.equal(program.protectedAt.size, i)
  }
  assert.equal(rounds, 1)
  // After a store, whose loop has not run yet, another page is not protected: all queues must be polled.
  store(pages, program, PAGE)
  pages.watch(program, 2000 * PAGE, 2001 * PAGE, CONTEXT)
  assert.equal(loop.protect(), false)
  // Nor may the loop park if stores of a program cannot wake it.
  pages.addUnwatched({ whenEnded: new Set() } as unknown as OpenContext)
  assert.equal(loop.protect(), false)
})

test('mappings that a program tells of are known without a reading of all its mappings', t => {
  const { pages, program } = setUp(t)
  let readings = 0
  const client = {
    standing: 'owner',
    contexts: { has: () => true },
    process: {
      get pid() {
        readings++
        return process.pid
      },
    },
  }
  const memory = { expectedMappings: 0, doorbells: [] }
  const open = { memory, whenEnded: new Set() } as unknown as OpenContext
  const ranges = new DoorbellRanges(client as unknown as Client, program, {
    doorbells: pages,
    lines: new ProgramLines(assert.fail, () => 0),
  })
  const tell = (from: number): void => ranges.mapped(open, from * PAGE, PAGE, 0)
  for (let i = 1; i <= 100; i++) {
    memory.expectedMappings = 2 * i
    pages.await(open)
    tell(2 * i)
    assert.equal(pages.mayPark, false, 'the other mapping of the queue is missing')
    // Of a client that has told of many, the loop need not look at each call.
    assert.equal(ranges.findAwaited(0), ranges.tellsAll(open) ? 5000 : 0)
    assert.equal(ranges.tellsAll(open), 2 * i - 1 >= 64)
    tell(2 * i + 1)
    assert.equal(pages.mayPark, true)
  }
  // one is unmapped: it does not count for its successor
  program.listener?.unmapped(2 * PAGE, 3 * PAGE)
  pages.await(open)
  tell(3)
  assert.equal(pages.mayPark, false)
  tell(2)
  assert.equal(pages.mayPark, true)
  assert.equal(readings, 0)
})
