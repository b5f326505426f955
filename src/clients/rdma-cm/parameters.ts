/*
 * Contents of rdma_cm events and requests as records: Linux's rdma_ucm_conn_param and rdma_ucm_ud_param, and private
 * data with rdma_cm's header.
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
import { areZeros, Family, headerAddress } from './socket-address.ts'

/** The default Q_Key of datagrams in port spaces UDP and IPOIB (RDMA_UDP_QKEY). */
export const UDP_QKEY = 0x0123_4567

/** Offset of the application's private data: AF_IB has no header. */
export const headerBytes = ({ source }: Identifier): number => (source?.family === Family.IB ? 0 : rdmaCmHeader.bytes)

/** Shared records, never written. */
const noParameters = zeroRecord(CmConnectionParameters)
const noDatagram = zeroRecord(CmDatagramParameters)

const paddedData = (bytes: Uint8Array): { privateData: Uint8Array; privateDataLength: number } => {
  // Private data is often zeros only: then no array is allocated.
  if (areZeros(bytes)) return { privateData: noParameters.privateData, privateDataLength: bytes.length }
  const privateData = new Uint8Array(PRIVATE_DATA_BYTES)
  privateData.set(bytes)
  return { privateData, privateDataLength: bytes.length }
}

/** The private data of a request: rdma_cm's header and the application's data. EINVAL if it is longer than `limit`. */
export const requestData = (id: Identifier, data: Uint8Array, limit: number, what: string): Uint8Array => {
  const room = limit - headerBytes(id)
  if (data.length > room)
    throw new CallError('EINVAL', `${what}: ${data.length} bytes of private data; the message has space for ${room}`)
  const { source, destination } = id
  if (headerBytes(id) === 0 || source === undefined || destination === undefined) return data
  const ipVersion = source.family === Family.INET ? 4 : 6
  const addresses = { source: headerAddress(source), destination: headerAddress(destination) }
  return emitRdmaCmHeader({ ipVersion, port: source.port, ...addresses }, data)
}

/** The private data of a reply. EINVAL if it is longer than `limit`. */
export const answerData = (data: Uint8Array, limit: number, what: string): Uint8Array => {
  if (data.length > limit)
    throw new CallError('EINVAL', `${what}: ${data.length} bytes of private data; the message has space for ${limit}`)
  return data
}

/** The private data of a record, by its length field. */
export const ownData = (from: { privateData: Uint8Array; privateDataLength: number }): Uint8Array =>
  from.privateData.subarray(0, from.privateDataLength)

/** Connection parameters with private data only. */
export const connectionData = (bytes: Uint8Array): ConnectionParameters => ({
  ...noParameters,
  ...paddedData(bytes),
})

/** Datagram parameters with private data only. */
export const datagramData = (bytes: Uint8Array): DatagramParameters => ({ ...noDatagram, ...paddedData(bytes) })

/** The parameters of a REQ; the peer's limits are swapped to this end's view. */
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

/** The address of `gid` for datagrams of the identifier. */
export const datagramParameters = (
  { device, localGid, trafficClass, flowLabel }: Identifier,
  gid: Uint8Array,
  to: { qpNum: number; qkey: number; privateData?: Uint8Array },
): DatagramParameters => ({
  ...noDatagram,
  ...paddedData(to.privateData ?? new Uint8Array(0)),
  qpNum: to.qpNum,
  qkey: to.qkey,
  dgid: gid,
  flowLabel,
  trafficClass,
  sgidIndex: device && localGid ? Math.max(0, findGid(device.device.ports[0]!.gids, localGid)) : 0,
  hopLimit: 64,
  isGlobal: 1,
  port: 1,
})
