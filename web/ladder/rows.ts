/*
 * The rows of a ladder: what happened on a connection, in the order of time. `LadderRows` takes the events of a session
 * one after another and keeps what it needs to explain the later ones: which PSNs were sent and acknowledged, which
 * request a packet belongs to, who waits for what.
 */

import { errnoName } from '../../src/spec/errno.ts'
import type { PacketOutcome } from '../../src/spec/faults.ts'
import {
  nakCode,
  rnrTimerMicroseconds,
  SYNDROME_KIND_MASK,
  SYNDROME_VALUE_MASK,
  syndromeKind,
} from '../../src/spec/wire/headers.ts'
import {
  headerAt,
  OP_ACK,
  OP_READ,
  OP_REQUEST,
  OP_START,
  opcodeByNumber,
  opcodeFlags,
  sourceQpnAt,
} from '../../src/spec/wire/opcodes.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../src/spec/work.ts'
import type { WantedEvents } from '../../src/tools/record/decode.ts'
import type { PacketsEvent, PostedEvent, SessionEvent } from '../../src/tools/record/events.ts'
import type { Connection, QueuePair } from '../../src/tools/record/objects.ts'
import { lostOutcomes } from '../../src/tools/record/packets.ts'
import { isFailed } from '../../src/tools/trace/failed.ts'
import { syndromeText } from '../../src/tools/trace/packets.ts'
import { BTH_BYTES, psnDifference } from '../../src/transport/wire/bth.ts'
import { choiceOf } from '../data/keys.ts'
import type { FieldValue, Filtered } from '../filter/filter.ts'
import { addressText, bytesText, countText, durationText, hexText, plural, psnText } from '../format.ts'
import { packetValue } from '../packet/fields.ts'
import { Recent } from './recent.ts'

/** 0: the left queue pair, 1: the right one. */
export type Side = 0 | 1

export type Tone = 'data' | 'ack' | 'nak' | 'retry' | 'lost' | 'post' | 'done' | 'error' | 'state'

/** What a queue pair waits for while a row is shown. */
export type Wait = 'rnr' | 'nak' | 'timeout'

type Waits = readonly [Wait | undefined, Wait | undefined]

/** A packet, or a run of packets with ascending PSNs. */
export interface RowPacket {
  readonly event: PacketsEvent
  /** The packet's position in the event's run. */
  readonly index: number
  readonly count: number
  readonly psn: number
  /** Bytes of the first packet, BTH to ICRC. */
  readonly length: number
  /** Bytes of the packet's headers and the recorded part of its payload. */
  readonly bytes: Uint8Array
  outcome: PacketOutcome
  readonly isRetransmission: boolean
}

export interface Row {
  readonly kind: 'packet' | 'posted' | 'completed' | 'state' | 'failure' | 'finding' | 'idle' | 'lost' | 'call'
  readonly time: number
  readonly event: SessionEvent
  /** The sender of a packet, otherwise the side at which it happened; undefined: in the middle. */
  readonly side: Side | undefined
  tone: Tone
  /** Made when it is read first, as is `note`: most rows that a filter sees are never shown. */
  readonly title: string
  /** Further words: what is acknowledged, why it failed. */
  note: string
  readonly packet?: RowPacket
  /** The request that it belongs to. */
  request: PostedEvent | undefined
  /** How many events the row stands for. */
  count: number
  /** By side. */
  readonly waits: Waits
  /** A wait ends with this row: its duration in microseconds. */
  waited?: number
}

const PSN_MASK = 0xff_ffff

/** A run of at most so many packets is shown packet by packet. */
const MAX_EXPANDED = 4
/** PSNs that are remembered for retransmissions and lost packets. */
const MAX_REMEMBERED = 8192
/** Microseconds without events from which a row says so. */
const IDLE = 10_000

/** Names by value; of two names of one value the first. */
const namesOf = (values: Readonly<Record<string, number>>): ReadonlyMap<number, string> =>
  new Map(
    Object.entries(values)
      .map(([name, value]) => [value, name] as const)
      .reverse(),
  )
