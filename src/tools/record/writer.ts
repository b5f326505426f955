/*
 * Writes a session file (spec/session-file.ts): fills blocks, puts them into segments with checkpoints and indexes, and
 * passes them to a sink. It never waits for the sink: while all buffers are being written, events are dropped and
 * counted.
 *
 * Memory is bounded by the buffers, the existing objects, and the index of one segment.
 */
import type { RequestCompletion, WorkRequest } from '../../spec/check/requests.ts'
import type { FailureRecord, TormentRecord, TraceRecord } from '../../spec/records.ts'
import type {
  CallEvent,
  DeviceEvent,
  LinkEvent,
  ObjectDetails,
  ObjectEvent,
  ProgramEndEvent,
  ProgramPart,
  RecordedFinding,
  SessionHeader,
  SymbolEvent,
  WaitEvent,
} from '../../spec/session-events.ts'
import {
  BLOCK_TRAILER,
  BlockHeader,
  BlockType,
  DeviceChange,
  FileHeader,
  FOOTER_MAGIC,
  IndexBlock,
  IndexKey,
  type LayoutValues,
  MAX_BLOCK,
  MAX_RECORD,
  NO_KEYS,
  ObjectChange,
  packetKey,
  RECORD_HEADER,
  type RecordKind,
  Records,
  SESSION_FILE_VERSION,
  SegmentBytes,
  SegmentFooter,
  WAITS_KEY,
  WaitChange,
} from '../../spec/session-file.ts'
import { bthDestQp } from '../../transport/wire/bth.ts'
import {
  BlockBuilder,
  COMPLETED_BYTES,
  PAIR_BYTES,
  type PacketsRecord,
  packetsBytes,
  postedBytes,
  putFields,
} from './block.ts'
import { viewOf } from './decode.ts'
import { continuesRun, headerBytesAt } from './packets.ts'

/** Where the bytes of a session file go. */
export interface SessionSink {
  /**
   * Writes `bytes` at `position` of the file; writes may be done in any order. Calls `done` later, when `bytes` may be
   * reused. After an error it may be called again.
   */
  write(position: number, bytes: Uint8Array, done: (error?: Error) => void): void
}

export interface WriterOptions extends Omit<SessionHeader, 'version' | 'segmentBytes' | 'segments'> {
  /** Maximum bytes of the file; undefined: no limit. At least MIN_RECORD_LIMIT. */
  readonly limit?: number | undefined
}

/** Least `limit`. */
export const MIN_RECORD_LIMIT = 2 ** 20
/** Segments of a file with a limit, unless they would be longer than SegmentBytes.max. */
const SEGMENTS = 8
/** Blocks that wait for the sink at most, besides the one that is being filled. */
const BUFFERS = 32
/** A checkpoint takes at most about this part of its segment. */
const CHECKPOINT_SHARE = 4
/** An index has keys only if these take at most this part of their segment. */
const KEYS_SHARE = 16
/** Buffers that must be free before a segment begins: its checkpoint takes many. */
const BUFFERS_FOR_SEGMENT = BUFFERS / 2
/** Most bytes of a record with its texts. */
const LARGEST = MAX_RECORD + 2 ** 14
const NOTED_KEYS = 64
/** Characters of a part of JSON: a character has at most 3 bytes. */
const MAX_PART = MAX_RECORD / 4
/** Most bytes of all symbols, and their least part of a file with a limit. They must fit into the buffers. */
const MAX_SYMBOLS = 2 ** 20
const SYMBOLS_SHARE = 8
/** Waits and ends of programs that checkpoints repeat: the newest. */
const MAX_REPEATED = 100
/** Characters of the name of an end of a link. */
const MAX_NAME = 256
const NO_TEXTS: readonly string[] = []

/** Sizes of segments for a limit. */
const segmentsFor = (limit: number | undefined): Pick<SessionHeader, 'segmentBytes' | 'segments'> => {
  if (limit === undefined) return { segmentBytes: SegmentBytes.max, segments: 0 }
  const space = limit - FileHeader.bytes
  // A power of two, so that a reader's pages and the file's agree.
  const wanted = 2 ** Math.floor(Math.log2(space / SEGMENTS))
  const segmentBytes = Math.min(SegmentBytes.max, Math.max(SegmentBytes.min, wanted))
  return { segmentBytes, segments: Math.floor(space / segmentBytes) }
}

