/*
 * The Ethernet link between the devices of a core: a switch that knows the addresses of all its ports. A frame goes to
 * the device with its address; to a group, or to an address that no device has, it goes to all devices, the sender's
 * too. There the device's flow rules decide. As on an adapter, a device's own frames come back to it.
 *
 * Packets of RoCE do not pass: those that arrive for a device come from transports only, and a program that writes one
 * itself cannot reach another's queue pair (docs/decisions/mlx5.md). They are dropped and counted.
 *
 * Senders put frames into the outbox of their device. `deliver` empties it, when no engine runs: receivers may be queue
 * pairs of the same engine.
 */
import type { Bytes } from '../../../core/memory/address-space.ts'
import { FrameHeaders } from '../../../spec/drivers/mlx5-queues.ts'
import { IpProtocol, MAC_BYTES, MAX_FRAME_BYTES } from '../../../spec/wire/ethernet.ts'
import { FrameChecksum, type FrameSink } from '../../../transport/engine/types.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { createFrameKey, type FrameKey, readKey } from '../../../transport/wire/flow-key.ts'
import { isL3Ok, isL4Ok, putL3, putL4 } from '../../../transport/wire/frame-checksums.ts'
import { type ArrivedFrame, type Scratch, UNKNOWN_HEADERS } from './arrived-frame.ts'
import { Steering } from './steering.ts'

/** Bytes and frames of an outbox. */
const OUTBOX_BYTES = 0x4_0000
const MAX_FRAMES = 1024
/** Bytes of the copies of frames in one poll, about a millisecond; a short frame counts as MIN_COPY bytes. */
const MAX_COPIED = 0x8_0000
const MIN_COPY = 1024
/** IP headers are aligned to words behind an Ethernet header. */
const ALIGNMENT = 16
const SHIFT = 2

/** An address as a number, as a key of 48 bits. */
const macAt = (view: DataView, at: number): number => view.getUint16(at) * 2 ** 32 + view.getUint32(at + 2)

const { L2_OK, L3_OK, L4_OK, IPV4, IPV6, UDP, TCP } = FrameHeaders

const readHeaders = (key: FrameKey, arena: Arena): number => {
  let bits: number = L2_OK
  if (key.ip >= 0) bits |= key.isIpv4 ? IPV4 : IPV6
  if (isL3Ok(key, arena)) bits |= L3_OK
  if (key.l4 >= 0) bits |= key.protocol === IpProtocol.UDP ? UDP : TCP
  return isL4Ok(key, arena) ? bits | L4_OK : bits
}

/** What a completion says of the frame: bits of `FrameHeaders`. */
export const headersOf = (frame: ArrivedFrame): number => {
  if (frame.headers === UNKNOWN_HEADERS) frame.headers = readHeaders(frame.key, frame.arena)
  return frame.headers
}

/** Frames since the device was added. */
interface FrameCounts {
  /** Sent as packets of RoCE, and so dropped. */
  roceFrames: number
  /** Arrived, and no rule matched. */
  unmatchedFrames: number
}

interface StationOptions {
  /** 6 bytes. */
  readonly mac: Uint8Array
  readonly seed: number
  readonly allocate: (bytes: number) => Bytes
  /** Whether the device's port is up: a port that is down neither sends nor receives. */
  readonly isUp: () => boolean
  /** Another station of the link, if there is one. */
  readonly neighbour: Station | undefined
}

/** Bytes of the place for a changed frame. */
const SCRATCH_BYTES = (SHIFT + MAX_FRAME_BYTES + ALIGNMENT - 1) & -ALIGNMENT

class LazyScratch implements Scratch {
  readonly #allocate: (bytes: number) => Bytes
  #frame: ArrivedFrame | undefined

  constructor(allocate: (bytes: number) => Bytes) {
    this.#allocate = allocate
  }

  get frame(): ArrivedFrame {
    this.#frame ??= { arena: this.#allocate(SCRATCH_BYTES), key: createFrameKey(), at: SHIFT, length: 0, headers: 0 }
    return this.#frame
  }
}