const wrNames = namesOf(WrOpcode.values)
const wcNames = namesOf(WcOpcode.values)
const statusNames = namesOf(WcStatus.values)
const wrName = (opcode: number): string => wrNames.get(opcode) ?? `opcode ${opcode}`
const wcName = (opcode: number): string => wcNames.get(opcode) ?? `opcode ${opcode}`
export const statusName = (status: number): string => statusNames.get(status) ?? `status ${status}`

const kindOfRequest = (name: string): string =>
  name.startsWith('SEND')
    ? 'send'
    : name.startsWith('RDMA_WRITE')
      ? 'write'
      : name.startsWith('RDMA_READ')
        ? 'read'
        : name === 'FLUSH'
          ? 'flush'
          : name === 'ATOMIC_WRITE'
            ? 'atomic_write'
            : name.startsWith('ATOMIC')
              ? 'atomic'
              : ''

const requestKinds = new Map([...wrNames].map(([opcode, name]) => [opcode, kindOfRequest(name)]))

/** What is known of the requests of one side, whose packets go to the other. */
interface Direction {
  /** The newest request PSN that was sent, and response PSN that was received. */
  highest: number | undefined
  highestResponse: number | undefined
  /** The last PSN that was acknowledged. */
  acknowledged: number | undefined
  /** Sends that were fetched, and not seen in packets yet. */
  readonly posted: PostedEvent[]
  current: PostedEvent | undefined
  /** By PSN: when it was sent for the first time, and the request. */
  readonly sent: Recent<{ readonly time: number; readonly request: PostedEvent | undefined }>
  /** An unanswered NAK: why the next retransmission comes. */
  nak: { readonly wait: Wait; readonly time: number; readonly text: string } | undefined
}

const newDirection = (acknowledged: number | undefined): Direction => ({
  highest: undefined,
  highestResponse: undefined,
  acknowledged,
  posted: [],
  current: undefined,
  sent: new Recent(MAX_REMEMBERED),
  nak: undefined,
})

const OUTCOMES: Readonly<Record<PacketOutcome, string>> = {
  passed: '',
  'wrong icrc': 'wrong ICRC: the receiver drops it',
  dropped: 'lost',
  corrupted: 'corrupted: the receiver drops it',
  duplicated: 'arrives twice',
  reordered: 'arrives late, after the next ones',
  marked: 'arrives marked: congestion experienced (ECN)',
  delayed: 'delayed',
}

const sizeText = (length: number): string => (length > 0 ? ` ${bytesText(length)}` : '')

/** Undefined: what `titleOf` or `noteOf` say of the row's event. */
type Text = string | (() => string) | undefined

const NO_WAITS: Waits = [undefined, undefined]

class LadderRow implements Row {
  readonly kind: Row['kind']
  readonly time: number
  readonly event: SessionEvent
  readonly side: Side | undefined
  tone: Tone
  readonly packet?: RowPacket
  request: PostedEvent | undefined
  count = 1
  waits: Waits
  waited?: number
  #title: Text
  #note: Text

  constructor(
    event: SessionEvent,
    kind: Row['kind'],
    side: Side | undefined,
    tone: Tone,
    title: Text,
    note: Text,
    request?: PostedEvent,
    packet?: RowPacket,
    waits: Waits = NO_WAITS,
  ) {
    this.kind = kind
    this.time = event.time
    this.event = event
    this.side = side
    this.tone = tone
    this.#title = title
    this.#note = note
    this.request = request
    this.waits = waits
    if (packet !== undefined) {
      this.packet = packet
      this.count = packet.count
    }
  }

  get title(): string {
    const text = this.#title
    if (typeof text === 'string') return text
    const title = text === undefined ? titleOf(this) : text()
    this.#title = title
    return title
  }

