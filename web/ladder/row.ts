/*
 * A row of a ladder: an event, or a packet of one, and what is said of it.
 */
import type { PacketOutcome } from '../../src/spec/faults.ts'
import type { PacketsEvent, PostedEvent, SessionEvent } from '../../src/spec/session-events.ts'

export const PSN_MASK = 0xff_ffff

/** 0: the left queue pair, 1: the right one. */
export type Side = 0 | 1

export type Tone = 'data' | 'ack' | 'nak' | 'retry' | 'lost' | 'post' | 'done' | 'error' | 'state'

/** What a queue pair waits for while a row is shown. */
export type Wait = 'rnr' | 'nak' | 'timeout'

export type Waits = readonly [Wait | undefined, Wait | undefined]

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
