/*
 * The format of session files, version 1 (docs/reference/session-file.md): constants, and the fields of each record.
 * All numbers are little-endian.
 *
 * header     FileHeader.bytes bytes of text: a sentence about the contents, a line of JSON, newlines
 * segments   of `segmentBytes` bytes each: blocks from its start on, and a footer in its last bytes
 * block      a header, records, a trailer
 * record     u32: bytes of the record, and its kind in the upper 8 bits; u32: nanoseconds since the base of the block;
 *            the fields of its kind (`Records`); a tail of bytes
 */

export const SESSION_FILE_VERSION = 1

export const FileHeader = { bytes: 4096, start: 'userdma session ' } as const

/** Limits of `segmentBytes`. */
export const SegmentBytes = { min: 2 ** 17, max: 2 ** 22 } as const

/** Most bytes of a block, and of a record. Each record is in one block. */
export const MAX_BLOCK = 2 ** 16
export const MAX_RECORD = 2 ** 15

type RecordField = 'u32' | 's32' | 'u64' | 'f64' | 'text'
type DeclaredFields = readonly (readonly [name: string, type: RecordField])[]

export interface RecordLayout<D extends DeclaredFields = DeclaredFields> {
  readonly fields: D
  /** Bytes of the fields. */
  readonly size: number
}

/** The values of a layout's fields. */
export type LayoutValues<L extends RecordLayout> = {
  -readonly [F in L['fields'][number] as F[0]]: F[1] extends 'u64' ? bigint : F[1] extends 'text' ? string : number
}

const SIZES: Readonly<Record<RecordField, number>> = { u32: 4, s32: 4, u64: 8, f64: 8, text: 4 }
export const fieldBytes = (type: RecordField): number => SIZES[type]

const layout = <const D extends DeclaredFields>(...fields: D): RecordLayout<D> => ({
  fields,
  size: fields.reduce((sum, [, type]) => sum + SIZES[type], 0),
})

/** Offsets of a layout's fields from its start. */
export const fieldOffsets = <L extends RecordLayout>({
  fields,
}: L): Readonly<Record<keyof LayoutValues<L>, number>> => {
  let at = 0
  const offsets: Record<string, number> = {}
  for (const [name, type] of fields) {
    offsets[name] = at
    at += SIZES[type]
  }
  return offsets as Record<keyof LayoutValues<L>, number>
}

/**
 * A block. sequence: number of the segment, from 1. base, last: time of the first and last record, nanoseconds. first:
 * number of events in the session before the block. events: number of events in the block. `BLOCK_TRAILER` bytes follow
 * the records: the checksum of header and records (tools/record/checksum.ts).
 */
export const BlockHeader = layout(
  ['magic', 'u32'],
  ['length', 'u32'],
  ['sequence', 'u32'],
  ['type', 'u32'],
  ['base', 'f64'],
  ['last', 'f64'],
  ['first', 'f64'],
  ['events', 'u32'],
  ['reserved', 'u32'],
)
export const BLOCK_MAGIC = 0x4b4c_4255
export const BLOCK_TRAILER = 4

/**
 * Types of blocks. CHECKPOINT: the devices and objects at the start of the segment. INDEX: of the segment, after its
 * other blocks.
 */
export const BlockType = { EVENTS: 0, CHECKPOINT: 1, INDEX: 2 } as const

/** The last bytes of a full segment. offset, length: of the index, from the start of the segment. */
export const SegmentFooter = layout(['magic', 'u32'], ['sequence', 'u32'], ['offset', 'u32'], ['length', 'u32'])
export const FOOTER_MAGIC = 0x5854_4f46

/**
 * The index of a segment: u32 number of blocks, then an `IndexBlock` for each; u32 number of keys, then for each an
 * `IndexKey` and `count` numbers of blocks (u32, from 0). NO_KEYS: there were too many keys. offset: from the start of
 * the segment.
 */
export const IndexBlock = layout(
  ['offset', 'u32'],
  ['length', 'u32'],
  ['base', 'f64'],
  ['last', 'f64'],
  ['first', 'f64'],
  ['events', 'u32'],
)
/** key: the id of an object, `packetKey`, or WAITS_KEY. */
export const IndexKey = layout(['key', 'f64'], ['count', 'u32'])

/** The number of keys of an index without keys. */
export const NO_KEYS = 2 ** 32 - 1

/** The key in an index of packets to a queue pair. Below 0, because ids of objects are above. */
export const packetKey = (destQpn: number): number => -1 - destQpn

/** The key in an index of waits and of ends of programs: below all keys of packets. */
export const WAITS_KEY = packetKey(2 ** 24)

/** Values of `object.change`. EXISTS: in a checkpoint. */
export const ObjectChange = { EXISTS: 0, CREATED: 1, CHANGED: 2, DESTROYED: 3 } as const
/** Values of `device.change`. */
export const DeviceChange = { EXISTS: 0, ADDED: 1, REMOVED: 2, RENAMED: 3 } as const
/** Values of `wait.change`. EXISTS: in a checkpoint. */
export const WaitChange = { EXISTS: 0, BEGAN: 1, OVER: 2, CLOSED: 3 } as const
/** Bits of `posted.bits`. BLOCK, REQUEST: `WorkRequest.numbered`. POST_INDEX: it is known. */
export const PostedBit = {
  SIGNALED: 1,
  REMOTE: 2,
  DATAGRAM: 4,
  DESTINATION: 8,
  BLOCK: 16,
  REQUEST: 32,
  POST_INDEX: 64,
} as const
/** Bytes of an element of a posted request: f64 address, u32 length, u32 lkey. */
export const ELEMENT_BYTES = 16

