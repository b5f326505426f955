/*
 * What the page reads of a file by itself, and keeps: as much as fits into its memory (web/data/memory.ts), and it
 * counts the rest.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bytesSource } from '../../src/tools/record/reader.ts'
import { SessionWriter } from '../../src/tools/record/writer.ts'
import { coverageTexts, omittedText } from '../../web/data/coverage.ts'
import { bytesOf, MEMORY, Memory } from '../../web/data/memory.ts'
import type { Source } from '../../web/data/source.ts'
import { Store } from '../../web/data/store.ts'
import { createMemorySink } from '../tools/record/memory-sink.ts'

const call = (index: number) => ({
  object: 0,
  stack: [`caller${index % 7}`],
  call: {
    time: index,
    duration: 1,
    pid: 1 + (index % 2),
    tid: 1,
    command: 'test',
    device: 'rxe0',
    dialect: 'ioctl',
    fd: 3,
    ret: index % 10 === 0 ? -22 : 0,
    call: { class: 'mr', method: 'reg', args: { address: index, length: 4096 } },
    args: {},
    out: {},
  } as never,
})

/** A file with `calls` calls, each followed by three posts and completions, and a failure at its end. */
const fileOf = async (calls: number, failures = 1): Promise<Uint8Array> => {
  const sink = createMemorySink()
  const writer = new SessionWriter(sink, { application: 'x', machine: 'x', origin: 0, payload: 0 })
  writer.device(0, { change: 'added', device: 0, name: 'rxe0', address: '' })
  for (let i = 0; i < calls; i++) {
    writer.call(i, call(i))
    writer.polled(i, 5, i)
  }
  for (let i = 0; i < failures; i++) {
    const failure = { kind: 'send', device: 'x', cause: 'x', vendorErr: 1, args: {}, text: `failure ${i}` }
    writer.failure(calls + i, 1, { time: 0, pid: 1, command: 'x', device: 'x', failure } as never)
  }
  await writer.end(calls + failures, 'done')
  return sink.bytes
}

const openFile = async (bytes: Uint8Array, memory: Memory): Promise<Store> => {
  const source: Source = {
    about: {
      name: 'file',
      isLive: false,
      hasFaults: false,
      state: { recording: 1, size: bytes.length, isGrowing: false },
    },
    memory,
    open: () => bytesSource(bytes),
    async *changes() {},
    faults: () => Promise.reject(new Error('no daemon')),
    save: undefined,
    link: undefined,
    choose() {},
    symbols: async () => [],
    waits: async () => [],
  }
  return Store.open(source)
}

const until = (store: Store, isReached: () => boolean): Promise<void> =>
  new Promise(resolve => {
    const look = (): void => {
      if (isReached()) resolve()
    }
    store.subscribe(look)
    look()
  })

describe('the memory of the page', () => {
  const CALLS = 40_000
  const FAILURES = 6_000

  it('has room for a file of 4 MB and more: all of it is read and kept without being asked', async () => {
    const bytes = await fileOf(CALLS, FAILURES)
    assert.ok(bytes.length > 4 * 2 ** 20, `${bytes.length} bytes`)
    const store = await openFile(bytes, new Memory())
    await until(store, () => store.readState !== 'reading')
    const { facts } = store
    assert.equal(store.readState, 'done')
    assert.equal(facts.calls.entries.length, CALLS)
    assert.equal(facts.failures.entries.length, FAILURES)
    assert.equal(facts.events, store.session.events)
    assert.equal(facts.calls.omitted + facts.failures.omitted + facts.findings.omitted + facts.sends.omitted, 0)
    assert.deepEqual(coverageTexts(facts, store.session), [])
    assert.ok(store.bytesDone + store.source.memory.records <= MEMORY)
  })

  it('reads no more by itself than fits, and with the rest on request counts what it does not keep', async () => {
    const memory = new Memory(4 * 2 ** 20)
    const store = await openFile(await fileOf(CALLS, 20), memory)
    await until(store, () => store.readState !== 'reading')
    const { facts } = store
    assert.equal(store.readState, 'paused')
    const first = facts.events
    assert.ok(first > 0 && first < store.session.events)
    // What a block becomes is known when it was read.
    assert.ok(store.bytesDone + memory.records <= 1.2 * memory.total)
    assert.match(coverageTexts(facts, store.session).join(), /^Totals, rates and charts are of the .* that were read/)
    store.readAll()
    await until(store, () => store.readState === 'done')
    assert.equal(facts.events, store.session.events)
    assert.deepEqual(coverageTexts(facts, store.session), [])
    const { calls, failures, callers } = facts
    assert.ok(calls.omitted > 0)
    assert.equal(calls.total, CALLS)
    assert.equal(
      omittedText(calls),
      `; ${calls.omitted.toLocaleString('en-US')} later ones did not fit into the page's memory`,
    )
    // What went wrong has a part of the memory that calls leave.
    assert.equal(failures.entries.length, 20)
    assert.ok(memory.records <= memory.total)
    assert.deepEqual(
      [...callers].map(([pid, one]) => [pid, one.calls, one.failed]),
      [
        [1, CALLS / 2, CALLS / 10],
        [2, CALLS / 2, 0],
      ],
    )
  })

  it('keeps the newest of a live session: the longest list loses its older half', () => {
    const memory = new Memory(1000)
    const [calls, sends] = [memory.list<number>(true), memory.list<number>(true)]
    for (let i = 0; i < 100; i++) calls.add(i, 50)
    for (let i = 0; i < 3; i++) sends.add(i, 50)
    assert.ok(memory.records <= 1000)
    assert.equal(calls.entries.at(-1), 99)
    assert.deepEqual(sends.entries, [0, 1, 2])
    for (const list of [calls, sends]) assert.equal(list.total, list === calls ? 100 : 3)
    assert.deepEqual(
      calls.entries,
      Array.from({ length: calls.entries.length }, (_, i) => 100 - calls.entries.length + i),
    )
    // A record that is larger than all memory takes nobody's place.
    calls.add(100, 5000)
    assert.equal(calls.entries.at(-1), 99)
    assert.ok(memory.records >= 0 && memory.records <= 1000)
    memory.clear()
    assert.equal(memory.records, 0)
  })

  it('estimates records of any content, also endless ones, and no less than what they hold', () => {
    const endless: { self?: unknown } = {}
    endless.self = endless
    assert.ok(bytesOf(endless) < 10_000)
    let deep: unknown = 'x'
    for (let i = 0; i < 100_000; i++) deep = [deep]
    assert.ok(bytesOf(deep) < 10_000)
    assert.ok(bytesOf('x'.repeat(1000)) >= 1000)
    assert.ok(bytesOf(new Uint8Array(1000)) >= 1000)
    assert.ok(bytesOf({ list: new Array(1000).fill('abc') }) >= 8000)
    assert.equal(bytesOf(undefined), 0)
  })
})
