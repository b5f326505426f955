/*
 * The page's reading of a live recording (web/data/store.ts and source.ts, with the server of src/tools/inspect) that
 * overwrites its oldest part again and again.
 */
import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import type { DataState } from '../../src/tools/inspect/protocol.ts'
import { servePage } from '../../src/tools/inspect/server.ts'
import { SessionWriter } from '../../src/tools/record/writer.ts'
import { coverageTexts } from '../../web/data/coverage.ts'
import { findSource } from '../../web/data/source.ts'
import { Store } from '../../web/data/store.ts'
import { createMemorySink } from '../tools/record/memory-sink.ts'

const { fetch } = globalThis
const QPS = 1000
const STEPS = 8
const EVENTS_PER_STEP = 6000

/** A page that shows `sink` live, when it has read what is there. `onRead`: called with the bytes of each read. */
const openLive = async (t: TestContext, sink: ReturnType<typeof createMemorySink>, onRead: (bytes: number) => void) => {
  let changed = (): void => {}
  const state = (): DataState => ({ recording: 1, size: sink.bytes.length, isGrowing: true })
  const data = {
    name: 'daemon',
    isLive: true,
    state,
    read: async (offset: number, length: number) => {
      const bytes = sink.bytes.slice(offset, offset + length)
      onRead(bytes.length)
      return bytes
    },
    onChange(listener: () => void) {
      changed = listener
      return () => {}
    },
  }
  const server = await servePage({ html: '', script: '', style: '' }, data)
  const { origin, hash, pathname } = new URL(server.link())
  const stored = new Map<string, string>()
  const browser = {
    document: { querySelectorAll: () => [] },
    location: { hash, pathname },
    history: { replaceState() {} },
    sessionStorage: {
      getItem: (name: string) => stored.get(name) ?? null,
      setItem: (name: string, value: string) => void stored.set(name, value),
      removeItem: (name: string) => void stored.delete(name),
    },
    fetch: (path: string, init?: RequestInit) => fetch(`${origin}/${path}`, init),
  }
  Object.assign(globalThis, browser)
  const store = await Store.open(await findSource())
  t.after(() => {
    // The store connects again and again: this request gets no answer, and keeps no process alive.
    Object.assign(globalThis, { fetch: () => new Promise(() => {}) })
    return server.close()
  })
  const until = (isReached: () => boolean): Promise<void> =>
    new Promise(resolve => {
      const look = (): void => {
        if (isReached()) resolve()
      }
      t.after(store.subscribe(look))
      look()
    })
  await until(() => store.readState === 'done')
  return { store, until, changed: () => changed() }
}

it('misses no event of a thousand queue pairs, and reads only what is new', async t => {
  const sink = createMemorySink()
  const about = { application: 'userdma 0', machine: 'none', origin: 0, payload: 0 }
  const writer = new SessionWriter(sink, { ...about, limit: 2 ** 22 })
  let written = 0
  const write = (events: number): void => {
    for (let i = 0; i < events; i++) writer.counters(written, 0, 1 + (written++ % QPS), { window: written })
    writer.flush()
  }
  // The file is full, and has overwritten its oldest part.
  write(160_000)
  const first = written
  let reads = 0
  const { store, until, changed } = await openLive(t, sink, bytes => {
    reads += bytes
  })
  // Events from before the page's first look are not missing, but the numbers are not of their time.
  assert.equal(store.facts.skipped, 0)
  const inFile = store.session.end - store.session.start
  assert.equal(store.session.overwritten + store.facts.events, first)
  assert.ok(Math.abs(store.facts.covered - inFile) < 0.01 * inFile)
  const before = { events: store.facts.events, reads, bytes: store.bytesDone }
  for (let step = 1; step <= STEPS; step++) {
    write(EVENTS_PER_STEP)
    changed()
    const events = before.events + step * EVENTS_PER_STEP
    await until(
      () => store.facts.events + store.facts.skipped + store.facts.damaged >= events && store.readState === 'done',
    )
  }
  const { facts } = store
  assert.deepEqual([facts.skipped, facts.damaged, store.session.damaged], [0, 0, 0])
  assert.equal(facts.events, before.events + STEPS * EVENTS_PER_STEP)
  assert.ok(facts.events > before.events && written === first + STEPS * EVENTS_PER_STEP)
  const read = (reads - before.reads) / (store.bytesDone - before.bytes)
  assert.ok(read < 5, `${read.toFixed(1)} bytes were read for each byte of events`)
})

it('reads the newest part of a long recording, says of what time its numbers are, and misses nothing', async t => {
  const sink = createMemorySink()
  const about = { application: 'userdma 0', machine: 'none', origin: 0, payload: 0 }
  const writer = new SessionWriter(sink, { ...about, limit: 2 ** 25 })
  const LONG = 2_000_000
  const object = { device: 0, context: 1, program: undefined, class: 'cq', handle: 1, number: 0, method: '', why: '' }
  for (let i = 0; i < LONG; i++) {
    if (i === LONG / 2) writer.object(i, { ...object, change: 'created', object: 5, stack: [], details: {} })
    writer.polled(i, 5, i)
  }
  writer.flush()
  const { store } = await openLive(t, sink, () => {})
  const { facts, session } = store
  assert.equal(facts.skipped, 0)
  const share = facts.events / (session.events - session.overwritten)
  assert.ok(share > 0.1 && share < 0.5, `${share} of the events in the file were read`)
  // A poll per microsecond.
  assert.ok(Math.abs(facts.events / facts.covered - 1) < 0.01)
  assert.ok(Math.abs(session.end - facts.covered - (facts.coveredFrom ?? 0)) < 2)
  // It was created before the part that was read.
  assert.equal(facts.objects.objects.get(5)?.class, 'cq')
  const [inFile, read, ...rest] = coverageTexts(facts, session)
  assert.match(inFile, /^The file has the last .*earlier events were overwritten$/)
  assert.match(read, /^Totals, rates and charts are of the .* that were read/)
  assert.deepEqual(rest, [])
})
