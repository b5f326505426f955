/*
 * Send queues: requests in blocks of the program's memory (spec/drivers/mlx5-queues.ts) become requests of the device's
 * ring. A program may be hostile: each field is read once, and what is malformed becomes a request with an opcode that
 * the engine refuses.
 */
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import { elementAt, type Ring, storeProducer } from '../../core/memory/rings.ts'
import {
  AtomicSegment,
  BLOCK_BYTES,
  ControlFlag,
  ControlSegment,
  DATAGRAM_GID_SHIFT,
  DatagramSegment,
  DataSegment,
  DoorbellRecord,
  EthernetSegment,
  KeyAccess,
  KeySegments,
  Mlx5Opcode,
  POSTED_MASK,
  RemoteSegment,
  SEGMENT_BYTES,
  wrOpcodes,
} from '../../spec/drivers/mlx5-queues.ts'
import { AddressVector, RingSge } from '../../spec/drivers/rxe-rings.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { swap32 } from '../../spec/memory.ts'
import { SendFlags, SRQN_SHIFT, WrOpcode } from '../../spec/work.ts'
import { FrameChecksum } from '../../transport/engine/types.ts'
import type { SendQueue } from '../rxe/rings/work-source.ts'
import type { InlineRegion } from './inline-region.ts'
import type { ProgramRecord } from './program-memory.ts'

const { FENCE, SIGNALED, SOLICITED, INLINE } = SendFlags.values
const { BIND_MW, DRIVER1, LOCAL_INV, SEND_WITH_INV } = WrOpcode.values
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, ZERO_BASED } = AccessFlags.values

/** An opcode that no service has. */
const REFUSED = 0xff
/** More segments than a request has. */
const SEGMENTS_BEYOND = 0x100
const FLOW_LABEL_MASK = 0xf_ffff

/** Requests that are taken at once: other queues wait meanwhile. The engine reads the index again when it has sent them. */
const MAX_TAKEN = 256

/** The kinds of queue pairs, by the segments of their requests. */
export type SendKind = 'connected' | 'datagram' | 'xrc' | 'dc' | 'frame'

/** Decides about requests that name a target of DC. */
export interface TargetGate {
  /** Whether the request whose datagram segment begins at `words[at]` is taken now; if not, it is asked again. */
  mayTake(words: Int32Array, at: number): boolean
}

/** Bytes of a frame that a request of a raw packet queue pair may have in its Ethernet segment. */
export const MAX_FRAME_HEADER = 64

export class Sends {
  /** Opcodes of the posted requests, by block. */
  readonly opcodes: Uint8Array
  /** Whether requests are taken: not in RESET, where the program sets its counters to 0 after the call. */
  isOpen = false
  /** Of an initiator of DC. */
  gate: TargetGate | undefined
  readonly #record: ProgramRecord
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #words: Int32Array
  /** Offset of the first block, and bytes of all. */
  readonly #start: number
  readonly #size: number
  readonly #kind: SendKind
  readonly #queue: SendQueue
  readonly #inline: InlineRegion
  /** Blocks taken since RESET, modulo 2^16. */
  #taken = 0
  /** Requests in the device's ring since RESET. */
  #produced = 0
  /** Offset of the next segment from `#start`. */
  #segment = 0

  /**
   * `buffer`: the program's pages; the queue begins at `offset`. `inline`: of the queue. Sets `queue.ring.refresh`.
   */
  constructor(
    record: ProgramRecord,
    { view, bytes, words, at }: MappedChunk,
    offset: number,
    blocks: number,
    kind: SendKind,
    queue: SendQueue,
    inline: InlineRegion,
  ) {
    this.#record = record
    this.#view = view
    this.#bytes = bytes
    this.#words = words
    this.#start = at + offset
    this.#size = blocks * BLOCK_BYTES
    this.#kind = kind
    this.#queue = queue
    this.#inline = inline
    this.opcodes = new Uint8Array(blocks)
    queue.ring.refresh = () => this.#refresh()
  }

  /** The opcode of the request that began at block `counter`. */
  opcodeOf(counter: number): number {
    return this.opcodes[counter & (this.opcodes.length - 1)]!
  }

