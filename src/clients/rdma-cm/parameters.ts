/*
 * Contents of events and requests of rdma_cm as records: Linux's rdma_ucm_conn_param and rdma_ucm_ud_param, and private
 * data with rdma_cm's header.
 */
import type { CmConnection } from '../../cm/connection.ts'
import { findGid } from '../../core/devices/gids.ts'
import { CmConnectionParameters, CmDatagramParameters, PRIVATE_DATA_BYTES } from '../../spec/classes/cm_parameters.ts'
import { CallError } from '../../spec/errno.ts'
import { zeroRecord } from '../../spec/schema/schema.ts'
import { rdmaCmHeader } from '../../spec/wire/mad.ts'
import type { CmMessage } from '../../wire/mad.ts'
import { emitRdmaCmHeader } from '../../wire/mad.ts'
import type { ConnectionParameters, DatagramParameters, Identifier } from './identifier.ts'
import { areZeros, Family, headerAddress } from './socket-address.ts'

/** The default Q_Key of datagrams in port spaces UDP and IPOIB (RDMA_UDP_QKEY). */
export const UDP_QKEY = 0x0123_4567

/** Offset of the application's private data: AF_IB has no header. */
export const headerBytes = ({ source }: Identifier): number => (source?.family === Family.IB ? 0 : rdmaCmHeader.bytes)

/** Shared: these arrays are never written. */
const noParameters = zeroRecord(CmConnectionParameters)
const noDatagram = zeroRecord(CmDatagramParameters)

const padded = (bytes: Uint8Array): { privateData: Uint8Array; privateDataLength: number } => {
  // Mostly padding.
  if (areZeros(bytes)) return { privateData: noParameters.privateData, privateDataLength: bytes.length }
  const privateData = new Uint8Array(PRIVATE_DATA_BYTES)
  privateData.set(bytes)
  return { privateData, privateDataLength: bytes.length }
}

/** The private data of a request: header and the application's data. EINVAL if it is longer than `max`. */
export const requestData = (id: Identifier, own: Uint8Array, max: number, what: string): Uint8Array => {
  const room = max - headerBytes(id)
  if (own.length > room)
    throw new CallError('EINVAL', `${what}: ${own.length} bytes of private data, the message takes ${room}`)
  const { source, destination } = id
  if (headerBytes(id) === 0 || source === undefined || destination === undefined) return own
  const ipVersion = source.family === Family.INET ? 4 : 6
  const addresses = { source: headerAddress(source), destination: headerAddress(destination) }
  return emitRdmaCmHeader({ ipVersion, port: source.port, ...addresses }, own)
}

/** The private data of a reply. EINVAL if it is longer than `max`. */
export const answerData = (own: Uint8Array, max: number, what: string): Uint8Array => {
  if (own.length > max)
    throw new CallError('EINVAL', `${what}: ${own.length} bytes of private data, the message takes ${max}`)
  return own
}

/** The private data of a record, by its length field. */
export const ownData = (from: { privateData: Uint8Array; privateDataLength: number }): Uint8Array =>
  from.privateData.subarray(0, from.privateDataLength)

/** Private data only. */
export const withData = (bytes: Uint8Array): ConnectionParameters => ({
  ...noParameters,
  ...padded(bytes),
})

/** The same for a resolved service id. */
export const withDatagramData = (bytes: Uint8Array): DatagramParameters => ({ ...noDatagram, ...padded(bytes) })

/** The parameters of a REQ, with the peer's limits from this end's view. */
export const requestParameters = (
  message: Extract<CmMessage, { name: 'REQ' }>,
  dataAt: number,
): ConnectionParameters => ({
  ...noParameters,
  ...padded(message.privateData.subarray(dataAt)),
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
  ...padded(message.privateData),
  qpNum: agreed.remoteQpn,
  responderResources: message.initiatorDepth,
  initiatorDepth: message.responderResources,
  flowControl: message.flowControl ? 1 : 0,
  rnrRetryCount: message.rnrRetryCount,
  srq: message.srq ? 1 : 0,
})

/** Where datagrams for `gid` go, from the device that the identifier is bound to. */
export const datagramParameters = (
  { device, localGid, trafficClass, flowLabel }: Identifier,
  gid: Uint8Array,
  to: { qpNum: number; qkey: number; privateData?: Uint8Array },
): DatagramParameters => ({
  ...noDatagram,
  ...padded(to.privateData ?? new Uint8Array(0)),
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
