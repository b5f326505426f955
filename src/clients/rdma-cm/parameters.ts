/*
 * Converts between messages of the connection manager and the records of calls and events: Linux's rdma_ucm_conn_param
 * and rdma_ucm_ud_param, and private data with rdma_cm's header.
 */
import type { CmConnection } from '../../cm/connection.ts'
import { findGid } from '../../core/devices/gids.ts'
import {
  CmConnectionParameters,
  CmDatagramParameters,
  PRIVATE_DATA_BYTES,
} from '../../spec/classes/connections/cm_parameters.ts'
import { CallError } from '../../spec/errno.ts'
import { zeroRecord } from '../../spec/schema/schema.ts'
import { rdmaCmHeader } from '../../spec/wire/mad.ts'
import type { CmMessage } from '../../wire/mad/mad.ts'
import { emitRdmaCmHeader } from '../../wire/mad/mad.ts'
import type { ConnectionParameters, DatagramParameters, Identifier } from './identifier.ts'
import { areZeros, Family, headerAddress, type SocketAddress } from './socket-address.ts'

/** The default Q_Key of datagrams (RDMA_UDP_QKEY). */
export const UDP_QKEY = 0x0123_4567

/** Bytes of rdma_cm's header before the program's private data. AF_IB has no header. */
export const headerBytes = ({ source }: Identifier): number => (source?.family === Family.IB ? 0 : rdmaCmHeader.bytes)

/** The hop limit of paths, unless a program has set another one. */
export const HOP_LIMIT = 64

/** Shared zero records, never written. */
const noParameters = zeroRecord(CmConnectionParameters)
const noDatagram = zeroRecord(CmDatagramParameters)

const paddedData = (bytes: Uint8Array): { privateData: Uint8Array; privateDataLength: number } => {
  // Private data is often only zeros. Then the shared array avoids an allocation.
  if (areZeros(bytes)) return { privateData: noParameters.privateData, privateDataLength: bytes.length }
  const privateData = new Uint8Array(PRIVATE_DATA_BYTES)
  privateData.set(bytes)
  return { privateData, privateDataLength: bytes.length }
}

/**
 * The private data of a REQ or SIDR_REQ: rdma_cm's header and the program's data. Throws CallError EINVAL above `limit`
 * bytes. `call` begins the error message.
 */
export const requestData = (id: Identifier, data: Uint8Array, limit: number, call: string): Uint8Array => {
  const maxBytes = limit - headerBytes(id)
  if (data.length > maxBytes)
    throw new CallError(
      'EINVAL',
      `${call}: ${data.length} bytes of private data; the message has space for ${maxBytes}`,
    )
  if (headerBytes(id) === 0) return data
  // An identifier with a resolved route has both addresses.
  const source = id.source as SocketAddress
  const destination = id.destination as SocketAddress
  const ipVersion = source.family === Family.INET ? 4 : 6
  const addresses = { source: headerAddress(source), destination: headerAddress(destination) }
  return emitRdmaCmHeader({ ipVersion, port: source.port, ...addresses }, data)
}

/** The private data of a reply. Throws CallError EINVAL above `limit` bytes. */
export const replyData = (data: Uint8Array, limit: number, call: string): Uint8Array => {
  if (data.length > limit)
    throw new CallError('EINVAL', `${call}: ${data.length} bytes of private data; the message has space for ${limit}`)
  return data
}

export const privateDataOf = (record: { privateData: Uint8Array; privateDataLength: number }): Uint8Array =>
  record.privateData.subarray(0, record.privateDataLength)

/** The parameters of a REJ: only private data. */
export const connectionData = (bytes: Uint8Array): ConnectionParameters => ({
  ...noParameters,
  ...paddedData(bytes),
})

/** The parameters of a SIDR_REQ, or of a SIDR_REP that refuses: only private data. */
export const datagramData = (bytes: Uint8Array): DatagramParameters => ({ ...noDatagram, ...paddedData(bytes) })

/**
 * The parameters of a REQ. The peer's initiator depth limits this end's responder resources, and the reverse. So the
 * two fields are swapped. `dataAt`: offset of the program's private data.
 */
export const requestParameters = (
  message: Extract<CmMessage, { name: 'REQ' }>,
  dataAt: number,
): ConnectionParameters => ({
  ...noParameters,
  ...paddedData(message.privateData.subarray(dataAt)),
  qpNum: message.qpn,
  responderResources: message.initiatorDepth,
  initiatorDepth: message.responderResources,
  flowControl: message.flowControl ? 1 : 0,
  retryCount: message.retryCount,
  rnrRetryCount: message.rnrRetryCount,
  srq: message.srq ? 1 : 0,
})

/**
 * The parameters of a REP, swapped as in `requestParameters`. `agreed` has the QPN: which field of a REP has it depends
 * on the transport.
 */
export const replyParameters = (
  message: Extract<CmMessage, { name: 'REP' }>,
  { agreed }: CmConnection,
): ConnectionParameters => ({
  ...noParameters,
  ...paddedData(message.privateData),
  qpNum: agreed.remoteQpn,
  responderResources: message.initiatorDepth,
  initiatorDepth: message.responderResources,
  flowControl: message.flowControl ? 1 : 0,
  rnrRetryCount: message.rnrRetryCount,
  srq: message.srq ? 1 : 0,
})

/** The parameters in an event, to send datagrams to a queue pair or group at `gid`. */
export const datagramParameters = (
  { device, localGid, trafficClass, flowLabel }: Pick<Identifier, 'device' | 'localGid' | 'trafficClass' | 'flowLabel'>,
  gid: Uint8Array,
  remote: { qpNum: number; qkey: number; privateData?: Uint8Array },
): DatagramParameters => ({
  ...noDatagram,
  ...paddedData(remote.privateData ?? new Uint8Array(0)),
  qpNum: remote.qpNum,
  qkey: remote.qkey,
  dgid: gid,
  flowLabel,
  trafficClass,
  sgidIndex: device && localGid ? Math.max(0, findGid(device.device.ports[0]!.gids, localGid)) : 0,
  hopLimit: HOP_LIMIT,
  isGlobal: 1,
  port: 1,
})
