/*
 * Which queue pairs of a capture are connected. A packet names only its destination, so the source is derived from the
 * responses. One pair here is one direction: requests to `responderQpn`, responses to `requesterQpn`.
 */
import { OP_READ } from '../../../src/spec/wire/opcodes.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { psnDistance } from '../../../src/transport/psn.ts'
import {
  type Conversation,
  type Entry,
  field,
  flagsOf,
  isRequest,
  isResponse,
  otherSide,
  type Side,
} from './conversation.ts'

export interface Pair {
  /** A `Service` value. */
  readonly service: number
  readonly requester: Side
  /** A QPN that occurs in no packet if nothing was sent to the requester. */
  readonly requesterQpn: number
  readonly responderQpn: number
  /** PSN of the first request. */
  readonly firstPsn: number
  /** Path MTU: the payload length of a FIRST or MIDDLE; DEFAULT_MTU if there is none. */
  readonly mtu: number
}

export const UNKNOWN_QPN = 0xabcd
const DEFAULT_MTU = 1024

const CONNECTED = { RC: Service.RC, UC: Service.UC } as const
type ConnectedName = keyof typeof CONNECTED
const serviceOf = ({ packet }: Entry): string => packet.name.slice(0, packet.name.indexOf('_'))

const unique = (values: readonly number[]): number[] => [...new Set(values)]

/** The path MTU of these packets, if one of them is a FIRST or MIDDLE. */
const mtuOf = (entries: readonly Entry[]): number | undefined =>
  entries.find(e => /_(FIRST|MIDDLE)$/.test(e.packet.name))?.packet.payload.length

/** The directions of each connection in which there are requests, that of side 0 first, and each datagram path. */
export const pairsOf = ({ entries }: Conversation): Pair[] => [
  ...(['RC', 'UC'] as const).flatMap(name =>
    connectionsOf(
      name,
      entries.filter(e => serviceOf(e) === name),
    ),
  ),
  ...datagramsOf(entries.filter(e => serviceOf(e) === 'UD')),
]

/** The paths of datagrams, which name their source. A multicast datagram counts as one to QP number 0xffffff. */
const datagramsOf = (entries: readonly Entry[]): Pair[] => {
  const pairs: Pair[] = []
  for (const { from, packet } of entries) {
    const requesterQpn = field(packet, 'DETH', 'srcQp')
    const { destQp: responderQpn, psn: firstPsn } = packet.BTH
    const isKnown = pairs.some(
      p => p.requester === from && p.requesterQpn === requesterQpn && p.responderQpn === responderQpn,
    )
    const pair = { service: Service.UD, requester: from, requesterQpn, responderQpn, firstPsn, mtu: DEFAULT_MTU }
    if (!isKnown) pairs.push(pair)
  }
  return pairs
}

const connectionsOf = (name: ConnectedName, entries: readonly Entry[]): Pair[] => {
  const packetsTo = (side: Side, qpn: number): Entry[] =>
    entries.filter(e => e.from !== side && e.packet.BTH.destQp === qpn)
  const qpns = (side: Side): number[] => unique(entries.filter(e => e.from !== side).map(e => e.packet.BTH.destQp))
  const pairs: Pair[] = []
  /** Queue pairs of side 0 whose peer is found. */
  const paired = new Set<number>()
  for (const server of qpns(1)) {
    const toServer = packetsTo(1, server)
    const isPeer = (qpn: number): boolean =>
      !paired.has(qpn) && (name === 'UC' ? qpns(0).length === 1 : areConnected(toServer, packetsTo(0, qpn)))
    const client = qpns(0).find(isPeer) ?? UNKNOWN_QPN
    paired.add(client)
    const toClient = packetsTo(0, client)
    const mtu = mtuOf(toServer) ?? mtuOf(toClient) ?? DEFAULT_MTU
    const addDirection = (
      requester: Side,
      requesterQpn: number,
      responderQpn: number,
      sent: readonly Entry[],
    ): void => {
      const first = sent.find(e => isRequest(e.packet))
      if (first === undefined) return
      const service = CONNECTED[name]
      pairs.push({ service, requester, requesterQpn, responderQpn, firstPsn: first.packet.BTH.psn, mtu })
    }
    addDirection(0, client, server, toServer)
    addDirection(1, server, client, toClient)
  }
  return pairs
}

/** Whether the packets to two queue pairs, one of each side, are those of one RC connection. */
const areConnected = (toServer: readonly Entry[], toClient: readonly Entry[]): boolean =>
  hasResponses(toServer, toClient) && hasResponses(toClient, toServer)

/** At least the number of responses to the longest recorded READ. */
const MAX_READ_PSNS = 64

/**
 * Whether the responses in `received` have PSNs of the requests in `sent`: all of them and at least one, or none if
 * there is no request.
 */
const hasResponses = (sent: readonly Entry[], received: readonly Entry[]): boolean => {
  const requests = sent.filter(e => isRequest(e.packet))
  const responses = received.filter(e => isResponse(e.packet))
  if (requests.length === 0) return responses.length === 0
  const first = requests[0].packet.BTH.psn
  const psns = Math.max(
    ...requests.map(
      e => psnDistance(first, e.packet.BTH.psn) + ((flagsOf(e.packet) & OP_READ) !== 0 ? MAX_READ_PSNS : 1),
    ),
  )
  return responses.length > 0 && responses.every(e => psnDistance(first, e.packet.BTH.psn) < psns)
}

/** The QPN of a pair's queue pair on this side; `peerOf`: of its peer. */
export const qpnOn = (pair: Pair, side: Side): number =>
  pair.requester === side ? pair.requesterQpn : pair.responderQpn
export const peerOf = (pair: Pair, side: Side): number => qpnOn(pair, otherSide(side))
