/*
 * What a daemon and the library need of a device besides its calls: work that is polled for, and what the queues and
 * the network interface of the device are. A driver implements it; a device that only answers calls needs none of it.
 *
 * Only `device`, `poll`, `nextTimeout` and `onDoorbell` are mandatory. What a device lacks, tools do not show.
 */
import type { Wait } from '../spec/check/waits.ts'
import type { RingLayout } from '../spec/drivers/ring-layout.ts'
import type { QpStat } from '../uapi/tool.ts'
import type { Identity } from './devices/identity.ts'
import type { RingLocation } from './memory/rings.ts'
import type { Context, CoreObject, Device } from './model.ts'

/**
 * The queues that a poll checks for new requests; each scope includes CHANGED. CHANGED: those named by `onDoorbell` or
 * changed by calls. USED: also the recently used ones. ALL: all queues. The daemon's loop checks all queues in slices,
 * so that idle queue pairs of one program do not delay others: BEGIN begins a round over all queues with the first
 * slice, CONTINUE checks the next slice. A round begins where the previous slice ended. A device with few queues may
 * check all of them at every poll.
 */
export const ScanScope = { CHANGED: 0, USED: 1, ALL: 2, BEGIN: 3, CONTINUE: 4 } as const
export type ScanScope = (typeof ScanScope)[keyof typeof ScanScope]

/** State of a network interface. */
export interface LinkState {
  /** Administratively up. */
  readonly isUp: boolean
  /** Has a carrier. */
  readonly hasCarrier: boolean
  /** Largest path MTU that fits the interface: 256, 512, … 4096; absent when the interface was removed. */
  readonly pathMtu?: number
}

/** `AsyncEventType`; NO_EVENT for a change without an event. */
export type PortEvent = number
export const NO_EVENT = -1

/**
 * The network interface of a device. The functions that change it return the event that the caller sends
 * (`raisePort`); undefined if nothing changed.
 */
export interface DeviceLink {
  /** Changes when another interface replaces the device's own. */
  readonly identity: Identity
  /** Largest path MTU of the port, bytes. */
  readonly pathMtu: number
  /** Sets the port's state and active MTU. */
  setState(state: LinkState): PortEvent | undefined
  /**
   * The interface has a new address: the port receives its packets, and the GID is added, unless the table has it or is
   * full. 'spare': an additional address. Throws SystemError if the port cannot use it.
   */
  addAddress(address: Uint8Array, claim: 'own' | 'spare'): PortEvent | undefined
  /** The interface has lost an address. GID 0 stays. */
  removeAddress(address: Uint8Array): PortEvent | undefined
  /**
   * The device has a new interface, or the name of its interface has changed. GUID and default GID stay. Throws
   * SystemError if the port cannot join a group on it.
   */
  moveTo(interfaceName: string, interfaceIndex: number): void
}

/** A queue pair as iproute2's `rdma resource` lists it. */
export interface QpResource {
  readonly qpn: number
  /** 0 if the port is not set. */
  readonly port: number
  /** `QpState`. */
  readonly state: number
  readonly destQpn: number
  readonly rqPsn: number
  readonly sqPsn: number
}

/** A queue pair as `userdma stat --qps` lists it, without device and process, which the caller adds. */
export type QpFacts = Omit<QpStat, 'device' | 'pid' | 'command'>

/** The queues of a device, for tools. */
export interface DeviceQueues {
  qpOfNumber(qpn: number): CoreObject | undefined
  /** Undefined if the object has opened an XRC target that another object created, or belongs to another device. */
  qp(object: CoreObject): QpResource | undefined
  /** Maximum number of completions in a CQ. */
  cqEntries(cq: CoreObject): number
  /** At most `max` queue pairs from position `from` on. `next`: position of the next queue pair; undefined at the end. */
  list(
    from: number,
    max: number,
  ): {
    readonly qps: readonly { readonly facts: QpFacts; readonly context: Context | undefined }[]
    readonly next?: number
  }
  /**
   * Number of queue pairs of programs. An XRC target counts once. Yields undefined now and then, so that the caller can
   * return to the event loop. Absent: each object is a queue pair of its own.
   */
  count?(): Generator<undefined, number>
  /** Queue pairs of core's clients. */
  clientQps?(): readonly QpResource[]
  /** QPNs of the queue pairs that use a shared receive queue. Yields as `count`. */
  qpsOfSrq?(srq: CoreObject): Iterable<number | undefined>
}

