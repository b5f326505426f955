/*
 * Decodes the blocks of a session file. Blocks are checked: damaged bytes give a SessionFileError, whatever they are.
 */
import type { Program, Stack } from '../../spec/check/finding.ts'
import { packetOutcomes } from '../../spec/faults.ts'
import type {
  AnyEvent,
  CompletedEvent,
  DeviceEvent,
  LinkClassEvent,
  LinkEvent,
  ObjectDetails,
  ObjectEvent,
  PacketsEvent,
  PostedEvent,
  SessionEvent,
  WaitEvent,
} from '../../spec/session-events.ts'
import {
  BLOCK_MAGIC,
  BLOCK_TRAILER,
  BlockHeader,
  BlockType,
  DeviceChange,
  ELEMENT_BYTES,
  fieldBytes,
  fieldOffsets,
  type LayoutValues,
  MAX_BLOCK,
  ObjectChange,
  PostedBit,
  RECORD_HEADER,
  type RecordKind,
  type RecordLayout,
  Records,
  recordKinds,
  requestKinds,
  SegmentBytes,
  WaitChange,
} from '../../spec/session-file.ts'
import type { PacketFlow } from '../../spec/wire/flow.ts'
import { BTH_BYTES, bthDestQp } from '../../transport/wire/bth.ts'
import { checksum } from './checksum.ts'
import { SessionFileError } from './error.ts'
import { symbolFrames } from './symbol-frames.ts'

const utf8 = new TextDecoder()
const GID_BYTES = 16
const KIND_SHIFT = 24
/** More packets than a port has in a run. */
const MAX_RUN = 2 ** 16
/** The longest payload of a UDP datagram. */
const MAX_PACKET = 2 ** 16
/** The latest time of a recorder's clock, nanoseconds: 292 years. Later ones are no dates of JavaScript. */
const MAX_TIME = 2 ** 63
const LENGTH_MASK = 0xff_ffff

type BlockFacts = LayoutValues<typeof BlockHeader>

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** Reads the fields of a layout. `texts`: of the block. */
export const readFields = <L extends RecordLayout>(
  view: DataView,
  at: number,
  layout: L,
  texts: readonly string[] = [],
): LayoutValues<L> => {
  const values: Record<string, number | bigint | string> = {}
  for (const [name, type] of layout.fields) {
    if (type === 'f64') values[name] = view.getFloat64(at, true)
    else if (type === 'u64') values[name] = view.getBigUint64(at, true)
    else if (type === 's32') values[name] = view.getInt32(at, true)
    else {
      const number = view.getUint32(at, true)
      values[name] = type === 'text' ? (texts[number - 1] ?? '') : number
    }
    at += fieldBytes(type)
  }
  return values as LayoutValues<L>
}

/** Whether a block's times are times, in their order. */
export const hasTimes = ({ base, last }: { readonly base: number; readonly last: number }): boolean =>
  base >= 0 && base <= last && last <= MAX_TIME

/**
 * The header of a block of segment `sequence` (0: of any) at the start of `bytes`; undefined: there is none, because
 * the segment ends here or was being overwritten.
 */
export const readBlockHeader = (bytes: Uint8Array, sequence: number): BlockFacts | undefined => {
  if (bytes.length < BlockHeader.size) return undefined
  const header = readFields(viewOf(bytes), 0, BlockHeader)
  const isBlock =
    header.magic === BLOCK_MAGIC &&
    header.length >= BlockHeader.size + BLOCK_TRAILER &&
    header.length <= (header.type === BlockType.INDEX ? SegmentBytes.max : MAX_BLOCK) &&
    hasTimes(header) &&
    (sequence === 0 || header.sequence === sequence)
  return isBlock ? header : undefined
}

/** Whether all bytes of a block were written, and are as they were written. */
export const isWhole = (block: Uint8Array, { length }: BlockFacts): boolean => {
  if (block.length < length) return false
  const view = viewOf(block)
  return view.getUint32(length - BLOCK_TRAILER, true) === checksum(view, length - BLOCK_TRAILER)
}

