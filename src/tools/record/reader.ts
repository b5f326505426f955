/*
 * Reads session files. `openSession` reads the header and the indexes of the segments; events are decoded when they are
 * asked for, block by block, so that a file may be larger than memory. Works in browsers: the source of a `Blob` is
 * `bytes => blob.slice(…).arrayBuffer()`.
 *
 * A file may be damaged, or still be written. What cannot be read is skipped and counted (`damaged`).
 */

import type { SessionEvent, SessionHeader } from '../../spec/session-events.ts'
import {
  BLOCK_TRAILER,
  BlockHeader,
  BlockType,
  FileHeader,
  FOOTER_MAGIC,
  IndexBlock,
  IndexKey,
  MAX_BLOCK,
  NO_KEYS,
  SESSION_FILE_VERSION,
  SegmentBytes,
  SegmentFooter,
} from '../../spec/session-file.ts'
import { eventsOf, hasTimes, isWhole, readBlockHeader, readFields, viewOf, type WantedEvents } from './decode.ts'
import { SessionFileError } from './error.ts'

/** Where the bytes of a session file come from. */
export interface SessionSource {
  /** Bytes of the file. */
  readonly size: number
  /** Bytes from `offset` on: `length`, or fewer at the end of the file. */
  read(offset: number, length: number): Promise<Uint8Array>
  /** A source that keeps bytes reads these again: they may have changed. */
  forget?(from: number, to: number): void
}

/** A file that is in memory. */
export const bytesSource = (bytes: Uint8Array): SessionSource => ({
  size: bytes.length,
  read: async (offset, length) => bytes.subarray(offset, offset + length),
})

/** A block of the file. Times are microseconds of the recorder's clock. */
export interface SessionBlock {
  /** Position in the file. */
  readonly position: number
  readonly length: number
  /** Number of its segment. */
  readonly sequence: number
  readonly isCheckpoint: boolean
  /** Time of the first and of the last event. */
  readonly start: number
  readonly end: number
  /** Number of events in the session before this block, and in it. A checkpoint has none. */
  readonly first: number
  readonly events: number
}

interface Segment {
  readonly sequence: number
  readonly blocks: readonly SessionBlock[]
  /**
   * Indices in `blocks` by key: the id of an object, or `packetKey` of a queue pair (spec/session-file.ts). Undefined:
   * the segment has no such index.
   */
  readonly keys: ReadonlyMap<number, readonly number[]> | undefined
}

/** Which events to read. */
export interface EventRange {
  /** Events before this time are left out; microseconds. */
  readonly from?: number
  /** Events after this time are left out. */
  readonly to?: number
  /**
   * Blocks without events of these keys are left out, if the index knows: ids of objects, and `packetKey` of queue
   * pairs. Events of other objects in the same blocks are not left out.
   */
  readonly keys?: readonly number[]
}

export interface Session {
  readonly header: SessionHeader
  /** In the order of time; of a file with a limit, the newest. */
  readonly blocks: readonly SessionBlock[]
  /** Number of events; of a file with a limit, also those that were overwritten. */
  readonly events: number
  /** Events before the first block: those of a file with a limit that were overwritten. */
  readonly overwritten: number
  /** Time of the first and of the last event that the file has, microseconds. */
  readonly start: number
  readonly end: number
  /** Number of blocks and segments that could not be read so far. */
  readonly damaged: number
  /** Decodes one block. Throws a SessionFileError if its bytes are damaged. */
  read(block: SessionBlock): Promise<readonly SessionEvent[]>
  /** Events in the order of time, without those of checkpoints. Damaged blocks are skipped. */
  eventsIn(range?: EventRange): AsyncGenerator<SessionEvent>
  /**
   * As `eventsIn`, but all events of a block at once, and only `wanted` ones: several times as fast. A block may have
   * none.
   */
  eventsByBlock(range?: EventRange, wanted?: WantedEvents): AsyncGenerator<readonly SessionEvent[]>
  /**
   * The events of the newest checkpoint before `time`: the devices and objects at its time, which is the time of the
   * events that follow it. `eventsIn` from its `end` on has the changes since. Damaged blocks are skipped.
   */
  checkpointBefore(time: number): Promise<{ readonly end: number; readonly events: readonly SessionEvent[] }>
  /** The session after its file has grown, or has overwritten its oldest part. Reads only what is new. */
  continued(source: SessionSource): Promise<Session>
}

// ---- header ----

/** Milliseconds from 1970, in both directions: with the latest time of a block, still a date of JavaScript. */
const MAX_ORIGIN = 8e15

const HEADER_NUMBERS = ['origin', 'payload', 'segmentBytes', 'segments'] as const

