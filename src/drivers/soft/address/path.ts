/*
 * Paths of the soft device: the address vector of a queue pair or an address handle becomes a flow of the port (R10;
 * IBA annex A17). A port is of one of two kinds, and `Paths` is what differs: a GID alone is the path on RoCE, a LID on
 * InfiniBand, where packets may have a GRH (infiniband.ts). No other file of the device asks which it is.
 */
import { findGid, type GidTable, type GidTableEntry, getGid } from '../../../core/devices/gids.ts'
import type { MadAddress } from '../../../core/driver-contract.ts'
import { SystemError } from '../../../host/errno.ts'
import type { IbAddress } from '../../../spec/classes/qp/qp.ts'
import { GidType } from '../../../spec/enums.ts'
import { CallError, callError, knownErrno } from '../../../spec/errno.ts'
import { copyOfBytes } from '../../../spec/memory.ts'
import { because, coded, the } from '../../../spec/reason.ts'
import type { RecordOf } from '../../../spec/schema/schema.ts'
import { ROUTE_HOP_LIMIT } from '../../../spec/wire/flow.ts'
import type { FlowAddress, Port } from '../../../transport/phy/port.ts'
import { addressText, isMappedIpv4, isMulticastGid, isSameAddress } from '../../../transport/wire/address.ts'
import { datagramSourcePort, ECN_MASK, sourcePortOf } from '../../../transport/wire/flow.ts'
import { type GrhBuilderOf, roceGrh } from './grh.ts'

/** An address vector, of either kind. On RoCE `dlid` and `srcPathBits` are 0. */
export type Address = RecordOf<typeof IbAddress>
/** As it stands in calls: those of RoCE have no LIDs. */
type GivenAddress = Omit<Address, 'dlid' | 'srcPathBits'> & Partial<Pick<Address, 'dlid' | 'srcPathBits'>>
/** The address of a call, whose attribute depends on the link (spec/links.ts). */
export interface AddressArguments {
  readonly address?: GivenAddress | undefined
  readonly ibAddress?: Address | undefined
}

/** An address vector, and `dmac`, the next hop's MAC address: only for queries, as the kernel finds the next hop. */
export type StoredAddress = Address & { readonly dmac?: Uint8Array }

export const noAddress: Address = {
  dgid: new Uint8Array(16),
  flowLabel: 0,
  sgidIndex: 0,
  hopLimit: 0,
  trafficClass: 0,
  sl: 0,
  staticRate: 0,
  isGlobal: 0,
  port: 0,
  srcPathBits: 0,
  dlid: 0,
}

const copyWithoutLids = (address: GivenAddress): GivenAddress => ({
  dgid: copyOfBytes(address.dgid),
  flowLabel: address.flowLabel,
  sgidIndex: address.sgidIndex,
  hopLimit: address.hopLimit,
  trafficClass: address.trafficClass,
  sl: address.sl,
  staticRate: address.staticRate,
  isGlobal: address.isGlobal,
  port: address.port,
})

/** A copy that the caller may change. */
export const copyAddress = (address: GivenAddress, hopLimit = address.hopLimit): Address => ({
  dgid: copyOfBytes(address.dgid),
  flowLabel: address.flowLabel,
  sgidIndex: address.sgidIndex,
  hopLimit,
  trafficClass: address.trafficClass,
  sl: address.sl,
  staticRate: address.staticRate,
  isGlobal: address.isGlobal,
  port: address.port,
  srcPathBits: address.srcPathBits ?? 0,
  dlid: address.dlid ?? 0,
})

/**
 * The attribute `vlan`, with the reason why calls refuse it: the device sends UDP datagrams, and the kernel adds the
 * tag of the interface that has the source address.
 */
export const NO_VLAN = {
  vlan: 'the device tags no frames; use a GID whose address is that of a VLAN interface, which does',
}

const isSameMac = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && a.every((byte, i) => byte === b[i]))

