/*
 * The path of an identifier as a path record (IBA 15.2.5.16). A program can set the record (RDMA_OPTION_IB_PATH).
 * Otherwise, because RoCE has no subnet administrator, the record is made from addresses, port and, for a peer's
 * request, the REQ, as in Linux.
 */

import type { CmPathRecord } from '../../spec/classes/connections/cm_parameters.ts'
import { CallError } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import type { ChosenPath, Identifier } from './identifier.ts'
import { serviceIdOf } from './listeners.ts'
import { HOP_LIMIT } from './parameters.ts'

/** IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL */
const FLAGS = 0x2b
/** Byte offsets in a PathRecord. */
const FieldAt = {
  SERVICE_ID: 0,
  DGID: 8,
  SGID: 24,
  /** Flow label and, in the low byte, hop limit. */
  FLOW_LABEL: 44,
  HOP_LIMIT: 47,
  TCLASS: 48,
  REVERSIBLE: 49,
  PKEY: 50,
  SL: 53,
  MTU: 54,
  RATE: 55,
  PACKET_LIFE_TIME: 56,
} as const
/** The selector "exactly", in the upper two bits of MTU, rate and packet life time. */
const EXACTLY = 0x80
/** An exponent: 4.096 µs · 2^16 is 268 ms. */
export const PACKET_LIFE_TIME = 16
/** Linux's IB_RATE_PORT_CURRENT. */
const RATE_PORT_CURRENT = 0
const REVERSIBLE = 0x80
const RECORD_BYTES = 64
/** struct ib_path_rec_data: flags, a reserved word, and the record. */
const RECORD_AT = 8
const OPTION_BYTES = RECORD_AT + RECORD_BYTES
/** Mask of the value after a selector. */
const SIX_BITS = 0x3f

/** Empty before the route is resolved and after the device was removed. */
export const pathRecord = (id: Identifier): RecordOf<typeof CmPathRecord>[] => {
  const { device, localGid, remoteGid, destination, connection } = id
  const hasRoute = id.state === 'ROUTE_RESOLVED' || id.state === 'CONNECT' || id.state === 'DISCONNECT'
  if (!hasRoute || !device || !localGid || !remoteGid || !destination) return []
  if (id.chosenPath !== undefined) return [{ flags: FLAGS, reserved: 0, record: id.chosenPath.record }]
  const record = new Uint8Array(RECORD_BYTES)
  const view = new DataView(record.buffer)
  // The destination of a peer's request is the peer, which has no service id.
  view.setBigUint64(FieldAt.SERVICE_ID, connection?.serviceId ?? serviceIdOf(id, destination))
  record.set(remoteGid, FieldAt.DGID)
  record.set(localGid, FieldAt.SGID)
  view.setUint32(FieldAt.FLOW_LABEL, ((id.flowLabel << 8) | HOP_LIMIT) >>> 0)
  record[FieldAt.TCLASS] = id.trafficClass
  record[FieldAt.REVERSIBLE] = REVERSIBLE
  // The path of a peer's request has the P_Key, service level and MTU of the REQ.
  view.setUint16(FieldAt.PKEY, connection?.path.pkey ?? DEFAULT_PKEY)
  record[FieldAt.SL] = connection?.path.sl ?? 0
  record[FieldAt.MTU] = EXACTLY | (connection?.path.mtu ?? device.device.ports[0]!.attributes.activeMtu)
  record[FieldAt.RATE] = EXACTLY | RATE_PORT_CURRENT
  record[FieldAt.PACKET_LIFE_TIME] = EXACTLY | (id.packetLifeTime ?? PACKET_LIFE_TIME)
  return [{ flags: FLAGS, reserved: 0, record }]
}

/** `record`: the whole of its buffer. The result contains it. */
const parsePathRecord = (record: Uint8Array): ChosenPath => {
  const view = new DataView(record.buffer)
  return {
    path: {
      remoteGid: record.subarray(FieldAt.DGID, FieldAt.DGID + 16),
      localGid: record.subarray(FieldAt.SGID, FieldAt.SGID + 16),
      flowLabel: (view.getUint32(FieldAt.FLOW_LABEL) >>> 8) & 0xf_ffff,
      hopLimit: view.getUint8(FieldAt.HOP_LIMIT),
      trafficClass: view.getUint8(FieldAt.TCLASS),
      pkey: view.getUint16(FieldAt.PKEY),
      sl: view.getUint8(FieldAt.SL) & 0xf,
      mtu: view.getUint8(FieldAt.MTU) & SIX_BITS,
      packetLifeTime: view.getUint8(FieldAt.PACKET_LIFE_TIME) & SIX_BITS,
    },
    record,
  }
}

/** As Linux, takes the first path with exactly the flags FLAGS. Throws CallError EINVAL. */
export const parsePathOption = (value: Uint8Array): ChosenPath => {
  if (value.length % OPTION_BYTES !== 0)
    throw new CallError(
      'EINVAL',
      `cm_id.setOption: each path has ${OPTION_BYTES} bytes; ${value.length} is not a multiple`,
    )
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  for (let at = 0; at < value.length; at += OPTION_BYTES)
    if (view.getUint32(at, true) === FLAGS)
      return parsePathRecord(copyOfBytes(value.subarray(at + RECORD_AT, at + OPTION_BYTES)))
  throw new CallError(
    'EINVAL',
    `cm_id.setOption: no path has the flags 0x${FLAGS.toString(16)} (GMP, primary, bidirectional)`,
  )
}
