/*
 * What the connection manager knows of one connection, or of one resolution of a service id: ids, state, path, the
 * parameters that both ends agreed on, and the message that waits for an answer. The engine (engine.ts) changes it;
 * consumers read it. No socket, clock, object of core or queue pair is known here.
 */
import type { CmState } from '../spec/cm-states.ts'
import type { CmMessageName } from '../spec/wire/mad.ts'
import type { CmMessage } from '../wire/mad.ts'
import type { Timed } from './timer-queue.ts'

/** A path between a port of ours and a port of a peer's, with what a REQ says of it. */
export interface CmPath {
  /** Which of our devices; its consumer's number for it. */
  readonly device: number
  /** 16 bytes each. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  readonly pkey: number
  /** ibv_mtu: 1 (256 bytes) to 5 (4096 bytes). */
  readonly mtu: number
  /** 20 bits. */
  readonly flowLabel: number
  readonly trafficClass: number
  readonly hopLimit: number
  readonly sl: number
  /** 4.096 µs × 2^n, one way. */
  readonly packetLifeTime: number
}

/** What kind of queue pairs a connection has. XRC: an initiator on the active side, a target on the passive one. */
export type CmTransport = 'RC' | 'UC' | 'XRC'

/** What vendors agree on by enhanced connection establishment. */
export interface CmEce {
  /** 24 bits are sent. */
  readonly vendorId: number
  readonly attrMod: number
}

/** What one end offers: queue pair, first PSN, and its limits. */
export interface CmOffer {
  readonly qpn: number
  readonly startingPsn: number
  /** READs and atomics that it serves at once, and that it may have outstanding itself. */
  readonly responderResources: number
  readonly initiatorDepth: number
  readonly flowControl?: boolean
  /** 0 to 7, 7 endless. */
  readonly rnrRetryCount: number
  readonly srq?: boolean
  readonly privateData?: Uint8Array
  readonly ece?: CmEce | undefined
}

/** What the active side asks for. */
export interface CmRequest extends CmOffer {
  readonly path: CmPath
  readonly serviceId: bigint
  readonly transport: CmTransport
  /** 0 to 7. */
  readonly retryCount: number
  /** Exponents: how long each side may take to answer a message. */
  readonly remoteResponseTimeout: number
  readonly localResponseTimeout: number
  /** How often a message is sent again, 0 to 15. */
  readonly maxCmRetries: number
}

/** What both ends agreed on, as this end sees it; complete in REP_RCVD, REP_SENT and later. */
export interface CmAgreement {
  localQpn: number
  remoteQpn: number
  /** PSN of the first packet that this end sends, and that it expects. */
  sqPsn: number
  rqPsn: number
  responderResources: number
  initiatorDepth: number
  retryCount: number
  rnrRetryCount: number
  transport: CmTransport
  /** Exponent of the ACK timeout: local ACK timeout of the queue pair, and how long TIMEWAIT lasts. */
  ackTimeout: number
}

/** A message as it went out, to be sent again. */
export interface CmSent {
  readonly name: CmMessageName
  readonly bytes: Uint8Array
}

/** A message that waits for an answer. */
export interface CmPending extends CmSent {
  /** How often it may still be sent again. */
  retries: number
  /** Microseconds until it is sent again. */
  timeout: number
}

/** Who waits for requests to one service id, or to a range of them. */
export interface CmListener {
  readonly serviceId: bigint
  readonly serviceMask: bigint
  /** Undefined: requests to all devices. */
  readonly device: number | undefined
  /** Requests that wait for the consumer: further ones are dropped, and their senders try again. */
  readonly backlog: number
  waiting: number
}

export class CmConnection implements Timed {
  state: CmState = 'IDLE'
  /** 0 until the peer has said its own. */
  remoteId = 0
  remoteCaGuid = 0n
  /** Transaction of the message that is being answered. */
  tid = 0n
  path: CmPath
  serviceId = 0n
  /** Microseconds until a message without an answer is sent again. */
  answerTimeout = 0
  maxCmRetries = 0
  /** Exponent: how long an answer of ours may take, of which the peer is told once it asks again. */
  serviceTimeout = 0
  pending: CmPending | undefined
  /** The RTU, MRA or DREP sent last, for duplicates of what it answers. */
  lastReply: CmSent | undefined
  listener: CmListener | undefined
  /** The consumer has destroyed it: it is gone, or rests in TIMEWAIT. */
  destroyed = false
  readonly agreed: CmAgreement = {
    localQpn: 0,
    remoteQpn: 0,
    sqPsn: 0,
    rqPsn: 0,
    responderResources: 0,
    initiatorDepth: 0,
    retryCount: 0,
    rnrRetryCount: 0,
    transport: 'RC',
    ackTimeout: 0,
  }
  /** By what the registry finds it beside its own id; '' by nothing. */
  readonly keys = { remoteId: '', remoteQpn: '', localQpn: '', request: '' }
  deadline = Number.POSITIVE_INFINITY
  heapIndex = -1
  localId: number

  /** A request for a datagram has no id of ours: 0. */
  constructor(localId: number, path: CmPath) {
    this.localId = localId
    this.path = path
  }
}

export type Received<N extends CmMessage['name']> = Extract<CmMessage, { readonly name: N }>
