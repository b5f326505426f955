/*
 * Compares recorded packets with our engine's packets: the responses of each queue pair, and its requests. The ICRC is
 * not compared, because the port computes it.
 */

import { ackTimeoutMicroseconds, rnrMicroseconds } from '../../../../src/spec/work.ts'
import { psnDistance } from '../../../../src/transport/engine/psn.ts'
import type { WellFormedPacket } from '../../../../src/transport/wire/packet.ts'
import {
  type Conversation,
  type Entry,
  field,
  headersOf,
  isPositive,
  isRead,
  isRequest,
  rnrSince,
  type Side,
  syndromeValueOf,
} from './conversation.ts'
import type { Facts } from './facts.ts'
import { type Pair, peerQpnOf, qpnOn } from './pairs.ts'
import type { PlayResult, Sent, Timing } from './play.ts'

export interface Recorded {
  readonly packet: WellFormedPacket
  readonly timing: Timing
  /** µs since the RNR NAK or, after an ACK timeout, since the previous request; 0 for an immediate packet. */
  readonly waited: number
  /** Packet number in the capture file, from 1. */
  readonly number: number
}

export interface RecordedStream {
  readonly qpn: number
  readonly answers: readonly Recorded[]
  readonly requests: readonly Recorded[]
}

export type StreamKind = 'answers' | 'requests'

/** `recorded` and `ours` are undefined if that side lacks the packet. */
export interface Difference {
  readonly qpn: number
  readonly kind: StreamKind
  readonly recorded: Recorded | undefined
  readonly ours: Sent | undefined
  readonly fields: readonly FieldDifference[]
}

/** Values as text; `-` for an absent field or packet. */
interface FieldDifference {
  readonly path: string
  readonly recorded: string
  readonly ours: string
}

/** The packets that `side` of the capture sent, by queue pair. */
export const recordedStreams = (
  { entries }: Conversation,
  pairs: readonly Pair[],
  side: Side,
  facts: Facts,
): RecordedStream[] => {
  const qpns = [...new Set(pairs.map(pair => qpnOn(pair, side)))]
  return qpns.map(qpn => {
    const pair = pairs.find(p => qpnOn(p, side) === qpn)!
    const peer = peerQpnOf(pair, side)
    const sentPackets = entries.filter(e => e.from === side && e.packet.BTH.destQp === peer)
    const requests = sentPackets.filter(e => isRequest(e.packet))
    return {
      qpn,
      answers: sentPackets
        .filter(e => !isRequest(e.packet))
        .map(e => ({ packet: e.packet, timing: 'immediate', waited: 0, number: e.number })),
      requests: requests.map((e, i) => ({
        packet: e.packet,
        number: e.number,
        ...timingOf(entries, e, requests[i - 1], pair, side, facts),
      })),
    }
  })
}

/** Code of the local ACK timeout (`Facts.timeout`). */
const DEFAULT_TIMEOUT = 14

/**
 * Classifies a recorded request as immediate or sent after a timer. A retransmission counts as sent after the ACK
 * timeout if half of the timeout has passed since the last packet of either side.
 */
const timingOf = (
  entries: readonly Entry[],
  entry: Entry,
  previousRequest: Entry | undefined,
  pair: Pair,
  side: Side,
  facts: Facts,
): { timing: Timing; waited: number } => {
  const previous = entries[entries.indexOf(entry) - 1]
  const immediate = { timing: 'immediate', waited: 0 } as const
  if (previousRequest === undefined || previous === undefined) return immediate
  const { packet } = previousRequest
  /** How many PSNs the previous request takes. */
  const psns = isRead(packet) ? Math.max(1, Math.ceil(field(packet, 'RETH', 'dmaLen') / pair.mtu)) : 1
  const isNew = psnDistance(packet.BTH.psn, entry.packet.BTH.psn) === psns
  const waited = entry.time - previousRequest.time
  if (isNew) return immediate
  const rnr = rnrSince(entries, entry.number, side)
  if (rnr !== undefined) {
    // Captured times are imprecise.
    const minWait = rnrMicroseconds(syndromeValueOf(rnr.packet)) * 0.9
    if (entry.time - rnr.time >= minWait) return { timing: 'after the RNR timer', waited: entry.time - rnr.time }
  }
  const timeout = ackTimeoutMicroseconds(facts.timeout ?? DEFAULT_TIMEOUT)
  return entry.time - previous.time >= timeout / 2 ? { timing: 'after the ACK timeout', waited } : immediate
}

/** Linux was recorded on slow, emulated machines, whose waits are imprecise. */
const isSimilarWait = (recorded: number, ours: number): boolean => recorded >= ours * 0.98 && recorded <= ours * 1.3

type Fields = Map<string, string>