  get note(): string {
    const text = this.#note
    if (typeof text === 'string') return text
    const note = text === undefined ? noteOf(this) : text()
    this.#note = note
    return note
  }

  set note(note: string) {
    this.#note = note
  }

  setNote(note: Text): void {
    this.#note = note
  }

  setWait(side: Side, wait: Wait): void {
    this.waits = side === 0 ? [wait, this.waits[1]] : [this.waits[0], wait]
  }
}

class PacketOfRow implements RowPacket {
  readonly event: PacketsEvent
  readonly index: number
  readonly count: number
  readonly psn: number
  outcome: PacketOutcome
  readonly isRetransmission: boolean
  #bytes: Uint8Array | undefined

  constructor(
    event: PacketsEvent,
    index: number,
    count: number,
    psn: number,
    outcome: PacketOutcome,
    isRetransmission: boolean,
  ) {
    this.event = event
    this.index = index
    this.count = count
    this.psn = psn
    this.outcome = outcome
    this.isRetransmission = isRetransmission
  }

  get length(): number {
    return this.index === this.event.count - 1 ? this.event.lastBytes : this.event.packetBytes
  }

  get bytes(): Uint8Array {
    this.#bytes ??= withPsn(this.event.bytes, this.psn, this.index)
    return this.#bytes
  }
}

const titleOf = ({ event, packet }: Row): string => {
  if (packet !== undefined) return packetTitle(packet)
  if (event.kind === 'posted') {
    const { opcode, length } = event.request
    return `post ${opcode < 0 ? 'RECV' : wrName(opcode)}${sizeText(length)}`
  }
  if (event.kind === 'completed')
    return event.status === 0 ? `${wcName(event.opcode)} completed` : statusName(event.status)
  return ''
}

const noteOf = ({ event }: Row): string => {
  if (event.kind === 'posted') return `wr_id ${event.request.wrId}`
  if (event.kind !== 'completed') return ''
  if (event.status !== 0) return 'completed in error'
  return event.bytes > 0 ? bytesText(event.bytes) : ''
}

export const requestTitle = ({ request: { opcode, length, wrId } }: PostedEvent): string =>
  `${opcode < 0 ? 'RECV' : wrName(opcode)}${sizeText(length)} · wr_id ${wrId}`

/** The side of a connection that has sent these packets; undefined: they are not of the connection. */
export const senderOf = (
  { left, right, rightQpn }: Connection,
  { bytes, device, direction }: Pick<PacketsEvent, 'bytes' | 'device' | 'direction'>,
  destQpn: number,
): Side | undefined => {
  const isToLeft = destQpn === left.qpn
  if (rightQpn === undefined) {
    if (isToLeft && (direction === 'received' || left.object.device !== device || srcQpnOf(bytes) !== left.qpn))
      return 1
    return srcQpnOf(bytes) === left.qpn && left.object.device === device ? 0 : isToLeft ? 1 : undefined
  }
  const isToRight = destQpn === rightQpn
  // Queue pairs of different devices may have the same number.
  if (isToLeft && isToRight) return (direction === 'sent') === (device === left.object.device) ? 0 : 1
  if (isToLeft) return right === undefined || direction === 'received' || device === right.object.device ? 1 : undefined
  return isToRight && (direction === 'received' || device === left.object.device) ? 0 : undefined
}

const ROW_KINDS = new Set([
  'packets',
  'posted',
  'completed',
  'object',
  'call',
  'failure',
  'receiverNotReady',
  'finding',
  'lost',
] as const)

/** The events that a ladder has rows of, or needs for them. */
export const wantedOf = (connection: Connection): WantedEvents => ({ kinds: ROW_KINDS, ...choiceOf(connection) })

export class LadderRows {
  readonly rows: LadderRow[] = []
  readonly #connection: Connection
  readonly #sides: readonly [Direction, Direction]
  /** Rows of packets that may still turn out to be lost, by `arrivalKey`; by the service of their opcode. */
  readonly #arriving: (Recent<LadderRow> | undefined)[] = new Array(SERVICES).fill(undefined)
  readonly #isDatagram: boolean

