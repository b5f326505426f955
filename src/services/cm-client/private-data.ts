/*
 * Private data of the connection manager's messages: a request's begins with rdma_cm's header, which has the addresses.
 */
import type { ConnectionEnd } from '../../core/driver-contract.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { QpType } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { privateDataBytes, rdmaCmHeader } from '../../spec/wire/mad.ts'
import { emitRdmaCmHeader } from '../../transport/wire/mad/mad.ts'
import { Family, headerAddress } from '../socket-address.ts'

/** Bytes of rdma_cm's header before the program's private data. AF_IB has no header. */
export const headerBytes = (source: SocketAddress | undefined): number =>
  source?.family === Family.IB ? 0 : rdmaCmHeader.bytes

/** Throws CallError EINVAL above `limit` bytes. `call` begins the error message. */
export const replyData = (data: Uint8Array, limit: number, call: string): Uint8Array => {
  if (data.length > limit)
    throw callError.EINVAL`${the.method(call)}: ${data.length} bytes of private data; the message has space for ${limit}`
  return data
}

/** The private data of a REQ or SIDR_REQ: rdma_cm's header and the program's data. Throws CallError EINVAL. */
export const requestData = ({ source, destination, qpType }: ConnectionEnd, data: Uint8Array): Uint8Array => {
  const { REQ, SIDR_REQ } = privateDataBytes
  const limit = qpType === QpType.values.UD ? SIDR_REQ : REQ
  replyData(data, limit - headerBytes(source), 'cm_id.connect')
  // An end whose route is resolved has both addresses.
  if (source === undefined || destination === undefined || headerBytes(source) === 0) return data
  const ipVersion = source.family === Family.INET ? 4 : 6
  const addresses = { source: headerAddress(source), destination: headerAddress(destination) }
  return emitRdmaCmHeader({ ipVersion, port: source.port, ...addresses }, data)
}

export const privateDataOf = (record: { privateData: Uint8Array; privateDataLength: number }): Uint8Array =>
  record.privateData.subarray(0, record.privateDataLength)