const parseHeader = (bytes: Uint8Array): SessionHeader => {
  const text = new TextDecoder().decode(bytes)
  if (!text.startsWith(FileHeader.start))
    throw new SessionFileError('this is no session file: it does not begin with "userdma session"')
  const version = Number.parseInt(text.slice(FileHeader.start.length), 10)
  if (version !== SESSION_FILE_VERSION)
    throw new SessionFileError(
      `the session file has version ${version}; this userdma reads version ${SESSION_FILE_VERSION}, so use the userdma that has written it`,
    )
  let header: Partial<Record<keyof SessionHeader, unknown>>
  try {
    header = JSON.parse(text.split('\n')[1] ?? '')
  } catch {
    throw new SessionFileError('the header of the session file is damaged')
  }
  const hasNumbers = HEADER_NUMBERS.every(name => Number.isFinite(header?.[name]))
  const { segmentBytes = 0, segments = 0, origin = 0, application, machine } = header as Partial<SessionHeader>
  const isValid =
    hasNumbers &&
    Number.isInteger(segmentBytes) &&
    Number.isInteger(segments) &&
    segmentBytes >= SegmentBytes.min &&
    segmentBytes <= SegmentBytes.max &&
    segments >= 0 &&
    Math.abs(origin) <= MAX_ORIGIN &&
    typeof application === 'string' &&
    typeof machine === 'string'
  if (!isValid) throw new SessionFileError('the header of the session file is damaged')
  return header as SessionHeader
}

// ---- segments ----

const NANOSECONDS = 1000

type Facts = Pick<ReturnType<typeof readFields<typeof IndexBlock>>, 'base' | 'last' | 'first' | 'events' | 'length'>

const blockOf = (facts: Facts, position: number, sequence: number, isCheckpoint: boolean): SessionBlock => ({
  position,
  length: facts.length,
  sequence,
  isCheckpoint,
  start: facts.base / NANOSECONDS,
  end: facts.last / NANOSECONDS,
  first: facts.first,
  events: facts.events,
})

/** The segment of an index block; undefined: the bytes are damaged. `position`: of the segment. */
const segmentOfIndex = (bytes: Uint8Array, sequence: number, position: number): Segment | undefined => {
  const header = readBlockHeader(bytes, sequence)
  if (header === undefined || header.type !== BlockType.INDEX || !isWhole(bytes, header)) return undefined
  const view = viewOf(bytes)
  const end = header.length - BLOCK_TRAILER
  let at: number = BlockHeader.size
  const number = (): number => {
    if (at + 4 > end) return NO_KEYS
    at += 4
    return view.getUint32(at - 4, true)
  }
  const count = number()
  if (count * IndexBlock.size > end - at) return undefined
  const blocks: SessionBlock[] = []
  for (let i = 0; i < count; i++, at += IndexBlock.size) {
    const entry = readFields(view, at, IndexBlock)
    // A block of any length would be read into memory at once.
    if (!hasTimes(entry) || entry.length > MAX_BLOCK) return undefined
    // Checkpoints are the first blocks, and have no events.
    blocks.push(blockOf(entry, position + entry.offset, sequence, entry.events === 0))
  }
  const keyCount = number()
  if (keyCount === NO_KEYS) return { sequence, blocks, keys: undefined }
  const keys = new Map<number, number[]>()
  for (let i = 0; i < keyCount; i++) {
    if (at + IndexKey.size > end) return undefined
    const { key, count: ofKey } = readFields(view, at, IndexKey)
    at += IndexKey.size
    if (ofKey * 4 > end - at) return undefined
    keys.set(key, Array.from({ length: ofKey }, number))
  }
  return { sequence, blocks, keys }
}

/** Where the next block of a segment is, which is at `position`. */
const endOf = ({ blocks }: Segment, position: number): number => {
  const last = blocks[blocks.length - 1]
  return last === undefined ? position : last.position + last.length
}

/** Most bytes that are read at once, and from how many on the next are read meanwhile. */
const MAX_READ = 2 ** 20
const MIN_AHEAD = 4 * MAX_BLOCK

/** Takes blocks in a row from the end of `blocks`: of at most `limit` bytes, but at least one. */
const takeRow = (blocks: SessionBlock[], limit: number): SessionBlock[] => {
  const row: SessionBlock[] = []
  let bytes = 0
  for (let block = blocks.at(-1); block !== undefined; block = blocks.at(-1)) {
    const last = row[row.length - 1]
    bytes += block.length
    if (last !== undefined && (bytes > limit || block.position !== last.position + last.length)) break
    row.push(block)
    blocks.pop()
  }
  return row
}