const isSame = (a: Address, b: Address): boolean =>
  isSameAddress(a.dgid, b.dgid) &&
  a.flowLabel === b.flowLabel &&
  a.sgidIndex === b.sgidIndex &&
  a.hopLimit === b.hopLimit &&
  a.trafficClass === b.trafficClass &&
  a.sl === b.sl &&
  a.staticRate === b.staticRate &&
  a.isGlobal === b.isGlobal &&
  a.port === b.port &&
  a.dlid === b.dlid &&
  a.srcPathBits === b.srcPathBits

/** A copy of an address, or the last copy if it is equal: many objects may have one address. */
export const storedAddress = (
  device: { lastAddress: StoredAddress | undefined; readonly paths: Pick<Paths, 'hopLimitOf'> },
  given: GivenAddress,
  dmac?: Uint8Array,
  hopLimit = device.paths.hopLimitOf(given),
): StoredAddress => {
  const address = copyAddress(given, hopLimit)
  const last = device.lastAddress
  if (last !== undefined && isSame(last, address) && isSameMac(last.dmac, dmac)) return last
  const kept = dmac === undefined ? address : { ...address, dmac: copyOfBytes(dmac) }
  device.lastAddress = kept
  return kept
}

/** What a path has of its own, beside its address vector. */
interface PathOwner {
  /** ECN field of its packets; 0, the default: that of the address vector. */
  readonly ecn?: number
  /** Both ends, if the path is that of one queue pair; `qpn` alone: that of its datagrams, by an adapter as rxe. */
  readonly qpn?: number | undefined
  readonly destQpn?: number | undefined
  /** On RoCE: of an adapter that sends the hop limit as given. Absent: that of the route. */
  readonly hopLimit?: number | undefined
}

/**
 * How the port of a device addresses paths. Functions throw CallError; `method` begins their messages, except those of
 * `getGid`.
 */
export interface Paths {
  /** The address vector in arguments of a call; and what `answer` returns is arguments again. */
  given(args: AddressArguments): Address | undefined
  readonly grhBuilder: GrhBuilderOf
  /** Each queue pair sends its datagrams by a flow of its own: `PathOwner.qpn`. */
  readonly hasOwnFlows: boolean
  /** By which the network forwards the packets of a group; a copy. */
  groupAddress(gid: Uint8Array, mlid: number): Uint8Array
  /** The multicast LID with which a program attaches. Throws CallError EINVAL, as Linux's ib_attach_mcast. */
  checkGroupLid(mlid: number): void
  /** Whether packets of the flow are only for groups: a multicast LID, which QPNs of queue pairs do not go with. */
  isToGroup(flow: FlowAddress): boolean
  /** The GID of the group of a multicast packet. */
  groupOf(flow: FlowAddress): Uint8Array
  /** Without a path; what a query of a QP without one returns. */
  readonly none: Address
  /** The results of a query. */
  answer(address: StoredAddress): Readonly<Record<string, object>>
  /** The result of a query for the alternate path, which no device has. */
  noAlternate(): Readonly<Record<string, object>>
  /** The hop limit of the path's packets. */
  hopLimitOf(address: Pick<Address, 'hopLimit' | 'sgidIndex' | 'dgid'>): number
  /**
   * Throws CallError EINVAL for an impossible vector or a GID index outside the table, and ENODATA for an empty GID
   * index.
   */
  check(address: Address, method: string): void
  /** The GID index of a path, which its owner holds; -1: it has none. */
  gidIndexOf(address: Address): number
  /**
   * The flow of the path. Throws as `check`, and EADDRNOTAVAIL if the port does not have the source address or has too
   * many flows, and the system's errno if there is no route.
   */
  open(address: Address, method: string, owner?: PathOwner): number
  /** `Port.peerOf` of the destination. */
  peerOf(address: Address): number
  /** The address vector of packets back to the sender of packets of this flow, and their flow; throws as `open`. */
  back(flow: PathBack): Address
  openBack(flow: PathBack, method: string, owner?: PathOwner): number
  /** What names the peer at the other end in failures and for tools: its GID, or its LID as `lidAddress` writes it. */
  peerAddress(address: Address): Uint8Array
  /** What names the destination of a datagram for tools: the GID of a group, else as `peerAddress`. */
  datagramAddress(address: Address): Uint8Array
  /** Whether the path leads to this port. */
  leadsTo(address: Address, port: { readonly gids: GidTable; readonly attributes: { readonly lid: number } }): boolean
  /** The ends of a received datagram for core's clients. */
  ends(flow: FlowAddress): Pick<MadAddress, 'localGid' | 'remoteGid' | 'lids'>
  /** The flow of a datagram of core's clients, which queue pair `qpn` sends. */
  openDatagram(to: DatagramPath, qpn: number): number
}

