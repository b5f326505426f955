/*
 * The rows of a ladder: what happened on a connection, in the order of time. `LadderRows` takes the events of a session
 * one after another and keeps what it needs to explain the later ones: which PSNs were sent and acknowledged, which
 * request a packet belongs to, who waits for what.
 */
import type { PacketsEvent, PostedEvent, SessionEvent } from '../../src/record/events.ts'
import type { Connection, QueuePair } from '../../src/record/objects.ts'
import { lostOutcomes } from '../../src/record/packets.ts'
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
import { isFailed } from '../../src/trace/failed.ts'
import { syndromeText } from '../../src/trace/packets.ts'
import { psnDifference } from '../../src/wire/bth.ts'
import type { FieldValue, Filtered } from '../filter/filter.ts'
import { addressText, bytesText, countText, durationText, hexText, plural, psnText } from '../format.ts'
import { packetValues } from '../packet/fields.ts'

/** 0: the left queue pair, 1: the right one. */
export type Side = 0 | 1

export type Tone = 'data' | 'ack' | 'nak' | 'retry' | 'lost' | 'post' | 'done' | 'error' | 'state'

/** What a queue pair waits for while a row is shown. */
export type Wait = 'rnr' | 'nak' | 'timeout'

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
  readonly title: string
  /** Further words: what is acknowledged, why it failed. */
  note: string
  readonly packet?: RowPacket
  /** The request that it belongs to. */
  request: PostedEvent | undefined
  /** How many events the row stands for. */
  count: number
  /** By side. */
  readonly waits: [Wait | undefined, Wait | undefined]
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

const wrName = (opcode: number): string =>
  Object.keys(WrOpcode.values).find(name => WrOpcode.values[name as keyof typeof WrOpcode.values] === opcode) ??
  `opcode ${opcode}`
const wcName = (opcode: number): string =>
  Object.keys(WcOpcode.values).find(name => WcOpcode.values[name as keyof typeof WcOpcode.values] === opcode) ??
  `opcode ${opcode}`
export const statusName = (status: number): string =>
  Object.keys(WcStatus.values).find(name => WcStatus.values[name as keyof typeof WcStatus.values] === status) ??
  `status ${status}`

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
  readonly sent: Map<number, { readonly time: number; readonly request: PostedEvent | undefined }>
  /** An unanswered NAK: why the next retransmission comes. */
  nak: { readonly wait: Wait; readonly time: number; readonly text: string } | undefined
}

const newDirection = (acknowledged: number | undefined): Direction => ({
  highest: undefined,
  highestResponse: undefined,
  acknowledged,
  posted: [],
  current: undefined,
  sent: new Map(),
  nak: undefined,
})

const remember = <K, V>(map: Map<K, V>, key: K, value: V): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size > MAX_REMEMBERED) for (const oldest of map.keys()) return void map.delete(oldest)
}

const OUTCOMES: Readonly<Record<PacketOutcome, string>> = {
  passed: '',
  'wrong icrc': 'wrong ICRC: the receiver drops it',
  dropped: 'lost',
  corrupted: 'corrupted: the receiver drops it',
  duplicated: 'arrives twice',
  reordered: 'arrives late, after the next ones',
  delayed: 'delayed',
}

const sizeText = (length: number): string => (length > 0 ? ` ${bytesText(length)}` : '')

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

