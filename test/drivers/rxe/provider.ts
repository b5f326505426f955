/*
 * Posts to rxe's rings and polls completions as rdma-core's provider does. `testRings` is memory for rings that shows
 * leaks and writes outside the rings.
 */

import type { MappedChunk } from '../../../src/core/memory/mappable-memory.ts'
import type { RingMemory } from '../../../src/core/memory/rings.ts'
import { RecvWqe, RingHeader, RingSge, SendWqe, Wc } from '../../../src/spec/drivers/mapped-rings.ts'
import { mappedLayout } from '../../../src/spec/drivers/ring-layout.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { SendFlags, WcFlags, WrOpcode } from '../../../src/spec/work.ts'

const PAGE = 4096
/** Each byte of the pages around a ring. */
const GUARD = 0xa5

export interface TestRings extends RingMemory {
  /** Chunks that are not freed, oldest first. */
  readonly live: Set<MappedChunk>
  /** Number of allocations that succeed before ENOMEM. */
  allocationsLeft: number
  /** The chunk that a program maps at `offset`. */
  at(offset: bigint): MappedChunk
}

/** Each ring has a chunk between two guard pages. */
export const testRings = (): TestRings => {
  const live = new Set<MappedChunk>()
  let next = PAGE
  return {
    live,
    layout: mappedLayout,
    mayHideSlots: true,
    allocationsLeft: Number.POSITIVE_INFINITY,
    at(offset) {
      for (const chunk of live) if (BigInt(chunk.offset) === offset) return chunk
      throw new Error(`there is no ring at offset ${offset}`)
    },
    allocate(bytes) {
      if (this.allocationsLeft-- <= 0) throw new CallError('ENOMEM', 'the test allows no more rings')
      const length = Math.ceil((RingHeader.DATA + bytes) / PAGE) * PAGE
      const buffer = new ArrayBuffer(length + 2 * PAGE)
      const all = new Uint8Array(buffer).fill(GUARD)
      all.fill(0, PAGE, PAGE + length)
      const area = {
        offset: next,
        length,
        at: PAGE,
        bytes: all,
        view: new DataView(buffer),
        words: new Int32Array(buffer),
      }
      next += length
      live.add(area)
      return { area, headerAt: PAGE, elementsAt: PAGE + RingHeader.DATA }
    },
    free({ area }) {
      if (!live.delete(area)) throw new Error('a ring is freed that was not allocated')
    },
  }
}

/** Whether nothing was written outside the chunk. */
export const isIntact = ({ bytes, at, length }: MappedChunk): boolean =>
  bytes.subarray(0, at).every(byte => byte === GUARD) && bytes.subarray(at + length).every(byte => byte === GUARD)

// ---- one ring, as mapped by the program ----

/** `log2`: of the element size; `mask`: for indices. `producer` and `consumer` are in shared memory. */
export interface MappedRing {
  readonly view: DataView
  readonly log2: number
  readonly mask: number
  producer: number
  consumer: number
}

const index = (view: DataView, at: number) => ({
  get: () => view.getUint32(at, true),
  set: (value: number) => view.setUint32(at, value, true),
})

export const mapRing = ({ bytes, at, length }: MappedChunk): MappedRing => {
  const view = new DataView(bytes.buffer, at, length)
  const producer = index(view, RingHeader.PRODUCER)
  const consumer = index(view, RingHeader.CONSUMER)
  return {
    view,
    log2: view.getUint32(RingHeader.LOG2_ELEMENT, true),
    mask: view.getUint32(RingHeader.INDEX_MASK, true),
    get producer() {
      return producer.get()
    },
    set producer(value) {
      producer.set(value)
    },
    get consumer() {
      return consumer.get()
    },
    set consumer(value) {
      consumer.set(value)
    },
  }
}

const elementAt = (ring: MappedRing, index: number): number => RingHeader.DATA + ((index & ring.mask) << ring.log2)

export interface SgeRecord {
  readonly address: number
  readonly length: number
  readonly lkey: number
}

