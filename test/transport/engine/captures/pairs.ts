/*
 * Finds the connected queue pairs of a capture. RC and UC packets name only the destination QP; the source QP is
 * derived from the responses. A `Pair` is one direction: requests to `responderQpn`, responses to `requesterQpn`.
 */
import { OP_READ } from '../../../../src/spec/wire/opcodes.ts'
import { Service } from '../../../../src/spec/wire/services.ts'
import { psnDistance } from '../../../../src/transport/engine/psn.ts'
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
  /** UNKNOWN_QPN if nothing was sent to the requester. */
  readonly requesterQpn: number
  readonly responderQpn: number
  /** PSN of the first request. */
  readonly firstPsn: number
  /** Path MTU; DEFAULT_MTU if there is no FIRST or MIDDLE packet. */
  readonly mtu: number
}

const UNKNOWN_QPN = 0xabcd
const DEFAULT_MTU = 1024

const CONNECTED = { RC: Service.RC, UC: Service.UC } as const
type ConnectedName = keyof typeof CONNECTED
const serviceOf = ({ packet }: Entry): string => packet.name.slice(0, packet.name.indexOf('_'))

const unique = (values: readonly number[]): number[] => [...new Set(values)]

/** The payload length of a FIRST or MIDDLE packet. */
const mtuOf = (entries: readonly Entry[]): number | undefined =>
  entries.find(e => /_(FIRST|MIDDLE)$/.test(e.packet.name))?.packet.payload.length

/** All directions with requests. Side 0's direction of a connection comes first. */
export const pairsOf = ({ entries }: Conversation): Pair[] => [
  ...(['RC', 'UC'] as const).flatMap(name =>
    connectionsOf(
      name,
      entries.filter(e => serviceOf(e) === name),
    ),
  ),
  ...datagramsOf(entries.filter(e => serviceOf(e) === 'UD')),
]

/** One pair for each source QP and destination QP. Multicast datagrams go to QP 0xffffff. */
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
    // UC has no responses: the peer is known only if side 0 has one queue pair.
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

/** Whether the packets belong to one RC connection. */
const areConnected = (toServer: readonly Entry[], toClient: readonly Entry[]): boolean =>
  hasResponses(toServer, toClient) && hasResponses(toClient, toServer)

/** No recorded READ has more responses. */
const MAX_READ_PSNS = 64

/**
 * Whether all responses in `received` have PSNs of requests in `sent`. With requests there must be at least one
 * response, without requests none.
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

/** The QPN on `side`. */
export const qpnOn = (pair: Pair, side: Side): number =>
  pair.requester === side ? pair.requesterQpn : pair.responderQpn
/** The QPN on the other side. */
export const peerQpnOf = (pair: Pair, side: Side): number => qpnOn(pair, otherSide(side))
