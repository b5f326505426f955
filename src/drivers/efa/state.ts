import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import type { Core, CoreObject } from '../../core/model.ts'
import type { Doorbell, Scanned } from './scan.ts'

/** An address of the network, and the port's flow to it. */
export interface Peer {
  readonly number: number
  readonly address: Uint8Array
  readonly text: string
  readonly flow: number
  /** Address handles and queue pairs that need the flow. */
  uses: number
  /** The port's number of the address as a source of packets; -1: unknown. */
  source: number
  /** When a packet came from it last, µs; before that, when it became known. */
  heardAt: number
  /** Number of the address handles of this address, by protection domain. */
  readonly ahs: Map<number, number>
  /** Number of `ReceivedFrom` of this address, by `Account.payer` of their queue pairs. */
  readonly senders: Map<number | undefined, number>
}

/** Where a packet comes from. Without a peer, the address is not known yet. */
export interface Sender extends Pick<Source, 'address' | 'text'> {
  peer: Peer | undefined
}

/** Where a message comes from, for its completion: one record for all messages of a queue pair. */
export interface Source {
  readonly qpn: number
  readonly address: Uint8Array
  readonly text: string
}

/** What arrives at a queue pair, for its completion: one record serves all messages of a device. */
export interface Arrival {
  /** Of the receive that it takes. */
  id: number
  /** `EfaOperation`. */
  operation: number
  /** Bytes of the message, with the GRH of a datagram. */
  length: number
  hasImm: boolean
  imm: number
  sourceQpn: number
  /** Undefined: there is no message. */
  source: Pick<Source, 'address' | 'text'> | undefined
  /** It takes no receive. */
  isUnsolicited: boolean
}

/**
 * All handles of an address in a protection domain have one number, as on Amazon's adapters: libfabric relies on it.
 */
export interface AddressHandle {
  readonly number: number
  readonly pd: number
  readonly peer: Peer
  uses: number
}

type ScanState = Scanned['state']

export interface CompletionQueue extends ScanState {
  readonly number: number
  readonly ring: MappedChunk
  readonly entryBytes: number
  /** A power of two. */
  readonly entries: number
  /** Entries were created with EFA_CREATE_CQ_WITH_SGID. */
  readonly hasSourceGid: boolean
  readonly doorbell: Doorbell
  readonly hasChannel: boolean
  /** Completions so far. */
  produced: number
  /** `produced` when the last one with an error status was written; 0: there was none. */
  lastError: number
  /** The doorbell's value at the last poll. */
  seenDoorbell: number
  /** Number of raised events. */
  raised: number
  isArmed: boolean
  /** With torment: raises the event now or later. */
  readonly lateEvent: ((cq: CqObject) => void) | undefined
  hasOverrun: boolean
}
export type CqObject = CoreObject<CompletionQueue>

export interface SendQueue {
  readonly ring: MappedChunk
  readonly doorbell: Doorbell
  /** Descriptors, a power of two, and bytes of one. */
  readonly depth: number
  readonly bytes: number
  readonly hasLongIds: boolean
  /** Number of descriptors read. */
  taken: number
}

export interface ReceiveQueue {
  readonly ring: MappedChunk
  readonly doorbell: Doorbell
  /** Elements, a power of two. */
  readonly depth: number
  /** Number of elements read. */
  taken: number
  /** The doorbell's value at the last poll. */
  seenDoorbell: number
}

export interface QueuePair extends ScanState {
  readonly qpn: number
  /** Of its messages. */
  readonly source: Source
  readonly pd: number
  /** Of turns (turns.ts). */
  readonly owner: number
  readonly object: QpObject
  readonly isReliable: boolean
  readonly sendCq: CqObject
  readonly receiveCq: CqObject
  readonly send: SendQueue | undefined
  readonly receive: ReceiveQueue | undefined
  readonly takesUnsolicitedWrites: boolean
  readonly cap: {
    readonly maxSendWr: number
    readonly maxRecvWr: number
    readonly maxSendSge: number
    readonly maxRecvSge: number
    readonly maxInlineData: number
  }
  readonly sqSigAll: boolean
  /** `QpState`. */
  state: number
  qkey: number
  sqPsn: number
  rnrRetry: number
  enSqdAsyncNotify: number
  hasPort: boolean
  nextMessage: number
  /** Number of sends read. */
  loaded: number
  /** Sends that have ended before an older one, while watchers need completions in order. */
  readonly ended: Map<number, Ended>
  /** Requests that are executed or wait, by order. */
  readonly active: Map<number, Request>
  /** READs that wait for data, by message. */
  readonly reads: Map<number, Request>
  /** Requests of queue pairs of this process that wait for a receive of this one. */
  readonly waiters: Set<Request>
  /** By `pairKey` of the destination or source. */
  readonly pairs: Map<number, Pair>
  readonly sources: Map<number, ReceivedFrom>
}
export type QpObject = CoreObject<QueuePair>

/** A send that has ended before an older one, while watchers need completions in order. */
interface Ended {
  readonly request: Request
  readonly status: number
}

/** Key of a queue pair at another address. */
export const pairKey = ({ number }: Peer, qpn: number): number => number * 0x100_0000 + qpn

