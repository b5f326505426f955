/*
 * Builds one block of a session file in a buffer. Nothing is allocated for requests, completions and packets.
 */
import type { RequestCompletion, WorkRequest } from '../../spec/check/requests.ts'
import {
  BLOCK_MAGIC,
  BLOCK_TRAILER,
  BlockHeader,
  ELEMENT_BYTES,
  fieldBytes,
  fieldOffsets,
  type LayoutValues,
  PostedBit,
  RECORD_HEADER,
  type RecordKind,
  type RecordLayout,
  Records,
  recordKinds,
} from '../../spec/session-file.ts'
import type { PacketFlow } from '../../spec/wire/flow.ts'
import { checksum } from './checksum.ts'

const kindNumber = Object.fromEntries(recordKinds.map((kind, i) => [kind, i + 1])) as Readonly<
  Record<RecordKind, number>
>
const POSTED = fieldOffsets(Records.posted)
const COMPLETED = fieldOffsets(Records.completed)
const PACKETS = fieldOffsets(Records.packets)
const GID_BYTES = 16
/** The longest time between the base of a block and a record: a u32 of nanoseconds. */
const MAX_DELTA = 2 ** 32 - 1
const NO_TEXTS: readonly string[] = []
const utf8 = new TextEncoder()

const isSameAddress = (a: Uint8Array, b: Uint8Array): boolean => {
  for (let i = 0; i < GID_BYTES; i++) if (a[i] !== b[i]) return false
  return true
}

/** Writes values of a layout. `textNumber`: returns the number of a text in the block. */
export const putFields = <L extends RecordLayout>(
  view: DataView,
  at: number,
  layout: L,
  values: LayoutValues<L>,
  textNumber: (text: string) => number = () => 0,
): void => {
  const fields = values as Readonly<Record<string, number | bigint | string>>
  for (const [name, type] of layout.fields) {
    const value = fields[name]!
    if (type === 'f64') view.setFloat64(at, value as number, true)
    else if (type === 'u64') view.setBigUint64(at, value as bigint, true)
    else if (type === 's32') view.setInt32(at, value as number, true)
    else view.setUint32(at, type === 'text' ? textNumber(value as string) : (value as number), true)
    at += fieldBytes(type)
  }
}

/** Packets for `BlockBuilder.packets`, in the arena's bytes at `offset`. */
export interface PacketsRecord {
  device: number
  /** 0 sent, 1 received. */
  direction: number
  /** Index in `packetOutcomes`. */
  outcome: number
  flow: PacketFlow
  identification: number
  count: number
  packetBytes: number
  lastBytes: number
  headerBytes: number
  source: Uint8Array
  offset: number
  /** Bytes from `offset` that are recorded. */
  recorded: number
}

/** Bytes of the record of a posted request, without its stack. */
export const postedBytes = ({ elements }: WorkRequest): number =>
  RECORD_HEADER + Records.posted.size + elements.length * ELEMENT_BYTES + GID_BYTES + 8

/** Bytes of a record of packets, with a record for their flow. */
export const packetsBytes = (recorded: number): number =>
  2 * RECORD_HEADER + Records.packets.size + recorded + Records.flow.size + 2 * GID_BYTES + MAX_FABRIC_BYTES

export const COMPLETED_BYTES = RECORD_HEADER + Records.completed.size
export const PAIR_BYTES = RECORD_HEADER + Records.ended.size

/** Of a flow of InfiniBand: the service level, and the GIDs of a GRH. */
const MAX_FABRIC_BYTES = 1 + 2 * GID_BYTES

const isSameGrh = (one: PacketFlow['grh'], other: PacketFlow['grh']): boolean =>
  one === undefined || other === undefined
    ? one === other
    : isSameAddress(one.source, other.source) && isSameAddress(one.destination, other.destination)

