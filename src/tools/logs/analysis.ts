/*
 * Reads logs, line by line, into failures, signs and facts. What is the same (shape, host, adapter, peer, values) is
 * one failure with a count, so that memory depends on how many kinds of failures there are and not on the log; beyond
 * KINDS they are folded into those that have the same shape and values.
 */

import { libibverbsTexts, type StatusName } from '../../spec/check/statuses.ts'
import { AsyncEventType, CmEventType } from '../../spec/enums.ts'
import { dumpRow } from './dump.ts'
import { type Clock, headerBefore, type Line, parseLine } from './line.ts'
import { errnoOf } from './meanings/errnos.ts'
import { MONITOR_COMMANDS } from './meanings/firmware.ts'
import { statusNamed, statusOfSyndrome } from './meanings/statuses.ts'
import { familyOf } from './meanings/vendor-errors.ts'
import { isMessage } from './readers/certain.ts'
import { type KnownShape, shapesOf, table } from './readers.ts'
import { type FoundLine, Scanner } from './scan.ts'
import type { FailureKind, Family, FieldName, Fields, Role } from './shape.ts'

/** Kinds of failures that are kept apart. */
const KINDS = 20_000
/** Facts that are kept of a host and variable. */
const VALUES = 16
const HOSTS = 20_000
/** Characters of a line that a report quotes. */
const QUOTED = 600
/** Fields that are of one host, or of its peer. */
const NAMES = ['device', 'peer', 'peerDevice', 'local', 'localGid', 'remoteGid', 'peerLid'] as const
/** Lines of a log whose times are looked at, whatever they are. */
const FIRST_LINES = 200

export interface Failure {
  readonly shape: KnownShape['shape']
  readonly software: string
  readonly role: Role
  readonly kind: FailureKind | undefined
  readonly source: string
  readonly line: number
  readonly text: string
  /** Of all: the order in which they were read. */
  readonly order: number
  fields: Fields
  host: string | undefined
  device: string | undefined
  /** Address or name of the other end. */
  peer: string | undefined
  status: StatusName | undefined
  vendor: number | undefined
  family: Family | undefined
  readonly errno: number | undefined
  /** The name of an asynchronous event or an event of rdma_cm. */
  readonly event: string | undefined
  /** The reason of a reject, or the status of another event of rdma_cm. */
  readonly rejection: number | undefined
  seconds: number | undefined
  readonly clock: Clock | undefined
  /** How many lines say the same. */
  count: number
  /** It is one of the log's, and not of a line whose next lines are awaited. */
  isKept: boolean
  last: number | undefined
}

export interface Fact {
  readonly variable: string
  readonly value: string
  readonly host: string | undefined
  readonly source: string
  readonly line: number
}

interface Host {
  readonly name: string
  readonly addresses: Set<string>
  readonly devices: Set<string>
}

/** A line, and those after it that say more. */
interface Block {
  readonly rest: readonly string[]
  readonly failure: Failure
}

/** What the lines that follow may add to a failure. */
interface Pending {
  /** A block that has been read before, as far as it is the same. */
  replay?: { readonly block: Block; readonly lines: FoundLine[] }
  /** The text of the line that the following belong to, and theirs. */
  head?: { readonly state: SourceState; readonly text: string; readonly rest: string[] }
  dump?: { readonly kind: 'words' | 'bytes'; row: number; readonly failure: Failure; left: number }
  next?: { readonly form: RegExp; readonly failure: Failure }
}

/** The failure of a line shortly before. */
interface Recent {
  failure?: Failure
  line: number
}

interface SourceState {
  readonly name: string
  readonly given: string | undefined
  readonly scanner: Scanner
  first: number | undefined
  last: number | undefined
  /** Of all times of the log: that of the first line that has one; any other is better than that of boot. */
  clock: Clock | undefined
  /** When the first line stands that a program prints as it starts. */
  start: number | undefined
  hasFailed: boolean
  /** What lines count for that have been read, letter by letter. */
  readonly seen: Map<string, readonly Failure[]>
  /** Failures by what lines have that differ in their times and processes only. */
  readonly floods: Map<string, Failure>
  /** Blocks by their first lines. */
  readonly blocks: Map<string, Block>
  /** Disks on PCIe: what is said of them is not about RDMA. */
  readonly local: Set<string>
  /** Addresses of the other ends, as the program has printed them. */
  readonly peers: Set<string>
  /** The end whose address the next line has. */
  end: string | undefined
}

