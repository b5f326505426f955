/*
 * The soft device's state, and the state of its objects.
 */

import type { Identity } from '../../core/devices/identity.ts'
import type { DeviceTaps } from '../../core/driver-contract.ts'
import type { Account, CallContext, Context, ContextProgram, CoreObject } from '../../core/model.ts'
import type { Cause } from '../../spec/check/causes.ts'
import type { Failure, FailurePeer } from '../../spec/check/failures.ts'
import type { postSend, QpAttributeName, qpMethods } from '../../spec/classes/qp/qp.ts'
import type { EthernetLink } from '../../spec/link-rate.ts'
import type { In, ObjectClass } from '../../spec/schema/schema.ts'
import type { ManagementPath, PortSubnet } from '../../spec/subnet-port.ts'
import type { Engine } from '../../transport/engine/engine.ts'
import type { Causes } from '../../transport/engine/types.ts'
import type { FlowAddress, Port } from '../../transport/phy/port.ts'
import type { Arena } from '../../transport/wire/arena.ts'
import type { AddressHandle } from './address/destinations.ts'
import type { Groups } from './address/multicast.ts'
import type { Paths, StoredAddress } from './address/path.ts'
import type { QueueLimits } from './attributes.ts'
import type { CompletionQueue } from './completion-queue.ts'
import type { ExactQueue, QpQueues, ReceiveQueue } from './queues.ts'
import type { Slots } from './slots.ts'

export type CqObject = CoreObject<CompletionQueue>

/** An XRC domain. It exists as long as an `xrcd` object has it open. */
export interface XrcDomain {
  /** The file's identity; undefined for a domain without a file. */
  readonly file: string | undefined
  /** Number of `xrcd` objects that have the domain open. */
  openers: number
}
export type XrcdObject = CoreObject<XrcDomain>