const fieldsOf = (packet: WellFormedPacket): Fields => {
  const fields: Fields = new Map([['opcode', packet.name]])
  for (const [header, record] of Object.entries(headersOf(packet))) {
    if (record === undefined || typeof record !== 'object' || record instanceof Uint8Array) continue
    for (const [name, value] of Object.entries(record)) fields.set(`${header}.${name}`, String(value))
  }
  fields.set('payload', Buffer.from(packet.payload).toString('hex'))
  fields.set('pad', packet.pad === undefined ? 'zeros' : Buffer.from(packet.pad).toString('hex'))
  return fields
}

const abbreviate = (text: string): string =>
  text.length > 24 ? `${text.slice(0, 24)}… (${text.length / 2} bytes)` : text

const differingFields = (recorded: Recorded, ours: Sent): FieldDifference[] => {
  const recordedFields = fieldsOf(recorded.packet)
  const ourFields = fieldsOf(ours.packet)
  const paths = new Set([...recordedFields.keys(), ...ourFields.keys()])
  const differences: FieldDifference[] = []
  for (const path of paths) {
    const recordedValue = recordedFields.get(path) ?? '-'
    const ourValue = ourFields.get(path) ?? '-'
    if (recordedValue !== ourValue) differences.push({ path, recorded: recordedValue, ours: ourValue })
  }
  if (recorded.timing !== ours.timing)
    differences.push({ path: 'timing', recorded: recorded.timing, ours: ours.timing })
  else if (!isSimilarWait(recorded.waited, ours.waited))
    differences.push({ path: 'waited', recorded: `${recorded.waited} µs`, ours: `${ours.waited} µs` })
  return differences
}

/** Returns how many packets of each side a permitted difference covers; undefined if it is not permitted. */
export type Permit = (difference: Difference) => { readonly recorded: number; readonly ours: number } | undefined

/**
 * The differences that `permit` does not permit. With `inBursts`, ACKs are not compared, except one that is the last
 * packet: one ACK may acknowledge a whole burst (IBA 9.7.5.1.2).
 */
export const compareStreams = (
  recorded: readonly RecordedStream[],
  played: PlayResult,
  permit: Permit,
  inBursts = false,
): Difference[] =>
  recorded.flatMap(stream => {
    const ours = played.ends.find(end => end.qpn === stream.qpn)!.stream
    const comparable = <P extends Sent | Recorded>(list: readonly P[]): readonly P[] =>
      inBursts ? withoutAcks(list) : list
    return [
      ...compareLists(stream.qpn, 'answers', comparable(stream.answers), comparable(ours.answers), permit),
      ...compareLists(stream.qpn, 'requests', stream.requests, ours.requests, permit),
    ]
  })

/** Leaves out ACKs, except one that is the last packet. NAKs remain. */
const withoutAcks = <P extends Sent | Recorded>(list: readonly P[]): readonly P[] =>
  list.filter(({ packet }, i) => i === list.length - 1 || packet.name !== 'RC_ACKNOWLEDGE' || !isPositive(packet))

export const compareLists = (
  qpn: number,
  kind: StreamKind,
  recorded: readonly Recorded[],
  ours: readonly Sent[],
  permit: Permit,
): Difference[] => {
  const differences: Difference[] = []
  let i = 0
  let j = 0
  while (i < recorded.length || j < ours.length) {
    const recordedPacket = recorded[i]
    const ourPacket = ours[j]
    const fields =
      recordedPacket === undefined || ourPacket === undefined
        ? absentPacket(recordedPacket, ourPacket)
        : differingFields(recordedPacket, ourPacket)
    if (fields.length === 0) {
      i++
      j++
      continue
    }
    const difference = { qpn, kind, recorded: recordedPacket, ours: ourPacket, fields }
    const consumed = permit(difference)
    if (consumed === undefined) differences.push(difference)
    i += consumed?.recorded ?? 1
    j += consumed?.ours ?? 1
  }
  return differences
}

const absentPacket = (recorded: Recorded | undefined, ours: Sent | undefined): FieldDifference[] => [
  { path: 'packet', recorded: recorded?.packet.name ?? '-', ours: ours?.packet.name ?? '-' },
]

const describePacket = (packet: WellFormedPacket): string => {
  const { AETH } = headersOf(packet)
  const aeth = AETH === undefined ? '' : ` syndrome 0x${Number(AETH.syndrome).toString(16)} msn ${AETH.msn}`
  return `${packet.name} PSN 0x${packet.BTH.psn.toString(16)}${aeth}`
}

export const describeDifference = ({ qpn, kind, recorded, ours, fields }: Difference): string => {
  const recordedText =
    recorded === undefined ? 'nothing' : `packet ${recorded.number} ${describePacket(recorded.packet)}`
  const ourText = ours === undefined ? 'nothing' : describePacket(ours.packet)
  const fieldTexts = fields.map(f => `${f.path}: ${abbreviate(f.recorded)} ≠ ${abbreviate(f.ours)}`)
  return `QP ${qpn}, ${kind}: ${recordedText}; ours: ${ourText}; ${fieldTexts.join('; ')}`
}
