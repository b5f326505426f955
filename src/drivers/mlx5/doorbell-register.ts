/*
 * The doorbell of a send queue without doorbell record (send_dbr_mode NO_DBR_EXT of the firmware): the program stores
 * the first eight bytes of its last request in a register of a doorbell page. The page has one such register: it
 * belongs to one queue, since the device reads it later than an adapter, and would miss what another queue has
 * overwritten.
 */
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import { BLOCK_BYTES, blocksOf, ControlSegment, POSTED_MASK } from '../../spec/drivers/mlx5-queues.ts'

/** Offset of the register in the page. */
const REGISTER = 0x600

/** A doorbell page; `register`: in use. */
export interface DoorbellPage {
  readonly page: MappedChunk
  register?: boolean
}

/** The number of posted blocks, as a doorbell record has it. */
export interface PostedCounter {
  load(at: number): number
  clear(at: number): void
}

export class DoorbellRegister implements PostedCounter {
  readonly #page: DoorbellPage
  readonly #queue: MappedChunk
  readonly #start: number
  readonly #blocks: number
  #posted = 0
  /** Of the queue pair. */
  qpn = 0

  /** `queue`: the pages of the send queue, which begins at `start` and has `blocks` blocks. */
  constructor(page: DoorbellPage, queue: MappedChunk, start: number, blocks: number) {
    this.#page = page
    this.#queue = queue
    this.#start = start
    this.#blocks = blocks
    page.register = true
    this.clear()
  }

  load(): number {
    const { view, at } = this.#page.page
    // a store that is not of this queue is ignored
    if (view.getUint32(at + REGISTER + 4) >>> 8 !== this.qpn) return this.#posted
    const first = (view.getUint32(at + REGISTER) >>> 8) & POSTED_MASK
    const control = this.#start + (first & (this.#blocks - 1)) * BLOCK_BYTES
    const segments = this.#queue.view.getUint8(control + ControlSegment.SEGMENTS) & ControlSegment.SEGMENTS_MASK
    this.#posted = (first + blocksOf(segments)) & POSTED_MASK
    return this.#posted
  }

  clear(): void {
    const { view, at } = this.#page.page
    view.setUint32(at + REGISTER, 0)
    view.setUint32(at + REGISTER + 4, 0)
    this.#posted = 0
  }

  /** The queue is destroyed. */
  end(): void {
    this.#page.register = false
  }
}
