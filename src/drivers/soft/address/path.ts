/*
 * Paths of the soft device: the address vector of a queue pair or an address handle becomes a flow of the port (R10;
 * IBA annex A17).
 */
import { type GidTable, getGid } from '../../../core/devices/gids.ts'
import { SystemError } from '../../../host/errno.ts'
import type { QpAddress } from '../../../spec/classes/qp/qp.ts'
import { CallError, callError, knownErrno } from '../../../spec/errno.ts'
import { copyOfBytes } from '../../../spec/memory.ts'
import { because, coded, the } from '../../../spec/reason.ts'
import type { RecordOf } from '../../../spec/schema/schema.ts'
import type { FlowAddress, Port } from '../../../transport/phy/port.ts'
import { addressText, isMappedIpv4, isSameAddress } from '../../../transport/wire/address.ts'
import { ECN_MASK, sourcePortOf } from '../../../transport/wire/flow.ts'

/** UDP source port of packets on a port where others have a cost; receivers accept any (IBA A17). */
const SOURCE_PORT = 4791
/** Hop limit of all packets: that of an address vector is ignored. Linux ignores it except for groups. */
const HOP_LIMIT = 64

export type Address = RecordOf<typeof QpAddress>

/** An address vector, and `dmac`, the next hop's MAC address: only for queries, as the kernel finds the next hop. */
export type StoredAddress = Address & { readonly dmac?: Uint8Array }

/** What a query of a QP without a path returns. On Ethernet a path is global. */
export const noAddress: Address = {
  dgid: new Uint8Array(16),
  flowLabel: 0,
  sgidIndex: 0,
  hopLimit: 0,
  trafficClass: 0,
  sl: 0,
  staticRate: 0,
  isGlobal: 1,
  port: 0,
}

/** A copy that the caller may change. */
export const copyAddress = ({
  dgid,
  flowLabel,
  sgidIndex,
  trafficClass,
  sl,
  staticRate,
  isGlobal,
  port,
  hopLimit,
}: Address): Address => ({
  dgid: copyOfBytes(dgid),
  flowLabel,
  sgidIndex,
  hopLimit,
  trafficClass,
  sl,
  staticRate,
  isGlobal,
  port,
})

/**
 * The attribute `vlan`, with the reason why calls refuse it: the device sends UDP datagrams, and the kernel adds the
 * tag of the interface that has the source address.
 */
export const NO_VLAN = {
  vlan: 'the device tags no frames; use a GID whose address is that of a VLAN interface, which does',
}

/** The results of a query. */
export const addressAnswer = (address: StoredAddress) => ({
  address: copyAddress(address),
  ...(address.dmac && { dmac: address.dmac.slice() }),
})

const isSameMac = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && a.every((byte, i) => byte === b[i]))

/** Without `hopLimit`, which stored addresses do not keep. */
const isSame = (a: Address, b: Address): boolean =>
  isSameAddress(a.dgid, b.dgid) &&
  a.flowLabel === b.flowLabel &&
  a.sgidIndex === b.sgidIndex &&
  a.trafficClass === b.trafficClass &&
  a.sl === b.sl &&
  a.staticRate === b.staticRate &&
  a.isGlobal === b.isGlobal &&
  a.port === b.port

/** A copy of an address, with HOP_LIMIT; or the last copy if it is equal: many objects may have one address. */
export const storedAddress = (
  device: { lastAddress: StoredAddress | undefined },
  address: Address,
  dmac?: Uint8Array,
): StoredAddress => {
  const last = device.lastAddress
  if (last !== undefined && isSame(last, address) && isSameMac(last.dmac, dmac)) return last
  const copy = copyAddress(address)
  const kept = dmac === undefined ? copy : { ...copy, dmac: copyOfBytes(dmac) }
  kept.hopLimit = HOP_LIMIT
  device.lastAddress = kept
  return kept
}

/**
 * The source GID that an address vector selects. Checks come in Linux's order. Throws CallError EINVAL for an
 * impossible vector or a GID index outside the table, and ENODATA for an empty GID index. `method` begins the messages,
 * except those of `getGid`.
 */
export const sourceOf = (gids: GidTable, address: Address, method: string): Uint8Array => {
  const call = the.method(method)
  if (address.port !== 1)
    throw callError.EINVAL`${call}: ${the.addressField('port')} ${address.port}: the device has port 1`
  if (!address.isGlobal)
    throw new CallError(
      'EINVAL',
      coded(
        'not-global',
      )`${call}: ${the.addressField('isGlobal')} is 0: a RoCE path needs a global route (a GID index, \`-g\`)`,
    )
  const { gid } = getGid(gids, address.sgidIndex)
  if (isMappedIpv4(gid) !== isMappedIpv4(address.dgid))
    throw new CallError(
      'EINVAL',
      coded(
        'gid-families',
      )`${call}: ${the.attribute('address')}: GID index ${address.sgidIndex} and the destination GID are not both IPv4 or both IPv6`,
    )
  return gid
}

/** What a path has of its own, beside its address vector. */
interface PathOwner {
  /** ECN field of its packets; 0, the default: that of the address vector. */
  readonly ecn?: number
  /** Both ends, if the path is that of one queue pair. */
  readonly qpn?: number | undefined
  readonly destQpn?: number | undefined
}

/** The path from `source` on `port`, for `openPath`. */
export const flowAddress = (
  port: Pick<Port, 'hasSourcePorts'>,
  source: Uint8Array,
  address: Address,
  { ecn = 0, qpn = 0, destQpn = 0 }: PathOwner = {},
): FlowAddress => ({
  source,
  destination: address.dgid,
  sourcePort: port.hasSourcePorts ? sourcePortOf(address.flowLabel & 0xfffff, qpn, destQpn) : SOURCE_PORT,
  trafficClass: ecn === 0 ? address.trafficClass : (address.trafficClass & ~ECN_MASK) | ecn,
  hopLimit: HOP_LIMIT,
  flowLabel: address.flowLabel & 0xfffff,
})

/**
 * Opens the port's flow for a path. Throws CallError EADDRNOTAVAIL if the port does not have the source address or has
 * too many flows, and with the system's errno if there is no route. `method` begins the
 * message.
 */
export const openPath = (port: Port, path: FlowAddress, method: string): number => {
  try {
    return port.openFlow(path)
  } catch (error) {
    if (error instanceof RangeError) throw callError.EADDRNOTAVAIL`${the.method(method)}: ${error.message}`
    if (error instanceof SystemError)
      throw new CallError(
        knownErrno(error.code, 'ENETUNREACH'),
        because`${the.method(method)}: the system has no route from ${addressText(path.source)} to ${addressText(path.destination)} (${error.code}); \`ip route get\` shows why`,
      )
    throw error
  }
}