interface Source {
  readonly name: string
  readonly lines: number
  readonly bytes: number
  readonly first: number | undefined
  readonly last: number | undefined
  readonly clock: Clock | undefined
  readonly start: number | undefined
  readonly isBinary: boolean
  readonly isCut: boolean
}

/** What people put in place of what they do not show. */
const isRedacted = (value: string): boolean =>
  /^(?:x+(?:[.:]x+)*|\*+|<.*>|\[?redacted\]?|mlx\d?_x|hca_?x)(?:<[^>]*>)?$/i.test(value)

/** Neither empty nor link-local. */
const isRouted = (gid: string): boolean => !/^(?:::$|fe80:|254:128:|00:00:)/.test(gid)

/** An address without its port, as IPv4 if it is one; a host's name as it is. */
export const plainAddress = (text: string): string => {
  // Longer ones are no addresses.
  let value = text
    .slice(0, 80)
    .replace(/^\w+:\/\//, '')
    .replace(/<\d*>$/, '')
  const bracketed = /^\[([^\]]+)\]/.exec(value)
  if (bracketed !== null) value = bracketed[1]!
  else if (/^[^:]+:\d+$/.test(value) || /^[\d.]+:[\d:]+$/.test(value)) value = value.slice(0, value.indexOf(':'))
  const mapped = /^(?:0*:){2,}(?:0*:)*ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(value)
  if (mapped !== null) return mapped[1]!
  // ::ffff:0a00:0007 and 00:…:ff:ff:0a:00:00:07
  const hex = /^(?:0*:)+ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/i.exec(value)
  if (hex !== null) {
    const [high, low] = [Number.parseInt(hex[1]!, 16), Number.parseInt(hex[2]!, 16)]
    return [high >> 8, high & 255, low >> 8, low & 255].join('.')
  }
  const octets = value.split(':')
  // perftest prints decimal bytes.
  const base = octets[10] === '255' ? 10 : 16
  if (
    octets.length === 16 &&
    octets.slice(0, 10).every(byte => Number.parseInt(byte, 16) === 0) &&
    Number.parseInt(octets[10]!, base) === 255
  )
    return octets
      .slice(12)
      .map(byte => Number.parseInt(byte, base))
      .join('.')
  return value
}

const peerIn = ({ peer, remoteGid, peerLid }: Fields): string | undefined =>
  peer ?? remoteGid ?? (peerLid === undefined ? undefined : `LID ${peerLid}`)

const eventNames = Object.keys(AsyncEventType.values) as (keyof typeof AsyncEventType.values)[]
/** ib_event_msg of the kernel where it is not the text of libibverbs, and hns's. */
const kernelEvents: Readonly<Record<string, string>> = {
  'QP fatal error': 'QP_FATAL',
  'QP request error': 'QP_REQ_ERR',
  'QP access error': 'QP_ACCESS_ERR',
  'device fatal error': 'DEVICE_FATAL',
  'SRQ error': 'SRQ_ERR',
  'GID changed': 'GID_CHANGE',
  'local access violation': 'QP_ACCESS_ERR',
  'invalid request local': 'QP_REQ_ERR',
  local: 'QP_FATAL',
}
const eventNamed = (text: string): string => {
  const plain = text.trim()
  return (
    eventNames.find(name => name === plain || libibverbsTexts[name]?.toLowerCase() === plain.toLowerCase()) ??
    kernelEvents[plain] ??
    plain
  )
}

/** An event of rdma_cm, also by its number. */
const cmEventNamed = (text: string): string =>
  Object.entries(CmEventType.values).find(([, number]) => `${number}` === text)?.[0] ?? text