/** What a timer of the device is set for (deadlines.ts). */
interface Timed {
  /** The row of its timer; NO_TIMER: it is not set. */
  timer: number
}
export const NO_TIMER = -1

/** A range of a program's memory. `key`: of the memory table. */
export interface Element {
  hi: number
  lo: number
  length: number
  /** The key of the memory table; 0: no region has the key that the program has written. */
  key: number
  /** The key as the program has written it: 24 bits. */
  written: number
}

/** A send. The device has one record into which it reads, and copies what cannot be executed at once. */
export interface Request extends Timed {
  qp: QueuePair
  /** Position among the sends of the queue pair, from 0. */
  order: number
  /** 16 bits, and 48 more if the queue pair has long ids. */
  id: number
  id1: number
  id2: number
  id3: number
  /** `EfaOperation`, or any other number. */
  operation: number
  hasImm: boolean
  imm: number
  ah: number
  destQpn: number
  qkey: number
  /** The first `count` are valid. */
  readonly elements: readonly Element[]
  count: number
  /** Bytes of `inline`; NO_INLINE: the data is in the elements. */
  inlineLength: number
  readonly inline: Uint8Array
  /** Bytes of the message. */
  length: number
  remoteHi: number
  remoteLo: number
  rkey: number
  /** Of READ and WRITE: what the descriptor says besides the length of its element. */
  remoteLength: number
  // while it is executed
  message: number
  /** Set when the request goes to a queue pair at another address. */
  peer: Peer | undefined
  /** Bytes in packets so far, and bytes that are acknowledged or, of a READ, received. */
  sent: number
  done: number
  rnrTries: number
  /** The queue pair of this process whose receives it waits or has waited for. */
  destination: QueuePair | undefined
  /** It is tried again when its time is over, or when a receive is posted. */
  isWaiting: boolean
  /** Of a READ: when it was sent, or its destination last asked to wait. */
  heardAt: number
}

/** A receive. The device has one record into which it reads. */
export interface Receive {
  id: number
  readonly elements: readonly Element[]
  count: number
  /** Room for a message, bytes. */
  length: number
}

/** Unacknowledged packets, by PSN modulo WINDOW. An undefined request: acknowledged or given up. */
export interface Window {
  requests: (Request | undefined)[]
  offsets: Uint32Array
  lengths: Uint32Array
  sentAt: Float64Array
  tries: Uint8Array
}

/** A packet that the destination could not take yet. */
interface Refused {
  readonly request: Request
  readonly offset: number
  readonly length: number
  readonly dueAt: number
}

/** Unacknowledged packets of a queue pair to one destination. */
export interface Pair extends Window, Timed {
  readonly qp: QueuePair
  readonly peer: Peer
  readonly qpn: number
  /**
   * Tells packets of this pair from those of an earlier one: before a RESET, or of another queue pair with its number.
   */
  readonly epoch: number
  nextPsn: number
  /** The oldest packet that may be unacknowledged. */
  oldest: number
  /** Number of unacknowledged packets. */
  inFlight: number
  inFlightBytes: number
  /** No unacknowledged packet is due to be sent again before this time, µs. */
  dueAt: number
  /** Requests that still have bytes to send. */
  readonly queue: Request[]
  /** When data of a READ was received last. */
  dataAt: number
  /** Packets that are sent again at `dueAt`, with new numbers: the destination had no receive. Oldest first. */
  readonly refused: Refused[]
  /** When a request was queued last. */
  usedAt: number
  /** READs of the destination whose data is not acknowledged, charged to the account. */
  responses: number
  /** The destination has answered before. */
  isHeard: boolean
  /** The port had no room for a packet. */
  isBlocked: boolean
}

/** What a queue pair has received from one source. */
export interface ReceivedFrom {
  readonly qp: QueuePair
  readonly peer: Peer
  readonly qpn: number
  /** Of the source's `Pair`, and earlier ones of which late packets may come. */
  readonly epoch: number
  readonly earlierEpochs: readonly number[]
  /** When a packet came last. */
  usedAt: number
  highest: number
  /** By PSN modulo REMEMBERED: the status of the packet's answer, plus 1; 0: it has not come. */
  readonly answers: Uint8Array
  /** Received bytes of WRITEs with immediate data, by message. */
  readonly writes: Map<number, number>
  /** The PSNs to acknowledge, if any, are between these two. */
  hasToAcknowledge: boolean
  firstToAcknowledge: number
  lastToAcknowledge: number
}

/** An epoch: not 0, which refusals of READ_DATA have. */
export const randomEpoch = ({ random }: Core): number => random() || 1

export interface Numbers {
  /** undefined: all are in use. */
  take(): number | undefined
  give(number: number): void
}

/**
 * Numbers from `min` on below `max`. One that was given back is taken again as late as possible; with `isReused` at
 * once.
 */
export const createNumbers = (min: number, max: number, isReused = false): Numbers => {
  let next = min
  /** In the order in which they were given back, from `oldest` on. */
  let free: number[] = []
  let oldest = 0
  return {
    take() {
      if (isReused && free.length > 0) return free.pop()
      if (next < max) return next++
      if (oldest === free.length) return undefined
      const number = free[oldest++]
      if (oldest > free.length / 2) {
        free = free.slice(oldest)
        oldest = 0
      }
      return number
    },
    give: number => void free.push(number),
  }
}
