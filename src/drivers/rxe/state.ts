/*
 * The soft device's state: tables by which engine, packets and calls find queue pairs and completion queues.
 */
import type { CallContext, Context, CoreObject, Device, RequestPoll } from '../../core/model.ts'
import type { FlowAddress, Port } from '../../phy/port.ts'
import type { Cause } from '../../spec/check/causes.ts'
import type { Failure } from '../../spec/check/failures.ts'
import type { RequestWatcher, WorkRequest } from '../../spec/check/requests.ts'
import type { postSend, QpAttributeName, qpMethods } from '../../spec/classes/qp/qp.ts'
import type { In, ObjectClass } from '../../spec/schema/schema.ts'
import type { Engine } from '../../transport/engine.ts'
import type { Causes, Completions } from '../../transport/types.ts'
import type { Arena } from '../../wire/arena.ts'
import type { AddressHandle } from './address/destinations.ts'
import type { Identity } from './address/identity.ts'
import type { Groups } from './address/multicast.ts'
import type { StoredAddress } from './address/path.ts'
import type { QueueLimits } from './attributes.ts'
import type { CqRing } from './rings/completion-ring.ts'
import type { ReceiveQueue } from './rings/receive-queue.ts'
import type { QpRings } from './rings/work-source.ts'
import type { Slots } from './slots.ts'

export type CqObject = CoreObject<CqRing>

/**
 * An XRC domain; two domains are equal if they are the same object. It exists as long as an `xrcd` object has it open.
 */
export interface XrcDomain {
  /** The file's identity; undefined for a domain that was opened without a file. */
  readonly file: string | undefined
  /** Number of `xrcd` objects that have it open. */
  openers: number
}
export type XrcdObject = CoreObject<XrcDomain>

/** State of an SRQ object. */
export interface SrqState {
  /** SRQ number, 24 bits: XRC senders name the SRQ by it. */
  readonly number: number
  /** Its slot in `RxeState.srqs`. */
  readonly slot: number
  readonly queue: ReceiveQueue
  /** Protection domain of the memory that its WQEs name. */
  readonly pd: number
  /** The number of its CQ, and its domain; -1 and undefined for an SRQ that is no XRC SRQ. */
  readonly cq: number
  readonly domain: XrcDomain | undefined
}
export type SrqObject = CoreObject<SrqState>

/** A class of queue pairs with every attribute that any type has. */
export type AnyQp = ObjectClass<
  ReturnType<typeof qpMethods<QpAttributeName>> & { postSend: ReturnType<typeof postSend> }
>
/** Attributes of `modify`, of any type. */
export type QpModify = In<AnyQp['methods']['modify'], CoreObject>

/**
 * A queue pair object's queues and driver state. QP state, PSNs and most attributes are in the engine, in row `row`.
 */
export interface QueuePair extends QpRings {
  readonly row: number
  readonly qpn: number
  /** XRC target: its domain, and all objects that have the target open; each of these gets its events. */
  readonly domain?: XrcDomain
  openers?: readonly QpObject[]
  /** Attributes that the engine does not keep (`AttributeBits`). */
  attributeBits: number
  /** The address vector of `flow`; undefined without a path. */
  address: StoredAddress | undefined
  /** The port's flow to the peer; -1 without a path. */
  flow: number
}
/** PORT: the port was set; SQD_EVENT: the program enabled the event of a drained send queue. */
export const AttributeBits = { PORT: 1, SQD_EVENT: 2 } as const
export type QpObject = CoreObject<QueuePair>

/** The objects of a queue pair: of an XRC target all that have it open. */
export const openersOf = (qp: QpObject): readonly QpObject[] => qp.state.openers ?? [qp]

/** Records of failures (failures.ts). */
export interface Failures extends Causes {
  /** Reports an asynchronous event of a queue pair. */
  event(row: number, type: number, cause: Cause): void
  /** Reports a failure that belongs to no queue pair, such as an asynchronous event of a CQ. */
  report(failure: Omit<Failure, 'device'>, context: Context | undefined): void
  /** The last failure of this row, drops and notes excepted; undefined if there is none. */
  last(row: number): Failure | undefined
  /** The queue pair was destroyed: its last failure and counts of drops are deleted. */
  forget(row: number): void
  /** Why queue pair `qpn` of this device has refused `psn` of queue pair `peer` (QPNs); undefined if unknown. */
  nakOf(qpn: number, peer: number, psn: number): Cause | undefined
}