const programOf = (pid: number, command: string): Program | undefined => (pid === 0 ? undefined : { pid, command })
const nameOf = <T extends Readonly<Record<string, number>>>(table: T, value: number): Lowercase<keyof T & string> => {
  const name = Object.keys(table).find(key => table[key] === value)
  if (name === undefined) throw new SessionFileError(`a record has the unknown number ${value}`)
  return name.toLowerCase() as Lowercase<keyof T & string>
}

/**
 * Which events to decode. Records of others are checked like those that are decoded, so a damaged block is damaged for
 * every reader.
 */
export interface WantedEvents {
  readonly kinds: ReadonlySet<AnyEvent['kind']>
  /** Ids: posts and ends of other queues, and completions, counters and RNR NAKs of other objects, are left out. */
  readonly objects?: ReadonlySet<number>
  /** QPNs: packets to others, and those that lack a whole BTH, are left out. */
  readonly destinations?: ReadonlySet<number>
}

/** What the records of a block refer to. */
interface BlockTables {
  readonly texts: string[]
  readonly flows: PacketFlow[]
  /** By the number of the text, from 0: many records have the same stack. */
  readonly stacks: (Stack | undefined)[]
}

/** A record in its block: its fields from `at` on, its tail after them until `end`. One for all records. */
interface Body {
  readonly view: DataView
  readonly bytes: Uint8Array
  at: number
  end: number
  /** Microseconds. */
  time: number
  readonly tables: BlockTables
}

/** Names and offsets of a layout's fields of 64 bits: all are ids, counts, lengths or addresses. */
const numbersOf = (layout: RecordLayout): readonly { readonly name: string; readonly at: number }[] => {
  const offsets: Readonly<Record<string, number>> = fieldOffsets(layout)
  return layout.fields.filter(([, type]) => type === 'f64').map(([name]) => ({ name, at: offsets[name]! }))
}
const NUMBERS = new Map(recordKinds.map(kind => [kind, numbersOf(Records[kind])]))

/** Throws if the record is too short, or a number of 64 bits is none or negative. */
const checkFields = (kind: RecordKind, { view, at, end }: Body): void => {
  if (end - at < Records[kind].size) throw new SessionFileError(`a record "${kind}" is too short`)
  const numbers = NUMBERS.get(kind)!
  for (let i = 0; i < numbers.length; i++) {
    const { name, at: offset } = numbers[i]!
    const value = view.getFloat64(at + offset, true)
    if (!(value >= 0 && value <= Number.MAX_VALUE))
      throw new SessionFileError(`a record "${kind}" has the number ${value} as ${name}`)
  }
}

const fieldsOf = <K extends RecordKind>(kind: K, { view, at, tables }: Body): LayoutValues<(typeof Records)[K]> => {
  const layout: RecordLayout = Records[kind]
  return readFields(view, at, layout, tables.texts) as LayoutValues<(typeof Records)[K]>
}

const NO_STACK: Stack = []

/** `number`: of its text. */
const stackOf = (number: number, { tables: { stacks, texts } }: Body): Stack => {
  const known = stacks[number - 1]
  if (known !== undefined) return known
  const text = texts[number - 1] ?? ''
  if (text === '') return NO_STACK
  const stack = text.split('\n')
  stacks[number - 1] = stack
  return stack
}

const tailOf = (kind: RecordKind, { bytes, at, end }: Body): Uint8Array => bytes.subarray(at + Records[kind].size, end)

const jsonOf = <T>(kind: RecordKind, body: Body): T => {
  let value: unknown
  try {
    value = JSON.parse(utf8.decode(tailOf(kind, body)))
  } catch {
    throw new SessionFileError(`the JSON of a record "${kind}" is damaged`)
  }
  if (typeof value !== 'object' || value === null)
    throw new SessionFileError(`the JSON of a record "${kind}" is no object`)
  return value as T
}