const utf8 = new TextEncoder()

/** The first bytes of a file. The first line tells people what the file has. */
export const headerBytes = (header: SessionHeader): Uint8Array => {
  const { payload, version } = header
  const payloadText = payload === 0 ? 'no payload' : `the first ${payload} bytes of the payload of each packet`
  const lines = [
    `${FileHeader.start}${version}: calls with their arguments, objects, requests, completions, packet headers and findings of RDMA programs, with names of programs and addresses; ${payloadText}; no environment`,
    JSON.stringify(header),
  ].join('\n')
  const bytes = new Uint8Array(FileHeader.bytes).fill(0x0a)
  utf8.encodeInto(lines, bytes.subarray(0, FileHeader.bytes - 1))
  return bytes
}

interface IndexedBlock {
  readonly offset: number
  readonly length: number
  readonly base: number
  readonly last: number
  readonly first: number
  readonly events: number
}

const json = (value: object): Uint8Array => utf8.encode(JSON.stringify(value))

/**
 * Times of all functions are microseconds of the recorder's clock; an earlier time than the last event's counts as the
 * last event's. The caller calls `flush` regularly, so that a reader after `kill -9` misses little.
 */
export class SessionWriter {
  readonly header: SessionHeader
  readonly #sink: SessionSink
  readonly #free: BlockBuilder[]
  readonly #devices = new Map<number, DeviceEvent>()
  readonly #objects = new Map<number, ObjectEvent>()
  /** By number: the waits that are not over, and those that lasted until their program ended. */
  readonly #waits = new Map<number, WaitEvent>()
  readonly #programEnds: ProgramEndEvent[] = []
  readonly #symbols: { readonly frame: string; readonly tail: Uint8Array }[] = []
  #symbolBytes = 0
  /** The number of blocks before the one with the last wait or end of a program. */
  #blockOfWaits = 0
  #blocks = 0
  /** Buffer of the block that is being filled; undefined: all are being written. */
  #block: BlockBuilder | undefined
  #isEnded = false
  #error: Error | undefined
  /** Number of writes whose `done` was not called. */
  #pending = 0
  #onIdle: (() => void) | undefined
  /** Number of the segment, from 1. */
  #sequence = 0
  /** Bytes of the segment that are used. */
  #used = 0
  #index: IndexedBlock[] = []
  /** Keys that were noted in the current block, by their lowest bits: most events are of few objects. */
  readonly #noted = new Float64Array(NOTED_KEYS)
  /** By key: numbers of the blocks with events of that key, ascending. */
  #keys = new Map<number, number[]>()
  #keyBytes = 0
  #isCheckpoint = false
  #events = 0
  #lost = 0
  #totalLost = 0
  #last = 0
  readonly #run: PacketsRecord = {
    device: 0,
    direction: 0,
    outcome: 0,
    flow: {
      source: new Uint8Array(16),
      destination: new Uint8Array(16),
      sourcePort: 0,
      trafficClass: 0,
      hopLimit: 0,
      flowLabel: 0,
    },
    identification: 0,
    count: 0,
    packetBytes: 0,
    lastBytes: 0,
    headerBytes: 0,
    source: new Uint8Array(0),
    offset: 0,
    recorded: 0,
  }

  /** Throws a RangeError if the limit is below MIN_RECORD_LIMIT. */
  constructor(sink: SessionSink, { limit, ...header }: WriterOptions) {
    if (limit !== undefined && !(limit >= MIN_RECORD_LIMIT))
      throw new RangeError(`a session file of ${limit} bytes is too small, the least limit is ${MIN_RECORD_LIMIT}`)
    this.header = { version: SESSION_FILE_VERSION, ...header, ...segmentsFor(limit) }
    this.#sink = sink
    this.#free = Array.from({ length: BUFFERS }, () => new BlockBuilder(new Uint8Array(MAX_BLOCK)))
    this.#write(0, headerBytes(this.header), () => {})
    this.#beginSegment()
  }

  /** Why the sink failed; the recording has ended then. */
  get error(): Error | undefined {
    return this.#error
  }

  /** Number of events that were dropped so far. */
  get lost(): number {
    return this.#totalLost
  }

  // ---- events ----

  device(time: number, event: Omit<DeviceEvent, 'kind'>): void {
    const { device, name, address, change } = event
    const values = { device, change: DeviceChange[change.toUpperCase() as Uppercase<typeof change>], name, address }
    if (change === 'removed') this.#devices.delete(device)
    else this.#devices.set(device, { kind: 'device', ...event, change: 'exists' })
    this.#add('device', time, values, [name, address])
  }

  object(time: number, event: Omit<ObjectEvent, 'kind'>): void {
    this.#addObject(time, event)
    this.#noteObject(event)
    this.#note(event.object)
  }

  call(time: number, { object, stack, call }: Omit<CallEvent, 'kind'>): void {
    const text = stack.join('\n')
    this.#add('call', time, { object, stack: text }, [text], this.#callJson(call))
    this.#note(object)
  }

  /** `stack`: frames, one per line; empty: unknown. */
  posted(time: number, request: WorkRequest, stack: string): void {
    const now = this.#nanoseconds(time)
    const bytes = postedBytes(request) + (stack === '' ? 0 : 3 * stack.length + RECORD_HEADER)
    this.#blockFor(now, bytes)?.posted(now, request, stack)
    this.#note(request.owner)
  }

  ended(time: number, { id, owner }: WorkRequest): void {
    this.#pair('ended', time, id, owner)
    this.#note(owner)
  }

  completed(time: number, request: WorkRequest, completion: RequestCompletion): void {
    const now = this.#nanoseconds(time)
    this.#blockFor(now, COMPLETED_BYTES)?.completed(now, request, completion)
    this.#note(completion.qp)
    this.#note(completion.cq)
  }

  receiveLost(time: number, { id, owner }: WorkRequest): void {
    this.#pair('receiveLost', time, id, owner)
    this.#note(owner)
  }

  receiverNotReady(time: number, qp: number): void {
    this.#add('receiverNotReady', time, { qp })
    this.#note(qp)
  }

  polled(time: number, cq: number, count: number): void {
    this.#pair('polled', time, cq, count)
    this.#note(cq)
  }

  queueReset(time: number, owner: number): void {
    this.#add('queueReset', time, { owner })
    this.#note(owner)
  }

  /**
   * A run of packets of `packetBytes` bytes each (BTH to ICRC), the last of `lastBytes`, from `offset` of `view` on, as
   * a tap shows it. `direction`: 0 sent, 1 received. `outcome`: index in `packetOutcomes`. The bytes are copied.
   */
  packets(
    time: number,
    facts: Pick<PacketsRecord, 'device' | 'direction' | 'outcome' | 'flow' | 'identification'>,
    source: Uint8Array,
    view: DataView,
    offset: number,
    packetBytes: number,
    count: number,
    lastBytes: number,
  ): void {
    const { payload } = this.header
    const record = this.#run
    record.device = facts.device
    record.direction = facts.direction
    record.outcome = facts.outcome
    record.flow = facts.flow
    record.source = source
    record.packetBytes = packetBytes
    for (let i = 0; i < count; ) {
      const at = offset + i * packetBytes
      const isLast = i === count - 1
      const headers = headerBytesAt(source, at, isLast ? lastBytes : packetBytes)
      let next = i + 1
      // Packets with payload have records of their own.
      if (payload === 0)
        while (
          next < count &&
          continuesRun(view, offset + (next - 1) * packetBytes, offset + next * packetBytes, headers)
        )
          next++
      record.identification = (facts.identification + i) & 0xffff
      record.count = next - i
      record.lastBytes = next === count ? lastBytes : packetBytes
      record.headerBytes = headers
      record.offset = at
      record.recorded = Math.min(headers + payload, isLast ? lastBytes : packetBytes)
      this.#addRun(time, record)
      if (headers >= 8) this.#note(packetKey(bthDestQp(view, at)))
      i = next
    }
  }

  /** A run that was read from a session file. The bytes are copied. */
  run(time: number, record: PacketsRecord): void {
    this.#addRun(time, record)
    const { source, headerBytes } = record
    if (headerBytes >= 8) this.#note(packetKey(bthDestQp(viewOf(source), record.offset)))
  }

  #addRun(time: number, record: PacketsRecord): void {
    const now = this.#nanoseconds(time)
    this.#blockFor(now, packetsBytes(record.recorded))?.packets(now, record)
  }

  /** `object`: the id of the queue pair; 0: unknown. */
  failure(time: number, object: number, failure: FailureRecord): void {
    this.#add('failure', time, { object }, [], json(failure))
    this.#note(object)
  }

  finding(time: number, finding: RecordedFinding): void {
    // The histories of its objects are in the file.
    this.#add(
      'finding',
      time,
      {},
      [],
      this.#bounded(json(finding), () => json({ ...finding, moments: [], objects: [], story: [] })),
    )
  }

  torment(time: number, torment: TormentRecord): void {
    this.#add('torment', time, {}, [], json(torment))
  }

  wait(time: number, event: Omit<WaitEvent, 'kind'>): void {
    this.#addWait(time, event)
    this.#noteWait()
    for (const object of event.facts.objects) this.#note(object)
    const { wait, change } = event
    this.#waits.delete(wait)
    if (change === 'over') return
    this.#waits.set(wait, { kind: 'wait', ...event, change: change === 'closed' ? 'closed' : 'exists' })
    for (const oldest of this.#waits.keys()) {
      if (this.#waits.size <= MAX_REPEATED) break
      this.#waits.delete(oldest)
    }
  }

  link(time: number, { from, to, classes, ...event }: Omit<LinkEvent, 'kind'>): void {
    const [sender, receiver] = [from.slice(0, MAX_NAME), to.slice(0, MAX_NAME)]
    const tail = classes === undefined ? undefined : json(classes)
    this.#add('link', time, { ...event, from: sender, to: receiver }, [sender, receiver], tail)
  }

  programEnd(time: number, event: Omit<ProgramEndEvent, 'kind'>): void {
    this.#addProgramEnd(time, event)
    this.#noteWait()
    this.#programEnds.push({ kind: 'programEnd', ...event })
    if (this.#programEnds.length > MAX_REPEATED) this.#programEnds.shift()
  }

  /**
   * What a frame of the recorded stacks is. All are written at the end, so that a reader finds them without reading the
   * file; one that is too long for a record is left out. False: all are too many.
   */
  symbol(event: Omit<SymbolEvent, 'kind'>): boolean {
    const { frame, frames } = event
    const tail = this.#bounded(json(frames), () => json(frames.map(({ source: _, ...one }) => one)))
    if (tail.length > MAX_RECORD || 3 * frame.length > LARGEST - MAX_RECORD) return true
    const bytes = 2 * RECORD_HEADER + Records.symbol.size + 3 * frame.length + tail.length
    const { segments, segmentBytes } = this.header
    const most = segments === 0 ? MAX_SYMBOLS : Math.min(MAX_SYMBOLS, (segments * segmentBytes) / SYMBOLS_SHARE)
    if (this.#symbolBytes + bytes > most) return false
    this.#symbolBytes += bytes
    this.#symbols.push({ frame, tail })
    return true
  }

  /** Values of a device, or of one of its objects (`object` not 0). */
  counters(time: number, device: number, object: number, values: Readonly<Record<string, number>>): void {
    const names = Object.keys(values)
    const tail = new Uint8Array(names.length * 12)
    const view = new DataView(tail.buffer)
    // Two steps, because the numbers of the texts are known when the texts are in the block.
    this.#add('counters', time, { device, object, count: names.length }, names, tail, number => {
      names.forEach((name, i) => {
        view.setUint32(i * 12, number(name), true)
        view.setFloat64(i * 12 + 4, values[name]!, true)
      })
    })
    if (object !== 0) this.#note(object)
  }

  /** An event of the stream of programs, as JSON. */
  program(time: number, text: string): void {
    this.#addParts('program', time, text)
  }

  /** The answer of a probe about the last event of the stream, as JSON. */
  answer(time: number, text: string): void {
    this.#addParts('answer', time, text)
  }

  /** As `ProgramConsumer.accessed`. */
  accessed(
    time: number,
    device: number,
    rkey: number,
    high: number,
    low: number,
    length: number,
    access: number,
    qpn: number,
  ): void {
    this.#add('accessed', time, { device, rkey, high: high >>> 0, low: low >>> 0, length, access, qpn })
  }

  #addParts(kind: 'program' | 'answer', time: number, text: string): void {
    for (let at = 0; at < text.length; ) {
      let end = Math.min(at + MAX_PART, text.length)
      // A pair of surrogates stays together.
      if (end < text.length && text.charCodeAt(end - 1) >>> 10 === 0x36) end--
      this.part(time, { kind, hasMore: end < text.length, text: text.slice(at, end) })
      at = end
    }
  }

  /** A part of the JSON of `program` or `answer`, of at most `MAX_PART` characters. */
  part(time: number, { kind, hasMore, text }: ProgramPart): void {
    this.#add(kind, time, { more: hasMore ? 1 : 0 }, NO_TEXTS, utf8.encode(text))
  }

  /** `count` events were lost before the recorder learned of them. */
  lose(count: number): void {
    this.#lost += count
    this.#totalLost += count
  }

  // ---- ends ----

  /** Passes the events so far to the sink. */
  flush(): void {
    const block = this.#block
    if (block === undefined) return
    this.#block = undefined
    if (block.isEmpty) {
      this.#free.push(block)
      return
    }
    const { events, base, last } = block
    const first = this.#events
    const type = this.#isCheckpoint ? BlockType.CHECKPOINT : BlockType.EVENTS
    const length = block.finish(this.#sequence, type, first)
    const counted = this.#isCheckpoint ? 0 : events
    this.#events += counted
    this.#blocks++
    this.#index.push({ offset: this.#used, length, base, last, first, events: counted })
    const position = this.#position + this.#used
    this.#used += length
    this.#write(position, block.bytes.subarray(0, length), () => this.#free.push(block))
  }

  /** Ends the recording. Resolves when the sink has written everything. */
  async end(time: number, reason: string): Promise<void> {
    if (!this.#isEnded && this.#symbols.length > 0) {
      this.flush()
      await this.#untilIdle()
    }
    if (!this.#isEnded) {
      if (this.#symbols.length > 0) this.flush()
      for (const { frame, tail } of this.#symbols) this.#add('symbol', time, { frame }, [frame], tail)
      if (this.#symbols.length > 0) this.flush()
      this.#repeatWaits(time)
      this.#add('end', time, { reason }, [reason])
      this.flush()
      this.#isEnded = true
    }
    await this.#untilIdle()
  }

  async #untilIdle(): Promise<void> {
    if (this.#pending > 0)
      await new Promise<void>(resolve => {
        const before = this.#onIdle
        this.#onIdle = () => {
          before?.()
          resolve()
        }
      })
  }

  // ---- objects ----

  #noteObject(event: Omit<ObjectEvent, 'kind'>): void {
    if (event.change === 'destroyed') {
      this.#objects.delete(event.object)
      return
    }
    const known = this.#objects.get(event.object)
    const values = { ...known?.details.values, ...event.details.values }
    const details: ObjectDetails = { ...known?.details, ...event.details, values }
    this.#objects.set(event.object, { ...(known ?? event), kind: 'object', change: 'exists', why: '', details })
  }

  #addObject(time: number, event: Omit<ObjectEvent, 'kind'>): void {
    const { change, program, details, stack, object, device, context, handle, number, why, method } = event
    const text = stack.join('\n')
    const command = program?.command ?? ''
    const values = {
      object,
      change: ObjectChange[change.toUpperCase() as Uppercase<typeof change>],
      device,
      context,
      pid: program?.pid ?? 0,
      command,
      class: event.class,
      handle,
      number,
      why,
      method,
      stack: text,
    }
    const tail = this.#bounded(json(details), () => json({ uses: details.uses?.slice(0, 64) ?? [] }))
    this.#add('object', time, values, [command, event.class, why, method, text], tail)
  }

  #addWait(time: number, { wait, change, facts }: Omit<WaitEvent, 'kind'>): void {
    const number = WaitChange[change.toUpperCase() as Uppercase<typeof change>]
    const tail = this.#bounded(json(facts), () => json({ ...facts, text: facts.text.slice(0, 1000), objects: [] }))
    this.#add('wait', time, { wait, change: number }, [], tail)
  }

  #noteWait(): void {
    this.#note(WAITS_KEY)
    this.#blockOfWaits = this.#blocks
  }

  /** At the end: so that a reader finds in the last blocks what programs waited for, without reading the file. */
  #repeatWaits(time: number): void {
    if (this.#blockOfWaits === this.#blocks) return
    for (const event of this.#waits.values()) this.#addWait(time, event)
    for (const event of this.#programEnds) this.#addProgramEnd(time, event)
  }

  #addProgramEnd(time: number, { pid, status, command, signal }: Omit<ProgramEndEvent, 'kind'>): void {
    this.#add('programEnd', time, { pid, status, command, signal }, [command, signal])
  }

  #callJson(call: TraceRecord): Uint8Array {
    return this.#bounded(json(call), () => {
      const { call: _call, raw: _raw, ...rest } = call
      return json({ ...rest, reason: rest.reason ?? 'too long to record' })
    })
  }

  /** `bytes`, or `shorter` if they are too long for a record. */
  #bounded(bytes: Uint8Array, shorter: () => Uint8Array): Uint8Array {
    return bytes.length <= MAX_RECORD ? bytes : shorter()
  }

  // ---- records ----

  #nanoseconds(time: number): number {
    const now = Math.round(time * 1000)
    if (now > this.#last) this.#last = now
    return this.#last
  }

  #add<K extends RecordKind>(
    kind: K,
    time: number,
    values: LayoutValues<(typeof Records)[K]>,
    texts: readonly string[] = [],
    tail?: Uint8Array,
    fill?: (number: (text: string) => number) => void,
  ): void {
    const now = this.#nanoseconds(time)
    const bytes = RECORD_HEADER + Records[kind].size + (tail?.length ?? 0)
    this.#blockFor(now, bytes, texts)?.add(kind, now, values, texts, tail, fill)
  }

  #pair(kind: 'ended' | 'receiveLost' | 'polled', time: number, first: number, second: number): void {
    const now = this.#nanoseconds(time)
    this.#blockFor(now, PAIR_BYTES)?.pair(kind, now, first, second)
  }

  /**
   * The block for a record of `bytes` bytes and its texts. Undefined: there is none, and the event is lost. First tells
   * the file about lost events.
   */
  #blockFor(now: number, bytes: number, texts: readonly string[] = NO_TEXTS): BlockBuilder | undefined {
    if (this.#isEnded || this.#error !== undefined) return undefined
    if (this.#lost > 0 && !this.#isCheckpoint) {
      const block = this.#roomFor(now, RECORD_HEADER + Records.lost.size, NO_TEXTS)
      block?.add('lost', now, { count: this.#lost })
      if (block !== undefined) this.#lost = 0
    }
    const block = this.#roomFor(now, bytes, texts)
    if (block === undefined) {
      this.#lost++
      this.#totalLost++
    }
    return block
  }

  #roomFor(now: number, bytes: number, texts: readonly string[]): BlockBuilder | undefined {
    if (this.#block?.hasRoom(now, bytes, texts)) return this.#block
    this.flush()
    if (this.#block === undefined) this.#take()
    return this.#block?.hasRoom(now, bytes, texts) ? this.#block : undefined
  }

  /** Takes a buffer for the next block if one is free. Begins a segment if this one is full. */
  #take(): void {
    if (!this.#isCheckpoint && this.#roomInSegment() < LARGEST) {
      if (this.#free.length < BUFFERS_FOR_SEGMENT) return
      this.#endSegment()
      this.#beginSegment()
    }
    this.#noted.fill(0)
    this.#block = this.#free.pop()
    this.#block?.begin(this.#roomInSegment())
  }

  /** Notes that the current block has an event of a key; 0: none. */
  #note(key: number): void {
    const place = key & (NOTED_KEYS - 1)
    if (key === 0 || this.#noted[place] === key || this.#block === undefined || this.#isCheckpoint) return
    this.#noted[place] = key
    const number = this.#index.length
    const blocks = this.#keys.get(key)
    if (blocks?.[blocks.length - 1] === number || this.#keyBytes > this.header.segmentBytes / KEYS_SHARE) return
    if (blocks === undefined) this.#keys.set(key, [number])
    else blocks.push(number)
    this.#keyBytes += blocks === undefined ? IndexKey.size + 4 : 4
  }

  // ---- blocks and segments ----

  /** Position of the current segment in the file. */
  get #position(): number {
    const { segments, segmentBytes } = this.header
    const slot = segments === 0 ? this.#sequence - 1 : (this.#sequence - 1) % segments
    return FileHeader.bytes + slot * segmentBytes
  }

  /** Bytes of the segment that blocks may use. */
  #roomInSegment(): number {
    // The index grows by one block, and by its keys: about a quarter of the longest record.
    const index = (this.#index.length + 1) * IndexBlock.size + this.#keyBytes + MAX_RECORD / 4
    return Math.min(MAX_BLOCK, this.header.segmentBytes - this.#used - index - SegmentFooter.size)
  }

  #beginSegment(): void {
    this.#sequence++
    this.#used = 0
    this.#index = []
    this.#keys = new Map()
    this.#keyBytes = 0
    this.#isCheckpoint = true
    const maxBytes = this.header.segmentBytes / CHECKPOINT_SHARE
    const time = this.#last / 1000
    const live = [...this.#objects.values()]
    // The newest first, so that they are kept if there are too many.
    let bytes = 0
    let kept = live.length
    for (; kept > 0 && bytes < maxBytes; kept--) {
      const { details, stack } = live[kept - 1]!
      bytes += 256 + JSON.stringify(details).length + stack.join('\n').length
    }
    this.#add('checkpoint', time, { omitted: kept })
    for (const { name, address, device } of this.#devices.values())
      this.#add('device', time, { device, change: DeviceChange.EXISTS, name, address }, [name, address])
    for (const event of live.slice(kept)) this.#addObject(time, event)
    for (const event of this.#waits.values()) this.#addWait(time, event)
    for (const event of this.#programEnds) this.#addProgramEnd(time, event)
    this.flush()
    this.#isCheckpoint = false
  }

  /** Writes the index of the segment, if there is room. */
  #endSegment(): void {
    const { segmentBytes } = this.header
    const hasKeys = this.#keyBytes <= segmentBytes / KEYS_SHARE
    const size = 8 + this.#index.length * IndexBlock.size + (hasKeys ? this.#keyBytes : 0)
    const length = BlockHeader.size + size + BLOCK_TRAILER
    if (this.#used + length > segmentBytes - SegmentFooter.size) return
    const bytes = new Uint8Array(length)
    const view = new DataView(bytes.buffer)
    const block = new BlockBuilder(bytes)
    block.begin(length)
    block.skip(size)
    let at: number = BlockHeader.size
    const putNumber = (number: number): void => {
      view.setUint32(at, number, true)
      at += 4
    }
    putNumber(this.#index.length)
    for (const entry of this.#index) {
      putFields(view, at, IndexBlock, entry)
      at += IndexBlock.size
    }
    putNumber(hasKeys ? this.#keys.size : NO_KEYS)
    for (const [key, blocks] of hasKeys ? this.#keys : []) {
      putFields(view, at, IndexKey, { key, count: blocks.length })
      at += IndexKey.size
      for (const number of blocks) putNumber(number)
    }
    block.finish(this.#sequence, BlockType.INDEX, this.#events)
    this.#write(this.#position + this.#used, bytes, () => {})
    const footer = new Uint8Array(SegmentFooter.size)
    const values = { magic: FOOTER_MAGIC, sequence: this.#sequence, offset: this.#used, length }
    putFields(new DataView(footer.buffer), 0, SegmentFooter, values)
    this.#write(this.#position + segmentBytes - SegmentFooter.size, footer, () => {})
  }

  #write(position: number, bytes: Uint8Array, release: () => void): void {
    this.#pending++
    this.#sink.write(position, bytes, error => {
      this.#pending--
      if (error !== undefined) this.#error ??= error
      release()
      if (this.#pending > 0) return
      const onIdle = this.#onIdle
      this.#onIdle = undefined
      onIdle?.()
    })
  }
}