/**
 * The kinds of records, with their fields; the number of a kind is its position, from 1. A field of type `text` is the
 * number of a `text` record of the same block, from 1; 0: empty. Fields are explained in spec/session-events.ts, where
 * the events have the same names. Tails:
 *
 * - `text`: UTF-8. `flow`: source and destination, 16 bytes each; of InfiniBand the service level (u8), and the GIDs of
 *   the GRH, 16 bytes each, if there is one; flows of a block are numbered from 0
 * - `link`: JSON of `classes`, if there are any
 * - `object`, `call`, `failure`, `finding`, `torment`, `wait`, `symbol`: JSON
 * - `posted`: `elements` elements (ELEMENT_BYTES); with PostedBit.DESTINATION 16 bytes of GID; with
 *   PostedBit.POST_INDEX `WorkRequest.postIndex` (f64)
 * - `packets`: the headers, and the recorded bytes of payload
 * - `counters`: `count` times a text (u32) and a value (f64)
 * - `program`, `answer`: a part of JSON; `more`: 1 if the next record of the kind goes on
 */
export const Records = {
  text: layout(),
  flow: layout(['sourcePort', 'u32'], ['trafficClass', 'u32'], ['hopLimit', 'u32'], ['flowLabel', 'u32']),
  device: layout(['device', 'u32'], ['change', 'u32'], ['name', 'text'], ['address', 'text']),
  object: layout(
    ['object', 'f64'],
    ['change', 'u32'],
    ['device', 's32'],
    ['context', 'u32'],
    ['pid', 'u32'],
    ['command', 'text'],
    ['class', 'text'],
    ['handle', 'u32'],
    ['number', 'u32'],
    ['why', 'text'],
    ['method', 'text'],
    ['stack', 'text'],
  ),
  call: layout(['object', 'f64'], ['stack', 'text']),
  posted: layout(
    ['request', 'f64'],
    ['owner', 'f64'],
    ['wrId', 'u64'],
    ['queue', 'u32'],
    ['number', 'u32'],
    ['index', 'f64'],
    ['opcode', 's32'],
    ['flags', 'u32'],
    ['bits', 'u32'],
    ['length', 'f64'],
    ['remoteAddress', 'f64'],
    ['remoteLength', 'f64'],
    ['rkey', 'u32'],
    ['destQpn', 'u32'],
    ['qkey', 'u32'],
    ['elements', 'u32'],
    ['stack', 'text'],
  ),
  ended: layout(['request', 'f64'], ['owner', 'f64']),
  completed: layout(
    ['request', 'f64'],
    ['owner', 'f64'],
    ['qp', 'f64'],
    ['cq', 'f64'],
    ['cqPosition', 'f64'],
    ['message', 'f64'],
    ['bytes', 'f64'],
    ['status', 'u32'],
    ['opcode', 'u32'],
    ['solicited', 'u32'],
  ),
  receiveLost: layout(['request', 'f64'], ['owner', 'f64']),
  receiverNotReady: layout(['qp', 'f64']),
  polled: layout(['cq', 'f64'], ['count', 'f64']),
  queueReset: layout(['owner', 'f64']),
  packets: layout(
    ['device', 'u32'],
    ['direction', 'u32'],
    ['outcome', 'u32'],
    ['flow', 'u32'],
    ['identification', 'u32'],
    ['count', 'u32'],
    ['packetBytes', 'u32'],
    ['lastBytes', 'u32'],
    ['headerBytes', 'u32'],
  ),
  failure: layout(['object', 'f64']),
  finding: layout(),
  torment: layout(),
  counters: layout(['device', 'u32'], ['object', 'f64'], ['count', 'u32']),
  lost: layout(['count', 'f64']),
  checkpoint: layout(['omitted', 'f64']),
  end: layout(['reason', 'text']),
  wait: layout(['wait', 'f64'], ['change', 'u32']),
  programEnd: layout(['pid', 'u32'], ['status', 'u32'], ['command', 'text'], ['signal', 'text']),
  symbol: layout(['frame', 'text']),
  link: layout(
    ['link', 'u32'],
    ['from', 'text'],
    ['to', 'text'],
    ['rate', 'f64'],
    ['delay', 'f64'],
    ['capacity', 'f64'],
    ['packets', 'f64'],
    ['bytes', 'f64'],
    ['marked', 'f64'],
    ['overflowed', 'f64'],
    ['lost', 'f64'],
    ['tooLong', 'f64'],
    ['queue', 'f64'],
    ['maxQueue', 'f64'],
    ['meanQueue', 'f64'],
    ['utilization', 'f64'],
  ),
  program: layout(['more', 'u32']),
  answer: layout(['more', 'u32']),
  accessed: layout(
    ['device', 'u32'],
    ['rkey', 'u32'],
    ['high', 'u32'],
    ['low', 'u32'],
    ['length', 'f64'],
    ['access', 'u32'],
    ['qpn', 'u32'],
  ),
} as const satisfies Readonly<Record<string, RecordLayout>>
export type RecordKind = keyof typeof Records
export const recordKinds = Object.keys(Records) as readonly RecordKind[]

/** The records about requests. */
export const requestKinds = [
  'posted',
  'ended',
  'completed',
  'receiveLost',
  'receiverNotReady',
  'polled',
  'queueReset',
] as const satisfies readonly RecordKind[]

/** Bytes before a record's fields. */
export const RECORD_HEADER = 8

/** How a recording ended. */
export interface RecordingEnd {
  /** Number of events that were lost, because the disk was too slow. */
  readonly lost: number
  /** Why the file is not complete; null: it is. */
  readonly error: string | null
}
