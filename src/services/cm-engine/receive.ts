/*
 * Messages received by queue pair 1: finds the connection, reads the contents, and rejects invalid messages (clauses
 * 12.6 and 12.9.8). cm-states.ts has the state transitions.
 */
import { aprStatus, cmAnswered, rejReason, sidrStatus } from '../../spec/wire/mad.ts'
import { PERMISSIVE_LID } from '../../spec/wire/subnet.ts'
import { isSameAddress } from '../../transport/wire/address.ts'
import { doPkeysMatch } from '../../transport/wire/bth.ts'
import { emitCm, viewCm } from '../../transport/wire/mad/mad.ts'
import { type CmState, cmStates } from './cm-states.ts'
import { CmConnection, type CmPath, type CmTransport, type ReceivedMessage } from './connection.ts'
import type { CmMachine } from './machine.ts'
import * as messages from './messages.ts'
import { ackTimeout, fromExponent } from './timeout.ts'

/** The transport of a REQ, or the reason to reject it. As in Linux, a wrong P_Key is rejected with INVALID_GID. */
const checkReq = (
  { environment, registry }: CmMachine,
  message: ReceivedMessage<'REQ'>,
  from: CmPath,
): CmTransport | number => {
  if (!registry.listeners.has(message.serviceId)) return rejReason.INVALID_SERVICE_ID
  const transport = messages.transportOf(message)
  if (transport === undefined) return rejReason.INVALID_TRANSPORT_TYPE
  const { localGid, localLid, remoteGid, pkey, pathMtu, alternateRemoteGid } = message
  // The path must lead back to the sender: no replies to another host.
  const isFromSender =
    from.lids === undefined
      ? isSameAddress(localGid, from.remoteGid)
      : localLid === from.lids.remote || localLid === PERMISSIVE_LID
  const isReversePath = environment.hasGid(from.device, remoteGid) && isFromSender
  if (!isReversePath || !doPkeysMatch(pkey, from.pkey)) return rejReason.INVALID_GID
  if (messages.hasAlternatePath(message) && !environment.hasGid(from.device, alternateRemoteGid))
    return rejReason.INVALID_ALT_GID
  // ibv_mtu: 1 (256 bytes) to 5 (4096 bytes).
  return pathMtu < 1 || pathMtu > 5 ? rejReason.INVALID_MTU : transport
}

const onReq = (machine: CmMachine, message: ReceivedMessage<'REQ'>, from: CmPath, now: number): void => {
  const known = machine.registry.byRemoteId(from, message.caGuid, message.localId)
  if (known !== undefined) {
    machine.applyRule(known, message, now)
    return
  }
  if (machine.repeatRejection(message, from)) return
  if (machine.refuseStale(message, message.qpn, from, now)) return

  const transport = checkReq(machine, message, from)
  if (typeof transport === 'number') {
    machine.refuse(message, from, transport)
    return
  }

  const connection = machine.create(messages.pathOf(message, from))
  const { agreed } = connection
  connection.remoteId = message.localId
  connection.remoteCaGuid = message.caGuid
  connection.tid = message.tid
  connection.serviceId = message.serviceId
  // The peer has included the packet life times of both directions.
  connection.answerTimeout = fromExponent(message.localResponseTimeout)
  connection.maxCmRetries = message.maxCmRetries
  agreed.remoteQpn = message.qpn
  agreed.sqPsn = message.startingPsn
  agreed.initiatorDepth = message.responderResources
  agreed.responderResources = message.initiatorDepth
  agreed.retryCount = message.retryCount
  agreed.rnrRetryCount = message.rnrRetryCount
  agreed.transport = transport
  connection.isXrcTarget = transport === 'XRC'
  agreed.ackTimeout = message.localAckTimeout
  connection.hasAlternatePath = messages.hasAlternatePath(message)
  machine.registry.addPeer(connection)
  connection.state = 'REQ_RCVD'
  machine.events.push({ name: 'REQ_RECEIVED', connection, message })
}

