/*
 * The path of a packet (spec/wire/flow.ts): congestion marks, source ports, hashes.
 */
import type { PacketFlow } from '../../spec/wire/flow.ts'

/**
 * The ECN field, the lower two bits of the traffic class (RFC 3168): the sender reacts to marks; a switch has marked
 * the packet, "congestion experienced". 0: the sender does not react.
 */
export const ECN_MASK = 3
export const ECN_CAPABLE = 2
export const ECN_CE = 3

/** Source ports of RoCEv2 packets: this one and those above. */
const FIRST_SOURCE_PORT = 0xc000
const LABEL_SPACE = 2 ** 20

/** The UDP source port that stands for a flow label, as Linux's rdma_flow_label_to_udp_sport: both halves count. */
const portOfLabel = (label: number): number => FIRST_SOURCE_PORT | ((label ^ (label >>> 14)) & 0x3fff)

/**
 * The UDP source port of a queue pair's packets, as Linux's rdma_get_udp_sport: from the flow label (20 bits) or, if
 * that is 0, from both QPNs, so that switches spread queue pairs over paths.
 */
export const sourcePortOf = (flowLabel: number, qpn: number, destQpn: number): number => {
  if (flowLabel !== 0) return portOfLabel(flowLabel)
  // up to 48 bits, which a double has exactly
  const product = qpn * destQpn
  const middle = Math.floor(product / LABEL_SPACE)
  return portOfLabel((product % LABEL_SPACE) ^ (middle % LABEL_SPACE) ^ Math.floor(middle / LABEL_SPACE))
}

/** The UDP source port of a UD queue pair's datagrams, as Linux's rxe (rxe_qp_init_req, hash_32). */
export const datagramSourcePort = (qpn: number): number => FIRST_SOURCE_PORT | (Math.imul(qpn, 0x61c8_8647) >>> 18)

const markedFlows = new WeakMap<PacketFlow, PacketFlow>()

/** The flow of marked packets of `flow`: the same object each time. */
export const markedFlow = (flow: PacketFlow): PacketFlow => {
  let marked = markedFlows.get(flow)
  if (marked === undefined) {
    marked = { ...flow, trafficClass: flow.trafficClass | ECN_CE }
    markedFlows.set(flow, marked)
  }
  return marked
}

/** By flow, and number of routers. */
const routedFlows = new WeakMap<PacketFlow, PacketFlow[]>()

/** The flow of packets of `flow` behind so many routers: the same object each time. */
export const routedFlow = (flow: PacketFlow, hops: number): PacketFlow => {
  let routed = routedFlows.get(flow)
  if (routed === undefined) {
    routed = []
    routedFlows.set(flow, routed)
  }
  routed[hops] ??= { ...flow, hopLimit: flow.hopLimit - hops }
  return routed[hops]
}

/**
 * A number of 32 bits for the addresses of a flow; rarely others have the same. `isBack`: of the opposite direction.
 */
export const flowHash = (
  { source, destination }: Pick<PacketFlow, 'source' | 'destination'>,
  isBack = false,
): number => {
  let hash = 0
  for (const address of isBack ? [destination, source] : [source, destination])
    for (const byte of address) hash = (Math.imul(hash, 31) + byte) | 0
  return hash
}
