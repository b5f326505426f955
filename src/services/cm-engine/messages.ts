/*
 * Builds CM messages for `emitCm`, which throws if a value does not fit its field. Also reads transport, path, QPN and
 * ECE options of received messages.
 */
import { cmAnswered, failoverAccepted, transportType } from '../../spec/wire/mad.ts'
import { PERMISSIVE_LID } from '../../spec/wire/subnet.ts'
import type { CmDraft } from '../../transport/wire/mad/mad.ts'
import type { CmConnection, CmEce, CmOffer, CmPath, CmRequest, CmTransport, ReceivedMessage } from './connection.ts'

export interface CmRejection {
  /** `rejReason`. */
  readonly reason: number
  /** At most 72 bytes. */
  readonly info?: Uint8Array
  /** At most 148 bytes. */
  readonly privateData?: Uint8Array
}

export interface SidrReply {
  /** `sidrStatus`. */
  readonly status: number
  readonly qpn?: number
  readonly qkey?: number
  /** At most 72 bytes. */
  readonly info?: Uint8Array
  /** At most 136 bytes. */
  readonly privateData?: Uint8Array
}

/** `extendedTransportType` of a REQ. */
const EXTENDED_XRC = 1

const idFields = ({ tid, localId, remoteId }: CmConnection) => ({ tid, localId, remoteId })

const withPrivateData = (privateData: Uint8Array | undefined) => (privateData === undefined ? {} : { privateData })

const transportFields = (transport: CmTransport) =>
  transport === 'XRC'
    ? { transportType: transportType.EXTENDED, extendedTransportType: EXTENDED_XRC }
    : { transportType: transportType[transport] }

/** The transport that a REQ requests; undefined: not supported. */
export const transportOf = (message: ReceivedMessage<'REQ'>): CmTransport | undefined => {
  if (message.transportType === transportType.RC) return 'RC'
  if (message.transportType === transportType.UC) return 'UC'
  return message.transportType === transportType.EXTENDED && message.extendedTransportType === EXTENDED_XRC
    ? 'XRC'
    : undefined
}

/** Whether a REQ offers an alternate path. */
export const hasAlternatePath = ({ alternateLocalLid }: ReceivedMessage<'REQ'>): boolean => alternateLocalLid !== 0

/** Fields about the responder. An XRC initiator has no responder. */
const responderFields = ({ responderResources, rnrRetryCount, srq = false }: CmOffer) => ({
  responderResources,
  rnrRetryCount,
  srq,
})

const reqEce = ({ ece }: CmOffer) => ece && { eceVendorId: ece.vendorId & 0xff_ffff, eceAttrMod: ece.attrMod }

/** A REP has the vendor id in three fields. */
const repEce = ({ ece }: CmOffer) =>
  ece && {
    eceVendorIdHigh: (ece.vendorId >> 16) & 0xff,
    eceVendorIdMiddle: (ece.vendorId >> 8) & 0xff,
    eceVendorIdLow: ece.vendorId & 0xff,
    eceAttrMod: ece.attrMod,
  }

/** The peer's ECE options; undefined: none. */
export const eceOf = (message: ReceivedMessage<'REQ' | 'REP'>): CmEce | undefined => {
  const vendorId =
    message.name === 'REQ'
      ? message.eceVendorId
      : (message.eceVendorIdHigh << 16) | (message.eceVendorIdMiddle << 8) | message.eceVendorIdLow
  const attrMod = message.eceAttrMod
  return vendorId === 0 && attrMod === 0 ? undefined : { vendorId, attrMod }
}

export const req = (
  connection: CmConnection,
  tid: bigint,
  request: CmRequest,
  caGuid: bigint,
  localAckTimeout: number,
): CmDraft<'REQ'> => {
  const { path } = request
  return {
    name: 'REQ',
    tid,
    localId: connection.localId,
    serviceId: request.serviceId,
    caGuid,
    qpn: request.qpn,
    initiatorDepth: request.initiatorDepth,
    remoteResponseTimeout: request.remoteResponseTimeout,
    ...transportFields(request.transport),
    flowControl: request.flowControl ?? false,
    startingPsn: request.startingPsn,
    localResponseTimeout: request.localResponseTimeout,
    pkey: path.pkey,
    pathMtu: path.mtu,
    maxCmRetries: request.maxCmRetries,
    ...(request.transport !== 'XRC' && { retryCount: request.retryCount, ...responderFields(request) }),
    // A path without LIDs (RoCE) has the permissive one.
    localLid: path.lids?.local ?? PERMISSIVE_LID,
    remoteLid: path.lids?.remote ?? PERMISSIVE_LID,
    subnetLocal: path.lids !== undefined && path.hopLimit <= 1,
    packetRate: path.rate ?? 0,
    localGid: path.localGid,
    remoteGid: path.remoteGid,
    flowLabel: path.flowLabel,
    trafficClass: path.trafficClass,
    hopLimit: path.hopLimit,
    sl: path.sl,
    localAckTimeout,
    ...reqEce(request),
    ...withPrivateData(request.privateData),
  }
}

