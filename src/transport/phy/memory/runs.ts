/*
 * The runs of a memory link (transport/phy/memory.ts): records, buffers in the arena, and ICRCs. The runs of one
 * reservation share a buffer, which is free again when the runs are released and the reservation has ended.
 *
 * Buffers have two sizes, so that an ACK need not wait for a large one. Each port has guaranteed buffers, so a receiver
 * that does not read its runs blocks only its own senders.
 */
import type { Arena } from '../../wire/arena.ts'
import { markedFlow, routedFlow } from '../../wire/flow.ts'
import { sealIcrc, verifyIcrc } from '../../wire/icrc.ts'
import { createFlowTable, type FlowTable } from '../flow-table.ts'
import type { FlowAddress } from '../port.ts'
import { RUN_BYTES } from '../runs/limits.ts'
import { createRunPool, type RunPool } from '../runs/pool.ts'
import { allocateRecord, createRunRecords, freeRecord, type RunRecords } from '../runs/records.ts'

/** Reservations up to this size, mostly for ACKs, get a small buffer if one is free. */
export const SMALL_RUN_BYTES = 2048
/** Buffers guaranteed to each port; with many ports fewer (transport/phy/runs/pool.ts). */
const GUARANTEED_BUFFERS = 4
const GUARANTEED_SMALL_BUFFERS = 32

export class MemoryRuns {
  readonly arena: Arena
  readonly records: RunRecords
  readonly flows: FlowTable = createFlowTable()
  /** By record: when the run arrives, with a transit. */
  readonly arrivals: number[] = []
  /** Number of reasons to seal runs: that the link always does, and calls of `requireSeal`. */
  sealReasons: number
  /** Number of runs that wait to be received, at all ports together. */
  waiting = 0
  readonly #large: RunPool
  readonly #small: RunPool
  /** Number of large buffers. They come before the small ones, in the arena too. */
  readonly #largeCount: number
  /** By buffer: references by runs in flight and by a reservation. */
  readonly #references: Int32Array

  constructor(arena: Arena, largeCount: number, smallCount: number, ports: number, isAlwaysSealed: boolean) {
    this.arena = arena
    this.records = createRunRecords(largeCount + smallCount)
    this.sealReasons = isAlwaysSealed ? 1 : 0
    this.#large = createRunPool(0, RUN_BYTES, largeCount, ports, GUARANTEED_BUFFERS)
    this.#small = createRunPool(largeCount * RUN_BYTES, SMALL_RUN_BYTES, smallCount, ports, GUARANTEED_SMALL_BUFFERS)
    this.#largeCount = largeCount
    this.#references = new Int32Array(largeCount + smallCount)
  }

  /** Takes a buffer for `bytes` bytes; -1 if none is free. */
  takeBuffer(owner: number, bytes: number): number {
    let buffer = bytes <= SMALL_RUN_BYTES ? this.#small.take(owner) : -1
    if (buffer >= 0) buffer += this.#largeCount
    else buffer = this.#large.take(owner)
    if (buffer >= 0) this.#references[buffer] = 1
    return buffer
  }

  retainBuffer(buffer: number): void {
    this.#references[buffer]++
  }

  releaseBuffer(buffer: number): void {
    if (--this.#references[buffer] > 0) return
    if (buffer < this.#largeCount) this.#large.release(buffer)
    else this.#small.release(buffer - this.#largeCount)
  }

  startOf(buffer: number): number {
    const largeCount = this.#largeCount
    return buffer < largeCount ? this.#large.offsetOf(buffer) : this.#small.offsetOf(buffer - largeCount)
  }

  endOf(buffer: number): number {
    return this.startOf(buffer) + (buffer < this.#largeCount ? RUN_BYTES : SMALL_RUN_BYTES)
  }

  /** As `Port.takeLayerBuffer`. */
  takeLayerBuffer(owner: number): number {
    const buffer = this.#large.take(owner)
    return buffer < 0 ? -1 : this.#large.offsetOf(buffer)
  }

  releaseLayerBuffer(offset: number): void {
    this.#large.release(this.#large.bufferAt(offset))
  }

  addOwner(owner: number): void {
    this.#large.addOwner(owner)
    this.#small.addOwner(owner)
  }

  removeOwner(owner: number): void {
    this.#large.removeOwner(owner)
    this.#small.removeOwner(owner)
  }

  /** Whether an owner has buffers in use. */
  isOwner(owner: number): boolean {
    return this.#large.usedBy(owner) > 0 || this.#small.usedBy(owner) > 0
  }

  freeBuffers(): { readonly large: number; readonly small: number } {
    return { large: this.#large.free(), small: this.#small.free() }
  }

  release(run: number): void {
    this.releaseBuffer(this.records.buffer[run])
    freeRecord(this.records, run)
  }

  /** Releases a packet of the carrier's: only a record, without a buffer. */
  releaseCarried(packet: number): void {
    this.flows.release(this.records.flow[packet])
    freeRecord(this.records, packet)
  }

  /** A second record for the same bytes, for another receiver. */
  copy(run: number): number {
    const { records } = this
    const copy = allocateRecord(records)
    records.buffer[copy] = records.buffer[run]
    records.offset[copy] = records.offset[run]
    records.packetBytes[copy] = records.packetBytes[run]
    records.count[copy] = records.count[run]
    records.lastBytes[copy] = records.lastBytes[run]
    records.flow[copy] = records.flow[run]
    records.isSealed[copy] = records.isSealed[run]
    records.identification[copy] = records.identification[run]
    this.retainBuffer(records.buffer[run])
    this.flows.retain(records.flow[run])
    return copy
  }

  packetOffset(run: number, packet: number): number {
    const { records } = this
    return records.offset[run] + packet * records.packetBytes[run]
  }

  packetLength(run: number, packet: number): number {
    const { records } = this
    return packet === records.count[run] - 1 ? records.lastBytes[run] : records.packetBytes[run]
  }

  /** Writes the ICRCs. */
  seal(run: number): void {
    const { records } = this
    const flow = this.flows.icrcFlowOf(records.flow[run])
    const first = records.identification[run]
    for (let i = 0; i < records.count[run]; i++)
      sealIcrc(this.arena, this.packetOffset(run, i), this.packetLength(run, i), flow, first + i)
    records.isSealed[run] = 1
  }

  hasCorrectIcrc(run: number, packet: number): boolean {
    const { records } = this
    return verifyIcrc(
      this.arena,
      this.packetOffset(run, packet),
      this.packetLength(run, packet),
      this.flows.icrcFlowOf(records.flow[run]),
      records.identification[run] + packet,
    )
  }

  /** Path and headers of a run's packets; packets that were marked or crossed routers are runs of one. */
  flowOf(run: number): FlowAddress {
    const sent = this.flows.recordOf(this.records.flow[run])
    const hops = this.records.hops[run]
    const flow = hops === 0 ? sent : routedFlow(sent, hops)
    return this.records.isMarked[run] ? markedFlow(flow) : flow
  }
}