  /** `isFromStart`: the events begin with the first of the session, so the first PSNs are known. */
  constructor(connection: Connection, isFromStart = true) {
    this.#connection = connection
    this.#isDatagram = connection.rightQpn === undefined
    const first = (qp: QueuePair | undefined): number | undefined =>
      qp?.sqPsn === undefined || !isFromStart ? undefined : (qp.sqPsn - 1) & PSN_MASK
    this.#sides = [newDirection(first(connection.left)), newDirection(first(connection.right))]
  }

  /** Adds the rows of an event, if it is one of the connection. */
  add(event: SessionEvent): void {
    switch (event.kind) {
      case 'packets':
        this.#addPackets(event)
        return
      case 'posted':
        this.#addPosted(event)
        return
      case 'completed':
        this.#addCompleted(event)
        return
      case 'object': {
        const side = this.#sideOf(event.object)
        if (side === undefined || event.change === 'exists') return
        const state = stateText(event.details.values?.state)
        const title = event.change === 'changed' && state !== '' ? state : event.change
        const note = event.why === 'call' || event.why === '' ? '' : `because of ${event.why}`
        this.#push(event, 'state', side, 'state', title, note)
        return
      }
      case 'call':
        if (!isFailed(event.call)) return
        this.#withSide(event.object, side =>
          this.#push(event, 'call', side, 'error', 'call failed', event.call.reason ?? errnoName(-event.call.ret)),
        )
        return
      case 'failure': {
        const side = this.#sideOf(event.object)
        const { text, isNote } = event.failure.failure
        if (side !== undefined) this.#push(event, 'failure', undefined, isNote ? 'state' : 'error', text, '')
        return
      }
      case 'receiverNotReady':
        this.#withSide(event.qp, side =>
          this.#push(event, 'state', side, 'nak', 'no receive posted', 'a message finds none'),
        )
        return
      case 'finding': {
        const names = [this.#connection.left, this.#connection.right].map(qp => qp && `QP ${hexText(qp.qpn)} `)
        const isOurs = event.finding.objects.some(({ name }) =>
          names.some(of => of !== undefined && `${name} `.startsWith(of)),
        )
        if (isOurs) this.#push(event, 'finding', undefined, 'error', event.finding.text, event.finding.id)
        return
      }
      case 'lost':
        this.#push(event, 'lost', undefined, 'error', `${plural(event.count, 'event')} not recorded here`, '')
    }
  }

  /** Removes and returns all rows but the newest `kept`, which may still change: packets turn out to be lost. */
  take(kept: number): readonly Row[] {
    return this.rows.splice(0, Math.max(0, this.rows.length - kept))
  }

  #sideOf(object: number): Side | undefined {
    const { left, right } = this.#connection
    return object === left.object.id ? 0 : right !== undefined && object === right.object.id ? 1 : undefined
  }

  #withSide(object: number, add: (side: Side) => void): void {
    const side = this.#sideOf(object)
    if (side !== undefined) add(side)
  }

  #push(
    event: SessionEvent,
    kind: Row['kind'],
    side: Side | undefined,
    tone: Tone,
    title: Text,
    note: Text,
    request?: PostedEvent,
  ): void {
    this.#add(new LadderRow(event, kind, side, tone, title, note, request))
  }

  #add(row: LadderRow): void {
    this.#fold(row.event)
    this.rows.push(row)
    this.#markWaits()
  }

  /** A row for the time without events before this one. */
  #fold(event: SessionEvent): void {
    const { rows } = this
    const previous = rows[rows.length - 1]
    if (previous === undefined || event.time - previous.time < IDLE) return
    const { time } = previous
    rows.push(
      new LadderRow(event, 'idle', undefined, 'state', () => `${durationText(event.time - time)} without events`, ''),
    )
    this.#markWaits()
  }

  /** The last rows belong to the waits that go on. */
  #markWaits(): void {
    const [left, right] = [this.#sides[0].nak, this.#sides[1].nak]
    if (left !== undefined) this.#markWait(0, left.wait, left.time)
    if (right !== undefined) this.#markWait(1, right.wait, right.time)
  }

  /** Rows from the time `since` on belong to a wait of a side. */
  #markWait(side: Side, wait: Wait, since: number): void {
    for (let i = this.rows.length - 1; i >= 0; i--) {
      const row = this.rows[i]!
      if (row.time < since || row.waits[side] === wait) return
      row.setWait(side, wait)
    }
  }

  // ---- requests ----

  #addPosted(event: PostedEvent & { readonly time: number }): void {
    const { owner, opcode } = event.request
    const side = this.#sideOf(owner)
    if (side === undefined) return
    const isReceive = opcode < 0
    const last = this.rows[this.rows.length - 1]
    // Programs post receives by the hundred.
    if (
      isReceive &&
      last?.kind === 'posted' &&
      last.side === side &&
      last.event.kind === 'posted' &&
      last.event.request.opcode < 0
    ) {
      last.count++
      last.setNote(() => `${countText(last.count)} receives, the last wr_id ${event.request.wrId}`)
      return
    }
    if (!isReceive) this.#sides[side].posted.push(event)
    this.#push(event, 'posted', side, 'post', undefined, undefined, event)
  }

  #addCompleted(event: SessionEvent & { readonly kind: 'completed' }): void {
    const side = this.#sideOf(event.qp)
    if (side === undefined) return
    this.#push(event, 'completed', side, event.status === 0 ? 'done' : 'error', undefined, undefined)
  }

  // ---- packets ----

  #addPackets(event: PacketsEvent & { readonly time: number }): void {
    const { bytes } = event
    if (bytes.length < BTH_BYTES) return
    const destQpn = (bytes[5]! << 16) | (bytes[6]! << 8) | bytes[7]!
    const sender = senderOf(this.#connection, event, destQpn)
    if (sender === undefined) return
    const first = (bytes[9]! << 16) | (bytes[10]! << 8) | bytes[11]!
    if (event.direction === 'received' && event.outcome !== 'passed' && this.#markArrival(event, destQpn, first)) return
    const step = event.count <= MAX_EXPANDED ? 1 : event.count
    for (let i = 0; i < event.count; i += step) this.#addPacket(event, sender, destQpn, (first + i) & PSN_MASK, i, step)
  }

  /** Something happened to packets on arrival that were recorded when they were sent. */
  #markArrival(event: PacketsEvent, destQpn: number, first: number): boolean {
    const { outcome, count, bytes } = event
    let isKnown = false
    for (let i = 0; i < count; i++) {
      const psn = (first + i) & PSN_MASK
      const run = this.#arriving[bytes[0]! >> SERVICE_SHIFT]?.get(arrivalKey(destQpn, psn, bytes[0]!))
      if (run === undefined) continue
      isKnown = true
      const row = this.#single(run, destQpn, psn)
      row.packet!.outcome = outcome
      if (lostOutcomes.has(outcome)) row.tone = 'lost'
      // A lost retransmission is one as well.
      row.note =
        row.note === '' || !row.packet!.isRetransmission ? OUTCOMES[outcome] : `${row.note}; ${OUTCOMES[outcome]}`
    }
    return isKnown
  }

  /** The row of the packet `psn`, of a row that may be a run: the run is split. */
  #single(run: LadderRow, destQpn: number, psn: number): LadderRow {
    const packet = run.packet!
    if (packet.count === 1) return run
    const at = (psn - packet.psn) & PSN_MASK
    const parts = [
      [0, at],
      [at, 1],
      [at + 1, packet.count - at - 1],
    ] as const
    const rows = parts
      .filter(([, count]) => count > 0)
      .map(([from, count]) => {
        const part = partOf(packet, from, count)
        const row = new LadderRow(
          run.event,
          run.kind,
          run.side,
          run.tone,
          undefined,
          run.note,
          run.request,
          part,
          run.waits,
        )
        if (from === 0 && run.waited !== undefined) row.waited = run.waited
        this.#remember(row, destQpn)
        return row
      })
    const place = this.rows.lastIndexOf(run)
    // A row that was taken stays as it is.
    if (place >= 0) this.rows.splice(place, 1, ...rows)
    return rows.find(row => row.packet!.psn === psn && row.count === 1)!
  }

  #remember(row: LadderRow, destQpn: number): void {
    const { event, psn, count } = row.packet!
    const opcode = event.bytes[0]!
    const service = opcode >> SERVICE_SHIFT
    const arriving = this.#arriving[service] ?? new Recent<LadderRow>(MAX_REMEMBERED)
    this.#arriving[service] = arriving
    for (let i = 0; i < count; i++) arriving.set(arrivalKey(destQpn, (psn + i) & PSN_MASK, opcode), row)
  }

  #addPacket(
    event: PacketsEvent & { readonly time: number },
    sender: Side,
    destQpn: number,
    psn: number,
    index: number,
    count: number,
  ): void {
    this.#fold(event)
    const opcode = event.bytes[0]!
    const flags = opcodeFlags[opcode]!
    const isRequest = (flags & OP_REQUEST) !== 0
    const last = (psn + count - 1) & PSN_MASK
    const own = this.#sides[sender]
    const other = this.#sides[sender === 0 ? 1 : 0]
    const isLost = lostOutcomes.has(event.outcome)
    let tone: Tone = isRequest ? 'data' : 'ack'
    let note = ''
    let acknowledged: (() => string) | undefined
    let request: PostedEvent | undefined
    let isRetransmission = false
    let waited: number | undefined
    let endedWait: Wait | undefined
    let nak: Direction['nak']

    if (this.#isDatagram) {
      request = sender === 0 ? own.posted.shift() : undefined
      const peer = sender === 0 ? destQpn : srcQpnOf(event.bytes)
      note =
        sender === 0
          ? `to QP ${hexText(peer ?? 0)} at ${addressText(event.flow.destination)}`
          : `from QP ${hexText(peer ?? 0)}`
    } else if (isRequest) {
      isRetransmission = own.highest !== undefined && psnDifference(psn, own.highest) <= 0
      if (isRetransmission) {
        const known = own.sent.get(psn)
        request = known?.request
        tone = 'retry'
        note = 'retransmission'
        // Only the first packet of a retransmitted run ends the wait.
        if (own.nak !== undefined) {
          waited = event.time - own.nak.time
          note = `retransmission after ${own.nak.text}, ${durationText(waited)}`
          endedWait = own.nak.wait
        } else if (known !== undefined && this.#lastPacketFrom(sender)?.packet?.isRetransmission !== true) {
          waited = event.time - known.time
          note = `retransmission: not acknowledged for ${durationText(waited)}`
          this.#markWait(sender, 'timeout', known.time)
          endedWait = 'timeout'
        }
        own.nak = undefined
      } else {
        if ((flags & OP_START) !== 0) own.current = this.#takePosted(own, opcodeByNumber[opcode]?.kind ?? '')
        request = own.current
        const sent = { time: event.time, request }
        for (let i = 0; i < count; i++) own.sent.set((psn + i) & PSN_MASK, sent)
      }
      if (own.highest === undefined || psnDifference(last, own.highest) > 0) own.highest = last
    } else {
      request = other.sent.get(psn)?.request
      const isData = (flags & OP_READ) !== 0
      if (isData) {
        isRetransmission = other.highestResponse !== undefined && psnDifference(psn, other.highestResponse) <= 0
        if (isRetransmission) [tone, note] = ['retry', 'sent again']
        else tone = 'data'
        if (other.highestResponse === undefined || psnDifference(last, other.highestResponse) > 0)
          other.highestResponse = last
        // The responses of a READ take as many PSNs as they are.
        if (other.highest === undefined || psnDifference(last, other.highest) > 0) other.highest = last
      }
      if ((flags & OP_ACK) !== 0 && !isLost) {
        const syndrome = event.bytes[headerAt.AETH[opcode]!] ?? 0
        const kind = syndrome & SYNDROME_KIND_MASK
        if (kind === syndromeKind.ACK) {
          const before = other.acknowledged
          if (before === undefined || psnDifference(last, before) > 0) other.acknowledged = last
          const first = note
          acknowledged = () => joined(first, acknowledgedText(before, last))
        } else {
          tone = 'nak'
          note = syndromeText(syndrome)
          // After other NAKs the request has failed.
          if (kind === syndromeKind.RNR_NAK) {
            const timer = rnrTimerMicroseconds[syndrome & SYNDROME_VALUE_MASK] ?? 0
            note = `receiver not ready: wait ${durationText(timer)}`
            nak = { wait: 'rnr', time: event.time, text: 'RNR NAK' }
          } else if (kind === syndromeKind.NAK && (syndrome & SYNDROME_VALUE_MASK) === nakCode.PSN_SEQUENCE) {
            note = `sequence error: expects ${psnText(psn)}`
            nak = { wait: 'nak', time: event.time, text: 'NAK' }
          }
        }
      }
    }
    if (event.outcome !== 'passed') {
      if (isLost) tone = 'lost'
      note = joined(acknowledged?.() ?? note, OUTCOMES[event.outcome])
      acknowledged = undefined
    }
    const packet = new PacketOfRow(event, index, count, psn, event.outcome, isRetransmission)
    const row = new LadderRow(event, 'packet', sender, tone, undefined, acknowledged ?? note, request, packet)
    this.#add(row)
    if (waited !== undefined) row.waited = waited
    if (endedWait !== undefined) row.setWait(sender, endedWait)
    this.#remember(row, destQpn)
    if (nak !== undefined) {
      other.nak = nak
      this.#markWaits()
    }
  }

  #lastPacketFrom(side: Side): Row | undefined {
    for (let i = this.rows.length - 1; i >= 0 && i >= this.rows.length - 64; i--) {
      const row = this.rows[i]!
      if (row.kind === 'packet' && row.side === side) return row
    }
    return undefined
  }

  /** The request of the first packet of a message: the oldest that was not sent yet, if it is of this kind. */
  #takePosted(own: Direction, kind: string): PostedEvent | undefined {
    // Local operations have no packets.
    while (own.posted.length > 0) {
      const posted = own.posted.shift()!
      if ((requestKinds.get(posted.request.opcode) ?? '') === kind) return posted
    }
    return undefined
  }
}

