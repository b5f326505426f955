/*
 * The doorbells of a context: words in pages, one per queue. The program maps the page for each queue, and stores to
 * its doorbells without a call; the device reads them at each poll.
 */
import { type MappedChunk, type MappedMemory, mappedMemoryOf } from '../../core/memory/mappable-memory.ts'
import type { CallContext } from '../../core/model.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { stateOf } from './device-state.ts'
import type { Doorbell, DoorbellPage } from './scan.ts'

/** Bytes from one doorbell to the next. */
const STRIDE = 8
const PER_PAGE = PAGE_BYTES / STRIDE

/** Position of a doorbell in its page, bytes. */
export const doorbellOffset = ({ number }: Doorbell): number => number * STRIDE

/** The offset with which the program maps a doorbell's page. */
export const pageKey = ({ page }: Doorbell): bigint => BigInt(page.chunk.offset)

export const loadDoorbell = ({ page: { chunk }, number }: Doorbell): number =>
  Atomics.load(chunk.words, (chunk.at + number * STRIDE) >> 2)

interface Page extends DoorbellPage {
  readonly free: number[]
}

/** `pages`: those of the device. */
class Doorbells {
  readonly #memory: MappedMemory
  readonly #ofDevice: Set<DoorbellPage>
  readonly #pages: Page[] = []

  constructor(memory: MappedMemory, ofDevice: Set<DoorbellPage>) {
    this.#memory = memory
    this.#ofDevice = ofDevice
  }

  /** Throws CallError ENOMEM. */
  take(): Doorbell {
    const page = this.#pages.find(({ free }) => free.length > 0) ?? this.#add()
    const number = page.free.pop() as number
    this.#tellMappings(page)
    page.seen[number] = 0
    page.owners[number] = undefined
    Atomics.store(page.chunk.words, (page.chunk.at + number * STRIDE) >> 2, 0)
    return { page, number }
  }

  #add(): Page {
    const page: Page = {
      chunk: this.#memory.allocate(PAGE_BYTES, 'doorbells'),
      seen: new Int32Array(PER_PAGE),
      owners: [],
      free: Array.from({ length: PER_PAGE }, (_, i) => PER_PAGE - 1 - i),
    }
    this.#pages.push(page)
    this.#ofDevice.add(page)
    return page
  }

  give({ page: ofDoorbell, number }: Doorbell): void {
    const page = this.#pages.find(one => one === ofDoorbell)
    if (page === undefined) return
    page.owners[number] = undefined
    page.free.push(number)
    if (page.free.length < PER_PAGE) {
      this.#tellMappings(page)
      return
    }
    this.#pages.splice(this.#pages.indexOf(page), 1)
    this.#ofDevice.delete(page)
    this.#memory.free(page.chunk)
  }

  #tellMappings({ chunk, free }: Page): void {
    this.#memory.expectMappings?.(chunk, PER_PAGE - free.length)
  }
}

/** The memory that a program maps of a queue: its ring and its doorbell. */
interface QueueMemory {
  readonly ring: MappedChunk
  readonly doorbell: Doorbell
}

/** They are all the state of a context. */
const doorbellsOf = (call: CallContext): Doorbells => {
  const { context } = call
  context.state ??= new Doorbells(mappedMemoryOf(context), stateOf(call).scan.pages)
  return context.state as Doorbells
}

/** Throws CallError ENOMEM. */
export const allocateQueue = (call: CallContext, ringBytes: number): QueueMemory => {
  const doorbell = doorbellsOf(call).take()
  try {
    return { ring: mappedMemoryOf(call.context).allocate(ringBytes), doorbell }
  } catch (error) {
    doorbellsOf(call).give(doorbell)
    throw error
  }
}

export const freeQueue = (call: CallContext, { ring, doorbell }: QueueMemory): void => {
  mappedMemoryOf(call.context).free(ring)
  doorbellsOf(call).give(doorbell)
}