const classCounts = [
  'packets',
  'bytes',
  'marked',
  'lost',
  'maxQueue',
  'pausesSent',
  'pausesReceived',
  'pausedTime',
] as const
const isLinkClass = (one: Partial<LinkClassEvent> | null): boolean =>
  typeof one?.name === 'string' &&
  typeof one.lossless === 'boolean' &&
  classCounts.every(name => typeof one[name] === 'number')

/** Others than writers of ours may have written `uses` and `values` of any type. */
const detailsOf = (body: Body): ObjectDetails => {
  const details = jsonOf<ObjectDetails>('object', body)
  const { uses = [], values = {} } = details
  if (!Array.isArray(uses) || typeof values !== 'object' || values === null)
    throw new SessionFileError('the JSON of a record "object" has other values than an object')
  return details
}

const OBJECT = fieldOffsets(Records.object)
const CALL = fieldOffsets(Records.call)
const POSTED = fieldOffsets(Records.posted)
const ENDED = fieldOffsets(Records.ended)
const COMPLETED = fieldOffsets(Records.completed)
const NOT_READY = fieldOffsets(Records.receiverNotReady)
const RESET = fieldOffsets(Records.queueReset)
const PACKETS = fieldOffsets(Records.packets)
const COUNTERS = fieldOffsets(Records.counters)
/** Bytes of a counter: the number of its name, its value. */
const COUNTER_BYTES = 12

/** Throws if `count` parts of `size` bytes do not fit behind the fields of a record. */
const checkParts = (kind: RecordKind, { at, end }: Body, count: number, size: number): void => {
  if (at + Records[kind].size + count * size > end) throw new SessionFileError(`a record "${kind}" is too short`)
}

/** Further checks of the kinds that are frequent; `checkFields` came before. */
const checks: Partial<Readonly<Record<RecordKind, (body: Body) => void>>> = {
  posted(body) {
    checkParts('posted', body, body.view.getUint32(body.at + POSTED.elements, true), ELEMENT_BYTES)
  },
  counters(body) {
    checkParts('counters', body, body.view.getUint32(body.at + COUNTERS.count, true), COUNTER_BYTES)
  },
  packets({ view, at, end, tables }) {
    const flow = view.getUint32(at + PACKETS.flow, true)
    if (flow >= tables.flows.length || view.getUint32(at + PACKETS.outcome, true) >= packetOutcomes.length)
      throw new SessionFileError('packets refer to a flow or outcome that does not exist')
    const recorded = end - at - Records.packets.size
    const count = view.getUint32(at + PACKETS.count, true)
    const isTooLong =
      view.getUint32(at + PACKETS.headerBytes, true) > recorded ||
      recorded > MAX_PACKET ||
      view.getUint32(at + PACKETS.packetBytes, true) > MAX_PACKET ||
      view.getUint32(at + PACKETS.lastBytes, true) > MAX_PACKET
    if (isTooLong || count === 0 || count > MAX_RUN) throw new SessionFileError('packets are longer than their record')
  },
}

/** Kinds whose records are checked without being decoded. */
const FREQUENT: ReadonlySet<RecordKind> = new Set([...requestKinds, 'packets', 'counters'])

/** Where frequent records have the object by which they are chosen. */
const OBJECT_FIELDS: Partial<Readonly<Record<RecordKind, number>>> = {
  posted: POSTED.owner,
  ended: ENDED.owner,
  completed: COMPLETED.qp,
  receiveLost: ENDED.owner,
  receiverNotReady: NOT_READY.qp,
  queueReset: RESET.owner,
  counters: COUNTERS.object,
}

const isWanted = (kind: AnyEvent['kind'], { view, at, end }: Body, wanted: WantedEvents): boolean => {
  const { kinds, objects, destinations } = wanted
  if (!kinds.has(kind)) return false
  if (kind === 'packets') {
    if (destinations === undefined) return true
    const header = at + Records.packets.size
    return end - header >= BTH_BYTES && destinations.has(bthDestQp(view, header))
  }
  const field = OBJECT_FIELDS[kind]
  return objects === undefined || field === undefined || objects.has(view.getFloat64(at + field, true))
}

