/*
 * Messages of the connection manager that no connection of the sender's host has, and a peer that sends them.
 */
import { CmPortSpace } from '../../../src/spec/enums.ts'
import { DEFAULT_PKEY } from '../../../src/spec/wire/headers.ts'
import { GSI_QPN, rdmaCmHeader, transportType } from '../../../src/spec/wire/mad.ts'
import { emitCm, emitRdmaCmHeader, rdmaCmServiceId } from '../../../src/transport/wire/mad/mad.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { plainRequest } from '../cm-engine/request.ts'
import type { Host, twoHosts } from './hosts.ts'

export const PORT = 7471
const { TCP, UDP } = CmPortSpace.values

/** CA GUID of a peer. */
export const GUID = 7n
/** The address of b. rdma_cm does not check that the header's source is the sender's address. */
export const listenerAddress = Uint8Array.of(...new Uint8Array(12), 10, 0, 0, 2)
export const SOURCE_PORT = 9
/** Private data with a valid header of rdma_cm, and without one. */
export const withHeader = emitRdmaCmHeader(
  { ipVersion: 4, port: SOURCE_PORT, source: listenerAddress, destination: listenerAddress },
  Uint8Array.of(1),
)
export const withoutHeader = new Uint8Array(rdmaCmHeader.bytes).fill(0xee)
/** QPNs of peers are below 2^24, and not 0 or 1. */
const peerQpn = (number: number): number => 2 + (number % 0xff_fff0)
/** The largest local ACK timeout. */
const ACK_TIMEOUT = 31

/** A REQ with the local id `number`. The rdma_cm of `a` has no such connection. */
export const req = (
  number: number,
  caGuid: bigint,
  {
    port = PORT,
    portSpace = TCP as number,
    privateData = withHeader,
    remoteGid = ipv4(10, 0, 0, 2),
    transportType: type = transportType.RC as number,
  } = {},
) =>
  emitCm({
    ...plainRequest,
    tid: BigInt(number),
    localId: number,
    serviceId: rdmaCmServiceId(portSpace, port),
    transportType: type,
    caGuid,
    qpn: peerQpn(number),
    localGid: ipv4(10, 0, 0, 1),
    remoteGid,
    localAckTimeout: ACK_TIMEOUT,
    privateData,
  })

/** A SIDR_REQ. The rdma_cm of `a` has no such request. */
export const sidrReq = (requestId: number, privateData = withHeader, portSpace: number = UDP, port = PORT) =>
  emitCm({
    name: 'SIDR_REQ',
    tid: BigInt(requestId),
    requestId,
    pkey: DEFAULT_PKEY,
    serviceId: rdmaCmServiceId(portSpace, port),
    privateData,
  })

/** The number of messages after which the hosts run. */
const BATCH = 64

/** The returned function sends from queue pair 1 of `a` to queue pair 1 of `b`. */
export const senderOf = (network: ReturnType<typeof twoHosts>['network'], a: Host) => {
  const { device } = a.devices.get('rxe1')!
  const ends = { localGid: ipv4(10, 0, 0, 1), remoteGid: ipv4(10, 0, 0, 2), qpn: GSI_QPN, pkey: DEFAULT_PKEY }
  const to = { ...ends, flowLabel: 1, trafficClass: 0, hopLimit: 64 }
  let sent = 0
  return (mad: Uint8Array): void => {
    a.mads.send(device, mad, to)
    if (++sent % BATCH === 0) network.settle()
  }
}
