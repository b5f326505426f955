/*
 * Send queues: requests in blocks of the program's memory (spec/drivers/mlx5-queues.ts) become the engine's words
 * (`Send`) when the engine fetches them. A program may be hostile: each field is read once, and what is malformed
 * becomes a request with an opcode that the engine refuses. Inline data stay in the program's blocks until they are
 * sent, and until the last retransmission: a program may use blocks again only after the completion.
 */
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import {
  AtomicSegment,
  BLOCK_BYTES,
  blocksOf,
  ControlFlag,
  ControlSegment,
  CopySegments,
  DATAGRAM_GID_SHIFT,
  DATAGRAM_GRH_SHIFT,
  DatagramSegment,
  DataSegment,
  DoorbellRecord,
  EthernetSegment,
  KeySegments,
  Mlx5Opcode,
  POSTED_MASK,
  RemoteSegment,
  SEGMENT_BYTES,
  wrOpcodes,
} from '../../spec/drivers/mlx5-queues.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { MAX_MESSAGE_BYTES, SendFlags, SRQN_SHIFT, WcStatus, WrOpcode } from '../../spec/work.ts'
import { AccessKey, BindMw, FrameChecksum, Send, Sge } from '../../transport/engine/types.ts'
import type { Arena } from '../../transport/wire/arena.ts'
import { type Destinations, localPart } from '../soft/address/destinations.ts'
import { LOOK_AHEAD, NO_MARK, refusal, type SendGlance, type SendQueue } from '../soft/queues.ts'
import type { PostedCounter } from './doorbell-register.ts'
import type { InlineRegion } from './inline-region.ts'
import { accessOf, type KeyChanger } from './key-changes.ts'
import { Bsf, PsvSegment } from './signature/layout.ts'
import type { WireLengths } from './signature/signed-space.ts'

const { FENCE, SIGNALED, SOLICITED, INLINE } = SendFlags.values
const { BIND_MW, DRIVER1, LOCAL_INV, MEMCPY } = WrOpcode.values
const { ZERO_BASED } = AccessFlags.values
const { LOC_LEN_ERR, LOC_QP_OP_ERR } = WcStatus.values
const BAD_OPCODE = refusal(LOC_QP_OP_ERR, 'BAD_OPCODE')
const TOO_MANY_SGE = refusal(LOC_QP_OP_ERR, 'TOO_MANY_SGE')
const KEY_CONFIGURATION = refusal(LOC_QP_OP_ERR, 'KEY_CONFIGURATION')
const NO_ADDRESS_HANDLE = refusal(LOC_QP_OP_ERR, 'NO_ADDRESS_HANDLE')
const MESSAGE_TOO_LONG = refusal(LOC_LEN_ERR, 'MESSAGE_TOO_LONG')

/** An opcode that no service has. */
const REFUSED = 0xff
/** Opcodes of requests without a target. */
const WITHOUT_TARGET: readonly number[] = [Mlx5Opcode.UMR, Mlx5Opcode.NOP, Mlx5Opcode.MMO, Mlx5Opcode.SET_PSV]
/** Opcodes of requests that take effect when they are fetched. */
const AT_ONCE: readonly number[] = [Mlx5Opcode.UMR, Mlx5Opcode.SET_PSV]
/** Segments of a change of a key before its ranges. */
const KEY_CHANGE_SEGMENTS = 7
/** More segments than a request has. */
const SEGMENTS_BEYOND = 0x100
const FLOW_LABEL_MASK = 0xf_ffff
const QPN_MASK = 0xff_ffff
const PORT = 1

/** Of a fetched request: its first block (16 bits), its opcode, and whether it is signaled. */
const OPCODE_SHIFT = 16
const SIGNALED_BIT = 1 << 24
/** Bytes that a queue of the device has for each block. */
export const BYTES_PER_BLOCK = 5

/** The kinds of queue pairs, by the segments of their requests. */
export type SendKind = 'connected' | 'datagram' | 'xrc' | 'dc' | 'frame'