const partOf = (kind: 'program' | 'answer', body: Body): { readonly hasMore: boolean; readonly text: string } => ({
  hasMore: body.view.getUint32(body.at, true) === 1,
  text: utf8.decode(tailOf(kind, body)),
})

type Decoders = {
  readonly [K in Exclude<RecordKind, 'text' | 'flow'>]: (body: Body) => AnyEvent & { kind: K; readonly time: number }
}

// Literals have all fields of an event at once, in one order: an event that is copied for a field costs twice.
const decoders: Decoders = {
  device(body) {
    const { device, change, name, address } = fieldsOf('device', body)
    return {
      kind: 'device',
      change: nameOf(DeviceChange, change) as DeviceEvent['change'],
      device,
      name,
      address,
      time: body.time,
    }
  },
  object(body) {
    const { change, pid, command, stack: _, ...fields } = fieldsOf('object', body)
    return {
      kind: 'object',
      change: nameOf(ObjectChange, change) as ObjectEvent['change'],
      ...fields,
      program: programOf(pid, command),
      stack: stackOf(body.view.getUint32(body.at + OBJECT.stack, true), body),
      details: detailsOf(body),
      time: body.time,
    }
  },
  call(body) {
    const { view, at, time } = body
    const stack = stackOf(view.getUint32(at + CALL.stack, true), body)
    return { kind: 'call', object: view.getFloat64(at + CALL.object, true), stack, call: jsonOf('call', body), time }
  },
  posted(body): PostedEvent & { readonly time: number } {
    const { view, at, time } = body
    const bits = view.getUint32(at + POSTED.bits, true)
    const count = view.getUint32(at + POSTED.elements, true)
    const elements: { address: number; length: number; lkey: number }[] = []
    let end = at + Records.posted.size
    for (let i = 0; i < count; i++, end += ELEMENT_BYTES)
      elements.push({
        address: view.getFloat64(end, true),
        length: view.getUint32(end + 8, true),
        lkey: view.getUint32(end + 12, true),
      })
    const postIndexAt =
      (bits & PostedBit.POST_INDEX) === 0 ? body.end : end + ((bits & PostedBit.DESTINATION) === 0 ? 0 : GID_BYTES)
    return {
      kind: 'posted',
      stack: stackOf(view.getUint32(at + POSTED.stack, true), body),
      request: {
        id: view.getFloat64(at + POSTED.request, true),
        time,
        owner: view.getFloat64(at + POSTED.owner, true),
        queue: view.getUint32(at + POSTED.queue, true),
        number: view.getUint32(at + POSTED.number, true),
        index: view.getFloat64(at + POSTED.index, true),
        ...(postIndexAt + 8 <= body.end && { postIndex: view.getFloat64(postIndexAt, true) }),
        wrId: view.getBigUint64(at + POSTED.wrId, true),
        opcode: view.getInt32(at + POSTED.opcode, true),
        flags: view.getUint32(at + POSTED.flags, true),
        isSignaled: (bits & PostedBit.SIGNALED) !== 0,
        length: view.getFloat64(at + POSTED.length, true),
        elements,
        remote:
          (bits & PostedBit.REMOTE) === 0
            ? undefined
            : {
                address: view.getFloat64(at + POSTED.remoteAddress, true),
                length: view.getFloat64(at + POSTED.remoteLength, true),
                rkey: view.getUint32(at + POSTED.rkey, true),
              },
        destQpn: (bits & PostedBit.DATAGRAM) === 0 ? undefined : view.getUint32(at + POSTED.destQpn, true),
        ...((bits & (PostedBit.BLOCK | PostedBit.REQUEST)) !== 0 && {
          numbered: (bits & PostedBit.BLOCK) === 0 ? ('request' as const) : ('block' as const),
        }),
        destination:
          (bits & PostedBit.DESTINATION) === 0
            ? undefined
            : {
                gid: body.bytes.slice(end, Math.min(body.end, end + GID_BYTES)),
                qkey: view.getUint32(at + POSTED.qkey, true),
              },
      },
      time,
    }
  },
  ended({ view, at, time }) {
    const request = view.getFloat64(at + ENDED.request, true)
    return { kind: 'ended', request, owner: view.getFloat64(at + ENDED.owner, true), time }
  },
  completed({ view, at, time }): CompletedEvent & { readonly time: number } {
    return {
      kind: 'completed',
      request: view.getFloat64(at + COMPLETED.request, true),
      owner: view.getFloat64(at + COMPLETED.owner, true),
      qp: view.getFloat64(at + COMPLETED.qp, true),
      cq: view.getFloat64(at + COMPLETED.cq, true),
      cqPosition: view.getFloat64(at + COMPLETED.cqPosition, true),
      message: view.getFloat64(at + COMPLETED.message, true),
      bytes: view.getFloat64(at + COMPLETED.bytes, true),
      status: view.getUint32(at + COMPLETED.status, true),
      opcode: view.getUint32(at + COMPLETED.opcode, true),
      solicited: view.getUint32(at + COMPLETED.solicited, true) === 1,
      time,
    }
  },
  receiveLost: body => ({ kind: 'receiveLost', ...fieldsOf('receiveLost', body), time: body.time }),
  receiverNotReady: body => ({ kind: 'receiverNotReady', ...fieldsOf('receiverNotReady', body), time: body.time }),
  polled({ view, at, time }) {
    return { kind: 'polled', cq: view.getFloat64(at, true), count: view.getFloat64(at + 8, true), time }
  },
  queueReset: body => ({ kind: 'queueReset', ...fieldsOf('queueReset', body), time: body.time }),
  packets({ view, bytes, at, end, tables, time }): PacketsEvent & { readonly time: number } {
    return {
      kind: 'packets',
      device: view.getUint32(at + PACKETS.device, true),
      identification: view.getUint32(at + PACKETS.identification, true),
      count: view.getUint32(at + PACKETS.count, true),
      packetBytes: view.getUint32(at + PACKETS.packetBytes, true),
      lastBytes: view.getUint32(at + PACKETS.lastBytes, true),
      headerBytes: view.getUint32(at + PACKETS.headerBytes, true),
      direction: view.getUint32(at + PACKETS.direction, true) === 0 ? 'sent' : 'received',
      outcome: packetOutcomes[view.getUint32(at + PACKETS.outcome, true)]!,
      flow: tables.flows[view.getUint32(at + PACKETS.flow, true)]!,
      bytes: bytes.slice(at + Records.packets.size, end),
      time,
    }
  },
  failure(body) {
    return { kind: 'failure', ...fieldsOf('failure', body), failure: jsonOf('failure', body), time: body.time }
  },
  finding: body => ({ kind: 'finding', finding: jsonOf('finding', body), time: body.time }),
  torment: body => ({ kind: 'torment', torment: jsonOf('torment', body), time: body.time }),
  counters({ view, at, tables, time }) {
    const device = view.getUint32(at + COUNTERS.device, true)
    const object = view.getFloat64(at + COUNTERS.object, true)
    const count = view.getUint32(at + COUNTERS.count, true)
    const first = at + Records.counters.size
    const pairs = Array.from({ length: count }, (_, i) => {
      const place = first + i * COUNTER_BYTES
      return [tables.texts[view.getUint32(place, true) - 1] ?? '', view.getFloat64(place + 4, true)] as const
    })
    return { kind: 'counters', device, object, values: Object.fromEntries(pairs), time }
  },
  lost: body => ({ kind: 'lost', ...fieldsOf('lost', body), time: body.time }),
  checkpoint: body => ({ kind: 'checkpoint', ...fieldsOf('checkpoint', body), time: body.time }),
  end: body => ({ kind: 'end', ...fieldsOf('end', body), time: body.time }),
  wait(body) {
    const { wait, change } = fieldsOf('wait', body)
    const facts = jsonOf<WaitEvent['facts']>('wait', body)
    const isWhole =
      typeof facts.text === 'string' && typeof facts.device === 'string' && typeof facts.command === 'string'
    if (!isWhole || !Array.isArray(facts.objects)) throw new SessionFileError('a record "wait" lacks its facts')
    return { kind: 'wait', wait, change: nameOf(WaitChange, change) as WaitEvent['change'], facts, time: body.time }
  },
  programEnd: body => ({ kind: 'programEnd', ...fieldsOf('programEnd', body), time: body.time }),
  program: body => ({ kind: 'program', ...partOf('program', body), time: body.time }),
  answer: body => ({ kind: 'answer', ...partOf('answer', body), time: body.time }),
  accessed: body => ({ kind: 'accessed', ...fieldsOf('accessed', body), time: body.time }),
  link(body) {
    const classes = tailOf('link', body).length === 0 ? undefined : jsonOf<LinkEvent['classes']>('link', body)
    if (classes !== undefined && !(Array.isArray(classes) && classes.every(isLinkClass)))
      throw new SessionFileError('a record "link" has other values than classes')
    return { kind: 'link', ...fieldsOf('link', body), ...(classes && { classes }), time: body.time }
  },
  symbol(body) {
    const frames = symbolFrames(jsonOf('symbol', body))
    if (frames === undefined) throw new SessionFileError('a record "symbol" has other values than frames')
    return { kind: 'symbol', ...fieldsOf('symbol', body), frames, time: body.time }
  },
}