export interface SrqState<Q extends ReceiveQueue = ReceiveQueue> {
  /** SRQ number, 24 bits. */
  readonly number: number
  /** Slot in `SoftState.srqs`. */
  readonly slot: number
  readonly queue: Q
  /** Protection domain of the memory that its WQEs name. */
  readonly pd: number
  /** The CQ's number, for an XRC SRQ; -1 for a basic SRQ. */
  readonly cq: number
  /** For an XRC SRQ. */
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
 * First PSNs since the two ends are connected; undefined before the transition that sets them. `sq`: of its own
 * requests. `rq`: what it expected when the later one of it (to RTR) and its peer (to RTS) was ready.
 */
interface FirstPsns {
  readonly sq: number | undefined
  readonly rq: number | undefined
}
/** Of all queue pairs without PSNs: an idle queue pair keeps no numbers of its own. */
export const noPsns: FirstPsns = { sq: undefined, rq: undefined }

/** Driver state of a queue pair object. QP state, PSNs and most attributes are in the engine, in row `row`. */
export interface QueuePair extends QpQueues {
  readonly row: number
  readonly qpn: number
  /** Of an XRC target. */
  readonly domain?: XrcDomain
  /** All objects that have an XRC target open. Each object gets the target's events. */
  openers?: readonly QpObject[]
  /** Attributes that the engine does not keep (`AttributeBits`). */
  attributeBits: number
  /** Undefined without a path. */
  address: StoredAddress | undefined
  firstPsns: FirstPsns
  /** The GID index that the queue pair holds (`holdGid`); -1: none. RESET does not release it. */
  heldGid: number
  /** Responder resources taken from the device's budget (max_res_rd_atom). Absent: none, or there is no budget. */
  responses?: { readonly account: Account | undefined; readonly count: number }
  /** Made by commands of the firmware: the hop limit of its packets is as given. */
  sendsGivenHops?: boolean
  /** The peer's number for people, if the engine's is that of a responder of DC. */
  targetQpn?: number | undefined
  /** The port's flow to the peer; -1 without a path. */
  flow: number
}
/** PORT: the port is set. SQD_EVENT: the program has enabled SQ_DRAINED. */
export const AttributeBits = { PORT: 1, SQD_EVENT: 2 } as const
export type QpObject = CoreObject<QueuePair>

/** The objects of a queue pair; an XRC target may have several. */
export const openersOf = (qp: QpObject): readonly QpObject[] => qp.state.openers ?? [qp]

/** A queue pair with a completion that was lost because a CQ was full (`isLost`), or that a fault rule has failed. */
interface FailingQp {
  readonly qpn: number
  readonly cause: Cause
  readonly isLost: boolean
  /** A failed send of an unreliable service leads to SQE, all else to ERR. */
  readonly isSend: boolean
}

/**
 * How a queue pair has ended: `call`, `close`, `remove`, `undo` (CallContext.why) destroyed it; `reset`: it was moved
 * to RESET, and not to RTR since.
 */
export interface QpEnd {
  readonly how: CallContext['why'] | 'reset'
  readonly program: ContextProgram | undefined
}

export interface ConnectedPeer {
  readonly peer: FailurePeer
  /** The peer's number in the engine. */
  readonly qpn: number
  /** The state of the peer's device, if it belongs to this core. */
  readonly state: SoftState | undefined
  /** The index of that device. */
  readonly device?: number
}

/** Records of failures (failures.ts). */
export interface Failures extends Causes {
  /** Reports an asynchronous event of a queue pair. */
  event(row: number, type: number, cause: Cause): void
  /** Reports a failure that belongs to no queue pair, such as an event of a CQ. */
  report(failure: Omit<Failure, 'device'>, context: Context | undefined): void
  /** The peer of a row; undefined for a queue pair without a path. */
  peerOf(row: number): ConnectedPeer | undefined
  /** The last failure of this row, without drops and notes. */
  last(row: number): Failure | undefined
  /** The queue pair was modified to RTS, from where it sends: what its peer expects is noted (`FirstPsns`). */
  connected(row: number): void
  /** The peer answers a request with `psn` as a duplicate, and has not executed it in this life of the connection. */
  unexecuted(row: number, psn: number, cause: Cause): void
  /** The queue pair was reset or destroyed: deletes its records. */
  forget(row: number): void
  /** The cause of the NAK that `qpn` of this device has sent to QPN `peer` for `psn`; undefined if unknown. */
  nakOf(qpn: number, peer: number, psn: number): Cause | undefined
}

/** A datagram queue pair of a core client (core-queues.ts), or a number to which a driver of its own takes packets. */
export interface CoreQueue {
  readonly qpn: number
  /** Not listed by tools. */
  readonly isInternal?: true
  /** PSN of the next packet. */
  readonly sqPsn: number
  /** Sends waiting packets while the port has room. */
  transmit(): void
  /** Receives a packet: `length` bytes at `at`, with ICRC. `from`: the addresses of the run. */
  onPacket(arena: Arena, at: number, length: number, from: FlowAddress): void
  /** Receives a management datagram from the subnet of an InfiniBand port. */
  onManagement?(mad: Uint8Array, path: ManagementPath): void
}

/** Maximum entries of `SoftState.qpEnds`; the oldest are forgotten. */
const MAX_QP_ENDS = 1024

/** Notes how a queue pair that may have a peer has ended: peers that wait for it are told (waits.ts). */
export const noteQpEnd = (
  { qpEnds }: SoftState,
  qpn: number,
  how: QpEnd['how'],
  context: Context | undefined,
): void => {
  qpEnds.delete(qpn)
  qpEnds.set(qpn, { how, program: context?.program })
  const [oldest] = qpEnds.keys()
  if (qpEnds.size > MAX_QP_ENDS && oldest !== undefined) qpEnds.delete(oldest)
}

/** struct ibv_qp_cap. */
export interface QpCap {
  readonly maxSendWr: number
  readonly maxRecvWr: number
  readonly maxSendSge: number
  readonly maxRecvSge: number
  readonly maxInlineData: number
}

/** Torment of one device (torment/torment.ts), as the class handlers use it. */
export interface CallTorment {
  /** The size of a new CQ: `requested` entries, or the `capacity` of its ring. */
  entriesOf(cq: CoreObject, requested: number, capacity: number): number
  /** A new queue pair may be limited to exactly the requested sizes, if its queues can be. */
  limitQueues(qp: CoreObject, queues: QpQueues, qpn: number, requested: QpCap): void
  /** A shared receive queue was created or resized: it may be limited to exactly `requests` requests. */
  limitShared(srq: SrqObject, exact: ExactQueue, requests: number): void
  /** Ends all delays, then calls `run`. Nothing that `run` causes is delayed. */
  withoutDelays<T>(run: () => T): T
  /** The device is removed. */
  close(): void
}

/** `Own`: what the driver keeps of its own. */
export interface SoftState<Own = unknown> {
  /** Undefined until the device is complete. */
  own: Own | undefined
  readonly limits: QueueLimits
  readonly ethernetLink: EthernetLink
  /** The types of RoCE's GIDs (`GidType`), of which each address has one, in the order of ib_core's table. */
  readonly gidTypes: readonly number[]
  /** Changes when another interface replaces the device's own (interface.ts). */
  identity: Identity
  readonly port: Port
  /** How the port addresses paths. */
  readonly paths: Paths
  /** Of a device with an InfiniBand port, once the device is registered. */
  fabric:
    | {
        readonly subnet: PortSubnet | undefined
        readonly smLid: number
        setManager(isManager: boolean): boolean
        removed(): void
      }
    | undefined
  /** Completion queues by their number in the engine. */
  readonly cqs: Slots<CqObject>
  /** QPNs, with their rows in the engine. QPNs of core clients have no rows. */
  readonly qpns: Numbers
  /** Address handles by number. */
  readonly ahs: Map<number, AddressHandle>
  readonly ahns: Numbers
  readonly groups: Groups
  readonly srqs: Slots<SrqObject>
  /** SRQs by their queues, of those that taps have looked for. */
  readonly srqOwners: WeakMap<ReceiveQueue, SrqObject>
  /** SRQ numbers, each with its slot in `srqs`. */
  readonly srqns: Numbers
  /** XRC domains by the file's identity. */
  readonly domains: Map<string, XrcDomain>
  /**
   * By row of the engine; undefined for a free row. The object of a row that is not its own, `state.row`, is a target
   * of mlx5's DC: the row is the responder of one of its connections.
   */
  readonly qps: (QpObject | undefined)[]
  /** Rows of the datagram queue pairs, by the id of their protection domain. */
  readonly datagramRows: Map<number, Set<number>>
  /** The address that was stored last: queue pairs and address handles with equal addresses share it. */
  lastAddress: StoredAddress | undefined
  /** By row of the engine; undefined for a free row. */
  readonly queues: (QueuePair | undefined)[]
  /** The next `poll` checks the queues of a new row. */
  readonly addQueues: (row: number) => void
  /** The next `poll` checks the row's queues, even if their indices have not changed. */
  readonly recheck: (row: number) => void
  /**
   * Polls if the send queue of `row` may have requests that the engine does not know; with `--torment` always. For
   * methods whose result depends on earlier posts: the doorbell of a post may arrive after the call.
   */
  readonly catchUp: (row: number) => void
  /** Polls, without delays of `--torment`. True if there was anything to do. */
  readonly pollNow: () => boolean
  /**
   * Polls if datagram queue pairs of protection domain `pd` have requests that are not sent. Before an address handle
   * is destroyed or changed: earlier posts name it.
   */
  readonly catchUpDatagrams: (pd: number) => void
  /**
   * Sends responses of `row`, and the ACK or NAK that is due, if the port has space. Before a queue pair is destroyed
   * or reset: the program may have polled the completion of a message whose ACK is not sent.
   */
  readonly sendResponses: (row: number) => void
  /**
   * `catchUp` for all send queues. The promise resolves when all are checked; undefined if they are checked already.
   * `isInProcess`: checks only the queue pairs that the library in this process has named by `onDoorbell`.
   */
  readonly catchUpAll: (isInProcess: boolean) => Promise<void> | undefined
  /** Flows of datagrams: `poll` closes them at its end (address/destinations.ts). */
  readonly releasedFlows: number[]
  /** By QPN: how the last queue pairs that had a peer have ended. At most MAX_QP_ENDS. */
  readonly qpEnds: Map<number, QpEnd>
  /** Queue pairs that `poll` moves to an error state at its end. */
  readonly failingQps: FailingQp[]
  readonly failures: Failures
  /** QPNs of the queue pairs in ERR. */
  readonly inError: Set<number>
  /** The port's P_Key table, once the device is registered. */
  pkeys: Uint16Array
  /** `Device.taps`, once the device is registered. */
  taps: DeviceTaps
  /** Queue pairs of core clients by QPN, and the number of datagrams that wait in them. */
  readonly coreQueues: { readonly byNumber: Map<number, CoreQueue>; waiting: number }
  /** Times that the link went down. */
  linkDowned: number
  /** ECN field of connected queue pairs' packets; 0: that of their address vectors. */
  readonly ecn: number
  /** The clock of `poll`, microseconds. */
  readonly now: () => number
  torment: CallTorment | undefined
  /** A function, because the engine is created after the device is registered; an accessor would be slow to read. */
  readonly engine: () => Engine
}

export const stateOf = (call: CallContext): SoftState => call.device.state as SoftState

/** Allocates 24-bit numbers: QPNs, SRQ numbers or address handle numbers. A row or slot may be bound to a number. */
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

/**
 * The lowest numbers that a program gets from Linux's rxe. 0 is no queue: programs take it for a failure. QPNs 0 and 1
 * are SMI and GSI.
 */
export const FIRST_CQN = 1
export const FIRST_QPN = 17
export const FIRST_SRQN = 0x20001
/** 0xffffff is the multicast QPN. */
const LAST_NUMBER = 0xfffffe

/** Log2 of the numbers per page (`pages` of `createNumbers`). */
const PAGE_BITS = 10
const PAGE_NUMBERS = 1 << PAGE_BITS

/**
 * Numbers are allocated cyclically, so that late packets of a destroyed queue pair reach no new one. `offset`, a u32,
 * selects the first number. With `isHeld` the newest free number that is not held is given out first. Rows are stored
 * in pages; a page is freed with its last number.
 */
export const createNumbers = (
  first: number,
  offset = 0,
  isHeld: false | ((number: number) => boolean) = false,
): Numbers => {
  /** An entry is row + 2; 1 for a number without a row yet, 0 for a free one. */
  const pages: (Int32Array | undefined)[] = []
  /** By page: how many numbers are in use. */
  const uses: number[] = []
  const start = first + (offset % (LAST_NUMBER - first + 1))
  /** The index of number `start`: it begins a page, so that the first numbers share one page. */
  const base = (first + PAGE_NUMBERS - 1) & -PAGE_NUMBERS
  let next = start
  let count = 0
  /** With `isHeld`: free numbers, the newest last. */
  const freed: number[] = []
  /**
   * The index of a number's entry, over all pages. Numbers from `first` to `start` - 1 have the highest indices. A
   * number below `first` (QPN 1 of the general services) is its own index; above LAST_NUMBER the index is -1.
   */
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
    // the page of the next number is kept, because `take` would allocate it again
    if (uses[page] === 0 && page !== indexOf(next) >>> PAGE_BITS) pages[page] = undefined
  }
  const advance = (): void => {
    next = next === LAST_NUMBER ? first : next + 1
  }
  return {
    take() {
      for (let i = freed.length - 1; isHeld && i >= 0; i--) {
        if (isHeld(freed[i]!)) continue
        const [newest] = freed.splice(i, 1)
        set(newest!, 1)
        return newest!
      }
      // ends: no device has as many objects as there are numbers
      while (entry(indexOf(next)) !== 0) advance()
      const number = next
      advance()
      set(number, 1)
      return number
    },
    bind: (number, row) => set(number, row + 2),
    free(number) {
      set(number, 0)
      if (isHeld && number >= first) freed.push(number)
    },
    rowOf: number => {
      const index = indexOf(number)
      const page = pages[index >>> PAGE_BITS]
      return page === undefined ? -1 : Math.max(page[index & (PAGE_NUMBERS - 1)] - 2, -1)
    },
    count: () => count,
  }
}