  /** Blocks taken since RESET, modulo 2^16. */
  get taken(): number {
    return this.#taken
  }

  /** Whether all taken requests have completed. */
  get isDrained(): boolean {
    return this.#produced === this.#queue.retiredIndex
  }

  /** The queue pair moves to RESET. */
  reset(): void {
    this.isOpen = false
    this.#taken = 0
    this.#produced = 0
  }

  #refresh(): void {
    if (!this.isOpen) return
    let left = (this.#record.load(DoorbellRecord.SENDS) - this.#taken) & POSTED_MASK
    if (left === 0) return
    const { ring } = this.#queue
    // the ring is full only if the program has posted more than its queue holds
    const room = ring.capacity - ((this.#produced - this.#queue.retiredIndex) & ring.wrap)
    for (let count = Math.min(room, MAX_TAKEN); left > 0 && count > 0; count--) {
      const block = this.#taken & (this.opcodes.length - 1)
      const control = this.#start + block * BLOCK_BYTES
      // read once, since a request of another opcode needs no target
      const opcode = this.#view.getUint8(control + ControlSegment.OPCODE)
      const needsTarget = this.gate !== undefined && opcode !== Mlx5Opcode.UMR && opcode !== Mlx5Opcode.NOP
      if (needsTarget && !this.gate!.mayTake(this.#words, (control + SEGMENT_BYTES) >> 2)) break
      const blocks = Math.min(this.#take(ring, elementAt(ring, this.#produced), block, opcode), left)
      this.#taken = (this.#taken + blocks) & POSTED_MASK
      this.#produced = (this.#produced + 1) & ring.wrap
      left -= blocks
    }
    storeProducer(ring, this.#produced)
  }

  /** The offset of the next segment, and moves over `bytes`. */
  #next(bytes: number): number {
    const at = this.#start + this.#segment
    this.#segment = (this.#segment + bytes) & (this.#size - 1)
    return at
  }

  /** Copies the request at `block` to element `to` of the ring. Returns its number of blocks. */
  #take(ring: Ring, to: number, block: number, opcode: number): number {
    const view = this.#view
    const { words } = ring.area
    const { send } = ring.layout
    this.#segment = block * BLOCK_BYTES
    const control = this.#next(SEGMENT_BYTES)
    const segments = view.getUint8(control + ControlSegment.SEGMENTS) & ControlSegment.SEGMENTS_MASK
    const controlFlags = view.getUint8(control + ControlSegment.FLAGS)
    const imm = view.getUint32(control + ControlSegment.IMM)
    this.opcodes[block] = opcode
    const { FENCE_SHIFT, FENCE_MASK } = ControlFlag
    let flags =
      ((controlFlags & ControlFlag.SIGNALED) === 0 ? 0 : SIGNALED) |
      ((controlFlags & ControlFlag.SOLICITED) === 0 ? 0 : SOLICITED) |
      (((controlFlags >>> FENCE_SHIFT) & FENCE_MASK) >= ControlFlag.FENCE ? FENCE : 0)
    words[(to + send.WR_ID) >> 2] = this.#taken
    words[(to + send.WR_ID + 4) >> 2] = 0
    words[(to + send.DMA_NUM_SGE) >> 2] = 0
    words[(to + send.DMA_LENGTH) >> 2] = 0
    const blocks = Math.max(1, Math.ceil((segments * SEGMENT_BYTES) / BLOCK_BYTES))
    let left = segments - 1
    let wrOpcode = wrOpcodes[opcode] ?? REFUSED
    if (opcode === Mlx5Opcode.UMR) wrOpcode = left < 7 ? REFUSED : this.#takeKeyChange(ring, to, imm, left)
    else if (wrOpcode !== REFUSED && wrOpcode !== DRIVER1) {
      if (this.#kind === 'xrc') {
        flags |= view.getUint32(this.#next(SEGMENT_BYTES)) << SRQN_SHIFT
        left--
      } else if (this.#kind === 'datagram') {
        this.#takeDestination(ring, to)
        left -= DatagramSegment.BYTES / SEGMENT_BYTES
      } else if (this.#kind === 'dc') {
        this.#next(DatagramSegment.BYTES)
        left -= DatagramSegment.BYTES / SEGMENT_BYTES
      } else if (this.#kind === 'frame') left -= this.#takeEthernet(ring, to)
      const isAtomic = opcode === Mlx5Opcode.ATOMIC_CS || opcode === Mlx5Opcode.ATOMIC_FA
      if (isAtomic) left -= this.#takeAtomic(ring, to, opcode)
      else {
        words[(to + send.IMM) >> 2] = wrOpcode === SEND_WITH_INV ? imm : swap32(imm)
        const isRemote =
          opcode === Mlx5Opcode.RDMA_WRITE || opcode === Mlx5Opcode.RDMA_WRITE_IMM || opcode === Mlx5Opcode.RDMA_READ
        if (isRemote) left -= this.#takeRemote(ring, to, send.RKEY)
      }
      const data = left < 0 ? REFUSED : this.#takeData(ring, to, left)
      if (data === REFUSED || (this.#kind === 'frame' && !this.#hasRoom(ring, to, data))) wrOpcode = REFUSED
      else flags |= data
    }
    words[(to + send.OPCODE) >> 2] = wrOpcode
    words[(to + send.FLAGS) >> 2] = flags
    return blocks
  }

  #takeRemote({ area: { words }, layout: { send } }: Ring, to: number, keyAt: number): number {
    const view = this.#view
    const at = this.#next(SEGMENT_BYTES)
    words[(to + send.REMOTE) >> 2] = view.getUint32(at + RemoteSegment.ADDRESS + 4)
    words[(to + send.REMOTE + 4) >> 2] = view.getUint32(at + RemoteSegment.ADDRESS)
    words[(to + keyAt) >> 2] = view.getUint32(at + RemoteSegment.RKEY)
    return 1
  }

  #takeAtomic(ring: Ring, to: number, opcode: number): number {
    const view = this.#view
    const { words } = ring.area
    const { send } = ring.layout
    this.#takeRemote(ring, to, send.ATOMIC_RKEY)
    const at = this.#next(SEGMENT_BYTES)
    const isSwap = opcode === Mlx5Opcode.ATOMIC_CS
    const operand = at + (isSwap ? AtomicSegment.COMPARE : AtomicSegment.SWAP_ADD)
    words[(to + send.ATOMIC_COMPARE_ADD) >> 2] = view.getUint32(operand + 4)
    words[(to + send.ATOMIC_COMPARE_ADD + 4) >> 2] = view.getUint32(operand)
    words[(to + send.ATOMIC_SWAP) >> 2] = isSwap ? view.getUint32(at + AtomicSegment.SWAP_ADD + 4) : 0
    words[(to + send.ATOMIC_SWAP + 4) >> 2] = isSwap ? view.getUint32(at + AtomicSegment.SWAP_ADD) : 0
    return 2
  }

  #takeDestination({ area: { words, bytes }, layout: { send } }: Ring, to: number): void {
    const view = this.#view
    const at = this.#next(DatagramSegment.BYTES)
    words[(to + send.UD_QPN) >> 2] = view.getUint32(at + DatagramSegment.QPN) & 0xff_ffff
    words[(to + send.UD_QKEY) >> 2] = view.getUint32(at + DatagramSegment.QKEY)
    words[(to + send.UD_AH) >> 2] = 0
    const vector = to + send.UD_VECTOR
    bytes.fill(0, vector, vector + AddressVector.BYTES)
    bytes[vector + AddressVector.PORT] = 1
    for (let i = 0; i < 16; i++) bytes[vector + AddressVector.DGID + i] = this.#bytes[at + DatagramSegment.DGID + i]!
    const source = view.getUint32(at + DatagramSegment.SOURCE)
    words[(vector + AddressVector.FLOW_LABEL) >> 2] = source & FLOW_LABEL_MASK
    bytes[vector + AddressVector.SGID_INDEX] = source >>> DATAGRAM_GID_SHIFT
    bytes[vector + AddressVector.TRAFFIC_CLASS] = view.getUint8(at + DatagramSegment.TRAFFIC_CLASS)
  }

  /** The Ethernet segment of a raw packet. The frame's first bytes go to the end of the ring's element. */
  #takeEthernet({ area: { words, bytes }, layout: { send } }: Ring, to: number): number {
    const view = this.#view
    const at = this.#next(SEGMENT_BYTES)
    const checksums = view.getUint8(at + EthernetSegment.CHECKSUMS)
    const size = view.getUint16(at + EthernetSegment.HEADER_BYTES)
    const room = this.#queue.maxInline
    words[(to + send.RKEY) >> 2] = room - size
    words[(to + send.REMOTE) >> 2] = size
    words[(to + send.REMOTE + 4) >> 2] =
      ((checksums & EthernetSegment.L3_CHECKSUM) === 0 ? 0 : FrameChecksum.L3) |
      ((checksums & EthernetSegment.L4_CHECKSUM) === 0 ? 0 : FrameChecksum.L4)
    if (size > MAX_FRAME_HEADER) return SEGMENTS_BEYOND
    const from = at - this.#start + EthernetSegment.HEADER
    const target = to + send.SGE + room - size
    for (let i = 0; i < size; i++) bytes[target + i] = this.#bytes[this.#start + ((from + i) & (this.#size - 1))]!
    const segments = Math.max(1, Math.ceil((EthernetSegment.HEADER + size) / SEGMENT_BYTES))
    this.#next((segments - 1) * SEGMENT_BYTES)
    return segments
  }

  /** Whether the data of a frame, which was copied last, has left the frame's first bytes alone. */
  #hasRoom({ area: { words }, layout: { send } }: Ring, to: number, data: number): boolean {
    const used =
      data === INLINE ? words[(to + send.DMA_LENGTH) >> 2]! : words[(to + send.DMA_NUM_SGE) >> 2]! * RingSge.BYTES
    return used + words[(to + send.REMOTE) >> 2]! <= this.#queue.maxInline
  }

  /** Copies `segments` of data: elements, or inline bytes. Returns INLINE or 0; REFUSED if they are malformed. */
  #takeData(ring: Ring, to: number, segments: number): number {
    const view = this.#view
    let count = 0
    for (let left = segments; left > 0; ) {
      const at = this.#next(SEGMENT_BYTES)
      const word = view.getUint32(at + DataSegment.BYTES)
      if ((word & DataSegment.INLINE) === 0) {
        const hi = view.getUint32(at + DataSegment.ADDRESS)
        const lo = view.getUint32(at + DataSegment.ADDRESS + 4)
        this.#putElement(ring, to, count++, hi, lo, word, view.getUint32(at + DataSegment.LKEY))
        left--
        continue
      }
      const length = word & ~DataSegment.INLINE
      const used = Math.ceil((length + 4) / SEGMENT_BYTES)
      if (used > left) return REFUSED
      // an adapter sends as much as fits in a request, whatever max_inline_data the queue pair was made with
      if (count === 0 && used === left && length <= this.#queue.maxInline) return this.#takeInline(ring, to, at, length)
      this.#next((used - 1) * SEGMENT_BYTES)
      left -= used
      // the data may go on at the first block
      const from = (at + 4 - this.#start) & (this.#size - 1)
      const part = Math.min(length, this.#size - from)
      const { key } = this.#inline
      if (part > 0) this.#putElement(ring, to, count++, 0, from, part, key)
      if (part < length) this.#putElement(ring, to, count++, 0, 0, length - part, key)
    }
    ring.area.words[(to + ring.layout.send.DMA_NUM_SGE) >> 2] = count
    return 0
  }

  /** The ring has room for `maxSge` elements; the work source refuses a request with more. */
  #putElement(ring: Ring, to: number, i: number, hi: number, lo: number, length: number, lkey: number): void {
    if (i >= this.#queue.maxSge) return
    const { words } = ring.area
    const sge = to + ring.layout.send.SGE + i * RingSge.BYTES
    words[(sge + RingSge.ADDRESS) >> 2] = lo
    words[(sge + RingSge.ADDRESS + 4) >> 2] = hi
    words[(sge + RingSge.LENGTH) >> 2] = length
    words[(sge + RingSge.LKEY) >> 2] = lkey
  }

  #takeInline(ring: Ring, to: number, at: number, length: number): number {
    const { words, bytes } = ring.area
    const { send } = ring.layout
    words[(to + send.DMA_LENGTH) >> 2] = length
    let from = at + 4 - this.#start
    const target = to + send.SGE
    for (let done = 0; done < length; ) {
      from &= this.#size - 1
      const part = Math.min(length - done, this.#size - from)
      bytes.set(this.#bytes.subarray(this.#start + from, this.#start + from + part), target + done)
      done += part
      from += part
    }
    return INLINE
  }

  /** A bind or an invalidation of a memory window. Returns its opcode, or REFUSED. */
  #takeKeyChange({ area: { words }, layout: { send } }: Ring, to: number, key: number, segments: number): number {
    const view = this.#view
    // the parts are aligned to blocks, so none of them continues at the first block
    const first = this.#next(3 * SEGMENT_BYTES)
    const second = this.#next(BLOCK_BYTES)
    const maskLow = view.getUint32(first + KeySegments.MKEY_MASK + 4)
    const newKey = (key & ~0xff) | (view.getUint32(second + KeySegments.QPN_KEY - KeySegments.FREE) & 0xff)
    const isFree = (view.getUint8(second) & KeySegments.IS_FREE) !== 0
    if (isFree && (maskLow & KeySegments.QPN_MASK) !== 0) {
      words[(to + send.IMM) >> 2] = key
      return LOCAL_INV
    }
    words[(to + send.MW_KEY) >> 2] = key
    words[(to + send.MW_NEW_KEY) >> 2] = newKey
    if (isFree) {
      words.fill(0, (to + send.MW_LENGTH) >> 2, ((to + send.MW_LENGTH) >> 2) + 2)
      words.fill(0, (to + send.REMOTE) >> 2, ((to + send.REMOTE) >> 2) + 2)
      words[(to + send.MW_LKEY) >> 2] = 0
      words[(to + send.MW_ACCESS) >> 2] = 0
      return BIND_MW
    }
    if (segments < 11 || (view.getUint8(first + KeySegments.FLAGS) & KeySegments.INLINE) === 0) return REFUSED
    const third = this.#next(BLOCK_BYTES)
    const at = (offset: number): number => (offset < 112 ? second + offset - KeySegments.FREE : third + offset - 112)
    const access = view.getUint8(at(KeySegments.ACCESS))
    const startHi = view.getUint32(at(KeySegments.START))
    const startLo = view.getUint32(at(KeySegments.START) + 4)
    const hi = view.getUint32(at(KeySegments.ADDRESS))
    const lo = view.getUint32(at(KeySegments.ADDRESS) + 4)
    words[(to + send.REMOTE) >> 2] = lo
    words[(to + send.REMOTE + 4) >> 2] = hi
    words[(to + send.MW_LENGTH) >> 2] = view.getUint32(at(KeySegments.LENGTH) + 4)
    words[(to + send.MW_LENGTH + 4) >> 2] = view.getUint32(at(KeySegments.LENGTH))
    words[(to + send.MW_LKEY) >> 2] = view.getUint32(at(KeySegments.LKEY))
    words[(to + send.MW_ACCESS) >> 2] =
      ((access & KeyAccess.LOCAL_WRITE) === 0 ? 0 : LOCAL_WRITE) |
      ((access & KeyAccess.REMOTE_WRITE) === 0 ? 0 : REMOTE_WRITE) |
      ((access & KeyAccess.REMOTE_READ) === 0 ? 0 : REMOTE_READ) |
      ((access & KeyAccess.ATOMIC) === 0 ? 0 : REMOTE_ATOMIC) |
      (startHi === 0 && startLo === 0 && (hi !== 0 || lo !== 0) ? ZERO_BASED : 0)
    return BIND_MW
  }
}
