/*
 * The records of calls and events, Linux's rdma_ucm_conn_param and rdma_ucm_ud_param, from what protocols report.
 */
import { findGid } from '../../core/devices/gids.ts'
import type {
  ConnectionEnd,
  ConnectionNews,
  ConnectionParameters,
  DatagramParameters,
  Ece,
} from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import {
  CmConnectionParameters,
  CmDatagramParameters,
  PRIVATE_DATA_BYTES,
} from '../../spec/classes/connections/cm_parameters.ts'
import { zeroRecord } from '../../spec/schema/schema.ts'
import { areZeros } from '../socket-address.ts'

/** What an event says, as records of calls. */
export interface EventDetails {
  /** 0, −errno, or the reason of a rejection. */
  readonly status?: number
  readonly connection?: ConnectionParameters
  readonly datagram?: DatagramParameters
  readonly ece?: Ece
  /** Of an event that the program has written (rdma_write_cm_event), 8 bytes. */
  readonly argument?: bigint
}

/** The default Q_Key of datagrams (RDMA_UDP_QKEY). */
export const UDP_QKEY = 0x0123_4567
/** Of packets to groups. */
const HOP_LIMIT = 64

/** Shared zero records, never written. */
const noParameters = zeroRecord(CmConnectionParameters)
export const noDatagram = zeroRecord(CmDatagramParameters)

const paddedData = (bytes: Uint8Array): { privateData: Uint8Array; privateDataLength: number } => {
  // Private data is often only zeros. Then the shared array avoids an allocation.
  if (areZeros(bytes)) return { privateData: noParameters.privateData, privateDataLength: bytes.length }
  const privateData = new Uint8Array(PRIVATE_DATA_BYTES)
  privateData.set(bytes)
  return { privateData, privateDataLength: bytes.length }
}

export const eventDetails = (
  { status, privateData, connection, datagram, ece }: ConnectionNews,
  isDatagram: boolean,
): EventDetails => ({
  ...(status !== undefined && { status }),
  ...(ece && { ece }),
  ...(privateData &&
    (isDatagram
      ? { datagram: { ...noDatagram, ...datagram, ...paddedData(privateData) } }
      : { connection: { ...noParameters, ...connection, ...paddedData(privateData) } })),
})

/** The parameters in an event, to send datagrams to a group. */
export const groupParameters = (
  { ports }: Device,
  { localGid, trafficClass }: ConnectionEnd,
  gid: Uint8Array,
  remote: { qpNum: number; qkey: number },
): DatagramParameters => ({
  ...noDatagram,
  ...remote,
  dgid: gid,
  // As on Linux, no flow label: the identifier's is of its path to a single destination.
  trafficClass,
  sgidIndex: localGid ? Math.max(0, findGid(ports[0]!.gids, localGid)) : 0,
  hopLimit: HOP_LIMIT,
  isGlobal: 1,
  port: 1,
})
