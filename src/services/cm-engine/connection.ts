/*
 * The state of one connection, or of one service id resolution. The engine changes the state; consumers only read it.
 */
import type { CmMessageName } from '../../spec/wire/mad.ts'
import { lidAddress } from '../../transport/wire/address.ts'
import type { CmMessage } from '../../transport/wire/mad/mad.ts'
import type { CmState } from './cm-states.ts'
import type { Timed } from './timer-queue.ts'

/** A path between a local and a remote port, with the path fields of a REQ. */
export interface CmPath {
  /** The number by which the consumer knows the local device. */
  readonly device: number
  /** 16 bytes each. */
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
  /** Of a path by LIDs. Its packets have a GRH if `hopLimit` is not 0. */
  readonly lids?: { readonly local: number; readonly remote: number } | undefined
  readonly pkey: number
  /** ibv_mtu: 1 (256 bytes) to 5 (4096 bytes). */
  readonly mtu: number
  /** 20 bits. */
  readonly flowLabel: number
  readonly trafficClass: number
  readonly hopLimit: number
  /** Service level. */
  readonly sl: number
  /** ibv_rate; default: not said. */
  readonly rate?: number
  /** Exponent n of 4.096 µs × 2^n, one way. */
  readonly packetLifeTime: number
}

/**
 * The address from which the peer's datagrams come: its GID or, of a path by LIDs, its LID as `lidAddress` writes it.
 */
export const peerAddress = ({ remoteGid, lids }: CmPath): Uint8Array =>
  lids === undefined ? remoteGid : lidAddress(lids.remote)

/** The type of the queue pairs. XRC: an initiator on the active side, a target on the passive side. */
export type CmTransport = 'RC' | 'UC' | 'XRC'

/** Vendor options of enhanced connection establishment (ECE). */
export interface CmEce {
  /** Only the lower 24 bits are sent. */
  readonly vendorId: number
  readonly attrMod: number
}

/** The offer of one end. */
export interface CmOffer {
  readonly qpn: number
  readonly startingPsn: number
  /** Maximum READs and atomics that this end serves concurrently. */
  readonly responderResources: number
  /** Maximum outstanding READs and atomics of this end. */
  readonly initiatorDepth: number
  /** End-to-end flow control. */
  readonly flowControl?: boolean
  /** 0 to 7; 7: unlimited. */
  readonly rnrRetryCount: number
  /** Whether the queue pair uses a shared receive queue. */
  readonly srq?: boolean
  readonly privateData?: Uint8Array
  readonly ece?: CmEce | undefined
}

/** The active side's request. */
export interface CmRequest extends CmOffer {
  readonly path: CmPath
  readonly serviceId: bigint
  readonly transport: CmTransport
  /** 0 to 7. */
  readonly retryCount: number
  /** Exponent n of 4.096 µs × 2^n: how long the peer may take to answer a message, without the packet life times. */
  readonly remoteResponseTimeout: number
  /** Exponent: how long the peer waits for our answer, with the packet life times of both directions. */
  readonly localResponseTimeout: number
  /** Retries of a message, 0 to 15. */
  readonly maxCmRetries: number
}

/** The agreed parameters, seen from this end. Complete in REP_RCVD, REP_SENT and later states. */
interface CmAgreement {
  localQpn: number
  remoteQpn: number
  /** First PSN that this end sends, and first PSN that it expects. */
  sqPsn: number
  rqPsn: number
  responderResources: number
  initiatorDepth: number
  retryCount: number
  rnrRetryCount: number
  transport: CmTransport
  /** Exponent of the queue pair's ACK timeout. TIMEWAIT lasts as long, at most MAX_TIMEWAIT (machine.ts). */
  ackTimeout: number
}

/** A sent message, kept for retransmission. */
interface CmSent {
  readonly name: CmMessageName
  readonly bytes: Uint8Array
}

/** A message that waits for an answer. */
export interface CmPending extends CmSent {
  /** Number of remaining retries. */
  retries: number
  /** Microseconds between retries. */
  timeout: number
  /** Microseconds until the next repetition before the timeout; 0: none. */
  interval: number
  /** When the next retry is due. */
  overdueAt: number
}

export class CmConnection implements Timed {
  state: CmState = 'IDLE'
  /** The peer's communication id, or the request id of a received SIDR_REQ. 0: none. */
  remoteId = 0
  remoteCaGuid = 0n
  /** Transaction id of our last request, or of the message that is being answered; 0 before the first. */
  tid = 0n
  path: CmPath
  serviceId = 0n
  /** The passive side of an XRC connection. */
  isXrcTarget = false
  /** Microseconds until an unanswered message is sent again. */
  answerTimeout = 0
  maxCmRetries = 0
  /** Exponent: how long our answer may take. Sent in an MRA when the peer repeats its message. */
  serviceTimeout = 0
  pending: CmPending | undefined
  /** The last RTU, MRA or DREP, repeated for duplicates of the answered message. */
  lastReply: CmSent | undefined
  /** Whether the peer has offered an alternate path. The REP declines it. */
  hasAlternatePath = false
  /** Whether the connection was destroyed or removed. A destroyed connection may still be in TIMEWAIT. */
  isDestroyed = false
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
  /** Keys in the registry besides the local id; '': not registered. */
  readonly keys = { remoteId: '', remoteQpn: '', localQpn: '', request: '' }
  // Only the timer queue writes these two.
  deadline = Number.POSITIVE_INFINITY
  heapIndex = -1
  /** Our communication id. */
  localId: number

  /** `localId` 0: a received SIDR_REQ, which has no communication id. */
  constructor(localId: number, path: CmPath) {
    this.localId = localId
    this.path = path
  }
}

export type ReceivedMessage<N extends CmMessage['name']> = Extract<CmMessage, { readonly name: N }>