const nakName = (bytes: Uint8Array): string => {
  const at = headerAt.AETH[bytes[0]!]!
  const kind = (at === 0 ? syndromeKind.ACK : (bytes[at] ?? 0)) & SYNDROME_KIND_MASK
  return kind === syndromeKind.RNR_NAK ? 'RNR NAK' : kind === syndromeKind.NAK ? 'NAK' : ''
}

const packetTitle = ({ bytes, psn, count, length, event }: RowPacket): string => {
  const name =
    nakName(bytes) ||
    (opcodeByNumber[bytes[0]!]?.name.replace(/^(?:RC|UC|UD|XRC)_/, '') ?? `opcode ${hexText(bytes[0]!)}`)
  const payload = Math.max(0, length - event.headerBytes - 4)
  const size = payload > 0 ? ` · ${bytesText(payload)}` : ''
  return count === 1
    ? `${name} ${psnText(psn)}${size}`
    : `${name} ×${countText(count)} ${psnText(psn)}–${psnText((psn + count - 1) & PSN_MASK)}${size}`
}

/** `count` packets of a run from its packet `from` on. */
const partOf = (packet: RowPacket, from: number, count: number): RowPacket => {
  const { event, outcome, isRetransmission } = packet
  const psn = (packet.psn + from) & PSN_MASK
  return new PacketOfRow(event, packet.index + from, count, psn, outcome, isRetransmission)
}