/** Decides about requests that name a target of DC. */
export interface TargetGate {
  /**
   * Whether the request whose control segment begins at `words[at]` is fetched now; if not, it is asked again.
   * `needsTarget`: a datagram segment follows.
   */
  mayTake(words: Int32Array, at: number, needsTarget: boolean): boolean
}

/** Bytes of a frame that a request of a raw packet queue pair may have in its Ethernet segment. */
export const MAX_FRAME_HEADER = 64

const { FENCE_SHIFT, FENCE_MASK } = ControlFlag
/** Whether the flags of a control segment have a fence. */
const isFenced = (flags: number): boolean => ((flags >>> FENCE_SHIFT) & FENCE_MASK) >= ControlFlag.FENCE

/** What a send queue is made of. */
interface BlockOptions {
  readonly record: PostedCounter
  /** The program's pages; the queue begins at `offset`, and has `blocks` blocks, a power of two. */
  readonly buffer: MappedChunk
  readonly offset: number
  readonly blocks: number
  readonly kind: SendKind
  /** Whether its requests may copy within memory: of RC and of initiators of DC. */
  readonly hasCopies: boolean
  /** Of the queue. */
  readonly inline: InlineRegion
  readonly maxSge: number
  readonly maxInline: number
}

export class Sends implements SendQueue {
  readonly capacity: number
  readonly maxSge: number
  readonly maxInline: number
  seen = NO_MARK
  /** Of an initiator of DC. */
  gate: TargetGate | undefined
  /** Changes keys over other keys. */
  keyChanger: KeyChanger | undefined
  /** Of keys with signatures only on the wire. */
  wire: WireLengths | undefined
  /** A signature error of a request stops the queue: a request with a fence waits for all before it. */
  drainsOnFault = false
  /** If not 0: `Send.REFUSED` of each request that is loaded. */
  refusal = 0
  /** Whether requests are fetched: not in RESET, where libmlx5 sets its counters to 0 after the call. */
  #isOpen = false
  readonly #record: PostedCounter
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #words: Int32Array
  /** Offset of the first block, and bytes of all. */
  readonly #start: number
  readonly #size: number
  readonly #kind: SendKind
  readonly #hasCopies: boolean
  readonly #inline: InlineRegion
  /** Opcodes of the fetched requests, by block. */
  readonly #opcodes: Uint8Array
  /** Of the fetched requests, by their number. */
  readonly #fetched: Uint32Array
  /** Blocks fetched since RESET, modulo 2^16, and posted when the record was read last. */
  #taken = 0
  #posted = 0
  /** Requests fetched, and retired, since RESET. */
  #produced = 0
  #retired = 0
  /** The program has posted more than its queue holds. */
  #isFull = false
  /** Requests that are fetched before the next scan, at most as many as the queue holds. */
  #budget = 0
  /** Offset of the next segment from `#start`. */
  #segment = 0
  /** The request that is fetched does nothing. */
  #isFlushed = false

  constructor({ record, buffer, offset, blocks, kind, hasCopies, inline, maxSge, maxInline }: BlockOptions) {
    const { view, bytes, words, at } = buffer
    this.capacity = blocks
    this.maxSge = maxSge
    this.maxInline = maxInline
    this.#record = record
    this.#view = view
    this.#bytes = bytes
    this.#words = words
    this.#start = at + offset
    this.#size = blocks * BLOCK_BYTES
    this.#kind = kind
    this.#hasCopies = hasCopies
    this.#inline = inline
    this.#opcodes = new Uint8Array(blocks)
    this.#fetched = new Uint32Array(blocks)
  }

  /** The opcode of the request that began at block `counter`. */
  opcodeOf(counter: number): number {
    return this.#opcodes[counter & (this.capacity - 1)]!
  }

  /** Blocks fetched since RESET, modulo 2^16. */
  get taken(): number {
    return this.#taken
  }

  /** Whether all fetched requests have completed. */
  get isDrained(): boolean {
    return this.#produced === this.#retired
  }