export interface SendRequest {
  readonly opcode: number
  /** wr_id; 0 by default. */
  readonly id?: bigint
  /** SIGNALED by default. */
  readonly flags?: number
  /** Immediate data, or the key to invalidate. */
  readonly imm?: number
  readonly sges?: readonly SgeRecord[]
  readonly inline?: Uint8Array
  /** The remote address. */
  readonly remote?: number
  readonly rkey?: number
  /** The destination of a datagram. `vector`: an address vector with `ah` 0, as older providers write it. */
  readonly to?: { qpn: number; qkey: number; ah: number; vector?: Uint8Array }
  /** BIND_MW of `length` bytes at `remote`. */
  readonly bind?: { window: number; newKey: number; lkey: number; length: number; access: number }
  readonly compareAdd?: bigint
  readonly swap?: bigint
  /** dma.length, if it is not the length of the data. */
  readonly dmaLength?: number
  /** dma.num_sge, if it is not the number of `sges`. */
  readonly numSge?: number
}

export const Flag = SendFlags.values
const { LOCAL_INV } = WrOpcode.values

/** Short names of ibv_wr_opcode values. */
export const Wr = {
  WRITE: WrOpcode.values.RDMA_WRITE,
  WRITE_IMM: WrOpcode.values.RDMA_WRITE_WITH_IMM,
  SEND: WrOpcode.values.SEND,
  SEND_IMM: WrOpcode.values.SEND_WITH_IMM,
  READ: WrOpcode.values.RDMA_READ,
  CAS: WrOpcode.values.ATOMIC_CMP_AND_SWP,
  FAA: WrOpcode.values.ATOMIC_FETCH_AND_ADD,
  SEND_INV: WrOpcode.values.SEND_WITH_INV,
} as const

const putSges = (view: DataView, at: number, sges: readonly SgeRecord[]): void => {
  sges.forEach(({ address, length, lkey }, i) => {
    view.setBigUint64(at + i * RingSge.BYTES + RingSge.ADDRESS, BigInt(address), true)
    view.setUint32(at + i * RingSge.BYTES + RingSge.LENGTH, length, true)
    view.setUint32(at + i * RingSge.BYTES + RingSge.LKEY, lkey, true)
  })
}

const total = (sges: readonly SgeRecord[]): number => sges.reduce((sum, { length }) => sum + length, 0)

/** Writes a request at the producer index without advancing it. */
export const writeSend = (ring: MappedRing, request: SendRequest): void => {
  const { opcode, id = 0n, flags = Flag.SIGNALED, imm = 0, sges = [], inline, remote = 0, rkey = 0 } = request
  const { view } = ring
  const at = elementAt(ring, ring.producer)
  const isAtomic = opcode === Wr.CAS || opcode === Wr.FAA
  view.setBigUint64(at + SendWqe.WR_ID, id, true)
  view.setUint32(at + SendWqe.OPCODE, opcode, true)
  view.setUint32(at + SendWqe.FLAGS, inline ? flags | Flag.INLINE : flags, true)
  const isKey = opcode === Wr.SEND_INV || opcode === LOCAL_INV
  // a key is little-endian, an immediate big-endian
  view.setUint32(at + SendWqe.IMM, imm, isKey)
  view.setBigUint64(at + SendWqe.REMOTE, BigInt(remote), true)
  if (request.to) {
    view.setUint32(at + SendWqe.UD_QPN, request.to.qpn, true)
    view.setUint32(at + SendWqe.UD_QKEY, request.to.qkey, true)
    view.setUint32(at + SendWqe.UD_AH, request.to.ah, true)
    const vector = request.to.vector ?? new Uint8Array()
    new Uint8Array(view.buffer, view.byteOffset + at + SendWqe.UD_VECTOR, vector.length).set(vector)
  } else if (isAtomic) {
    view.setBigUint64(at + SendWqe.ATOMIC_COMPARE_ADD, request.compareAdd ?? 0n, true)
    view.setBigUint64(at + SendWqe.ATOMIC_SWAP, request.swap ?? 0n, true)
  }
  if (!request.to) view.setUint32(at + (isAtomic ? SendWqe.ATOMIC_RKEY : SendWqe.RKEY), rkey, true)
  if (request.bind) {
    view.setBigUint64(at + SendWqe.MW_LENGTH, BigInt(request.bind.length), true)
    view.setUint32(at + SendWqe.MW_LKEY, request.bind.lkey, true)
    view.setUint32(at + SendWqe.MW_KEY, request.bind.window, true)
    view.setUint32(at + SendWqe.MW_NEW_KEY, request.bind.newKey, true)
    view.setUint32(at + SendWqe.MW_ACCESS, request.bind.access, true)
  }
  view.setUint32(at + SendWqe.DMA_LENGTH, request.dmaLength ?? (inline ? inline.length : total(sges)), true)
  view.setUint32(at + SendWqe.DMA_NUM_SGE, request.numSge ?? sges.length, true)
  if (inline) new Uint8Array(view.buffer, view.byteOffset + at + SendWqe.SGE, inline.length).set(inline)
  else putSges(view, at + SendWqe.SGE, sges)
}