/** A device on the link. */
export class Station implements FrameSink {
  readonly steering: Steering
  /** The rules for frames that the device sends. */
  readonly egress: Steering
  readonly counts: FrameCounts = { roceFrames: 0, unmatchedFrames: 0 }
  readonly maxBytes = MAX_FRAME_BYTES
  readonly #options: StationOptions
  readonly #stations: Station[]
  /** For frames that rules change as they are sent, and as they arrive. */
  readonly #sent: Scratch
  readonly #changed: Scratch
  readonly #mac: number
  #arrived: ArrivedFrame | undefined
  /** By frame: offset, length, checksums. */
  readonly #frames = new Int32Array(3 * MAX_FRAMES)
  #count = 0
  #filled = 0
  /** Frames of the outbox that are delivered. */
  #delivered = 0

  constructor(options: StationOptions) {
    this.#options = options
    this.steering = new Steering(options.seed)
    this.egress = new Steering(options.seed)
    this.#sent = new LazyScratch(options.allocate)
    this.#changed = new LazyScratch(options.allocate)
    const { mac } = options
    this.#mac = macAt(new DataView(mac.buffer, mac.byteOffset, MAC_BYTES), 0)
    this.#stations = options.neighbour === undefined ? [] : options.neighbour.#stations
    this.#stations.push(this)
  }

  get #frame(): ArrivedFrame {
    this.#arrived ??= {
      arena: this.#options.allocate(OUTBOX_BYTES),
      key: createFrameKey(),
      at: 0,
      length: 0,
      headers: 0,
    }
    return this.#arrived
  }

  /** Allocated with the first frame. */
  get arena(): Arena {
    return this.#frame.arena
  }

  reserve(bytes: number): number {
    const at = this.#filled + SHIFT
    return this.#count === MAX_FRAMES || at + bytes > OUTBOX_BYTES ? -1 : at
  }

  commit(at: number, bytes: number, checksums: number): void {
    const frame = 3 * this.#count++
    this.#frames[frame] = at
    this.#frames[frame + 1] = bytes
    this.#frames[frame + 2] = checksums
    this.#filled = (at + bytes + ALIGNMENT - 1) & -ALIGNMENT
  }

  /** Delivers frames of the outbox, until MAX_COPIED bytes are copied. True if there were any. */
  deliver(): boolean {
    if (this.#count === 0) return false
    for (let copied = 0; this.#delivered < this.#count && copied < MAX_COPIED; ) {
      const frame = 3 * this.#delivered++
      const length = this.#frames[frame + 1]!
      const copies = 1 + this.#send(this.#frames[frame]!, length, this.#frames[frame + 2]!)
      copied += copies * (length < MIN_COPY ? MIN_COPY : length)
    }
    if (this.#delivered === this.#count) {
      this.#count = 0
      this.#filled = 0
      this.#delivered = 0
    }
    return true
  }

  /** The device is removed. */
  close(): void {
    const index = this.#stations.indexOf(this)
    if (index >= 0) this.#stations.splice(index, 1)
  }

  /** Returns the number of copies. */
  #send(at: number, length: number, checksums: number): number {
    const { arena } = this
    const frame = this.#frame
    const { key } = frame
    readKey(key, arena, at, length)
    if (key.isRoce) {
      this.counts.roceFrames++
      return 0
    }
    if (!this.#options.isUp()) return 0
    if ((checksums & FrameChecksum.L3) !== 0) putL3(key, arena)
    if ((checksums & FrameChecksum.L4) !== 0) putL4(key, arena)
    frame.at = at
    frame.length = length
    frame.headers = UNKNOWN_HEADERS
    const sent = this.egress.isEmpty ? frame : this.egress.filter(frame, this.#sent)
    if (sent === undefined) return 0
    // a rule may have made one of it
    if (sent.key.isRoce) {
      this.counts.roceFrames++
      return 0
    }
    let copies = this.steering.sniff(sent)
    const mac = macAt(sent.arena.view, sent.at)
    const stations = this.#stations
    for (let i = 0; i < stations.length; i++) if (stations[i]!.#mac === mac) return copies + stations[i]!.#receive(sent)
    for (let i = 0; i < stations.length; i++) copies += stations[i]!.#receive(sent)
    return copies
  }

  #receive(frame: ArrivedFrame): number {
    if (this.steering.isEmpty || !this.#options.isUp()) return 0
    const sniffers = this.steering.sniff(frame)
    const rules = this.steering.deliver(frame, this.#changed)
    if (rules === 0) this.counts.unmatchedFrames++
    return sniffers + rules
  }
}
