/*
 * Rows as a ladder makes and changes them. Titles, notes and bytes are made when they are read first: most rows that a
 * filter sees are never shown.
 */
import type { PacketOutcome } from '../../src/spec/faults.ts'
import type { PacketsEvent, PostedEvent, SessionEvent } from '../../src/spec/session-events.ts'
import { PSN_MASK, type Row, type RowPacket, type Side, type Tone, type Wait, type Waits } from './row.ts'
import { noteOf, titleOf } from './row-titles.ts'

/** Undefined: what `titleOf` or `noteOf` say of the row's event. */
export type Text = string | (() => string) | undefined

const NO_WAITS: Waits = [undefined, undefined]

export class MadeRow implements Row {
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

export class PacketOfRow implements RowPacket {
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

/** `count` packets of a run from its packet `from` on. */
export const partOf = (packet: RowPacket, from: number, count: number): RowPacket => {
  const { event, outcome, isRetransmission } = packet
  const psn = (packet.psn + from) & PSN_MASK
  return new PacketOfRow(event, packet.index + from, count, psn, outcome, isRetransmission)
}

const withPsn = (bytes: Uint8Array, psn: number, index: number): Uint8Array => {
  if (index === 0) return bytes
  const copy = bytes.slice()
  copy[9] = psn >>> 16
  copy[10] = (psn >>> 8) & 0xff
  copy[11] = psn & 0xff
  return copy
}
