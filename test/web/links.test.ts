/*
 * What the page reads of the links of a recorded virtual network, for the table in its Overview.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { LinkEvent } from '../../src/spec/session-events.ts'
import { bytesSource } from '../../src/tools/record/reader.ts'
import { SessionWriter } from '../../src/tools/record/writer.ts'
import { Memory } from '../../web/data/memory.ts'
import type { Source } from '../../web/data/source.ts'
import { Store } from '../../web/data/store.ts'
import { createMemorySink } from '../tools/record/memory-sink.ts'

const direction = (link: number, packets: number): Omit<LinkEvent, 'kind'> => ({
  link,
  from: `h${link}`,
  to: 's1',
  rate: 1e10,
  delay: 1,
  capacity: 2e6,
  packets,
  bytes: 1000 * packets,
  marked: 0,
  overflowed: 0,
  lost: 0,
  tooLong: 0,
  queue: 0,
  maxQueue: 0,
  meanQueue: 0,
  utilization: 0.5,
})

/** The store of a page that has read the file which `write` has written. */
const read = async (write: (writer: SessionWriter) => void): Promise<Store> => {
  const sink = createMemorySink()
  const writer = new SessionWriter(sink, { application: 'x', machine: 'x', origin: 0, payload: 0 })
  write(writer)
  await writer.end(10, 'done')
  const state = { recording: 1, size: sink.bytes.length, isGrowing: false }
  const source: Source = {
    about: { name: 'file', isLive: false, hasFaults: false, state },
    memory: new Memory(),
    open: () => bytesSource(sink.bytes),
    async *changes() {},
    faults: () => Promise.reject(new Error('no daemon')),
    save: undefined,
    link: undefined,
    choose() {},
    symbols: async () => [],
    waits: async () => [],
  }
  const store = await Store.open(source)
  await new Promise<void>(resolve => {
    const look = (): void => {
      if (store.readState === 'done') resolve()
    }
    store.subscribe(look)
    look()
  })
  return store
}

it('the page has the last counts of each direction of each link', async () => {
  const { facts } = await read(writer => {
    writer.link(1, direction(0, 5))
    writer.link(1, direction(1, 0))
    writer.link(2, direction(0, 7))
  })
  assert.deepEqual(
    [...facts.links.values()].map(({ link, from, to, packets }) => [link, from, to, packets]),
    [
      [0, 'h0', 's1', 7],
      [1, 'h1', 's1', 0],
    ],
  )
})

it('long names of links are cut, and recordings of other networks have no links', async () => {
  const { facts } = await read(writer => writer.link(1, { ...direction(0, 5), from: 'x'.repeat(100_000) }))
  assert.equal(facts.links.get(0)?.from.length, 256)
  assert.equal((await read(() => {})).facts.links.size, 0)
})