const onRep = (machine: CmMachine, message: ReceivedMessage<'REP'>, from: CmPath, now: number): void => {
  const connection = machine.registry.byLocalId(from, message.remoteId)
  const isOtherPeer = connection !== undefined && connection.remoteId !== 0 && connection.remoteId !== message.localId
  if (connection === undefined || connection.state === 'IDLE' || isOtherPeer) {
    machine.refuse(message, from, rejReason.INVALID_COMM_ID)
    return
  }
  const receipt = cmStates[connection.state].receive.REP
  if (receipt === undefined || 'answer' in receipt) {
    machine.applyRule(connection, message, now)
    return
  }

  const { agreed } = connection
  const qpn = messages.repQpn(message, agreed.transport)
  if (machine.refuseStale(message, qpn, from, now)) return
  connection.remoteId = message.localId
  connection.remoteCaGuid = message.caGuid
  agreed.remoteQpn = qpn
  agreed.sqPsn = message.startingPsn
  agreed.initiatorDepth = message.responderResources
  agreed.responderResources = message.initiatorDepth
  agreed.rnrRetryCount = message.rnrRetryCount
  agreed.ackTimeout = ackTimeout(message.targetAckDelay, connection.path.packetLifeTime)
  machine.registry.addPeer(connection)
  machine.applyRule(connection, message, now)
}

/** The sender's id as the connection has it: 0 (not known yet) if the message answers our REQ. */
const knownSenderId = ({ message, localId }: ReceivedMessage<'REJ' | 'MRA'>): number =>
  message === cmAnswered.REQ ? 0 : localId

/** States in which the peer may not know our id yet. */
const UNKNOWN_TO_PEER: readonly CmState[] = ['REQ_RCVD', 'MRA_REQ_SENT', 'REP_SENT']

/**
 * The connection to which a REJ refers. If the sender never received a reply, it does not know our id: its CA GUID and
 * own id identify the connection (clause 12.6.7.2).
 */
const connectionOfRej = (
  { registry }: CmMachine,
  message: ReceivedMessage<'REJ'>,
  from: CmPath,
): CmConnection | undefined => {
  const { info, localId, remoteId } = message
  if (message.reason !== rejReason.TIMEOUT) return registry.byIds(from, remoteId, knownSenderId(message))
  // The additional rejection information of a TIMEOUT is the sender's CA GUID.
  const caGuid = new DataView(info.buffer, info.byteOffset).getBigUint64(0)
  const found = registry.byRemoteId(from, caGuid, localId)
  if (found === undefined || remoteId === found.localId) return found
  return remoteId === 0 && UNKNOWN_TO_PEER.includes(found.state) ? found : undefined
}

const onRej = (machine: CmMachine, message: ReceivedMessage<'REJ'>, from: CmPath, now: number): void => {
  const connection = connectionOfRej(machine, message, from)
  const isStale = message.reason === rejReason.STALE_CONN
  if (isStale && connection !== undefined && cmStates[connection.state].receive.REJ !== undefined) {
    // Packets of the peer may be in flight, so the queue pair must not be reused yet.
    machine.applyStep(connection, { nextState: 'TIMEWAIT', event: 'REJ_RECEIVED' }, message, now)
    return
  }
  machine.applyRule(connection, message, now)
}

const onMra = (machine: CmMachine, message: ReceivedMessage<'MRA'>, from: CmPath, now: number): void => {
  const connection = machine.registry.byIds(from, message.remoteId, knownSenderId(message))
  const answered = connection?.state === 'REP_SENT' ? cmAnswered.REP : cmAnswered.REQ
  const pending = connection?.pending
  const step = connection && cmStates[connection.state].receive.MRA
  if (connection === undefined || pending === undefined || step === undefined || message.message !== answered) {
    machine.counters.duplicates.MRA++
    return
  }
  machine.applyRule(connection, message, now)
  // The transition has stopped the retries; an MRA only delays them.
  pending.timeout = fromExponent(message.serviceTimeout) + fromExponent(connection.agreed.ackTimeout)
  pending.interval = 0
  pending.overdueAt = now + pending.timeout
  connection.pending = pending
  machine.timers.set(connection, pending.overdueAt)
}

