/*
 * The path of an identifier as a record of the subnet administrator (IBA 15.2.5.16): RoCE has none, so it is made up
 * from addresses and port, as Linux does.
 */
import type { CmPathRecord } from '../../spec/classes/cm_parameters.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import { rdmaCmServiceId } from '../../wire/mad.ts'
import type { Identifier } from './identifier.ts'
import { Family } from './socket-address.ts'

/** IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL */
const FLAGS = 0x2b
/** A selector that says "exactly" before a value of 6 bits. */
const EXACTLY = 0x80
const HOP_LIMIT = 64
const PACKET_LIFE_TIME = 16
const REVERSIBLE = 0x80
const PKEY = 0xffff

/** None before the route is resolved. */
export const pathRecord = (id: Identifier): RecordOf<typeof CmPathRecord>[] => {
  const { device, localGid, remoteGid, source, destination } = id
  const isKnown = id.state === 'ROUTE_RESOLVED' || id.state === 'CONNECT' || id.state === 'DISCONNECT'
  if (!isKnown || device === undefined || localGid === undefined || remoteGid === undefined) return []
  const record = new Uint8Array(64)
  const view = new DataView(record.buffer)
  const named = id.connection?.serviceId ?? rdmaCmServiceId(id.portSpace, destination?.port ?? 0)
  view.setBigUint64(0, source?.family === Family.IB ? (destination?.serviceId ?? 0n) : named)
  record.set(remoteGid, 8)
  record.set(localGid, 24)
  view.setUint32(44, ((id.flowLabel << 8) | HOP_LIMIT) >>> 0)
  record[48] = id.trafficClass
  record[49] = REVERSIBLE
  view.setUint16(50, PKEY)
  record[54] = EXACTLY | device.device.ports[0]!.attributes.activeMtu
  record[55] = EXACTLY
  record[56] = EXACTLY | PACKET_LIFE_TIME
  return [{ flags: FLAGS, reserved: 0, record }]
}