/** Asynchronous events that tell of no failure. */
const HARMLESS = new Set([
  'PORT_ACTIVE',
  'COMM_EST',
  'SQ_DRAINED',
  'PATH_MIG',
  'SRQ_LIMIT_REACHED',
  'QP_LAST_WQE_REACHED',
  'CLIENT_REREGISTER',
  'DEVICE_SPEED_CHANGE',
])
const SIGNS = new Set(['GID_CHANGE', 'LID_CHANGE', 'PKEY_CHANGE', 'SM_CHANGE'])
/** Events of rdma_cm that end a connection as its program wants. */
const ORDERLY = new Set(['DISCONNECTED', 'TIMEWAIT_EXIT', 'ESTABLISHED'])

const numberIn = (text: string | undefined, base: 10 | 16 = 16): number | undefined => {
  if (text === undefined) return undefined
  const value = /^0x/i.test(text) ? Number(text) : Number.parseInt(text, base)
  const isWhole = base === 16 ? /^(?:0x)?[0-9a-f]+$/i.test(text) : /^(?:0x[0-9a-f]+|\d+)$/i.test(text)
  return isWhole && Number.isFinite(value) ? value : undefined
}

/** At most so many of a shape in a line: several writers share it. */
const MATCHES = 8
/** Lines in which a dump is looked for: others may stand between its rows. */
const DUMP_LINES = 12

/** The shapes that a line with these words may have, in the order in which they are tried. */
const candidatesOf = (words: readonly number[]): readonly KnownShape[] =>
  words.length === 1
    ? shapesOf[words[0]!]!
    : [...new Set(words.flatMap(word => shapesOf[word]!))].sort((a, b) => a.place - b.place)

/** Lines that are known by all but their times and processes. */
const FLOODS = 4096
/** Characters of such a line. */
const FLOOD_LINE = 1000
/**
 * Numbers that differ between lines which say the same: of times, processes, threads; not those in names and addresses.
 */