const onDreq = (machine: CmMachine, message: ReceivedMessage<'DREQ'>, from: CmPath, now: number): void => {
  const { tid, localId, remoteId, remoteQpn } = message
  const connection = machine.registry.byIds(from, remoteId, localId)
  if (connection === undefined) {
    // The connection has probably ended here, and the peer did not get our DREP.
    machine.counters.duplicates.DREQ++
    machine.transmit(from, 'DREP', emitCm({ name: 'DREP', tid, localId: remoteId, remoteId: localId }), 'sent')
    return
  }
  if (remoteQpn !== connection.agreed.localQpn) return
  const receipt = cmStates[connection.state].receive.DREQ
  // The DREP has the transaction id of the DREQ. A repeated DREQ gets the DREP of the first.
  if (receipt !== undefined && 'nextState' in receipt) connection.tid = tid
  machine.applyRule(connection, message, now)
}

const onSidrReq = (machine: CmMachine, message: ReceivedMessage<'SIDR_REQ'>, from: CmPath): void => {
  if (machine.registry.byRequest(from, message.requestId) !== undefined) {
    machine.counters.duplicates.SIDR_REQ++
    return
  }
  const connection = new CmConnection(0, from)
  connection.remoteId = message.requestId
  connection.tid = message.tid
  connection.serviceId = message.serviceId
  if (!machine.registry.listeners.has(message.serviceId)) {
    machine.send(connection, messages.sidrRep(connection, { status: sidrStatus.UNSUPPORTED }))
    return
  }
  machine.registry.addRequest(connection)
  connection.state = 'SIDR_REQ_RCVD'
  machine.events.push({ name: 'SIDR_REQ_RECEIVED', connection, message })
}

/** Refuses a LAP, because alternate paths are not supported. Linux does not answer a LAP on RoCE. */
const onLap = (machine: CmMachine, { tid, localId, remoteId }: ReceivedMessage<'LAP'>, from: CmPath): void => {
  const isKnown = machine.registry.byIds(from, remoteId, localId) !== undefined
  const status = isKnown ? aprStatus.UNSUPPORTED : aprStatus.INVALID_COMM_ID
  machine.transmit(from, 'APR', emitCm({ name: 'APR', tid, localId: remoteId, remoteId: localId, status }), 'sent')
}

/**
 * Handles a datagram received by queue pair 1. Other datagrams than CM messages are ignored. `from`: the path back to
 * the sender, with the local GID, P_Key and device at which the datagram arrived.
 */
export const receive = (machine: CmMachine, mad: Uint8Array, from: CmPath, now: number): void => {
  const message = viewCm(mad)
  if (message === undefined) return
  machine.counters.received[message.name]++
  switch (message.name) {
    case 'REQ':
      onReq(machine, message, from, now)
      break
    case 'REP':
      onRep(machine, message, from, now)
      break
    case 'REJ':
      onRej(machine, message, from, now)
      break
    case 'MRA':
      onMra(machine, message, from, now)
      break
    case 'DREQ':
      onDreq(machine, message, from, now)
      break
    case 'RTU':
    case 'DREP':
      machine.applyRule(machine.registry.byIds(from, message.remoteId, message.localId), message, now)
      break
    case 'SIDR_REQ':
      onSidrReq(machine, message, from)
      break
    case 'SIDR_REP':
      machine.applyRule(machine.registry.byLocalId(from, message.requestId), message, now)
      break
    case 'LAP':
      onLap(machine, message, from)
      break
    case 'APR':
      // We never send a LAP, so no connection waits for an APR.
      machine.counters.duplicates.APR++
  }
}
