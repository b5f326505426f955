/*
 * Decodes the blocks of a session file. Blocks are checked: damaged bytes give a SessionFileError, whatever they are.
 */
import type { Program, Stack } from '../spec/check/findings.ts'
import { packetOutcomes } from '../spec/faults.ts'
import {
  BLOCK_MAGIC,
  BLOCK_TRAILER,
  BlockHeader,
  BlockType,
  DeviceChange,
  ELEMENT_BYTES,
  fieldBytes,
  type LayoutValues,
  MAX_BLOCK,
  ObjectChange,
  PostedBit,
  RECORD_HEADER,
  type RecordKind,
  type RecordLayout,
  Records,
  recordKinds,
  SegmentBytes,
  WaitChange,
} from '../spec/session-file.ts'
import type { PacketFlow } from '../wire/flow.ts'
import { checksum } from './checksum.ts'
import { SessionFileError } from './error.ts'
import type { AnyEvent, DeviceEvent, ObjectDetails, ObjectEvent, SessionEvent, WaitEvent } from './events.ts'
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

export type BlockFacts = LayoutValues<typeof BlockHeader>

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
 * The header of a block of segment `sequence` (0: of any) at the start of `bytes`; undefined: there is none, because the
 * segment ends here or was being overwritten.
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

/** What the records of a block refer to. */
interface BlockTables {
  readonly texts: string[]
  readonly flows: PacketFlow[]
  /** By text: many records have the same stack. */
  readonly stacks: Map<string, Stack>
}

/** The body of a record: its fields at 0, its tail after them. */
interface Body {
  readonly view: DataView
  readonly bytes: Uint8Array
  readonly tables: BlockTables
}

/** Throws for a number that is none, or negative: all numbers of 64 bits are ids, counts, lengths or addresses. */
const fieldsOf = <K extends RecordKind>(kind: K, { view, tables }: Body): LayoutValues<(typeof Records)[K]> => {
  const layout: RecordLayout = Records[kind]
  const values = readFields(view, 0, layout, tables.texts)
  for (const [name, type] of layout.fields)
    if (type === 'f64' && !(Number(values[name]) >= 0 && Number.isFinite(values[name])))
      throw new SessionFileError(`a record "${kind}" has the number ${values[name]} as ${name}`)
  return values as LayoutValues<(typeof Records)[K]>
}

const stackOf = (text: string, { tables: { stacks } }: Body): Stack => {
  const known = stacks.get(text)
  if (known !== undefined) return known
  const stack = text === '' ? [] : text.split('\n')
  stacks.set(text, stack)
  return stack
}

const tailOf = (kind: RecordKind, { bytes }: Body): Uint8Array => bytes.subarray(Records[kind].size)

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

/** Others than writers of ours may have written `uses` and `values` of any type. */
const detailsOf = (body: Body): ObjectDetails => {
  const details = jsonOf<ObjectDetails>('object', body)
  const { uses = [], values = {} } = details
  if (!Array.isArray(uses) || typeof values !== 'object' || values === null)
    throw new SessionFileError('the JSON of a record "object" has other values than an object')
  return details
}

/** `count` parts of `size` bytes behind the fields of a record. Throws if the record has fewer. */
const parts = <T>(
  kind: RecordKind,
  { view, bytes }: Body,
  count: number,
  size: number,
  read: (view: DataView, at: number) => T,
): T[] => {
  const start = Records[kind].size
  if (start + count * size > bytes.length) throw new SessionFileError(`a record "${kind}" is too short`)
  return Array.from({ length: count }, (_, i) => read(view, start + i * size))
}

type Decoders = { readonly [K in Exclude<RecordKind, 'text' | 'flow'>]: (body: Body) => AnyEvent & { kind: K } }