/** Reports the requests of a watched device to its watcher (request-feed.ts). */
export interface RequestFeed {
  /** Reports newly posted receives of a row. */
  scanReceives(row: number): void
  /** From now on the completions that `completions` writes are reported too. */
  watchCompletions(completions: Completions): void
  /**
   * Sent messages of a queue pair whose receives are not complete, oldest first; the caller removes completed ones.
   * Undefined if no request of the queue pair was reported.
   */
  sentBy(row: number): WorkRequest[] | undefined
  /** The queue pair is reset or destroyed. */
  reset(row: number): void
  /** The shared receive queue is destroyed. */
  resetShared(srq: SrqObject): void
}

/** A datagram queue pair of a core client, as the device polls it (core-queues.ts). */
export interface CoreQueue {
  readonly qpn: number
  /** PSN of the next packet. */
  readonly sqPsn: number
  /** Sends waiting packets while the port has room. */
  transmit(): void
  /** Receives a packet for the queue pair: `length` bytes at `at`, ICRC included; `from`: the addresses of its run. */
  onPacket(arena: Arena, at: number, length: number, from: FlowAddress): void
}

/** Queue sizes that a program requests for a queue pair (struct ibv_qp_cap). */
export interface QpCap {
  readonly maxSendWr: number
  readonly maxRecvWr: number
  readonly maxSendSge: number
  readonly maxRecvSge: number
  readonly maxInlineData: number
}

/**
 * The functions of `--torment` (drivers/rxe/torment/torment.ts) that class handlers, `catchUp` and the removal of a
 * device call.
 */
export interface CallTorment {
  /** The size that a CQ gets: `requested` entries, or the `capacity` of its ring. */
  entriesOf(cq: CqObject, requested: number, capacity: number): number
  /** The queues that a new queue pair gets: `rings`, or queues of exactly the requested sizes in the same rings. */
  queuesOf(rings: QpRings, qpn: number, requested: QpCap): QpRings
  /** A shared receive queue was created or resized for `requests` requests, and may be limited to exactly these. */
  limitShared(srq: SrqObject, requests: number): void
  /** The rings of a queue pair were emptied. */
  onRingsEmptied(rings: QpRings): void
  /** Ends all delays, then calls `run`; nothing that `run` causes is delayed. */
  withoutDelays<T>(run: () => T): T
  /** The device is removed. */
  close(): void
}

export interface RxeState {
  readonly limits: QueueLimits
  /** Changes when another interface replaces the device's own (interface.ts). */
  identity: Identity
  readonly port: Port
  /** Completion queues by the number that the engine uses. */
  readonly cqs: Slots<CqObject>
  /** QPNs, with their rows in the engine; those of core clients have none. */
  readonly qpns: Numbers
  /** Address handles by number. */
  readonly ahs: Map<number, AddressHandle>
  readonly ahns: Numbers
  readonly groups: Groups
  readonly srqs: Slots<SrqObject>
  /** SRQ numbers, each with its slot in `srqs`. */
  readonly srqns: Numbers
  /** XRC domains of files, by the files' identity. */
  readonly domains: Map<string, XrcDomain>
  /** By row of the engine; undefined for a free row. */
  readonly qps: (QpObject | undefined)[]
  /** The address that was stored last: many queue pairs and address handles have the same one, and share it (R15). */
  lastAddress: StoredAddress | undefined
  /** By row of the engine, for its work source: the queues; undefined for a free row. */
  readonly rings: (QpRings | undefined)[]
  /** The queues of a row were created: the next `poll` checks them. */
  readonly addQueues: (row: number) => void
  /** The next `poll` checks the row's queues, even if their indices have not changed. */
  readonly recheck: (row: number) => void
  /**
   * Polls if the send queue of `row` may have requests that the engine does not know (with `--torment` always), for
   * methods whose result depends on them: a program posts before it calls, but the doorbell may arrive after the call.
   */
  readonly catchUp: (row: number) => void
  /**
   * Like `catchUp`, for all send queues. The promise resolves when all are checked, a slice in each turn of the event
   * loop; undefined if they are checked already. `isInProcess`: for the library in this process, which reports each
   * post with its queue pair, so that only these queue pairs are checked.
   */
  readonly catchUpAll: (isInProcess: boolean) => Promise<void> | undefined
  /** Flows of datagrams that `poll` closes at its end (drivers/rxe/address/destinations.ts). */
  readonly releasedFlows: number[]
  /** Queue pairs whose completions were lost because a CQ was full: `poll` moves them to ERR at its end. */
  readonly overrunQps: { readonly qpn: number; readonly cause: Cause }[]
  readonly failures: Failures
  /** Only while the device is watched. */
  feed: RequestFeed | undefined
  readonly watch: (device: Device<RxeState>, watcher: RequestWatcher, scratch: Arena) => RequestPoll
  /**
   * Queue pairs of core clients by QPN (1 while the MAD layer uses it), and the number of datagrams that wait in them.
   */
  readonly coreQueues: { readonly byNumber: Map<number, CoreQueue>; waiting: number }
  /** Times that the link went down. */
  linkDowned: number
  /** Microseconds, of the clock that `poll` is called with. */
  readonly now: () => number
  /** `--torment`; undefined: there is none. */
  torment: CallTorment | undefined
  /**
   * The engine, which is created after the device is registered. A function: objects with accessors are slow to read.
   */
  readonly engine: () => Engine
}

