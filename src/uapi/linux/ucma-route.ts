/*
 * The response of QUERY_ROUTE, struct rdma_ucm_query_route_resp, from the result of `cm_id.query`. The response has
 * addresses as sockaddr_in6 and paths as struct ib_user_path_rec. The result has addresses as sockaddr_storage and
 * paths in the subnet administrator's format (PathRecord, IBA 15.2.5.16). Before the route is resolved, the response
 * has 0 paths, but the GIDs and the P_Key are already in the first path's place, as on Linux.
 */
import { SOCKADDR_IN6_BYTES } from '../../spec/linux/ucma.ts'
import type { AnyRecord } from '../../spec/schema/schema.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import { viewOf } from '../scalar.ts'

// Offsets in the response, size and maximum number of paths.
const PATHS = 8
const PATH_BYTES = 64
const MAX_PATHS = 2
const SOURCE = 136
const DESTINATION = 164
const COUNT = 192
const PORT = 196
const DEVICE_INDEX = 200

/** Offsets in a PathRecord. */
const PathRecord = {
  /** DGID, SGID, DLID, SLID. */
  ADDRESSES: 8,
  /** RawTraffic (1 bit), reserved (3), FlowLabel (20), HopLimit (8). */
  TRAFFIC: 44,
  TRAFFIC_CLASS: 48,
  /** Reversible (1 bit), NumbPath (7). */
  REVERSIBLE: 49,
  PKEY: 50,
  /** In the lower 4 bits. */
  SL: 53,
  // MTU, RATE and LIFE_TIME: a selector (2 bits) and a value (6 bits).
  MTU: 54,
  RATE: 55,
  LIFE_TIME: 56,
  PREFERENCE: 57,
} as const
const SELECTOR_SHIFT = 6
const VALUE = 0x3f

/** Offsets in struct ib_user_path_rec. */
const UserPath = {
  /** DGID, SGID, DLID, SLID. */
  ADDRESSES: 0,
  SGID: 16,
  RAW_TRAFFIC: 36,
  FLOW_LABEL: 40,
  REVERSIBLE: 44,
  MTU: 48,
  PKEY: 52,
  HOP_LIMIT: 54,
  TRAFFIC_CLASS: 55,
  NUMB_PATH: 56,
  SL: 57,
  MTU_SELECTOR: 58,
  RATE_SELECTOR: 59,
  RATE: 60,
  LIFE_TIME_SELECTOR: 61,
  LIFE_TIME: 62,
  PREFERENCE: 63,
} as const

/** Writes a PathRecord as struct ib_user_path_rec. */
const writePath = (path: Uint8Array, record: Uint8Array): void => {
  const view = viewOf(path)
  const from = viewOf(record)
  const traffic = from.getUint32(PathRecord.TRAFFIC)
  const mtu = record[PathRecord.MTU]!
  const rate = record[PathRecord.RATE]!
  const lifeTime = record[PathRecord.LIFE_TIME]!
  path.set(record.subarray(PathRecord.ADDRESSES, PathRecord.TRAFFIC), UserPath.ADDRESSES)
  view.setUint32(UserPath.RAW_TRAFFIC, traffic >>> 31, true)
  view.setUint32(UserPath.FLOW_LABEL, (traffic >>> 8) & 0xf_ffff)
  view.setUint32(UserPath.REVERSIBLE, record[PathRecord.REVERSIBLE]! >> 7, true)
  view.setUint32(UserPath.MTU, mtu & VALUE, true)
  view.setUint16(UserPath.PKEY, from.getUint16(PathRecord.PKEY))
  path[UserPath.HOP_LIMIT] = traffic & 0xff
  path[UserPath.TRAFFIC_CLASS] = record[PathRecord.TRAFFIC_CLASS]!
  path[UserPath.NUMB_PATH] = record[PathRecord.REVERSIBLE]! & 0x7f
  path[UserPath.SL] = record[PathRecord.SL]! & 0xf
  path[UserPath.MTU_SELECTOR] = mtu >> SELECTOR_SHIFT
  path[UserPath.RATE_SELECTOR] = rate >> SELECTOR_SHIFT
  path[UserPath.RATE] = rate & VALUE
  path[UserPath.LIFE_TIME_SELECTOR] = lifeTime >> SELECTOR_SHIFT
  path[UserPath.LIFE_TIME] = lifeTime & VALUE
  path[UserPath.PREFERENCE] = record[PathRecord.PREFERENCE]!
}

const AF_INET = 2
const AF_INET6 = 10

/** Writes the GID of an IP address; that of an IPv4 address is the mapped IPv6 address. Other families are ignored. */
const writeGid = (gid: Uint8Array, sockaddr: Uint8Array): void => {
  const family = viewOf(sockaddr).getUint16(0, true)
  if (family === AF_INET6) gid.set(sockaddr.subarray(8, 24))
  if (family !== AF_INET) return
  gid.fill(0xff, 10, 12)
  gid.set(sockaddr.subarray(4, 8), 12)
}

/** Writes the response into `bytes`, which are all 0. `addresses` and `paths`: results of `cm_id.query`. */
export const writeRoute = (bytes: Uint8Array, addresses: AnyRecord, paths: readonly AnyRecord[]): void => {
  const view = viewOf(bytes)
  bytes.set(addresses.nodeGuid as Uint8Array)
  paths.slice(0, MAX_PATHS).forEach(({ record }, i) => {
    const at = PATHS + i * PATH_BYTES
    writePath(bytes.subarray(at, at + PATH_BYTES), record as Uint8Array)
  })
  const source = addresses.source as Uint8Array
  const destination = addresses.destination as Uint8Array
  // With port 0 the identifier has no device yet.
  if (paths.length === 0 && addresses.port !== 0) {
    writeGid(bytes.subarray(PATHS, PATHS + UserPath.SGID), destination)
    writeGid(bytes.subarray(PATHS + UserPath.SGID, PATHS + UserPath.RAW_TRAFFIC), source)
    view.setUint16(PATHS + UserPath.PKEY, DEFAULT_PKEY)
  }
  bytes.set(source.subarray(0, SOCKADDR_IN6_BYTES), SOURCE)
  bytes.set(destination.subarray(0, SOCKADDR_IN6_BYTES), DESTINATION)
  view.setUint32(COUNT, paths.length, true)
  view.setUint8(PORT, addresses.port as number)
  view.setUint32(DEVICE_INDEX, addresses.deviceIndex as number, true)
}
