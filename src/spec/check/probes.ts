/*
 * What the checker may ask while it takes an event (tools/events/stream.ts): records by index, which would cost too
 * much at every post, and the present state of things that no event tells. A producer has those that it can answer;
 * findings that need another are not made. The answers of our own devices are recorded with the events (`--record-depth
 * check`), so that a session file answers too.
 */
import type { Cause } from './causes.ts'
import type { Program, Stack } from './finding.ts'
import type { Need } from './needs.ts'
import type { WorkRequest } from './requests.ts'

/** The memory that a key grants access to. */
export interface KeyedMemory {
  /** The number of the address space, such as the memory of a process. */
  readonly space: number
  /** Address in `space` minus address in requests. */
  readonly shift: number
  /** The lkey of the region. */
  readonly region: number
  /**
   * Of a key over ranges of other keys (mlx5): the first ones, one behind the other from address 0 of `space` on.
   */
  readonly parts?: readonly KeyedPart[]
}

/** A range of another key. `address`: in requests with that key. */
interface KeyedPart {
  readonly key: number
  readonly address: number
  readonly length: number
}

/** An entry of an event log: a post, a refused post, or a poll. Times are microseconds of the clock of all logs. */
export interface LoggedEvent {
  readonly time: number
  /** As in `Races.post`. */
  readonly acquired: number
  /** Of a single posted request, or of the last polled completion. 0 for a counting CQ. */
  readonly wrId: bigint
  readonly process: number
  readonly thread: number
  /** EventKind.POLL, or PostQueue. For refused posts EventKind.REFUSED is added. */
  readonly kind: number
  readonly context: number
  /** The number of the queue pair, or the handle of the SRQ or CQ. */
  readonly number: number
  /** Number of requests or completions; 0: unknown. */
  readonly count: number
  /** The number of the stack of a post, for `logStack`. */
  readonly stack: number
}

/** An address vector of RoCE. */
export interface RoutedPath {
  readonly dgid: Uint8Array
  readonly sgidIndex: number
  readonly hopLimit: number
}

/** What of a path no router forwards. */
export interface RouterHazard {
  /** The source GID is of RoCE v1: frames without an IP header. Absent: the hop limit is 0 or 1. */
  readonly isRoceV1?: true
  /** Whether the hop limit of the route takes the place of the given one. */
  readonly isReplaced?: boolean
  /** Why the destination is in another subnet; absent: that is not known. */
  readonly way?: string
}

/** New entries of event logs. */
export interface LoggedEvents {
  readonly entries: readonly LoggedEvent[]
  /** Ids of the contexts that have lost entries. */
  readonly lost: readonly number[]
  /** Microseconds: entries of before are read. */
  readonly time: number
}

/** What a fault rule, or the link of a net, does to packets. */
export interface LossByRule {
  /** As `userdma fault show` has it. */
  readonly rule: string
  /** Whether it loses, damages or reorders packets, or has them wait for its rate. */
  readonly loses: boolean
  /** The longest delay of a packet, milliseconds. */
  readonly delay: number
}