/** Fields of a received packet's flow. */
export type PathBack = Pick<FlowAddress, 'source' | 'destination' | 'flowLabel' | 'trafficClass' | 'sl' | 'grh'>

/** The path of a datagram of core's clients: `MadAddress`. */
type DatagramPath = Pick<MadAddress, 'localGid' | 'remoteGid' | 'flowLabel' | 'trafficClass' | 'hopLimit' | 'lids'>

/** Throws CallError EINVAL for another port than 1. */
export const requirePort = ({ port }: Address, method: string): void => {
  if (port !== 1)
    throw callError.EINVAL`${the.method(method)}: ${the.addressField('port')} ${port}: the device has port 1`
}

/** Opens the port's flow. Throws as `Paths.open`. */
export const openPath = (port: Port, path: FlowAddress, method: string): number => {
  try {
    return port.openFlow(path)
  } catch (error) {
    if (error instanceof RangeError) throw callError.EADDRNOTAVAIL`${the.method(method)}: ${error.message}`
    if (error instanceof SystemError)
      throw new CallError(
        knownErrno(error.code, 'ENETUNREACH'),
        because`${the.method(method)}: the system has no route from ${addressText(path.source)} to ${addressText(path.destination)} (${error.code}); \`ip route get\` with \`oif\` and the interface of the device shows why`,
      )
    throw error
  }
}

/** A path of RoCE v1: a GRH with the addresses stands in place of IP and UDP. */
const withGrh = (flow: FlowAddress): FlowAddress => ({
  ...flow,
  sourcePort: 0,
  grh: { source: flow.source, destination: flow.destination },
})

/** The path of RoCE v2 from `source`. */
export const flowAddress = (
  source: Uint8Array,
  address: GivenAddress,
  { ecn = 0, qpn, destQpn, hopLimit = ROUTE_HOP_LIMIT }: PathOwner = {},
): FlowAddress => ({
  source,
  destination: address.dgid,
  sourcePort:
    qpn !== undefined && destQpn === undefined
      ? datagramSourcePort(qpn)
      : sourcePortOf(address.flowLabel & 0xfffff, qpn ?? 0, destQpn ?? 0),
  trafficClass: ecn === 0 ? address.trafficClass : (address.trafficClass & ~ECN_MASK) | ecn,
  hopLimit,
  flowLabel: address.flowLabel & 0xfffff,
})