const decoders: Decoders = {
  device(body) {
    const { device, change, name, address } = fieldsOf('device', body)
    return { kind: 'device', change: nameOf(DeviceChange, change) as DeviceEvent['change'], device, name, address }
  },
  object(body) {
    const { change, pid, command, stack, ...fields } = fieldsOf('object', body)
    return {
      kind: 'object',
      change: nameOf(ObjectChange, change) as ObjectEvent['change'],
      ...fields,
      program: programOf(pid, command),
      stack: stackOf(stack, body),
      details: detailsOf(body),
    }
  },
  call(body) {
    const { object, stack } = fieldsOf('call', body)
    return { kind: 'call', object, stack: stackOf(stack, body), call: jsonOf('call', body) }
  },
  posted(body) {
    const fields = fieldsOf('posted', body)
    const { bits, elements: count } = fields
    const elements = parts('posted', body, count, ELEMENT_BYTES, (view, at) => ({
      address: view.getFloat64(at, true),
      length: view.getUint32(at + 8, true),
      lkey: view.getUint32(at + 12, true),
    }))
    const gidAt = Records.posted.size + count * ELEMENT_BYTES
    const hasDestination = (bits & PostedBit.DESTINATION) !== 0
    return {
      kind: 'posted',
      stack: stackOf(fields.stack, body),
      request: {
        id: fields.request,
        // Set by `eventsOf`: the time of the record.
        time: 0,
        owner: fields.owner,
        queue: fields.queue,
        number: fields.number,
        index: fields.index,
        wrId: fields.wrId,
        opcode: fields.opcode,
        flags: fields.flags,
        isSignaled: (bits & PostedBit.SIGNALED) !== 0,
        length: fields.length,
        elements,
        remote:
          (bits & PostedBit.REMOTE) === 0
            ? undefined
            : { address: fields.remoteAddress, length: fields.remoteLength, rkey: fields.rkey },
        destQpn: (bits & PostedBit.DATAGRAM) === 0 ? undefined : fields.destQpn,
        destination: hasDestination
          ? { gid: body.bytes.slice(gidAt, gidAt + GID_BYTES), qkey: fields.qkey }
          : undefined,
      },
    }
  },
  ended: body => ({ kind: 'ended', ...fieldsOf('ended', body) }),
  completed(body) {
    const { solicited, ...fields } = fieldsOf('completed', body)
    return { kind: 'completed', ...fields, solicited: solicited === 1 }
  },
  receiveLost: body => ({ kind: 'receiveLost', ...fieldsOf('receiveLost', body) }),
  receiverNotReady: body => ({ kind: 'receiverNotReady', ...fieldsOf('receiverNotReady', body) }),
  polled: body => ({ kind: 'polled', ...fieldsOf('polled', body) }),
  queueReset: body => ({ kind: 'queueReset', ...fieldsOf('queueReset', body) }),
  packets(body) {
    const { flow: number, direction, outcome: outcomeNumber, ...fields } = fieldsOf('packets', body)
    const flow = body.tables.flows[number]
    const outcome = packetOutcomes[outcomeNumber]
    if (flow === undefined || outcome === undefined)
      throw new SessionFileError('packets refer to a flow or outcome that does not exist')
    const bytes = tailOf('packets', body).slice()
    const { headerBytes, count, packetBytes, lastBytes } = fields
    const longest = Math.max(bytes.length, packetBytes, lastBytes)
    if (headerBytes > bytes.length || count === 0 || count > MAX_RUN || longest > MAX_PACKET)
      throw new SessionFileError('packets are longer than their record')
    return { kind: 'packets', ...fields, direction: direction === 0 ? 'sent' : 'received', outcome, flow, bytes }
  },
  failure(body) {
    return { kind: 'failure', ...fieldsOf('failure', body), failure: jsonOf('failure', body) }
  },
  finding: body => ({ kind: 'finding', finding: jsonOf('finding', body) }),
  torment: body => ({ kind: 'torment', torment: jsonOf('torment', body) }),
  counters(body) {
    const { device, object, count } = fieldsOf('counters', body)
    const pairs = parts(
      'counters',
      body,
      count,
      12,
      (view, at) => [body.tables.texts[view.getUint32(at, true) - 1] ?? '', view.getFloat64(at + 4, true)] as const,
    )
    return { kind: 'counters', device, object, values: Object.fromEntries(pairs) }
  },
  lost: body => ({ kind: 'lost', ...fieldsOf('lost', body) }),
  checkpoint: body => ({ kind: 'checkpoint', ...fieldsOf('checkpoint', body) }),
  end: body => ({ kind: 'end', ...fieldsOf('end', body) }),
  wait(body) {
    const { wait, change } = fieldsOf('wait', body)
    const facts = jsonOf<WaitEvent['facts']>('wait', body)
    const isWhole =
      typeof facts.text === 'string' && typeof facts.device === 'string' && typeof facts.command === 'string'
    if (!isWhole || !Array.isArray(facts.objects)) throw new SessionFileError('a record "wait" lacks its facts')
    return { kind: 'wait', wait, change: nameOf(WaitChange, change) as WaitEvent['change'], facts }
  },
  programEnd: body => ({ kind: 'programEnd', ...fieldsOf('programEnd', body) }),
  symbol(body) {
    const frames = symbolFrames(jsonOf('symbol', body))
    if (frames === undefined) throw new SessionFileError('a record "symbol" has other values than frames')
    return { kind: 'symbol', ...fieldsOf('symbol', body), frames }
  },
}

const flowOf = (body: Body): PacketFlow => {
  const at = Records.flow.size
  if (body.bytes.length < at + 2 * GID_BYTES) throw new SessionFileError('a record "flow" is too short')
  return {
    ...fieldsOf('flow', body),
    source: body.bytes.slice(at, at + GID_BYTES),
    destination: body.bytes.slice(at + GID_BYTES, at + 2 * GID_BYTES),
  }
}

/** The events of a whole block, whose header is `header`. Throws a SessionFileError at the first damaged record. */
export function* eventsOf(block: Uint8Array, header: BlockFacts): Generator<SessionEvent> {
  const view = viewOf(block)
  const tables: BlockTables = { texts: [], flows: [], stacks: new Map() }
  const end = header.length - BLOCK_TRAILER
  for (let at: number = BlockHeader.size; at < end; ) {
    const word = at + RECORD_HEADER > end ? 0 : view.getUint32(at, true)
    const length = word & LENGTH_MASK
    const kind = recordKinds[(word >>> KIND_SHIFT) - 1]
    if (length < RECORD_HEADER || at + length > end) throw new SessionFileError('a block has a damaged record')
    const time = (header.base + view.getUint32(at + 4, true)) / 1000
    const bytes = block.subarray(at + RECORD_HEADER, at + length)
    at += length
    // A later release may add kinds.
    if (kind === undefined) continue
    if (bytes.length < Records[kind].size) throw new SessionFileError(`a record "${kind}" is too short`)
    const body: Body = { view: viewOf(bytes), bytes, tables }
    if (kind === 'text') tables.texts.push(utf8.decode(bytes))
    else if (kind === 'flow') tables.flows.push(flowOf(body))
    else {
      const event = decoders[kind](body)
      yield event.kind === 'posted' ? { ...event, request: { ...event.request, time }, time } : { ...event, time }
    }
  }
}