const STATES = ['RESET', 'INIT', 'RTR', 'RTS', 'SQD', 'SQE', 'ERR']
const stateText = (state: unknown): string => (typeof state === 'number' ? `→ ${STATES[state] ?? state}` : '')

/** Bits of an opcode without its service, and the number of services. */
const SERVICE_SHIFT = 5
const SERVICES = 256 >> SERVICE_SHIFT
/** Of the packets of a service: 24 bits of QPN, 24 bits of PSN and 5 bits of opcode are as many as a number has. */
const arrivalKey = (destQpn: number, psn: number, opcode: number): number =>
  (destQpn * (PSN_MASK + 1) + psn) * (1 << SERVICE_SHIFT) + (opcode & ((1 << SERVICE_SHIFT) - 1))

/** The source queue pair of a datagram or packet of SRD. */
export const srcQpnOf = (bytes: Uint8Array): number | undefined => {
  const at = sourceQpnAt(bytes[0]!)
  if (at === 0 || bytes.length < at + 4) return undefined
  return (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
}

const withPsn = (bytes: Uint8Array, psn: number, index: number): Uint8Array => {
  if (index === 0) return bytes
  const copy = bytes.slice()
  copy[9] = psn >>> 16
  copy[10] = (psn >>> 8) & 0xff
  copy[11] = psn & 0xff
  return copy
}

const joined = (first: string, second: string): string => (first === '' ? second : `${first}; ${second}`)

/** What an ACK of `psn` acknowledges beyond `before`, the last PSN that was acknowledged. */
const acknowledgedText = (before: number | undefined, psn: number): string => {
  const count = before === undefined ? 0 : psnDifference(psn, before)
  if (before !== undefined && count <= 0) return 'acknowledged before'
  if (before === undefined || count === 1) return `acknowledges ${psnText(psn)}`
  return `acknowledges ${psnText((before + 1) & PSN_MASK)}–${psnText(psn)} · ${countText(count)}`
}

// ---- filters ----

/** Fields of rows that are not fields of packets. */
export const rowFields = [
  'opcode',
  'frame.time_relative',
  'ip.src',
  'ip.dst',
  'udp.srcport',
  'userdma.kind',
  'userdma.side',
  'userdma.outcome',
  'userdma.retransmission',
  'userdma.wr_id',
  'userdma.tone',
] as const

/** The row for a filter. `start`: time 0. */
export const filteredRow = (row: Row, start: number): Filtered => new FilteredRow(row, start)

class FilteredRow implements Filtered {
  readonly #row: Row
  readonly #start: number

  constructor(row: Row, start: number) {
    this.#row = row
    this.#start = start
  }

  get text(): string {
    return `${this.#row.title} ${this.#row.note}`
  }

  field(name: string): FieldValue | undefined {
    const row = this.#row
    const { packet } = row
    switch (name) {
      case 'opcode':
        return packet && packetValue(packet.bytes, 'infiniband.bth.opcode')
      case 'frame.time_relative':
        return (row.time - this.#start) / 1e6
      case 'ip.src':
        return packet && addressText(packet.event.flow.source)
      case 'ip.dst':
        return packet && addressText(packet.event.flow.destination)
      case 'udp.srcport':
        return packet?.event.flow.sourcePort
      case 'userdma.kind':
        return row.kind
      case 'userdma.side':
        return row.side === undefined ? undefined : row.side === 0 ? 'left' : 'right'
      case 'userdma.outcome':
        return packet?.outcome
      case 'userdma.retransmission':
        return packet?.isRetransmission
      case 'userdma.wr_id':
        return row.request?.request.wrId
      case 'userdma.tone':
        return row.tone
      default:
        return packet && packetValue(packet.bytes, name)
    }
  }
}