class OpenSession implements Session {
  readonly header: SessionHeader
  readonly blocks: readonly SessionBlock[]
  readonly events: number
  readonly overwritten: number
  readonly start: number
  readonly end: number
  readonly #segments: readonly Segment[]
  readonly #source: SessionSource
  /** Segments that could not be read. */
  readonly #damagedSegments: number
  readonly #damagedBlocks = new Set<SessionBlock>()

  constructor(source: SessionSource, header: SessionHeader, segments: readonly Segment[], damaged: number) {
    this.#source = source
    this.header = header
    this.#segments = segments
    this.#damagedSegments = damaged
    this.blocks = segments.flatMap(({ blocks }) => blocks)
    const last = this.blocks[this.blocks.length - 1]
    this.events = last === undefined ? 0 : last.first + last.events
    this.overwritten = this.blocks[0]?.first ?? 0
    const withEvents = this.blocks.filter(({ isCheckpoint }) => !isCheckpoint)
    this.start = withEvents[0]?.start ?? 0
    this.end = withEvents[withEvents.length - 1]?.end ?? this.start
  }

  get damaged(): number {
    return this.#damagedSegments + this.#damagedBlocks.size
  }

  async read(block: SessionBlock): Promise<readonly SessionEvent[]> {
    return this.#decode(block, await this.#source.read(block.position, block.length))
  }