export interface ProgramProbes {
  deviceName(device: number): string
  /** The name of a device's driver, such as `mlx5`. */
  driverName?(device: number): string | undefined
  /** The number of the device with a GID; undefined: none of this process. */
  deviceWithGid(gid: Uint8Array): number | undefined
  /**
   * The stack of the post at `index` of the queue, or of a post with this wr_id; empty: unknown. `queue`: PostQueue.
   * For BATCH: the stack of the last ibv_wr_complete, with any wr_id. `number`: the QPN, or the handle of the SRQ.
   */
  postStack(context: number, queue: number, number: number, wrId: bigint, index?: number): Stack
  /**
   * A hash of the bytes that an outstanding send reads; undefined: unreadable now. `isWhole` false: of a long message,
   * only samples.
   */
  digest?(device: number, request: WorkRequest, isWhole: boolean): number | undefined
  /**
   * For `--who` and for lent memory: a hash of `length` bytes of the region of an lkey; undefined: unreadable.
   * `address`: in requests.
   */
  rangeHash?(device: number, lkey: number, address: number, length: number): number | undefined
  /** The hash of a send's buffer at its post; undefined: none was logged (`HashLog` in spec/context-logs.ts). */
  postHash?(context: number, request: WorkRequest): { readonly hash: number; readonly isWhole: boolean } | undefined
  /** The stack of the call that has unmapped memory of this range of a program; undefined: unknown. */
  unmapStack?(program: Program, start: number, end: number): Stack | undefined
  /**
   * Whether a child of fork gets a copy of the page of this address; undefined: unknown. Absent: programs run without
   * the preload library, so there are no events of it.
   */
  isCopiedByFork?(program: Program, address: number): boolean | undefined
  /**
   * The file of which the memory of this address is a private, writable mapping (MAP_PRIVATE), unless it is the data of
   * a program or library; undefined: none, or unknown. Absent: programs run without the preload library.
   */
  privateFile?(program: Program, address: number): string | undefined
  /** Whether a queue pair of any device of this process is in a multicast group; undefined: unknown. */
  hasMember?(group: Uint8Array): boolean | undefined
  /**
   * Why a subnet carries the last datagram of a queue pair to no queue pair that takes it (`RequestReader.whyLost`);
   * undefined: it may arrive.
   */
  whyLost?(device: number, qpn: number, to: Uint8Array, destQpn: number): Cause | undefined
  /**
   * What of a path of queue pair `qpn` (undefined: of an address handle) no router forwards; undefined: nothing.
   */
  routerHazard?(device: number, qpn: number | undefined, path: RoutedPath): RouterHazard | undefined
  /** Whether programs that are not checked use the device, so that it may have unknown queue pairs. Absent: never. */
  hasUnchecked?(device: number): boolean
  /**
   * The last fault rule that lost, damaged or delayed a packet to one of these queue pairs since `time`, in
   * microseconds; undefined: none.
   */
  lossTo?(qpns: readonly number[], time: number): LossByRule | undefined
  /**
   * How many events its program has not read: asynchronous ones of a context, or those of a channel (comp_channel or
   * cm_channel) with this handle; undefined: unknown.
   */
  unreadEvents?(context: number, channel?: number): number | undefined
  /** RLIMIT_MEMLOCK of a process in bytes; infinite if it has no limit. */
  lockLimit?(program: Program): number
  /**
   * The memory of a key of the device with index `device`. Undefined: an unknown key, the key of an unbound window or
   * of a region without memory (kind NULL), or a key of memory with addresses above 2^53.
   */
  memoryOf?(device: number, key: number): KeyedMemory | undefined
  /** The stack with this number (`LoggedEvent.stack`) of a process. */
  logStack?(process: number, stack: number): Stack
  /** The entries of the event logs since the previous call. Absent: there are no logs, so races are not found. */
  readLog?(): LoggedEvents
}
export type ProbeName = keyof ProgramProbes

/**
 * Every probe. `lasts`: an answer stays true until another is given, so that a file can answer by an earlier one; the
 * others are about one moment.
 */
export const probes = {
  deviceName: { lasts: true },
  driverName: { lasts: true },
  deviceWithGid: { lasts: true },
  postStack: { lasts: true },
  digest: { lasts: false },
  rangeHash: { lasts: false },
  postHash: { lasts: true },
  unmapStack: { lasts: true },
  isCopiedByFork: { lasts: true },
  privateFile: { lasts: true },
  hasMember: { lasts: true },
  whyLost: { lasts: true },
  routerHazard: { lasts: true },
  hasUnchecked: { lasts: true },
  lossTo: { lasts: false },
  unreadEvents: { lasts: true },
  lockLimit: { lasts: true },
  memoryOf: { lasts: true },
  logStack: { lasts: true },
  readLog: { lasts: false },
} as const satisfies Readonly<Record<ProbeName, { readonly lasts: boolean }>>
export const probeNames = Object.keys(probes) as readonly ProbeName[]

/** What is true of all events of a producer. */
export interface ProducerFacts {
  /** Whether what programs wait for is found too, such as `endless-rnr`. Absent: it is not. */
  readonly findsWaits?: boolean
  /** What it lacks: findings that need it are not made. Absent: nothing. */
  readonly lacks?: readonly Need[]
  /** Whether packets reach only devices of this process. Absent: unknown. */
  readonly isClosed?: boolean
}