const flowOf = (body: Body): PacketFlow => {
  const at = body.at + Records.flow.size
  if (body.end < at + 2 * GID_BYTES) throw new SessionFileError('a record "flow" is too short')
  const gid = (index: number): Uint8Array => body.bytes.slice(index, index + GID_BYTES)
  const fabricAt = at + 2 * GID_BYTES
  return {
    ...fieldsOf('flow', body),
    source: gid(at),
    destination: gid(at + GID_BYTES),
    ...(body.end > fabricAt && { sl: body.bytes[fabricAt] }),
    ...(body.end >= fabricAt + 1 + 2 * GID_BYTES && {
      grh: { source: gid(fabricAt + 1), destination: gid(fabricAt + 1 + GID_BYTES) },
    }),
  }
}

/**
 * The events of a whole block, whose header is `header`. `wanted`: others are left out. Throws a SessionFileError at
 * the first damaged record.
 */
export const eventsOf = (block: Uint8Array, header: BlockFacts, wanted?: WantedEvents): SessionEvent[] => {
  const view = viewOf(block)
  const tables: BlockTables = { texts: [], flows: [], stacks: [] }
  const end = header.length - BLOCK_TRAILER
  const body: Body = { view, bytes: block, at: 0, end: 0, time: 0, tables }
  const events: SessionEvent[] = []
  for (let at: number = BlockHeader.size; at < end; ) {
    const word = at + RECORD_HEADER > end ? 0 : view.getUint32(at, true)
    const length = word & LENGTH_MASK
    const kind = recordKinds[(word >>> KIND_SHIFT) - 1]
    if (length < RECORD_HEADER || at + length > end) throw new SessionFileError('a block has a damaged record')
    body.time = (header.base + view.getUint32(at + 4, true)) / 1000
    body.at = at + RECORD_HEADER
    at += length
    body.end = at
    // A later release may add kinds.
    if (kind === undefined) continue
    checkFields(kind, body)
    if (kind === 'text') tables.texts.push(utf8.decode(block.subarray(body.at, body.end)))
    else if (kind === 'flow') tables.flows.push(flowOf(body))
    else {
      checks[kind]?.(body)
      const isLeftOut = wanted !== undefined && !isWanted(kind, body, wanted)
      if (isLeftOut && FREQUENT.has(kind)) continue
      const event: SessionEvent = decoders[kind](body)
      if (!isLeftOut) events.push(event)
    }
  }
  return events
}
