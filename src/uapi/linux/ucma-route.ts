/*
 * The response of QUERY_ROUTE, struct rdma_ucm_query_route_resp, from the result of `cm_id.query`. The response has
 * addresses as sockaddr_in6 and paths as struct ib_user_path_rec. The result has addresses as sockaddr_storage and
 * paths in the subnet administrator's format (PathRecord, IBA 15.2.5.16).
 */
import { SOCKADDR_IN6_BYTES } from '../../spec/linux/ucma.ts'
import type { AnyRecord } from '../../spec/schema/schema.ts'
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

// MTU, rate and packet life time are a selector (2 bits) and a value (6 bits).
const SELECTOR_SHIFT = 6
const VALUE = 0x3f

/** Writes a PathRecord as struct ib_user_path_rec. The comments name the written fields. */
const writePath = (path: Uint8Array, record: Uint8Array): void => {
  const view = viewOf(path)
  // dgid, sgid, dlid, slid
  path.set(record.subarray(8, 44))
  // from the record: RawTraffic (1 bit), reserved (3), FlowLabel (20), HopLimit (8)
  const traffic = viewOf(record).getUint32(44)
  // raw_traffic, flow_label, reversible, mtu, pkey
  view.setUint32(36, traffic >>> 31, true)
  view.setUint32(40, (traffic >>> 8) & 0xf_ffff)
  view.setUint32(44, record[49]! >> 7, true)
  view.setUint32(48, record[54]! & VALUE, true)
  view.setUint16(52, viewOf(record).getUint16(50))
  // hop_limit, traffic_class, numb_path, sl, mtu_selector
  path[54] = traffic & 0xff
  path[55] = record[48]!
  path[56] = record[49]! & 0x7f
  path[57] = record[53]! & 0xf
  path[58] = record[54]! >> SELECTOR_SHIFT
  // rate_selector, rate, packet_life_time_selector, packet_life_time, preference
  path[59] = record[55]! >> SELECTOR_SHIFT
  path[60] = record[55]! & VALUE
  path[61] = record[56]! >> SELECTOR_SHIFT
  path[62] = record[56]! & VALUE
  path[63] = record[57]!
}

/** Writes the response into `bytes`, which must be 0. `addresses` and `paths`: results of `cm_id.query`. */
export const writeRoute = (bytes: Uint8Array, addresses: AnyRecord, paths: readonly AnyRecord[]): void => {
  const view = viewOf(bytes)
  bytes.set(addresses.nodeGuid as Uint8Array)
  paths.slice(0, MAX_PATHS).forEach(({ record }, i) => {
    const at = PATHS + i * PATH_BYTES
    writePath(bytes.subarray(at, at + PATH_BYTES), record as Uint8Array)
  })
  bytes.set((addresses.source as Uint8Array).subarray(0, SOCKADDR_IN6_BYTES), SOURCE)
  bytes.set((addresses.destination as Uint8Array).subarray(0, SOCKADDR_IN6_BYTES), DESTINATION)
  view.setUint32(COUNT, paths.length, true)
  view.setUint8(PORT, addresses.port as number)
  view.setUint32(DEVICE_INDEX, addresses.deviceIndex as number, true)
}
