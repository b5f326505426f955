/*
 * The path of an identifier as a path record of the subnet administrator (IBA 15.2.5.16). RoCE has none, so it is built
 * from addresses and port, as in Linux, unless the consumer has set one (RDMA_OPTION_IB_PATH).
 */

import type { CmPathRecord } from '../../spec/classes/connections/cm_parameters.ts'
import { CallError } from '../../spec/errno.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import { rdmaCmServiceId } from '../../wire/mad/mad.ts'
import type { ChosenPath, Identifier } from './identifier.ts'
import { Family } from './socket-address.ts'

/** IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL */
const FLAGS = 0x2b
/** Selector "exactly", before a value of 6 bits. */
const EXACTLY = 0x80
const HOP_LIMIT = 64
const PACKET_LIFE_TIME = 16
const REVERSIBLE = 0x80
const RECORD_BYTES = 64
/** struct ib_path_rec_data: flags, a reserved word, and the record. */
const OPTION_BYTES = 8 + RECORD_BYTES
/** Mask of the value that follows a selector. */
const SIX_BITS = 0x3f

/** Empty until the route is resolved. */
export const pathRecord = (id: Identifier): RecordOf<typeof CmPathRecord>[] => {
  const { device, localGid, remoteGid, source, destination } = id
  const isKnown = id.state === 'ROUTE_RESOLVED' || id.state === 'CONNECT' || id.state === 'DISCONNECT'
  if (!isKnown || device === undefined || localGid === undefined || remoteGid === undefined) return []
  if (id.route !== undefined) return [{ flags: FLAGS, reserved: 0, record: id.route.record }]
  const record = new Uint8Array(RECORD_BYTES)
  const view = new DataView(record.buffer)
  const serviceId = id.connection?.serviceId ?? rdmaCmServiceId(id.portSpace, destination?.port ?? 0)
  view.setBigUint64(0, source?.family === Family.IB ? (destination?.serviceId ?? 0n) : serviceId)
  record.set(remoteGid, 8)
  record.set(localGid, 24)
  view.setUint32(44, ((id.flowLabel << 8) | HOP_LIMIT) >>> 0)
  record[48] = id.trafficClass
  record[49] = REVERSIBLE
  view.setUint16(50, DEFAULT_PKEY)
  record[54] = EXACTLY | device.device.ports[0]!.attributes.activeMtu
  record[55] = EXACTLY
  record[56] = EXACTLY | PACKET_LIFE_TIME
  return [{ flags: FLAGS, reserved: 0, record }]
}

const parse = (record: Uint8Array): ChosenPath => {
  const view = new DataView(record.buffer)
  return {
    path: {
      remoteGid: record.subarray(8, 24),
      localGid: record.subarray(24, 40),
      flowLabel: (view.getUint32(44) >>> 8) & 0xf_ffff,
      hopLimit: view.getUint8(47),
      trafficClass: view.getUint8(48),
      pkey: view.getUint16(50),
      sl: view.getUint8(53) & 0xf,
      mtu: view.getUint8(54) & SIX_BITS,
      packetLifeTime: view.getUint8(56) & SIX_BITS,
    },
    record,
  }
}

/**
 * The path of option RDMA_OPTION_IB_PATH: the first record whose flags say primary and bidirectional, as in Linux.
 * Throws CallError EINVAL.
 */
export const parsePathOption = (value: Uint8Array): ChosenPath => {
  if (value.length % OPTION_BYTES !== 0)
    throw new CallError(
      'EINVAL',
      `cm_id.setOption: each path has ${OPTION_BYTES} bytes; ${value.length} is not a multiple`,
    )
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  for (let at = 0; at < value.length; at += OPTION_BYTES)
    if (view.getUint32(at, true) === FLAGS) return parse(value.slice(at + 8, at + OPTION_BYTES))
  throw new CallError(
    'EINVAL',
    `cm_id.setOption: no path has the flags 0x${FLAGS.toString(16)}, primary and bidirectional`,
  )
}