const VOLATILE = /(?<=[:[ T,])\d+(?:\.\d+)?(?![\w.-])/g

/** Of requests and objects: failures are not told apart by them. */
const POINTER = /0x[0-9a-f]{8,}/g

/** What a line says, without its times and processes; undefined if it says several things, or too much. */
const keyOf = ({ text, words }: FoundLine): string | undefined => {
  if (text.length > FLOOD_LINE) return undefined
  for (const { shape } of candidatesOf(words)) {
    const { form } = shape
    form.lastIndex = 0
    const match = form.exec(text)
    if (match === null) continue
    if (form.exec(text) !== null) return undefined
    return `${words.join()}\n${match[0].replace(POINTER, '')}\n${text.slice(0, match.index).replace(VOLATILE, '#')}`
  }
  return undefined
}

export class LogAnalysis {
  readonly failures: Failure[] = []
  readonly facts: Fact[] = []
  readonly hosts = new Map<string, Host>()
  /** Where a GID is, by what failures say of their own. */
  readonly gids = new Map<string, { host: string | undefined; device: string | undefined }>()
  /** When each host saw the same thing happen: by what it is, the time at each host. */
  readonly meetings = new Map<string, Map<string, number>>()
  readonly #byKey = new Map<string, Failure>()
  readonly #sources: SourceState[] = []
  readonly #cut = new Set<string>()
  readonly #factCounts = new Map<string, number>()
  readonly #factKeys = new Set<string>()
  #order = 0
  /** Whether the last line says what the one before has said. */
  #isMerged = false
  /** Lines that were folded, since there were too many kinds. */
  folded = 0

  /** Begins a log. `host`: what its lines are of, if the user has said it. `end` before the next. */
  begin(name: string, host?: string): { push(chunk: Uint8Array): void; end(): void; readonly lines: number } {
    const pending: Pending = {}
    const recent: Recent = { line: 0 }
    const onLine = (found: FoundLine): number => {
      if (found.number <= FIRST_LINES) this.#time(state, parseLine(found.text))
      const { replay } = pending
      if (replay === undefined) return read(found)
      if (found.text === replay.block.rest[replay.lines.length - 1]) {
        replay.lines.push(found)
        if (replay.lines.length <= replay.block.rest.length) return 1
        replay.block.failure.count++
        delete pending.replay
        return 0
      }
      // It goes on in another way.
      delete pending.replay
      let wanted = 0
      for (const line of [...replay.lines, found]) wanted = read(line, true)
      return wanted
    }
    const read = (found: FoundLine, isNew = false): number => {
      this.#continue(found, pending, recent)
      if (found.words.length === 0) return 0
      const block = isNew || pending.dump !== undefined ? undefined : state.blocks.get(found.text)
      if (block === undefined) return this.#line(state, found, pending, recent)
      pending.replay = { block, lines: [found] }
      return block.rest.length
    }
    const scanner = new Scanner(table, onLine, FIRST_LINES)
    const state: SourceState = {
      name,
      given: host,
      scanner,
      first: undefined,
      last: undefined,
      clock: undefined,
      start: undefined,
      hasFailed: false,
      seen: new Map(),
      floods: new Map(),
      blocks: new Map(),
      local: new Set(),
      peers: new Set(),
      end: undefined,
    }
    this.#sources.push(state)
    return {
      push: chunk => scanner.push(chunk),
      end: () => {
        scanner.end()
        const { replay } = pending
        delete pending.replay
        for (const line of replay?.lines ?? []) read(line, true)
        this.#release(pending, recent)
      },
      get lines() {
        return scanner.lines
      },
    }
  }

  /** A log's bytes end in the middle: damage of an archive. */
  cut(name: string): void {
    this.#cut.add(name)
  }

  get sources(): readonly Source[] {
    return this.#sources.map(({ name, scanner, first, last, clock, start }) => ({
      name,
      lines: scanner.lines,
      bytes: scanner.bytes,
      first,
      last,
      clock,
      start,
      isBinary: scanner.zeros > 512 || scanner.controls * 20 > scanner.looked,
      isCut: this.#cut.has(name),
    }))
  }

  #time(state: SourceState, { seconds, clock }: Partial<Line>): void {
    if (seconds === undefined) return
    if (state.first === undefined || (state.clock === 'boot' && clock !== 'boot')) {
      state.first = seconds
      state.clock = clock
      state.start = undefined
    }
    if (clock === state.clock) state.last = seconds
  }

  /** Lines that belong to the one before. */
  #continue({ text, number }: FoundLine, pending: Pending, recent: Recent): void {
    const { dump, next, head } = pending
    head?.rest.push(text)
    if (dump !== undefined) {
      const row = dumpRow(text, dump.kind, dump.row)
      if (row !== undefined) dump.row++
      if (row !== undefined && row !== 'row') {
        complete(dump.failure, row)
        if (recent.failure === dump.failure) recent.line = number
        this.#release(pending, recent)
      } else if (--dump.left === 0) this.#release(pending, recent)
    } else if (next !== undefined) {
      const match = next.form.exec(text)
      if (match !== null) complete(next.failure, present(match.groups))
      this.#release(pending, recent)
    }
  }

  /** Returns how many of the following lines are wanted. */
  #line(state: SourceState, found: FoundLine, pending: Pending, recent: Recent): number {
    const seen = state.seen.get(found.text)
    if (seen !== undefined) {
      for (const failure of seen) failure.count++
      return 0
    }
    const key = keyOf(found)
    const before = key === undefined ? undefined : state.floods.get(key)
    // Of a flood, each 256th line is read whole, for its time.
    if (before !== undefined && (before.count & 255) !== 0) {
      before.count++
      return 0
    }
    const line = parseLine(found.text)
    this.#time(state, line)
    let wanted = 0
    let rank: number | undefined
    let last: Failure | undefined
    const counted: Failure[] = []
    /** Where shapes were found in the line: what one has read, no other reads again. */
    const spans: (readonly [from: number, to: number])[] = []
    for (const known of candidatesOf(found.words)) {
      if (rank !== undefined && known.rank > rank) break
      const { form } = known.shape
      form.lastIndex = 0
      for (let times = 0; times < MATCHES; times++) {
        const match = form.exec(line.text)
        if (match === null) break
        const { index } = match
        const end = index + match[0].length
        if (known.rank > 0 && !isMessage(found.text, line.text.slice(0, index), line.text.slice(end), known.shape.id))
          continue
        if (spans.some(([from, to]) => index < to && end > from)) continue
        rank = known.rank
        const before = Math.max(0, ...spans.map(([, to]) => (to <= index ? to : 0)))
        const header = headerBefore(line.text, before, match[0].startsWith('mlx') ? end : index)
        spans.push([index, end])
        // Two clocks in one line, as of mpirun and UCX: that of the log.
        const isOther = line.clock === state.clock && header.clock !== state.clock && line.seconds !== undefined
        const time = isOther ? { seconds: line.seconds, clock: line.clock! } : {}
        const whole = { ...line, ...header, ...time }
        const failure = this.#found(state, found, known, present(match.groups), whole, recent)
        if (failure === undefined) continue
        last = failure
        // What another line has said before it does not count again.
        if (!this.#isMerged) counted.push(failure)
        const held = pending.dump?.failure ?? pending.next?.failure
        if (held !== failure && (known.shape.dump ?? known.shape.next) !== undefined) this.#release(pending, recent)
        if (known.shape.dump !== undefined) {
          pending.dump = { kind: known.shape.dump, row: 0, failure, left: DUMP_LINES }
          wanted = DUMP_LINES
        }
        if (known.shape.next !== undefined) {
          pending.next = { form: known.shape.next, failure }
          wanted = Math.max(wanted, 1)
        }
      }
    }
    if (wanted > 0) {
      if (spans.length === 1 && found.text.length <= FLOOD_LINE) pending.head = { state, text: found.text, rest: [] }
      return wanted
    }
    if (state.seen.size >= FLOODS) state.seen.clear()
    if (found.text.length <= FLOOD_LINE) state.seen.set(found.text, counted)
    if (key !== undefined && spans.length === 1 && last !== undefined) {
      if (state.floods.size >= FLOODS) state.floods.clear()
      state.floods.set(key, last)
    }
    return wanted
  }

  #host(name: string | undefined): Host | undefined {
    if (name === undefined) return undefined
    let host = this.hosts.get(name)
    if (host === undefined && this.hosts.size < HOSTS) {
      host = { name, addresses: new Set(), devices: new Set() }
      this.hosts.set(name, host)
    }
    return host
  }

  #found(
    state: SourceState,
    found: FoundLine,
    known: KnownShape,
    groups: Fields,
    line: Line,
    recent: Recent,
  ): Failure | undefined {
    const { shape, reader } = known
    const fields: Fields = { ...shape.fixed, ...groups }
    const name = state.given ?? line.host
    const host = this.#host(name === undefined || isRedacted(name) ? undefined : name)
    if (shape.role === 'fact') {
      if (shape.isStart && line.clock === state.clock) state.start ??= line.seconds
      this.#fact(state, found, fields, host, line)
      return undefined
    }
    const device = fields.device
    if (device !== undefined && state.local.has(device)) return undefined
    if (host !== undefined && device !== undefined && host.devices.size < 64) host.devices.add(device)
    if (host !== undefined && fields.localGid !== undefined && this.gids.size < HOSTS)
      this.gids.set(plainAddress(fields.localGid), { host: host.name, device })
    const syndrome = numberIn(fields.syndrome)
    const status =
      (fields.status === undefined ? undefined : statusNamed(fields.status)) ??
      (shape.kind === 'completion' && syndrome !== undefined ? statusOfSyndrome(syndrome) : undefined)
    if (status === 'SUCCESS') return undefined
    const event =
      fields.event === undefined
        ? undefined
        : shape.kind === 'refused'
          ? cmEventNamed(fields.event)
          : eventNamed(fields.event)
    if (event !== undefined && (HARMLESS.has(event) || ORDERLY.has(event))) return undefined
    // A reason is positive; iWARP, and what failed before any reject, give an errno.
    const printed =
      shape.kind === 'refused' && fields.rejection?.startsWith('-')
        ? fields.rejection
        : (fields.errno ?? (shape.id.startsWith('call-') ? fields.text : undefined))
    const errno = printed === undefined ? undefined : errnoOf(printed)
    // The only one that the log names.
    const peer = peerIn(fields) ?? (state.peers.size === 1 ? [...state.peers][0] : undefined)
    const isMonitor = shape.kind === 'command' && MONITOR_COMMANDS.test(fields.command ?? '')
    // A queue that is full, of a program that goes on after its queue pair has failed.
    const isAfter = state.hasFailed && shape.kind === 'call' && fields.call?.startsWith('ibv_post_') === true
    const role: Role =
      status === 'WR_FLUSH_ERR' || isAfter
        ? 'consequence'
        : isMonitor || (event !== undefined && SIGNS.has(event))
          ? 'sign'
          : shape.role
    state.hasFailed ||= role === 'failure' || status === 'WR_FLUSH_ERR'
    const vendor = numberIn(fields.vendor, shape.base)
    const failure: Failure = {
      shape,
      software: reader.name,
      role,
      kind: shape.kind,
      source: state.name,
      line: found.number,
      text: line.text.trim().slice(0, QUOTED),
      order: this.#order++,
      fields,
      host: host?.name,
      device,
      peer: peer === undefined || isRedacted(peer) ? undefined : plainAddress(peer),
      status,
      vendor,
      family: shape.family ?? familyOf(device),
      errno,
      event,
      rejection: numberIn(fields.rejection, shape.id === 'srp-rejected' ? 16 : 10),
      seconds: line.seconds,
      clock: line.clock,
      count: 1,
      isKept: false,
      last: line.seconds,
    }
    this.#isMerged = this.#isSame(recent, failure, found.number)
    if (this.#isMerged) {
      complete(recent.failure!, fields)
      recent.line = found.number
      return recent.failure
    }
    // What follows tells such failures apart: they are kept after it.
    const kept = shape.dump !== undefined || shape.next !== undefined ? failure : this.#keep(failure)
    recent.failure = kept
    recent.line = found.number
    return kept
  }

  /** Keeps the failure that waited for the lines after it. */
  #release(pending: Pending, recent: Recent): void {
    const held = pending.dump?.failure ?? pending.next?.failure
    const { head } = pending
    delete pending.head
    delete pending.dump
    delete pending.next
    if (held === undefined || held.isKept) return
    const kept = this.#keep(held)
    if (recent.failure === held) recent.failure = kept
    if (head === undefined || head.rest.length === 0) return
    if (head.state.blocks.size >= FLOODS) head.state.blocks.clear()
    head.state.blocks.set(head.text, { rest: head.rest, failure: kept })
  }

  /** Two programs, or the driver and the library, say the same of one failure, on lines that follow each other. */
  #isSame({ failure, line }: Recent, next: Failure, number: number): boolean {
    if (failure === undefined || failure.shape === next.shape || number - line > 2) return false
    if (failure.kind !== next.kind || failure.source !== next.source) return false
    if (failure.host !== next.host && failure.host !== undefined && next.host !== undefined) return false
    if (next.kind === 'health' || next.kind === 'device') return failure.fields.bdf === next.fields.bdf
    if (next.kind !== 'completion') return false
    const isDump = next.shape.dump !== undefined || failure.shape.dump !== undefined
    return isDump && (failure.status === next.status || failure.status === undefined || next.status === undefined)
  }

  #keep(failure: Failure): Failure {
    failure.isKept = true
    const { shape, host, device, peer, status, vendor, errno, event, rejection, fields } = failure
    const values = [
      shape.id,
      status,
      vendor,
      errno,
      event,
      rejection,
      fields.call,
      fields.state,
      fields.command,
      fields.syndrome,
    ]
    // The first request of a queue pair, or a later one.
    const isFirst = fields.wqe === undefined ? '' : Number(fields.wqe) === 0
    let key = [...values, fields.hwSyndrome, isFirst, host, device, peer, failure.source].join('\n')
    let kept = this.#byKey.get(key)
    if (kept === undefined && this.#byKey.size >= KINDS) {
      this.folded++
      key = values.join('\n')
      kept = this.#byKey.get(key)
      if (kept === undefined && this.#byKey.size >= 2 * KINDS) return failure
      // It stands for those of other hosts too.
      for (const name of NAMES) delete failure.fields[name]
      failure.host = failure.device = failure.peer = undefined
    }
    if (kept === undefined) {
      this.#byKey.set(key, failure)
      this.failures.push(failure)
      return failure
    }
    kept.count++
    if (failure.seconds !== undefined) kept.last = failure.seconds
    return kept
  }

  /** A GID that a program prints, of its own or of the other end. */
  #gid(state: SourceState, gid: string, end: string | undefined, host: Host | undefined): void {
    if (!isRouted(gid)) return
    if (end === 'remote' && state.peers.size < 64) state.peers.add(gid)
    if (end === 'local' && host !== undefined && host.addresses.size < 64) host.addresses.add(gid)
  }

  #fact(state: SourceState, found: FoundLine, fields: Fields, host: Host | undefined, line: Line): void {
    const { variable = '', value, local = fields.localGid, device, mtu, gidIndex, text } = fields
    if (variable === 'end') {
      state.end = value
      return
    }
    if (variable === 'GID') this.#gid(state, plainAddress(value!), text ?? state.end, host)
    if (variable === 'local disk' && state.local.size < 1000) state.local.add(value!)
    if (host !== undefined && local !== undefined && host.addresses.size < 64) host.addresses.add(plainAddress(local))
    if (host !== undefined && device !== undefined && host.devices.size < 64) host.devices.add(device)
    if (variable === 'devices') for (const [, name] of (value ?? '').matchAll(/\](\S+?):/g)) host?.devices.add(name!)
    if (variable === 'communicator') {
      if (text === undefined || host === undefined || line.seconds === undefined || line.clock === 'boot') return
      const met = this.meetings.get(text) ?? new Map<string, number>()
      met.set(host.name, Math.max(met.get(host.name) ?? line.seconds, line.seconds))
      if (this.meetings.size < 1000 && met.size < HOSTS) this.meetings.set(text, met)
      return
    }
    const add = (name: string, text: string): void => {
      const owner = `${name}\n${host?.name}`
      const key = `${owner}\n${text}`
      const count = this.#factCounts.get(owner) ?? 0
      if (count >= VALUES || this.facts.length >= HOSTS || this.#factKeys.has(key)) return
      this.#factCounts.set(owner, count + 1)
      this.#factKeys.add(key)
      this.facts.push({ variable: name, value: text, host: host?.name, source: state.name, line: found.number })
    }
    if (mtu !== undefined) add('path MTU', mtu)
    if (gidIndex !== undefined) add('GID index', gidIndex)
    if (value !== undefined) add(variable, value)
  }
}

const present = (groups: Readonly<Record<string, string | undefined>> | undefined): Fields => {
  const fields: Fields = {}
  for (const [name, value] of Object.entries(groups ?? {}))
    if (value !== undefined && value !== '') fields[name as FieldName] = value
  return fields
}

/** Adds what later lines say of a failure. */
const complete = (failure: Failure, added: Fields): void => {
  failure.fields = { ...added, ...failure.fields }
  if (added.status !== undefined) failure.status ??= statusNamed(added.status)
  if (added.syndrome !== undefined && failure.kind === 'completion')
    failure.status ??= statusOfSyndrome(Number.parseInt(added.syndrome, 16))
  failure.vendor ??= numberIn(added.vendor, 16)
  if (added.device !== undefined) failure.device ??= added.device
  const peer = peerIn(added)
  if (peer !== undefined && !isRedacted(peer)) failure.peer ??= plainAddress(peer)
  failure.family ??= familyOf(added.device)
}