/** The device's state, for class handlers, which are the same for all soft devices. */
export const stateOf = (call: CallContext): RxeState => call.device.state as RxeState

/** Allocates QPNs, SRQ numbers (both have a row or slot once they are bound) or address handle numbers: 24 bits. */
export interface Numbers {
  /** Allocates a number, which has no row yet. */
  take(): number
  bind(number: number, row: number): void
  free(number: number): void
  /** The row of a number; -1 if it has none or is free. */
  rowOf(number: number): number
  /** Numbers in use. */
  count(): number
}

/** The lowest numbers that a program gets from rxe. QPNs 0 and 1 are SMI and GSI. */
export const FIRST_QPN = 17
export const FIRST_SRQN = 0x20001
/** 0xffffff is the multicast QPN. */
const LAST_NUMBER = 0xfffffe

/** Numbers whose rows share one page (`pages` of `createNumbers`). */
const PAGE_BITS = 10
const PAGE_NUMBERS = 1 << PAGE_BITS

/**
 * Numbers are allocated cyclically, so that a recently freed one is not used again soon, and late packets of an old
 * connection reach no queue pair. `offset`, a u32, selects the number to begin with. Rows are stored in pages, four
 * bytes a number; a page is freed with its last number.
 */
export const createNumbers = (first: number, offset = 0): Numbers => {
  /** An entry is row + 2; 1 for a number without a row yet, 0 for a free one. */
  const pages: (Int32Array | undefined)[] = []
  /** By page: numbers in use. */
  const uses: number[] = []
  const start = first + (offset % (LAST_NUMBER - first + 1))
  /** The index of number `start`: it begins a page, so that the numbers from `start` on fill whole pages. */
  const base = (first + PAGE_NUMBERS - 1) & -PAGE_NUMBERS
  let next = start
  let count = 0
  /** The index of a number's entry over all pages; the number itself below `first`, -1 above LAST_NUMBER. */
  const indexOf = (number: number): number => {
    if (number < first) return number
    return number > LAST_NUMBER ? -1 : base + ((number - start) & 0xffffff)
  }
  const entry = (index: number): number => pages[index >>> PAGE_BITS]?.[index & (PAGE_NUMBERS - 1)] ?? 0
  const set = (number: number, value: number): void => {
    const index = indexOf(number)
    const page = index >>> PAGE_BITS
    const change = +(value !== 0) - +(entry(index) !== 0)
    pages[page] ??= new Int32Array(PAGE_NUMBERS)
    pages[page][index & (PAGE_NUMBERS - 1)] = value
    uses[page] = (uses[page] ?? 0) + change
    count += change
    // the page of the next number is kept: it would be allocated again immediately
    if (uses[page] === 0 && page !== indexOf(next) >>> PAGE_BITS) pages[page] = undefined
  }
  const advance = (): void => {
    next = next === LAST_NUMBER ? first : next + 1
  }
  return {
    take() {
      while (entry(indexOf(next)) !== 0) advance()
      const number = next
      advance()
      set(number, 1)
      return number
    },
    bind: (number, row) => set(number, row + 2),
    free: number => set(number, 0),
    rowOf: number => {
      const index = indexOf(number)
      const page = pages[index >>> PAGE_BITS]
      return page === undefined ? -1 : Math.max(page[index & (PAGE_NUMBERS - 1)] - 2, -1)
    },
    count: () => count,
  }
}