  #decode({ position, sequence }: SessionBlock, bytes: Uint8Array, wanted?: WantedEvents): readonly SessionEvent[] {
    const header = readBlockHeader(bytes, sequence)
    if (header === undefined || !isWhole(bytes, header))
      throw new SessionFileError(`the block at byte ${position} of the session file is damaged`)
    return eventsOf(bytes, header, wanted)
  }

  /** The events of a block; none of a damaged one, which is counted. */
  #decodeWhole(block: SessionBlock, bytes: Uint8Array, wanted?: WantedEvents): readonly SessionEvent[] {
    try {
      return this.#decode(block, bytes, wanted)
    } catch (error) {
      if (!(error instanceof SessionFileError)) throw error
      this.#damagedBlocks.add(block)
      return []
    }
  }

  async *eventsIn(range: EventRange = {}): AsyncGenerator<SessionEvent> {
    for await (const events of this.eventsByBlock(range)) yield* events
  }

  async *eventsByBlock(
    { from = 0, to = Number.POSITIVE_INFINITY, keys }: EventRange = {},
    wanted?: WantedEvents,
  ): AsyncGenerator<readonly SessionEvent[]> {
    const blocks = this.#blocksIn(from, to, keys)
    const read = (blocks: readonly SessionBlock[]) => {
      const [first] = blocks
      const last = blocks[blocks.length - 1]
      if (first === undefined || last === undefined) return undefined
      const bytes = this.#source.read(first.position, last.position + last.length - first.position)
      // A read ahead that nobody waits for any more.
      bytes.catch(() => {})
      return { blocks, bytes }
    }
    let limit = MAX_BLOCK
    let next = read(takeRow(blocks, limit))
    while (next !== undefined) {
      const { blocks: row, bytes: promise } = next
      // A reader that stops soon has not read much in vain.
      const isAhead = limit >= MIN_AHEAD
      limit = Math.min(2 * limit, MAX_READ)
      if (isAhead) next = read(takeRow(blocks, limit))
      const bytes = await promise
      const start = row[0]!.position
      for (const block of row) {
        const at = block.position - start
        const events = this.#decodeWhole(block, bytes.subarray(at, at + block.length), wanted)
        const isInside = block.start >= from && block.end <= to
        yield isInside ? events : events.filter(({ time }) => time >= from && time <= to)
      }
      if (!isAhead) next = read(takeRow(blocks, limit))
    }
  }

  /** The blocks of events in a range, the next last. */
  #blocksIn(from: number, to: number, keys: readonly number[] | undefined): SessionBlock[] {
    return this.#segments
      .flatMap(segment => {
        const wanted = keys && segment.keys && new Set(keys.flatMap(key => segment.keys?.get(key) ?? []))
        return segment.blocks.filter(
          (block, i) => !block.isCheckpoint && block.end >= from && block.start <= to && wanted?.has(i) !== false,
        )
      })
      .reverse()
  }

  async continued(source: SessionSource): Promise<Session> {
    const { header } = this
    const segments = [...this.#segments]
    let newest = segments.pop()
    let damaged = this.damaged
    const { scan, readSegment } = segmentReader(source, header, () => damaged++)
    while (newest !== undefined) {
      const { sequence, blocks } = newest
      const position = slotOf(header, sequence)
      const next = slotOf(header, sequence + 1)
      source.forget?.(endOf(newest, position), position + header.segmentBytes)
      source.forget?.(next, next + header.segmentBytes)
      const following = readBlockHeader(await source.read(next, BlockHeader.size), 0)?.sequence ?? 0
      // More was overwritten than one segment.
      if (following > sequence + 1) break
      const isLast = following !== sequence + 1
      const added = await scan(sequence, position, endOf(newest, position), isLast)
      const known: Segment = { sequence, blocks: [...blocks, ...added], keys: undefined }
      if (isLast) {
        const oldest = header.segments === 0 ? 0 : sequence - header.segments
        const existing = [...segments, known].filter(one => one.sequence > oldest)
        return new OpenSession(source, header, existing, damaged)
      }
      // Now it is complete, and has an index.
      const complete = await readSegment(position)
      segments.push(complete?.sequence === sequence ? complete : known)
      newest = { sequence: following, blocks: [], keys: undefined }
    }
    return openSession(source)
  }

  async checkpointBefore(time: number): Promise<{ end: number; events: readonly SessionEvent[] }> {
    // The first segment is the answer for times before the file's first event.
    const before = this.#segments.filter(({ blocks }, i) => i === 0 || (blocks[0]?.end ?? 0) < time)
    const checkpoints = before[before.length - 1]?.blocks.filter(({ isCheckpoint }) => isCheckpoint) ?? []
    const events: (readonly SessionEvent[])[] = []
    for (const block of checkpoints)
      events.push(this.#decodeWhole(block, await this.#source.read(block.position, block.length)))
    return { end: checkpoints[0]?.end ?? 0, events: events.flat() }
  }
}

/** Position of a segment in the file. */
const slotOf = ({ segmentBytes, segments }: SessionHeader, sequence: number): number =>
  FileHeader.bytes + (segments === 0 ? sequence - 1 : (sequence - 1) % segments) * segmentBytes

/** Reads segments of a file. `onDamage` is called for what cannot be read. */
const segmentReader = (source: SessionSource, { segmentBytes }: SessionHeader, onDamage: () => void) => {
  /**
   * The blocks of a segment from `at` on, by their headers. `isGrowing`: up to the first that is not written entirely;
   * a writer may still write it.
   */
  const scan = async (sequence: number, position: number, at: number, isGrowing: boolean): Promise<SessionBlock[]> => {
    const blocks: SessionBlock[] = []
    while (at < position + segmentBytes) {
      const facts = readBlockHeader(await source.read(at, BlockHeader.size), sequence)
      // The last block may not be written entirely.
      if (facts === undefined || facts.type === BlockType.INDEX) break
      if (at + facts.length > Math.min(source.size, position + segmentBytes)) {
        if (!isGrowing) onDamage()
        break
      }
      if (isGrowing && !isWhole(await source.read(at, facts.length), facts)) break
      blocks.push(blockOf(facts, at, sequence, facts.type === BlockType.CHECKPOINT))
      at += facts.length
    }
    return blocks
  }

  const readSegment = async (position: number): Promise<Segment | undefined> => {
    const first = readBlockHeader(await source.read(position, BlockHeader.size), 0)
    if (first === undefined) {
      onDamage()
      return undefined
    }
    const { sequence } = first
    const footerBytes = await source.read(position + segmentBytes - SegmentFooter.size, SegmentFooter.size)
    if (footerBytes.length === SegmentFooter.size) {
      const footer = readFields(viewOf(footerBytes), 0, SegmentFooter)
      const isFooter = footer.magic === FOOTER_MAGIC && footer.sequence === sequence
      if (isFooter && footer.offset + footer.length <= segmentBytes) {
        const index = await source.read(position + footer.offset, footer.length)
        const segment = segmentOfIndex(index, sequence, position)
        if (segment !== undefined) return segment
        onDamage()
      }
    }
    return { sequence, blocks: await scan(sequence, position, position, false), keys: undefined }
  }

  return { scan, readSegment }
}

/**
 * Opens a session file, also one that is being written: then the session ends where the file ended. Throws a
 * SessionFileError with a sentence for people if it is no session file, or of another version.
 */
export const openSession = async (source: SessionSource): Promise<Session> => {
  source.forget?.(0, Number.POSITIVE_INFINITY)
  const header = parseHeader(await source.read(0, FileHeader.bytes))
  let damaged = 0
  const { readSegment } = segmentReader(source, header, () => damaged++)
  const segments: Segment[] = []
  const slots = header.segments === 0 ? Number.POSITIVE_INFINITY : header.segments
  for (let slot = 0; slot < slots; slot++) {
    const position = FileHeader.bytes + slot * header.segmentBytes
    const segment = position < source.size ? await readSegment(position) : undefined
    // Without a limit segments follow each other.
    if (segment === undefined && (header.segments === 0 || position >= source.size)) break
    if (segment !== undefined) segments.push(segment)
  }
  segments.sort((a, b) => a.sequence - b.sequence)
  return new OpenSession(source, header, segments, damaged)
}