export class LadderRows {
  readonly rows: Row[] = []
  readonly #connection: Connection
  readonly #sides: readonly [Direction, Direction]
  /** Rows of packets that may still turn out to be lost, by destination, PSN and opcode. */
  readonly #arriving = new Map<string, Row>()
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
    title: string,
    note: string,
    more: { readonly packet?: RowPacket; readonly request?: PostedEvent | undefined } = {},
  ): void {
    const { rows } = this
    this.#fold(event)
    rows.push({
      ...emptyRow(event),
      kind,
      side,
      tone,
      title,
      note,
      request: more.request,
      ...(more.packet && { packet: more.packet }),
    })
    this.#markWaits()
  }

  /** A row for the time without events before this one. */
  #fold(event: SessionEvent): void {
    const { rows } = this
    const previous = rows[rows.length - 1]
    if (previous === undefined || event.time - previous.time < IDLE) return
    const title = `${durationText(event.time - previous.time)} without events`
    rows.push({ ...emptyRow(event), kind: 'idle', title })
    this.#markWaits()
  }

  /** The last rows belong to the waits that go on. */
  #markWaits(): void {
    for (const side of [0, 1] as const) {
      const { nak } = this.#sides[side]
      if (nak !== undefined) this.#markWait(side, nak.wait, nak.time)
    }
  }

  /** Rows from the time `since` on belong to a wait of a side. */
  #markWait(side: Side, wait: Wait, since: number): void {
    for (let i = this.rows.length - 1; i >= 0; i--) {
      const { time, waits } = this.rows[i]!
      if (time < since || waits[side] === wait) return
      waits[side] = wait
    }
  }

  // ---- requests ----

  #addPosted(event: PostedEvent & { readonly time: number }): void {
    const { owner, opcode, wrId } = event.request
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
      last.note = `${countText(last.count)} receives, the last wr_id ${wrId}`
      return
    }
    if (!isReceive) this.#sides[side].posted.push(event)
    const title = isReceive
      ? `post RECV${sizeText(event.request.length)}`
      : `post ${wrName(opcode)}${sizeText(event.request.length)}`
    this.#push(event, 'posted', side, 'post', title, `wr_id ${wrId}`, { request: event })
  }

  #addCompleted(event: SessionEvent & { readonly kind: 'completed' }): void {
    const { status, opcode, bytes, qp } = event
    const side = this.#sideOf(qp)
    if (side === undefined) return
    const isGood = status === 0
    const title = isGood ? `${wcName(opcode)} completed` : statusName(status)
    const note = isGood ? (bytes > 0 ? bytesText(bytes) : '') : 'completed in error'
    this.#push(event, 'completed', side, isGood ? 'done' : 'error', title, note)
  }

  // ---- packets ----

  #addPackets(event: PacketsEvent & { readonly time: number }): void {
    const { bytes } = event
    if (bytes.length < 12) return
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const destQpn = view.getUint32(4) & PSN_MASK
    const sender = senderOf(this.#connection, event, destQpn)
    if (sender === undefined) return
    const first = view.getUint32(8) & PSN_MASK
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
      const run = this.#arriving.get(arrivalKey(destQpn, psn, bytes[0]!))
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
  #single(run: Row, destQpn: number, psn: number): Row {
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
        const row: Row = { ...run, packet: part, count, title: packetTitle(part), waits: [...run.waits] }
        if (from > 0) delete row.waited
        for (let i = 0; i < count; i++)
          remember(this.#arriving, arrivalKey(destQpn, (part.psn + i) & PSN_MASK, packet.bytes[0]!), row)
        return row
      })
    const place = this.rows.lastIndexOf(run)
    // A row that was taken stays as it is.
    if (place >= 0) this.rows.splice(place, 1, ...rows)
    return rows.find(row => row.packet!.psn === psn && row.count === 1)!
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
    const length = index === event.count - 1 ? event.lastBytes : event.packetBytes
    const bytes = withPsn(event.bytes, psn, index)
    const isLost = lostOutcomes.has(event.outcome)
    let tone: Tone = isRequest ? 'data' : 'ack'
    let note = ''
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
        for (let i = 0; i < count; i++) remember(own.sent, (psn + i) & PSN_MASK, { time: event.time, request })
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
        const syndrome = bytes[headerAt.AETH[opcode]!] ?? 0
        const kind = syndrome & SYNDROME_KIND_MASK
        if (kind === syndromeKind.ACK) {
          const text = acknowledgedText(other, last)
          if (text !== '') note = note === '' ? text : `${note}; ${text}`
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
      note = note === '' ? OUTCOMES[event.outcome] : `${note}; ${OUTCOMES[event.outcome]}`
    }
    const packet: RowPacket = { event, index, count, psn, length, bytes, outcome: event.outcome, isRetransmission }
    this.#push(event, 'packet', sender, tone, packetTitle(packet), note, { packet, request })
    const row = this.rows[this.rows.length - 1]!
    row.count = count
    if (waited !== undefined) row.waited = waited
    if (endedWait !== undefined) row.waits[sender] = endedWait
    for (let i = 0; i < count; i++) remember(this.#arriving, arrivalKey(destQpn, (psn + i) & PSN_MASK, opcode), row)
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
      if (kindOfRequest(wrName(posted.request.opcode)) === kind) return posted
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
  const { event } = packet
  const index = packet.index + from
  const psn = (packet.psn + from) & PSN_MASK
  const length = index === event.count - 1 ? event.lastBytes : event.packetBytes
  return { ...packet, index, count, psn, length, bytes: withPsn(event.bytes, psn, index) }
}

const emptyRow = (event: SessionEvent): Row => ({
  kind: 'state',
  time: event.time,
  event,
  side: undefined,
  tone: 'state',
  title: '',
  note: '',
  request: undefined,
  count: 1,
  waits: [undefined, undefined],
})

const STATES = ['RESET', 'INIT', 'RTR', 'RTS', 'SQD', 'SQE', 'ERR']
const stateText = (state: unknown): string => (typeof state === 'number' ? `→ ${STATES[state] ?? state}` : '')

const arrivalKey = (destQpn: number, psn: number, opcode: number): string => `${destQpn} ${psn} ${opcode}`

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

/** What an ACK of `psn` acknowledges beyond the earlier ones. */
const acknowledgedText = (of: Direction, psn: number): string => {
  const before = of.acknowledged
  const count = before === undefined ? 0 : psnDifference(psn, before)
  if (before !== undefined && count <= 0) return 'acknowledged before'
  of.acknowledged = psn
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
export const filteredRow = (row: Row, start: number): Filtered => {
  let values: ReturnType<typeof packetValues> | undefined
  return {
    text: `${row.title} ${row.note}`,
    field(name): FieldValue | undefined {
      const { packet } = row
      switch (name) {
        case 'opcode':
          return this.field('infiniband.bth.opcode')
        case 'frame.time_relative':
          return (row.time - start) / 1e6
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
          if (packet === undefined) return undefined
          values ??= packetValues(packet.bytes)
          return values.get(name)
      }
    },
  }
}