/** A wait, and the context whose program waits. */
export interface ContextWait {
  readonly context: Context
  readonly wait: Wait
}

/** Counts since the device was added, by their names in spec/counters.ts. */
export interface LayerCounts {
  readonly engine: Readonly<Record<string, number>>
  readonly port: Readonly<Record<string, number>>
}

/** A completion that a fault rule fails. */
export interface InjectedCompletion {
  /** The number of the rule, from 1, and its text. */
  readonly number: number
  readonly text: string
  /** A name of `WcStatus`. */
  readonly status: string
}

/** Whether a successful completion fails. `completion`: a name of `completionNames` (spec/faults.ts). */
export type DecideCompletion = (
  queuePair: CoreObject,
  qpn: number,
  completion: string,
  wrId: bigint,
) => InjectedCompletion | undefined

/** Times are microseconds of the clock that polls the device. */
export interface NetworkDevice {
  readonly device: Device
  /** Processes work requests, packets and timers; true if there was anything to do. `scope`: default ALL. */
  poll(now: number, scope?: ScanScope): boolean
  /** Whether a round over all queues has slices left (`ScanScope.CONTINUE`). Absent: never. */
  isUnfinished?(): boolean
  /** When `poll` must be called even if nothing else happens; Infinity for never. */
  nextTimeout(): number
  /** Requests were posted to the queue pair with this handle. Other handles are ignored. */
  onDoorbell(context: Context, handle: number): void
  counters?(): LayerCounts
  readonly queues?: DeviceQueues
  readonly link?: DeviceLink
  /** Why programs wait for queues of the device, in no order (spec/check/waits.ts); undefined between steps. */
  waits?(): Iterable<ContextWait | undefined>
  /** Fails completions for which `decide` says so, until the next call. Undefined: none. */
  injectCompletions?(decide: DecideCompletion | undefined): void
  /** Why a request of a queue pair failed, if it was the last failure of the queue pair. */
  explain?(qpn: number, wrId: bigint): string | undefined
}

/** A device with a network interface. */
export type LinkedDevice = NetworkDevice & { readonly link: DeviceLink }

export const isLinked = (device: NetworkDevice | undefined): device is LinkedDevice => device?.link !== undefined

/** The rings of a context whose program is in this process. */
export interface LocalRings {
  readonly layout: RingLayout
  /** The ring at an offset that a call returned. Throws an Error if no ring was ever allocated there. */
  at(offset: bigint): RingLocation
}

/** What the library needs in addition of a device that the program's own event loop drives. */
export interface LocalDevice extends LinkedDevice {
  readonly counters: NonNullable<NetworkDevice['counters']>
  /** Passes new requests of the queue pairs named by `onDoorbell` to the engine; true if there were any. */
  scanChanged(): boolean
  /**
   * Whether `poll` has anything to do before the next timer, if `onDoorbell` has reported every post. Always true if
   * the device cannot tell.
   */
  hasWork(): boolean
  /**
   * The context's program is in this process. Call before its first call. Undefined if its rings are in its own memory
   * (`Context.mapped`).
   */
  openRings(context: Context): LocalRings | undefined
  /** Calls `visit` for each send that has got at least `minRnrNaks` RNR NAKs. */
  visitStalls(minRnrNaks: number, visit: (qpn: number, psn: number, rnrNaks: number, rnrRetry: number) => void): void
}
