/*
 * The page's reading of a live recording (web/data/store.ts and source.ts, with the server of src/inspect) that
 * overwrites its oldest part again and again.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { type DataState, servePage } from '../../src/inspect/server.ts'
import { SessionWriter } from '../../src/record/writer.ts'
import { findSource } from '../../web/data/source.ts'
import { Store } from '../../web/data/store.ts'
import { createMemorySink } from '../record/memory-sink.ts'

const QPS = 1000
const STEPS = 8
const EVENTS_PER_STEP = 6000

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
  let changed = (): void => {}
  let reads = 0
  const state = (): DataState => ({ recording: 1, size: sink.bytes.length, isGrowing: true })
  const data = {
    name: 'daemon',
    isLive: true,
    state,
    read: async (offset: number, length: number) => {
      const bytes = sink.bytes.slice(offset, offset + length)
      reads += bytes.length
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
  const { fetch } = globalThis
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