/** Paths of a port of RoCE: each is global. `sendsAsRxe`: of `DeviceKind`. */
export const rocePaths = (port: Port, gids: () => GidTable, sendsAsRxe = false): Paths => {
  const none: Address = { ...noAddress, isGlobal: 1 }
  const isV1 = (type: number | undefined): boolean => type === GidType.values.ROCE_V1
  /** The source GID that an address vector selects. Checks come in Linux's order. */
  const sourceOf = (address: Address, method: string): GidTableEntry => {
    const call = the.method(method)
    requirePort(address, method)
    if (!address.isGlobal)
      throw new CallError(
        'EINVAL',
        coded(
          'not-global',
        )`${call}: ${the.addressField('isGlobal')} is 0: a RoCE path needs a global route (a GID index, \`-g\`)`,
      )
    const entry = getGid(gids(), address.sgidIndex)
    const { gid, type } = entry
    if (isMappedIpv4(gid) !== isMappedIpv4(address.dgid))
      throw new CallError(
        'EINVAL',
        coded(
          'gid-families',
        )`${call}: ${the.attribute('address')}: GID index ${address.sgidIndex} and the destination GID are not both IPv4 or both IPv6`,
      )
    if (isV1(type) && port.hasRoceV1 !== true)
      throw new CallError(
        'EOPNOTSUPP',
        coded(
          'gid-roce-v1',
        )`${call}: ${the.attribute('address')}: GID index ${address.sgidIndex} is of RoCE v1, whose frames (ethertype 0x8915) UDP sockets do not carry; GID index ${findGid(gids(), gid)} has the same address on RoCE v2`,
      )
    return entry
  }
  /** Of the route from a GID. */
  const hopsBetween = (source: Uint8Array | undefined, dgid: Uint8Array): number =>
    (source && !isMulticastGid(dgid) ? port.hopLimitOf?.(source, dgid) : undefined) ?? ROUTE_HOP_LIMIT
  const flowOf = (source: Uint8Array, address: GivenAddress, owner: PathOwner = {}): FlowAddress => {
    const { hopLimit = hopsBetween(source, address.dgid) } = owner
    const flow = flowAddress(source, address, { ...owner, hopLimit })
    return sendsAsRxe ? { ...flow, flowLabel: 0 } : flow
  }
  const opened = (source: Uint8Array, address: GivenAddress, isOfV1: boolean, method: string, owner?: PathOwner) => {
    const flow = flowOf(source, address, owner)
    return openPath(port, isOfV1 ? withGrh(flow) : flow, method)
  }
  return {
    grhBuilder: roceGrh,
    hasOwnFlows: sendsAsRxe,
    groupAddress: gid => copyOfBytes(gid),
    // RoCE ignores it (IBA annex A17.9).
    checkGroupLid() {},
    isToGroup: () => false,
    groupOf: ({ destination }) => destination,
    none,
    given: ({ address }) => address && copyAddress(address),
    answer: stored => ({ address: copyWithoutLids(stored), ...(stored.dmac && { dmac: stored.dmac.slice() }) }),
    noAlternate: () => ({ alternatePath: { ...copyWithoutLids(none), altPort: 0, pkeyIndex: 0, timeout: 0 } }),
    hopLimitOf: ({ sgidIndex, dgid }) => hopsBetween(gids().entries[sgidIndex]?.gid, dgid),
    check: sourceOf,
    gidIndexOf: ({ sgidIndex }) => sgidIndex,
    open: (address, method, owner) => {
      const { gid, type } = sourceOf(address, method)
      return opened(gid, address, isV1(type), method, owner)
    },
    peerOf: ({ dgid, sgidIndex }) => port.peerOf(dgid, isV1(gids().entries[sgidIndex]?.type)),
    back: ({ source, flowLabel, trafficClass }) => ({ ...none, dgid: source, flowLabel, trafficClass, port: 1 }),
    openBack: ({ source, destination, flowLabel, trafficClass, grh }, method, owner) =>
      opened(destination, { ...none, dgid: source, flowLabel, trafficClass }, grh !== undefined, method, owner),
    peerAddress: ({ dgid }) => dgid,
    datagramAddress: ({ dgid }) => dgid,
    leadsTo: ({ dgid }, port) => findGid(port.gids, dgid) >= 0,
    ends: ({ source, destination }) => ({ localGid: destination, remoteGid: source }),
    openDatagram: ({ localGid, remoteGid, flowLabel, trafficClass }, qpn) =>
      port.openFlow(
        flowOf(localGid, { ...none, dgid: remoteGid, flowLabel, trafficClass }, sendsAsRxe ? { qpn } : undefined),
      ),
  }
}