export const rep = (
  connection: CmConnection,
  offer: CmOffer,
  caGuid: bigint,
  targetAckDelay: number,
): CmDraft<'REP'> => ({
  name: 'REP',
  ...idFields(connection),
  startingPsn: offer.startingPsn,
  targetAckDelay,
  // ACCEPTED is 0, also the value without an alternate path.
  failoverAccepted: connection.hasAlternatePath ? failoverAccepted.UNSUPPORTED : failoverAccepted.ACCEPTED,
  caGuid,
  ...responderFields(offer),
  ...(connection.agreed.transport === 'XRC'
    ? { srq: true, eecn: offer.qpn }
    : { qpn: offer.qpn, initiatorDepth: offer.initiatorDepth, flowControl: offer.flowControl ?? false }),
  ...repEce(offer),
  ...withPrivateData(offer.privateData),
})

/** The QPN in a REP. An XRC target sends the QPN in the EECN field. */
export const repQpn = (message: ReceivedMessage<'REP'>, transport: CmTransport): number =>
  transport === 'XRC' ? message.eecn : message.qpn

export const rtu = (connection: CmConnection, privateData?: Uint8Array): CmDraft<'RTU'> => ({
  name: 'RTU',
  ...idFields(connection),
  ...withPrivateData(privateData),
})

/** `message` of an MRA or REJ: the unanswered REQ or REP of the peer, else OTHER. */
const messageTypeOf = ({ state }: CmConnection): number => {
  if (state === 'REQ_RCVD' || state === 'MRA_REQ_SENT') return cmAnswered.REQ
  return state === 'REP_RCVD' || state === 'MRA_REP_SENT' ? cmAnswered.REP : cmAnswered.OTHER
}

export const mra = (connection: CmConnection, serviceTimeout: number, privateData?: Uint8Array): CmDraft<'MRA'> => ({
  name: 'MRA',
  ...idFields(connection),
  message: messageTypeOf(connection),
  serviceTimeout,
  ...withPrivateData(privateData),
})

export const rej = (connection: CmConnection, { reason, info, privateData }: CmRejection): CmDraft<'REJ'> => ({
  name: 'REJ',
  ...idFields(connection),
  // The sender of an unanswered REQ does not know our id.
  ...(connection.state === 'REQ_RCVD' && { localId: 0 }),
  message: messageTypeOf(connection),
  reason,
  ...(info && { info, infoLength: info.length }),
  ...withPrivateData(privateData),
})

/** The REJ for a REQ or REP that no connection here accepts: its ids are those of the message. */
export const refusal = (message: ReceivedMessage<'REQ' | 'REP'>, reason: number, info: Uint8Array): CmDraft<'REJ'> => ({
  name: 'REJ',
  tid: message.tid,
  localId: message.name === 'REP' ? message.remoteId : 0,
  remoteId: message.localId,
  message: cmAnswered[message.name],
  reason,
  info,
  infoLength: info.length,
})

export const dreq = (connection: CmConnection, privateData?: Uint8Array): CmDraft<'DREQ'> => ({
  name: 'DREQ',
  ...idFields(connection),
  remoteQpn: connection.agreed.remoteQpn,
  ...withPrivateData(privateData),
})

export const drep = (connection: CmConnection, privateData?: Uint8Array): CmDraft<'DREP'> => ({
  name: 'DREP',
  ...idFields(connection),
  ...withPrivateData(privateData),
})

export const sidrRep = (connection: CmConnection, reply: SidrReply): CmDraft<'SIDR_REP'> => {
  const { status, qpn = 0, qkey = 0, info, privateData } = reply
  return {
    name: 'SIDR_REP',
    tid: connection.tid,
    requestId: connection.remoteId,
    serviceId: connection.serviceId,
    status,
    qpn,
    qkey,
    ...(info && { info, infoLength: info.length }),
    ...withPrivateData(privateData),
  }
}

/**
 * The path for answers to a REQ: `from`, the path back to the sender, with values from the REQ. The hop limit is our
 * own, because the path back may be longer; of a path by LIDs it says whether packets have a GRH. The packet life time
 * is half the ACK timeout (an exponent, so minus 1).
 */
export const pathOf = (message: ReceivedMessage<'REQ'>, from: CmPath): CmPath => ({
  ...from,
  localGid: message.remoteGid,
  remoteGid: message.localGid,
  flowLabel: message.flowLabel,
  trafficClass: message.trafficClass,
  sl: message.sl,
  ...(from.lids && { hopLimit: message.hopLimit, rate: message.packetRate }),
  pkey: message.pkey,
  mtu: message.pathMtu,
  packetLifeTime: Math.max(0, message.localAckTimeout - 1),
})