/** Before the caller adds a record, it asks `hasRoom`. */
export class BlockBuilder {
  readonly bytes: Uint8Array
  readonly #view: DataView
  readonly #texts = new Map<string, number>()
  readonly #flows: PacketFlow[] = []
  /** Number of the flow of the last packets. */
  #lastFlow = 0
  /** End of the block's records. */
  #end: number = BlockHeader.size
  /** Where the trailer must begin at the latest. */
  #limit: number = 0
  #base = 0
  #last = 0
  #events = 0
  readonly #textNumber = (text: string): number => this.#texts.get(text) ?? 0

  /** `buffer`: of MAX_BLOCK bytes. */
  constructor(buffer: Uint8Array) {
    this.bytes = buffer
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength)
  }

  /** Begins an empty block of at most `maxBytes` bytes. */
  begin(maxBytes: number): void {
    this.#limit = Math.min(maxBytes, this.bytes.length) - BLOCK_TRAILER
    this.#end = BlockHeader.size
    this.#texts.clear()
    this.#flows.length = 0
    this.#lastFlow = 0
    this.#base = 0
    this.#last = 0
    this.#events = 0
  }

  get isEmpty(): boolean {
    return this.#end === BlockHeader.size
  }

  get events(): number {
    return this.#events
  }

  /** Nanoseconds. */
  get base(): number {
    return this.#base
  }

  get last(): number {
    return this.#last
  }

  /** Bytes of the block so far, with the trailer. */
  get length(): number {
    return this.#end + BLOCK_TRAILER
  }

  /**
   * Whether a record of `bytes` bytes, and records for its texts, fit. Not if its time is too far from the first
   * record's.
   */
  hasRoom(time: number, bytes: number, texts: readonly string[] = NO_TEXTS): boolean {
    if (!this.isEmpty && time - this.#base > MAX_DELTA) return false
    let needed = bytes
    // A UTF-16 unit has at most three bytes in UTF-8.
    for (const text of texts) if (!this.#texts.has(text)) needed += RECORD_HEADER + 3 * text.length
    return this.#end + needed <= this.#limit
  }

  /** Leaves room for `bytes` bytes, which the caller has written behind the header. */
  skip(bytes: number): void {
    this.#end += bytes
  }

  /** Writes header and trailer. Returns the length of the block. */
  finish(sequence: number, type: number, first: number): number {
    const { length } = this
    putFields(this.#view, 0, BlockHeader, {
      magic: BLOCK_MAGIC,
      length,
      sequence,
      type,
      base: this.#base,
      last: this.#last,
      first,
      events: this.#events,
      reserved: 0,
    })
    this.#view.setUint32(this.#end, checksum(this.#view, this.#end), true)
    return length
  }

  /**
   * Adds a record of a kind that is rare. `texts`: its texts. `tail`: the bytes after its fields. `fill`: called before
   * `tail` is copied, with a function that returns the number of one of its texts.
   */
  add<K extends RecordKind>(
    kind: K,
    time: number,
    values: LayoutValues<(typeof Records)[K]>,
    texts: readonly string[] = [],
    tail?: Uint8Array,
    fill?: (number: (text: string) => number) => void,
  ): void {
    const tailBytes = tail?.length ?? 0
    const layout: RecordLayout = Records[kind]
    for (const text of texts) this.#addText(text, time)
    fill?.(this.#textNumber)
    const at = this.#addRecord(kind, time, layout.size + tailBytes)
    putFields(this.#view, at, layout, values as LayoutValues<RecordLayout>, this.#textNumber)
    if (tail !== undefined) this.bytes.set(tail, at + layout.size)
  }

  /** `stack`: the text of the stack; empty: unknown. */
  posted(time: number, request: WorkRequest, stack: string): void {
    const { elements, remote, destination, postIndex } = request
    const size =
      Records.posted.size +
      elements.length * ELEMENT_BYTES +
      (destination ? GID_BYTES : 0) +
      (postIndex === undefined ? 0 : 8)
    const text = stack === '' ? 0 : this.#addText(stack, time)
    const at = this.#addRecord('posted', time, size)
    const view = this.#view
    view.setFloat64(at + POSTED.request, request.id, true)
    view.setFloat64(at + POSTED.owner, request.owner, true)
    view.setBigUint64(at + POSTED.wrId, request.wrId, true)
    view.setUint32(at + POSTED.queue, request.queue, true)
    view.setUint32(at + POSTED.number, request.number, true)
    view.setFloat64(at + POSTED.index, request.index, true)
    view.setInt32(at + POSTED.opcode, request.opcode, true)
    view.setUint32(at + POSTED.flags, request.flags, true)
    const bits =
      (request.isSignaled ? PostedBit.SIGNALED : 0) |
      (remote ? PostedBit.REMOTE : 0) |
      (request.destQpn === undefined ? 0 : PostedBit.DATAGRAM) |
      (destination ? PostedBit.DESTINATION : 0) |
      (postIndex === undefined ? 0 : PostedBit.POST_INDEX) |
      (request.numbered === undefined ? 0 : request.numbered === 'block' ? PostedBit.BLOCK : PostedBit.REQUEST)
    view.setUint32(at + POSTED.bits, bits, true)
    view.setFloat64(at + POSTED.length, request.length, true)
    view.setFloat64(at + POSTED.remoteAddress, remote?.address ?? 0, true)
    view.setFloat64(at + POSTED.remoteLength, remote?.length ?? 0, true)
    view.setUint32(at + POSTED.rkey, remote?.rkey ?? 0, true)
    view.setUint32(at + POSTED.destQpn, request.destQpn ?? 0, true)
    view.setUint32(at + POSTED.qkey, destination?.qkey ?? 0, true)
    view.setUint32(at + POSTED.elements, elements.length, true)
    view.setUint32(at + POSTED.stack, text, true)
    let end = at + Records.posted.size
    for (let i = 0; i < elements.length; i++, end += ELEMENT_BYTES) {
      const { address, length, lkey } = elements[i]!
      view.setFloat64(end, address, true)
      view.setUint32(end + 8, length, true)
      view.setUint32(end + 12, lkey, true)
    }
    if (destination) this.bytes.set(destination.gid, end)
    if (postIndex !== undefined) view.setFloat64(end + (destination ? GID_BYTES : 0), postIndex, true)
  }

  /** A record of two ids, such as `ended` or `polled`. */
  pair(kind: 'ended' | 'receiveLost' | 'polled', time: number, first: number, second: number): void {
    const at = this.#addRecord(kind, time, Records[kind].size)
    this.#view.setFloat64(at, first, true)
    this.#view.setFloat64(at + 8, second, true)
  }

  completed(time: number, request: WorkRequest, completion: RequestCompletion): void {
    const at = this.#addRecord('completed', time, Records.completed.size)
    const view = this.#view
    view.setFloat64(at + COMPLETED.request, request.id, true)
    view.setFloat64(at + COMPLETED.owner, request.owner, true)
    view.setFloat64(at + COMPLETED.qp, completion.qp, true)
    view.setFloat64(at + COMPLETED.cq, completion.cq, true)
    view.setFloat64(at + COMPLETED.cqPosition, completion.cqPosition, true)
    view.setFloat64(at + COMPLETED.message, completion.message?.id ?? 0, true)
    view.setFloat64(at + COMPLETED.bytes, completion.bytes, true)
    view.setUint32(at + COMPLETED.status, completion.status, true)
    view.setUint32(at + COMPLETED.opcode, completion.opcode, true)
    view.setUint32(at + COMPLETED.solicited, completion.solicited ? 1 : 0, true)
  }

  packets(time: number, record: PacketsRecord): void {
    const { recorded, source, offset } = record
    const flow = this.#flowNumber(time, record.flow)
    const at = this.#addRecord('packets', time, Records.packets.size + recorded)
    const view = this.#view
    view.setUint32(at + PACKETS.device, record.device, true)
    view.setUint32(at + PACKETS.direction, record.direction, true)
    view.setUint32(at + PACKETS.outcome, record.outcome, true)
    view.setUint32(at + PACKETS.flow, flow, true)
    view.setUint32(at + PACKETS.identification, record.identification, true)
    view.setUint32(at + PACKETS.count, record.count, true)
    view.setUint32(at + PACKETS.packetBytes, record.packetBytes, true)
    view.setUint32(at + PACKETS.lastBytes, record.lastBytes, true)
    view.setUint32(at + PACKETS.headerBytes, record.headerBytes, true)
    const end = at + Records.packets.size
    // A loop: most headers are short, and `subarray` would allocate a view.
    for (let i = 0; i < recorded; i++) this.bytes[end + i] = source[offset + i]!
  }

  /** The number of a flow, with a record if the block has none for it. */
  #flowNumber(time: number, flow: PacketFlow): number {
    const flows = this.#flows
    if (this.#isFlow(flow, this.#lastFlow)) return this.#lastFlow
    for (let i = 0; i < flows.length; i++)
      if (this.#isFlow(flow, i)) {
        this.#lastFlow = i
        return i
      }
    const { source, destination, sourcePort, trafficClass, hopLimit, flowLabel, sl, grh } = flow
    // A copy: the port may reuse the record.
    const copy = {
      ...flow,
      source: source.slice(),
      destination: destination.slice(),
      grh: grh && { source: grh.source.slice(), destination: grh.destination.slice() },
    }
    this.#lastFlow = flows.push(copy) - 1
    const fabricBytes = grh !== undefined ? MAX_FABRIC_BYTES : sl !== undefined ? 1 : 0
    const at = this.#addRecord('flow', time, Records.flow.size + 2 * GID_BYTES + fabricBytes)
    putFields(this.#view, at, Records.flow, { sourcePort, trafficClass, hopLimit, flowLabel })
    this.bytes.set(source, at + Records.flow.size)
    this.bytes.set(destination, at + Records.flow.size + GID_BYTES)
    const fabricAt = at + Records.flow.size + 2 * GID_BYTES
    if (fabricBytes > 0) this.bytes[fabricAt] = sl ?? 0
    if (grh !== undefined) {
      this.bytes.set(grh.source, fabricAt + 1)
      this.bytes.set(grh.destination, fabricAt + 1 + GID_BYTES)
    }
    return this.#lastFlow
  }

  #isFlow(flow: PacketFlow, number: number): boolean {
    const known = this.#flows[number]
    return (
      known !== undefined &&
      known.sourcePort === flow.sourcePort &&
      known.flowLabel === flow.flowLabel &&
      known.trafficClass === flow.trafficClass &&
      known.hopLimit === flow.hopLimit &&
      known.sl === flow.sl &&
      isSameAddress(known.source, flow.source) &&
      isSameAddress(known.destination, flow.destination) &&
      isSameGrh(known.grh, flow.grh)
    )
  }

  /** The number of a text, with a record if the block has none for it. */
  #addText(text: string, time: number): number {
    if (text === '') return 0
    const known = this.#texts.get(text)
    if (known !== undefined) return known
    const at = this.#addRecord('text', time, 0)
    const { written } = utf8.encodeInto(text, this.bytes.subarray(at))
    this.#end = at + written
    this.#view.setUint32(at - RECORD_HEADER, (RECORD_HEADER + written) | (kindNumber.text << 24), true)
    const number = this.#texts.size + 1
    this.#texts.set(text, number)
    return number
  }

  /** Writes the header of a record with `bytes` bytes of fields and tail. Returns their offset. */
  #addRecord(kind: RecordKind, time: number, bytes: number): number {
    if (this.isEmpty) {
      this.#base = time
      this.#last = time
    }
    if (time > this.#last) this.#last = time
    const at = this.#end
    this.#view.setUint32(at, (RECORD_HEADER + bytes) | (kindNumber[kind] << 24), true)
    this.#view.setUint32(at + 4, this.#last - this.#base, true)
    this.#end = at + RECORD_HEADER + bytes
    if (kind !== 'text' && kind !== 'flow') this.#events++
    return at + RECORD_HEADER
  }
}
