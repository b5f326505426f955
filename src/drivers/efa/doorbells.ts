/*
 * The doorbells of a context: words in pages, one per queue. The program maps the page for each queue, and stores to its
 * doorbells without a call; the device reads them at each poll.
 */
import { type MappedChunk, type MappedMemory, mappedMemoryOf } from '../../core/memory/mappable-memory.ts'
import type { Context } from '../../core/model.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'

/** Bytes from one doorbell to the next. */
const STRIDE = 8
const PER_PAGE = PAGE_BYTES / STRIDE

export interface Doorbell {
  readonly page: MappedChunk
  /** Position in the page, bytes. */
  readonly offset: number
}

/** The offset with which the program maps a doorbell's page. */
export const pageKey = ({ page }: Doorbell): bigint => BigInt(page.offset)

export const loadDoorbell = ({ page, offset }: Doorbell): number => Atomics.load(page.words, (page.at + offset) >> 2)

interface Page {
  readonly chunk: MappedChunk
  readonly free: number[]
}

class Doorbells {
  readonly #memory: MappedMemory
  readonly #pages: Page[] = []

  constructor(memory: MappedMemory) {
    this.#memory = memory
  }

  /** Throws CallError ENOMEM. */
  take(): Doorbell {
    let page = this.#pages.find(({ free }) => free.length > 0)
    if (page === undefined) {
      const chunk = this.#memory.allocate(PAGE_BYTES, 'doorbells')
      page = { chunk, free: Array.from({ length: PER_PAGE }, (_, i) => (PER_PAGE - 1 - i) * STRIDE) }
      this.#pages.push(page)
    }
    const offset = page.free.pop() as number
    this.#tellMappings(page)
    Atomics.store(page.chunk.words, (page.chunk.at + offset) >> 2, 0)
    return { page: page.chunk, offset }
  }

  give({ page: chunk, offset }: Doorbell): void {
    const index = this.#pages.findIndex(one => one.chunk === chunk)
    const page = this.#pages[index]
    if (page === undefined) return
    page.free.push(offset)
    if (page.free.length < PER_PAGE) {
      this.#tellMappings(page)
      return
    }
    this.#pages.splice(index, 1)
    this.#memory.free(chunk)
  }

  #tellMappings({ chunk, free }: Page): void {
    this.#memory.expectMappings?.(chunk, PER_PAGE - free.length)
  }
}

/** The memory that a program maps of a queue: its ring and its doorbell. */
export interface QueueMemory {
  readonly ring: MappedChunk
  readonly doorbell: Doorbell
}

const ofContexts = new WeakMap<Context, Doorbells>()

const doorbellsOf = (context: Context): Doorbells => {
  let found = ofContexts.get(context)
  if (found === undefined) {
    found = new Doorbells(mappedMemoryOf(context))
    ofContexts.set(context, found)
  }
  return found
}

/** Throws CallError ENOMEM. */
export const allocateQueue = (context: Context, ringBytes: number): QueueMemory => {
  const doorbell = doorbellsOf(context).take()
  try {
    return { ring: mappedMemoryOf(context).allocate(ringBytes), doorbell }
  } catch (error) {
    doorbellsOf(context).give(doorbell)
    throw error
  }
}

export const freeQueue = (context: Context, { ring, doorbell }: QueueMemory): void => {
  mappedMemoryOf(context).free(ring)
  doorbellsOf(context).give(doorbell)
}
