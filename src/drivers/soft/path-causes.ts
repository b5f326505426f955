/*
 * Why a path carries nothing. What no router forwards: link-local addresses, RoCE v1, and packets whose hop limit ends
 * there. Linux replaces the hop limit where it resolves the path (address handles of rxe, connected queue pairs);
 * address handles of adapters and queue pairs of firmware commands send it as given. And classes that simulated links
 * hold.
 */
import type { GidTable } from '../../core/devices/gids.ts'
import type { Device } from '../../core/model.ts'
import { type Cause, createCause } from '../../spec/check/causes.ts'
import type { RoutedPath, RouterHazard } from '../../spec/check/probes.ts'
import { GidType } from '../../spec/enums.ts'
import type { Port } from '../../transport/phy/port.ts'
import { addressText, isLinkLocal, isMulticastGid } from '../../transport/wire/address.ts'
import type { QueuePair, SoftState } from './state.ts'

/** The highest hop limit with which packets end at the first router. */
const LAST_HOP = 1

const isV1 = ({ entries }: GidTable, index: number): boolean => entries[index]?.type === GidType.values.ROCE_V1

const sendsGivenHops = (qp: QueuePair | undefined): boolean => qp?.sendsGivenHops === true

/** If a router is on the way, or links lose the packets. */
const causeByRouter = ({ queues, port, fabric }: SoftState, gids: GidTable, row: number): Cause | undefined => {
  const qp = queues[row]
  const { address } = qp ?? {}
  if (qp === undefined || address === undefined || fabric !== undefined) return undefined
  const dgid = addressText(address.dgid)
  const router = port.routerTo?.(address.dgid)
  return (
    (router === undefined ? undefined : causeAtRouter(qp, gids, address, dgid, router)) ??
    causeByLoss(port, qp.flow, dgid)
  )
}

/** Links or nodes have lost packets of the path. */
const causeByLoss = ({ links, recordOf }: Port, flow: number, dgid: string): Cause | undefined => {
  const loss = flow < 0 ? undefined : links?.lossOf(recordOf(flow))
  if (loss === undefined) return undefined
  const { packets, reason, from, to = '', mtu } = loss
  if (reason === 'mtu') return createCause('LONGER_THAN_MTU', { from, to, mtu, packets })
  return reason === 'ttl'
    ? createCause('TTL_ENDED', { packets, from })
    : createCause('NO_ROUTE', { from, dgid, packets })
}

const causeAtRouter = (
  qp: QueuePair,
  gids: GidTable,
  address: NonNullable<QueuePair['address']>,
  dgid: string,
  router: string,
): Cause | undefined => {
  if (isV1(gids, address.sgidIndex)) return createCause('ROCE_V1_ROUTED', { index: address.sgidIndex, dgid, router })
  if (isLinkLocal(address.dgid)) return createCause('LINK_LOCAL_ROUTED', { dgid, router })
  return sendsGivenHops(qp) && address.hopLimit <= LAST_HOP
    ? createCause('HOP_LIMIT_ENDED', { hopLimit: address.hopLimit, dgid, router })
    : undefined
}

/** Simulated links pause the queue pair's class, or have lost packets of it while another class loses none. */
const causeByClass = ({ queues, port }: SoftState, row: number): Cause | undefined => {
  const flow = queues[row]?.flow ?? -1
  const held = flow < 0 ? undefined : port.links?.heldClass(port.recordOf(flow))
  if (held === undefined) return undefined
  const { lossy, ...place } = held
  return lossy === undefined ? createCause('CLASS_PAUSED', place) : createCause('LOSSY_CLASS', { ...place, ...lossy })
}

/** The cause that takes the place of NO_ANSWER. */
export const causeByPath = (state: SoftState, gids: GidTable, row: number): Cause | undefined =>
  causeByRouter(state, gids, row) ?? causeByClass(state, row)

/** `RequestReader.routerHazard` */
export const routerHazardOf = (
  { ports, state }: Device,
  qpn: number | undefined,
  { dgid, sgidIndex, hopLimit }: RoutedPath,
): RouterHazard | undefined => {
  const { port, paths, queues, qpns, fabric } = state as SoftState
  const isOfV1 = isV1(ports[0]!.gids, sgidIndex)
  const isGiven = qpn === undefined ? !paths.hasOwnFlows : sendsGivenHops(queues[qpns.rowOf(qpn)])
  const hasHops = hopLimit > LAST_HOP || (qpn !== undefined && !isGiven)
  if (fabric !== undefined || isLinkLocal(dgid) || isMulticastGid(dgid) || (!isOfV1 && hasHops)) return undefined
  const router = port.routerTo?.(dgid)
  const way = router === undefined ? {} : { way: `the router ${router} is on the way to ${addressText(dgid)}` }
  return isOfV1 ? { isRoceV1: true, ...way } : { isReplaced: !isGiven, ...way }
}