/** Posts a send request; false if the queue is full. */
export const postSend = (ring: MappedRing, request: SendRequest): boolean => {
  if (((ring.producer + 1) & ring.mask) === ring.consumer) return false
  writeSend(ring, request)
  ring.producer = (ring.producer + 1) & ring.mask
  return true
}

/** Posts a receive request; false if the queue is full. */
export const postReceive = (
  ring: MappedRing,
  id: bigint,
  sges: readonly SgeRecord[],
  numSge = sges.length,
): boolean => {
  if (((ring.producer + 1) & ring.mask) === ring.consumer) return false
  const { view } = ring
  const at = elementAt(ring, ring.producer)
  view.setBigUint64(at + RecvWqe.WR_ID, id, true)
  view.setUint32(at + RecvWqe.DMA_NUM_SGE, numSge, true)
  putSges(view, at + RecvWqe.SGE, sges)
  ring.producer = (ring.producer + 1) & ring.mask
  return true
}

/** A work completion (struct ib_uverbs_wc). */
export interface Polled {
  readonly id: bigint
  readonly status: number
  readonly opcode: number
  readonly bytes: number
  readonly imm: number
  readonly qpn: number
  readonly flags: number
  readonly srcQp: number
  readonly sl: number
  readonly port: number
  readonly vendor: number
}

/** Takes the oldest completion; undefined if there is none. */
export const pollCq = (ring: MappedRing): Polled | undefined => {
  if (ring.consumer === ring.producer) return undefined
  const { view } = ring
  const at = elementAt(ring, ring.consumer)
  ring.consumer = (ring.consumer + 1) & ring.mask
  const flags = view.getUint32(at + Wc.FLAGS, true)
  return {
    id: view.getBigUint64(at + Wc.WR_ID, true),
    status: view.getUint32(at + Wc.STATUS, true),
    opcode: view.getUint32(at + Wc.OPCODE, true),
    bytes: view.getUint32(at + Wc.BYTE_LEN, true),
    // an immediate is big-endian, an invalidated key little-endian
    imm: view.getUint32(at + Wc.IMM, (flags & WcFlags.values.WITH_INV) !== 0),
    qpn: view.getUint32(at + Wc.QP_NUM, true),
    flags,
    srcQp: view.getUint32(at + Wc.SRC_QP, true),
    sl: view.getUint8(at + Wc.SL),
    port: view.getUint8(at + Wc.PORT_NUM),
    vendor: view.getUint32(at + Wc.VENDOR_ERR, true),
  }
}

/** Takes all completions, oldest first. */
export const pollAll = (ring: MappedRing): Polled[] => {
  const all: Polled[] = []
  for (let completion = pollCq(ring); completion; completion = pollCq(ring)) all.push(completion)
  return all
}