  mark(): number {
    this.#budget = this.capacity
    if (this.#isOpen) this.#posted = this.#record.load(DoorbellRecord.SENDS) & POSTED_MASK
    return this.#posted
  }

  /** Where the control segment of a block is. */
  #controlAt(block: number): number {
    return this.#start + (block & (this.capacity - 1)) * BLOCK_BYTES
  }

  /** Blocks that are posted and not fetched. */
  #left(): number {
    return (this.mark() - this.#taken) & POSTED_MASK
  }

  isEmpty(): boolean {
    return this.isDrained && this.#left() === 0
  }

  pending(): number {
    let count = this.#produced - this.#retired
    this.#visitPosted(Number.POSITIVE_INFINITY, () => {
      count++
      return false
    })
    return count
  }

  /** Blocks of an earlier round have other indices. */
  unannounced(qpn: number): number {
    let count = 0
    for (let block = this.mark(); count < this.capacity; count++) {
      const control = this.#controlAt(block)
      const index = this.#view.getUint16(control + ControlSegment.INDEX)
      if (index !== (block & POSTED_MASK) || this.#view.getUint32(control + ControlSegment.QPN) >>> 8 !== qpn) break
      block += this.#blocksOf(control)
    }
    return count
  }

  isWindowOperationPosted(): boolean {
    return this.#visitPosted(LOOK_AHEAD, opcode => opcode === Mlx5Opcode.UMR)
  }

  reset(): void {
    this.#isOpen = false
    // UCX leaves the old counter there until it posts: an adapter reads it only when the program rings the doorbell
    this.#record.clear(DoorbellRecord.SENDS)
    this.#taken = 0
    this.#posted = 0
    this.#produced = 0
    this.#retired = 0
    this.#isFull = false
    this.refusal = 0
    this.drainsOnFault = false
  }

  open(): void {
    this.#isOpen = true
  }

  /** The engine counts from 0 again, although the queue goes on. All fetched requests have completed. */
  restart(): void {
    this.#produced = 0
    this.#retired = 0
    this.refusal = 0
    this.seen = NO_MARK
  }

  retire(count: number): void {
    this.#retired += count
    if (!this.#isFull) return
    this.#isFull = false
    // the next scan finds what the engine was refused
    this.seen = NO_MARK
  }

  retired(): number {
    return Math.min(this.#retired, this.capacity)
  }

  glance(from: number): SendGlance {
    const number = this.#retired + from
    if (number < this.#produced) {
      const fetched = this.#fetched[number & (this.capacity - 1)]!
      const opcode = (fetched >>> OPCODE_SHIFT) & 0xff
      return {
        opcode: wrOpcodes[opcode] ?? opcode,
        isSignaled: (fetched & SIGNALED_BIT) !== 0,
        wrId: BigInt(fetched & POSTED_MASK),
      }
    }
    const control = this.#controlAt(this.#taken)
    const opcode = this.#view.getUint8(control + ControlSegment.OPCODE)
    const flags = this.#view.getUint8(control + ControlSegment.FLAGS)
    return {
      opcode: wrOpcodes[opcode] ?? opcode,
      isSignaled: (flags & ControlFlag.SIGNALED) !== 0,
      wrId: BigInt(this.#taken),
    }
  }

  /** Calls `visit` with the opcodes of posted requests that are not fetched, at most `max`, until it returns true. */
  #visitPosted(max: number, visit: (opcode: number) => boolean): boolean {
    let block = this.#taken
    let left = this.#left()
    for (let i = 0; i < max && left > 0; i++) {
      const control = this.#controlAt(block)
      if (visit(this.#view.getUint8(control + ControlSegment.OPCODE))) return true
      const blocks = this.#blocksOf(control)
      block += blocks
      left -= blocks
    }
    return false
  }

  /** Number of blocks of the request at `control`. */
  #blocksOf(control: number): number {
    const segments = this.#view.getUint8(control + ControlSegment.SEGMENTS) & ControlSegment.SEGMENTS_MASK
    return blocksOf(segments)
  }

  /** The engine fetches requests in order; one that it could not begin it fetches again. */
  load(
    index: number,
    into: Uint32Array,
    at: number,
    destinations: Destinations | undefined,
    isFlushed = false,
  ): boolean {
    if (index !== this.#produced >>> 0) {
      this.#produced--
      this.#taken = this.#fetched[this.#produced & (this.capacity - 1)]! & POSTED_MASK
    }
    let left = (this.#posted - this.#taken) & POSTED_MASK
    if (left === 0) {
      left = this.#left()
      if (left === 0) {
        this.seen = this.#posted
        return false
      }
    }
    if (this.#produced - this.#retired >= this.capacity) {
      this.#isFull = true
      return false
    }
    if (this.#budget === 0) {
      this.seen = NO_MARK
      return false
    }
    this.#budget--
    const block = this.#taken & (this.capacity - 1)
    const control = this.#start + block * BLOCK_BYTES
    // read once, since a request of another opcode needs no target
    const opcode = this.#view.getUint8(control + ControlSegment.OPCODE)
    const needsTarget = !WITHOUT_TARGET.includes(opcode)
    const waits = this.drainsOnFault || AT_ONCE.includes(opcode)
    if (waits && !this.isDrained && isFenced(this.#view.getUint8(control + ControlSegment.FLAGS))) {
      this.#isFull = true
      return false
    }
    if (this.gate !== undefined && !this.gate.mayTake(this.#words, control >> 2, needsTarget)) return false
    this.#isFlushed = isFlushed
    const blocks = this.#take(into, at, block, opcode, destinations)
    this.#taken = (this.#taken + Math.min(blocks, left)) & POSTED_MASK
    this.#produced++
    return true
  }

  copyInline(
    inlineAt: number,
    from: number,
    to: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): void {
    const bytes = this.#bytes
    const mask = this.#size - 1
    let source = inlineAt + from
    for (let target = at, remaining = total; remaining > 0; target += stride) {
      const size = remaining < chunk ? remaining : chunk
      const first = source & mask
      // creating a view would cost more; the data may go on at the first block
      if (size <= 128 || first + size > this.#size)
        for (let i = 0; i < size; i++) to.bytes[target + i] = bytes[this.#start + ((first + i) & mask)]!
      else to.bytes.set(bytes.subarray(this.#start + first, this.#start + first + size), target)
      source += size
      remaining -= size
    }
  }

  /** The offset of the next segment, and moves over `bytes`. */
  #next(bytes: number): number {
    const at = this.#start + this.#segment
    this.#segment = (this.#segment + bytes) & (this.#size - 1)
    return at
  }

  /** Copies the request at `block`. Returns its number of blocks. */
  #take(into: Uint32Array, to: number, block: number, opcode: number, destinations: Destinations | undefined): number {
    const view = this.#view
    this.#segment = block * BLOCK_BYTES
    const control = this.#next(SEGMENT_BYTES)
    const segments = view.getUint8(control + ControlSegment.SEGMENTS) & ControlSegment.SEGMENTS_MASK
    const controlFlags = view.getUint8(control + ControlSegment.FLAGS)
    const imm = view.getUint32(control + ControlSegment.IMM)
    const isSignaled = (controlFlags & ControlFlag.SIGNALED) !== 0
    this.#opcodes[block] = opcode
    this.#fetched[this.#produced & (this.capacity - 1)] =
      this.#taken | (opcode << OPCODE_SHIFT) | (isSignaled ? SIGNALED_BIT : 0)
    let flags =
      (isSignaled ? SIGNALED : 0) |
      ((controlFlags & ControlFlag.SOLICITED) === 0 ? 0 : SOLICITED) |
      (isFenced(controlFlags) ? FENCE : 0)
    into[to + Send.ID_LO] = this.#taken
    into[to + Send.ID_HI] = 0
    into[to + Send.SGES] = 0
    into[to + Send.LENGTH] = 0
    into[to + Send.IMM] = imm
    into[to + Send.INLINE_AT] = 0
    into[to + Send.REFUSED] = 0
    let left = segments - 1
    let wrOpcode = wrOpcodes[opcode] ?? REFUSED
    let target = -1
    if (opcode === Mlx5Opcode.UMR) wrOpcode = left < 7 ? REFUSED : this.#takeKeyChange(into, to, imm, left)
    else if (opcode === Mlx5Opcode.SET_PSV) wrOpcode = left < 1 ? REFUSED : this.#takePsv()
    else if (wrOpcode === MEMCPY) wrOpcode = this.#takeCopy(into, to, control, left)
    else if (wrOpcode !== REFUSED && wrOpcode !== DRIVER1) {
      if (this.#kind === 'xrc') {
        flags |= view.getUint32(this.#next(SEGMENT_BYTES)) << SRQN_SHIFT
        left--
      } else if (this.#kind === 'datagram') {
        if (destinations !== undefined) this.#takeDestination(into, to, destinations)
        left -= DatagramSegment.BYTES / SEGMENT_BYTES
      } else if (this.#kind === 'dc') {
        target = this.#next(DatagramSegment.BYTES)
        left -= DatagramSegment.BYTES / SEGMENT_BYTES
      } else if (this.#kind === 'frame') left -= this.#takeEthernet(into, to)
      const isAtomic = opcode === Mlx5Opcode.ATOMIC_CS || opcode === Mlx5Opcode.ATOMIC_FA
      const isRemote =
        opcode === Mlx5Opcode.RDMA_WRITE || opcode === Mlx5Opcode.RDMA_WRITE_IMM || opcode === Mlx5Opcode.RDMA_READ
      if (isAtomic) left -= this.#takeAtomic(into, to, opcode)
      else if (isRemote) left -= this.#takeRemote(into, to)
      const data = left < 0 ? REFUSED : this.#takeData(into, to, left)
      if (data === REFUSED) wrOpcode = REFUSED
      else flags |= data
    }
    if (wrOpcode === REFUSED) {
      const isKeyChange = AT_ONCE.includes(opcode)
      into[to + Send.REFUSED] = isKeyChange ? KEY_CONFIGURATION : BAD_OPCODE
      if (isKeyChange) wrOpcode = DRIVER1
    }
    if (into[to + Send.REFUSED] !== 0) into[to + Send.LENGTH] = 0
    // the request is right, its target is not: it keeps its bytes for those who read of it
    if (this.refusal !== 0) {
      into[to + Send.REFUSED] = this.refusal
      into[to + AccessKey.HI] = target < 0 ? 0 : view.getUint32(target + DatagramSegment.QKEY)
      into[to + AccessKey.LO] = target < 0 ? 0 : view.getUint32(target + DatagramSegment.QKEY + 4)
    }
    if (into[to + Send.REFUSED] !== 0) into[to + Send.SGES] = 0
    into[to + Send.OPCODE] = wrOpcode
    into[to + Send.FLAGS] = flags
    return blocksOf(segments)
  }

  #takeRemote(into: Uint32Array, to: number): number {
    const view = this.#view
    const at = this.#next(SEGMENT_BYTES)
    into[to + Send.REMOTE_LO] = view.getUint32(at + RemoteSegment.ADDRESS + 4)
    into[to + Send.REMOTE_HI] = view.getUint32(at + RemoteSegment.ADDRESS)
    into[to + Send.RKEY] = view.getUint32(at + RemoteSegment.RKEY)
    return 1
  }

  #takeAtomic(into: Uint32Array, to: number, opcode: number): number {
    const view = this.#view
    this.#takeRemote(into, to)
    const at = this.#next(SEGMENT_BYTES)
    const isSwap = opcode === Mlx5Opcode.ATOMIC_CS
    const operand = at + (isSwap ? AtomicSegment.COMPARE : AtomicSegment.SWAP_ADD)
    into[to + Send.COMPARE_LO] = view.getUint32(operand + 4)
    into[to + Send.COMPARE_HI] = view.getUint32(operand)
    into[to + Send.SWAP_LO] = isSwap ? view.getUint32(at + AtomicSegment.SWAP_ADD + 4) : 0
    into[to + Send.SWAP_HI] = isSwap ? view.getUint32(at + AtomicSegment.SWAP_ADD) : 0
    return 2
  }

  /** A copy within memory. Returns its opcode, or REFUSED. */
  #takeCopy(into: Uint32Array, to: number, control: number, segments: number): number {
    const view = this.#view
    const isCopy = view.getUint8(control + ControlSegment.MODIFIER) === CopySegments.MODIFIER
    if (!this.#hasCopies || !isCopy || segments !== CopySegments.COUNT) return REFUSED
    this.#next(SEGMENT_BYTES)
    for (let i = 0; i < 2; i++) {
      const at = this.#next(SEGMENT_BYTES)
      const bytes = view.getUint32(at + DataSegment.BYTES)
      if ((bytes & DataSegment.INLINE) !== 0) return REFUSED
      const hi = view.getUint32(at + DataSegment.ADDRESS)
      const lo = view.getUint32(at + DataSegment.ADDRESS + 4)
      this.#putElement(into, to, i, hi, lo, bytes, view.getUint32(at + DataSegment.LKEY))
    }
    into[to + Send.SGES] = 2
    return MEMCPY
  }

  #takeDestination(into: Uint32Array, to: number, destinations: Destinations): void {
    const view = this.#view
    const at = this.#next(DatagramSegment.BYTES)
    const source = view.getUint32(at + DatagramSegment.SOURCE)
    const flow = destinations.byVector(
      PORT,
      (source >>> DATAGRAM_GID_SHIFT) & 0xff,
      view.getUint8(at + DatagramSegment.TRAFFIC_CLASS),
      source & FLOW_LABEL_MASK,
      this.#bytes,
      at + DatagramSegment.DGID,
      localPart(
        view.getUint16(at + DatagramSegment.LID),
        view.getUint8(at + DatagramSegment.RATE_SL),
        (source >>> DATAGRAM_GRH_SHIFT) & 1,
      ),
      view.getUint8(at + DatagramSegment.HOP_LIMIT),
    )
    destinations.hold(flow)
    into[to + Send.DEST_QPN] = view.getUint32(at + DatagramSegment.QPN) & QPN_MASK
    into[to + Send.QKEY] = view.getUint32(at + DatagramSegment.QKEY)
    into[to + Send.FLOW] = flow
    if (flow < 0) into[to + Send.REFUSED] = NO_ADDRESS_HANDLE
  }

  /** The Ethernet segment of a raw packet, with the frame's first bytes. */
  #takeEthernet(into: Uint32Array, to: number): number {
    const view = this.#view
    const at = this.#next(SEGMENT_BYTES)
    const checksums = view.getUint8(at + EthernetSegment.CHECKSUMS)
    const size = view.getUint16(at + EthernetSegment.HEADER_BYTES)
    into[to + Send.HEADER_AT] = at - this.#start + EthernetSegment.HEADER
    into[to + Send.HEADER_BYTES] = size
    into[to + Send.CHECKSUMS] =
      ((checksums & EthernetSegment.L3_CHECKSUM) === 0 ? 0 : FrameChecksum.L3) |
      ((checksums & EthernetSegment.L4_CHECKSUM) === 0 ? 0 : FrameChecksum.L4)
    if (size > MAX_FRAME_HEADER) return SEGMENTS_BEYOND
    const segments = Math.max(1, Math.ceil((EthernetSegment.HEADER + size) / SEGMENT_BYTES))
    this.#next((segments - 1) * SEGMENT_BYTES)
    return segments
  }

  /** Copies `segments` of data: elements, or inline bytes. Returns INLINE or 0; REFUSED if they are malformed. */
  #takeData(into: Uint32Array, to: number, segments: number): number {
    const view = this.#view
    let count = 0
    let total = 0
    for (let left = segments; left > 0; ) {
      const at = this.#next(SEGMENT_BYTES)
      const word = view.getUint32(at + DataSegment.BYTES)
      if ((word & DataSegment.INLINE) === 0) {
        const hi = view.getUint32(at + DataSegment.ADDRESS)
        const lo = view.getUint32(at + DataSegment.ADDRESS + 4)
        total += this.#putElement(into, to, count++, hi, lo, word, view.getUint32(at + DataSegment.LKEY))
        left--
        continue
      }
      const length = word & ~DataSegment.INLINE
      const used = Math.ceil((length + 4) / SEGMENT_BYTES)
      if (used > left) return REFUSED
      const from = (at + 4 - this.#start) & (this.#size - 1)
      // an adapter sends as much as fits in a request, whatever max_inline_data the queue pair was made with
      if (count === 0 && used === left) {
        this.#putInline(into, to, from, length)
        return INLINE
      }
      this.#next((used - 1) * SEGMENT_BYTES)
      left -= used
      total += length
      // the data may go on at the first block
      const part = Math.min(length, this.#size - from)
      const { key } = this.#inline
      if (part > 0) this.#putElement(into, to, count++, 0, from, part, key)
      if (part < length) this.#putElement(into, to, count++, 0, 0, length - part, key)
    }
    if (count > this.maxSge) into[to + Send.REFUSED] ||= TOO_MANY_SGE
    else if (total > MAX_MESSAGE_BYTES) into[to + Send.REFUSED] ||= MESSAGE_TOO_LONG
    into[to + Send.SGES] = count
    into[to + Send.LENGTH] = total
    return 0
  }

  #putInline(into: Uint32Array, to: number, from: number, length: number): void {
    into[to + Send.INLINE_AT] = from
    into[to + Send.LENGTH] = length
    // of a frame, whose first bytes lie behind `from`, also modulo 2^32 and the queue's bytes
    if (this.#kind === 'frame') into[to + Send.HEADER_AT] -= from
  }

  /** There is room for `maxSge` elements; a request with more is refused. Returns the element's bytes. */
  #putElement(into: Uint32Array, to: number, i: number, hi: number, lo: number, length: number, lkey: number): number {
    if (i >= this.maxSge) return length
    const sge = to + Send.SGE + i * Sge.WORDS
    into[sge + Sge.LO] = lo
    into[sge + Sge.HI] = hi
    into[sge + Sge.LENGTH] = length
    into[sge + Sge.LKEY] = lkey
    if (this.wire?.areNeeded === true) this.wire.adjust(into, sge)
    return into[sge + Sge.LENGTH]!
  }

  /** Sets a protection signature value. Returns the opcode of a request that does nothing more, or REFUSED. */
  #takePsv(): number {
    if (this.#isFlushed) return DRIVER1
    const view = this.#view
    const at = this.#next(SEGMENT_BYTES)
    const [hi, lo] = [view.getUint32(at + PsvSegment.VALUE_HI), view.getUint32(at + PsvSegment.VALUE_LO)]
    return this.keyChanger?.setPsv(view.getUint32(at + PsvSegment.INDEX), hi, lo) === true ? DRIVER1 : REFUSED
  }

  /** The ranges of a key over other keys. Returns the opcode of a request that does nothing more, or REFUSED. */
  #takeRanges(changer: KeyChanger, key: number, first: number, second: number, segments: number): number {
    const view = this.#view
    const count = view.getUint16(first + KeySegments.OCTOWORDS)
    const at = (offset: number): number => second + offset - KeySegments.FREE
    const isInline = (view.getUint8(first + KeySegments.FLAGS) & KeySegments.INLINE) !== 0
    const changesBsf = (view.getUint32(first + KeySegments.MKEY_MASK + 4) & KeySegments.BSF_MASK) !== 0
    const hasBsf = changesBsf && (view.getUint32(at(KeySegments.BSF_FLAGS)) & KeySegments.HAS_BSF) !== 0
    const bsf = changesBsf ? new Uint8Array(hasBsf ? Bsf.BYTES : 0) : undefined
    const bsfSegments = hasBsf ? Bsf.BYTES / SEGMENT_BYTES : 0
    if (hasBsf && view.getUint16(first + KeySegments.BSF_OCTOWORDS) !== bsfSegments) return REFUSED
    if (!isInline || count + bsfSegments > segments - KEY_CHANGE_SEGMENTS) return REFUSED
    const octowords = new Uint32Array(4 * count)
    for (let i = 0; i < octowords.length; i += 4) {
      const segment = this.#next(SEGMENT_BYTES)
      for (let word = 0; word < 4; word++) octowords[i + word] = view.getUint32(segment + 4 * word)
    }
    for (let i = 0; i < bsfSegments; i++) {
      const segment = this.#next(SEGMENT_BYTES)
      bsf!.set(this.#bytes.subarray(segment, segment + SEGMENT_BYTES), i * SEGMENT_BYTES)
    }
    const mask = view.getUint32(first + KeySegments.MKEY_MASK + 4)
    const logEntity = view.getUint8(at(KeySegments.LOG_ENTITY)) & KeySegments.LOG_MASK
    const ranges = {
      octowords,
      entityBytes: (mask & KeySegments.ENTITY_MASK) === 0 ? undefined : 2 ** logEntity,
      length: (mask & KeySegments.LENGTH_MASK) === 0 ? undefined : view.getBigUint64(at(KeySegments.LENGTH)),
      start: (mask & KeySegments.START_MASK) === 0 ? undefined : view.getBigUint64(at(KeySegments.START)),
      access: (mask & KeySegments.ACCESS_MASK) === 0 ? undefined : accessOf(view.getUint8(at(KeySegments.ACCESS))),
      bsf,
    }
    const isFree = (view.getUint8(second) & KeySegments.IS_FREE) !== 0
    return changer.change({ key, isFree, ranges }) ? DRIVER1 : REFUSED
  }

  /** A bind or an invalidation of a memory window. Returns its opcode, or REFUSED. */
  #takeKeyChange(into: Uint32Array, to: number, key: number, segments: number): number {
    const view = this.#view
    // the parts are aligned to blocks, so none of them continues at the first block
    const first = this.#next(3 * SEGMENT_BYTES)
    const second = this.#next(BLOCK_BYTES)
    const maskLow = view.getUint32(first + KeySegments.MKEY_MASK + 4)
    const newKey = (key & ~0xff) | (view.getUint32(second + KeySegments.QPN_KEY - KeySegments.FREE) & 0xff)
    const isFree = (view.getUint8(second) & KeySegments.IS_FREE) !== 0
    const changer = this.keyChanger?.has(key) ? this.keyChanger : undefined
    if (changer !== undefined && this.#isFlushed) return DRIVER1
    if (isFree && (maskLow & KeySegments.QPN_MASK) !== 0) {
      if (changer?.change({ key, isFree, ranges: undefined })) return DRIVER1
      into[to + Send.IMM] = key
      return LOCAL_INV
    }
    if (changer !== undefined) return this.#takeRanges(changer, key, first, second, segments)
    into[to + BindMw.WINDOW] = key
    into[to + BindMw.KEY] = newKey
    if (isFree) {
      for (const field of [BindMw.LO, BindMw.HI, BindMw.LENGTH_LO, BindMw.LENGTH_HI, BindMw.LKEY, BindMw.ACCESS])
        into[to + field] = 0
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
    into[to + BindMw.LO] = lo
    into[to + BindMw.HI] = hi
    into[to + BindMw.LENGTH_LO] = view.getUint32(at(KeySegments.LENGTH) + 4)
    into[to + BindMw.LENGTH_HI] = view.getUint32(at(KeySegments.LENGTH))
    into[to + BindMw.LKEY] = view.getUint32(at(KeySegments.LKEY))
    into[to + BindMw.ACCESS] =
      accessOf(access) | (startHi === 0 && startLo === 0 && (hi !== 0 || lo !== 0) ? ZERO_BASED : 0)
    return BIND_MW
  }
}
