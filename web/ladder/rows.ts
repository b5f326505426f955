/*
 * The rows of a ladder: what happened on a connection, in the order of time. `LadderRows` takes the events of a session
 * one after another and keeps what it needs to explain the later ones: which PSNs were sent and acknowledged, which
 * request a packet belongs to, who waits for what.
 */
import { errnoName } from '../../src/spec/errno.ts'
import { Verdict, verdictOf } from '../../src/spec/naks.ts'
import type { PacketsEvent, PostedEvent, SessionEvent } from '../../src/spec/session-events.ts'
import { rnrTimerMicroseconds, SYNDROME_VALUE_MASK } from '../../src/spec/wire/headers.ts'
import {
  headerAt,
  OP_ACK,
  OP_READ,
  OP_REQUEST,
  OP_START,
  opcodeByNumber,
  opcodeFlags,
} from '../../src/spec/wire/opcodes.ts'
import type { Connection, QueuePair } from '../../src/tools/record/objects.ts'
import { lostOutcomes } from '../../src/tools/record/packets.ts'
import { isFailed, reasonOf } from '../../src/tools/trace/failed.ts'
import { syndromeText } from '../../src/tools/trace/packets.ts'
import { BTH_BYTES, psnDifference } from '../../src/transport/wire/bth.ts'
import { isFindingOf } from '../data/losses.ts'
import { addressText, countText, durationText, hexText, plural, psnText } from '../format.ts'
import { Arrivals } from './arrivals.ts'
import { senderOf, srcQpnOf } from './connection-packets.ts'
import { acknowledgedText, type Direction, newDirection, takePosted } from './direction.ts'
import { MadeRow, PacketOfRow, partOf, type Text } from './made-row.ts'
import { PSN_MASK, type Row, type Side, type Tone, type Wait } from './row.ts'
import { OUTCOMES, stateText } from './row-titles.ts'

/** A run of at most so many packets is shown packet by packet. */
const MAX_EXPANDED = 4
/** Microseconds without events from which a row says so. */
const IDLE = 10_000

export class LadderRows {
  readonly rows: MadeRow[] = []
  readonly #connection: Connection
  readonly #sides: readonly [Direction, Direction]
  readonly #arrivals = new Arrivals()
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
          this.#push(event, 'call', side, 'error', 'call failed', reasonOf(event.call) ?? errnoName(-event.call.ret)),
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
        if (isFindingOf(this.#connection, event.finding))
          this.#push(event, 'finding', undefined, 'error', event.finding.text, event.finding.id)
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
    this.#add(new MadeRow(event, kind, side, tone, title, note, request))
  }

  #add(row: MadeRow): void {
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
      new MadeRow(event, 'idle', undefined, 'state', () => `${durationText(event.time - time)} without events`, ''),
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
      const run = this.#arrivals.get(destQpn, psn, bytes[0]!)
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
  #single(run: MadeRow, destQpn: number, psn: number): MadeRow {
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
        const row = new MadeRow(
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
        this.#arrivals.set(row, destQpn)
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
        if ((flags & OP_START) !== 0) own.current = takePosted(own, opcodeByNumber[opcode]?.kind ?? '')
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
        const verdict = verdictOf[syndrome]
        if (verdict === Verdict.ACK) {
          const before = other.acknowledged
          if (before === undefined || psnDifference(last, before) > 0) other.acknowledged = last
          const first = note
          acknowledged = () => joined(first, acknowledgedText(before, last))
        } else {
          tone = 'nak'
          note = syndromeText(syndrome)
          // After other NAKs the request has failed.
          if (verdict === Verdict.RNR) {
            const timer = rnrTimerMicroseconds[syndrome & SYNDROME_VALUE_MASK] ?? 0
            note = `receiver not ready: wait ${durationText(timer)}`
            nak = { wait: 'rnr', time: event.time, text: 'RNR NAK' }
          } else if (verdict === Verdict.SEQUENCE) {
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
    const row = new MadeRow(event, 'packet', sender, tone, undefined, acknowledged ?? note, request, packet)
    this.#add(row)
    if (waited !== undefined) row.waited = waited
    if (endedWait !== undefined) row.setWait(sender, endedWait)
    this.#arrivals.set(row, destQpn)
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
}

const joined = (first: string, second: string): string => (first === '' ? second : `${first}; ${second}`)
