/*
 * A carrier is the library's connection to a device in this process or in a daemon (docs/decisions/one-provider.md).
 * The library's objects use only this interface.
 */
import type { ChainedCall } from '../../core/dispatch/chain-calls.ts'
import type { Clock } from '../../host/event-loop/clock.ts'
import type { CounterFile, EngineCounter } from '../../spec/counters.ts'
import type { RingLayout } from '../../spec/drivers/ring-layout.ts'
import type { CallError, ErrnoName } from '../../spec/errno.ts'
import type { FaultCounters } from '../../spec/faults.ts'
import type { AnyValues, In, ObjectClass, Out } from '../../spec/schema/schema.ts'
import type { PortCounters } from '../../transport/phy/port.ts'

interface Piece {
  /** In bytes. */
  readonly length: number
}
/** What a request sends, inline as bytes, or where it receives. */
type PostedData = Uint8Array | Piece | readonly Piece[] | undefined

export const isInlineData = (data: PostedData): boolean => data instanceof Uint8Array

/** In bytes. */
export const lengthOfData = (data: PostedData): number =>
  Array.isArray(data) ? data.reduce((sum, { length }) => sum + length, 0) : (data?.length ?? 0)

/** A ring that is mapped in this process; the three views show the same memory. */
export interface RingBytes {
  /** Byte offset of the ring's header in the views. */
  readonly headerAt: number
  /** Byte offset of the ring's first element. */
  readonly elementsAt: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
}

/** Offset and size of a ring in bytes, as calls return them (Linux: struct mminfo). */
export interface MmapInfo {
  readonly offset: bigint
  readonly size: number
}

/** The result of a call. `object`: handle of the new object, or number of the new descriptor; otherwise 0. */
export interface CallResult<O> {
  readonly object: number
  readonly out: O
}

/**
 * Receives the events of the device, of its ports, and of objects that were created through this carrier. `userHandle`:
 * an attribute of `create` of the object.
 */
export interface EventTargets {
  /** A completion event of a CQ that was armed. */
  completion(userHandle: number): void
  /** `type`: ibv_event_type. Without `userHandle`, an event of port `port`; without both, an event of the device. */
  event(type: number, userHandle: number | undefined, port: number | undefined): void
  /** No event can follow: the device was removed, or the daemon has ended. */
  ended(): void
}

/**
 * Counters of a device by name: of Linux's files, of the port, of the transport engine (`transport.retransmissions`),
 * and of injected faults (docs/reference/counters.md).
 */
export interface DeviceCounters {
  /** Linux's files in folder hw_counters. */
  readonly hw_counters: Readonly<Record<CounterFile<'hw_counters'>, number>>
  /** Linux's files in folder counters. */
  readonly counters: Readonly<Record<CounterFile<'counters'>, number>>
  /** The port. `sendErrors`: only of UDP links. */
  readonly port: Readonly<Record<keyof PortCounters | 'linkDowned', number>> & { readonly sendErrors?: number }
  /** The transport engine. */
  readonly transport: Readonly<Record<EngineCounter, number>>
  /** Injected faults. */
  readonly faults: Readonly<FaultCounters>
}

/** Names of `device.metrics()`: group and counter. */
export type MetricName = {
  [G in keyof DeviceCounters]: `${G}.${Exclude<keyof DeviceCounters[G], 'sendErrors'> & string}`
}[keyof DeviceCounters]
/** The counters of a device as one record. */
export type DeviceMetrics = Readonly<Record<MetricName, number>> & { readonly 'port.sendErrors'?: number }

/** A mapping of a driver's memory. */
export interface MappedBytes {
  readonly bytes: Uint8Array
  /** Unmaps the memory; do not use its views afterwards. */
  release(): void
}

/**
 * Operations on descriptors, beside the methods of their classes. `fd`: the object number that `create`
 * returned. `ioctl`, `write` and `map` throw RdmaError.
 */
export interface Descriptors {
  /**
   * Calls `onRecord` with each record of at most `maxBytes` bytes, and `onEnd` when no more records can follow. A
   * record is valid only during the call. A descriptor has one reader.
   */
  read(fd: number, maxBytes: number, onRecord: (record: DataView) => void, onEnd: () => void): void
  /** Calls `onReadable` when `cm_channel.getEvent` may find an event. A descriptor has one watcher. */
  watch(fd: number, onReadable: () => void): void
  /** ioctl(2) of the driver. A Uint8Array is passed by address, and the driver may change its bytes. */
  ioctl(fd: number, request: number, argument: bigint | Uint8Array): number
  write(fd: number, bytes: Uint8Array): number
  map(fd: number, offset: number, length: number, isWritable: boolean): MappedBytes
  close(fd: number): void
}

/**
 * `Carrier.call` for a class or method that is known only at run time. `object`: handle of the object, number of the
 * descriptor or port, otherwise 0.
 */
export type AnyCall = (cls: ObjectClass, method: string, object: number, args: AnyValues) => CallResult<AnyValues>
export type AnyCallAsync = (...args: [...Parameters<AnyCall>, signal?: AbortSignal]) => Promise<CallResult<AnyValues>>

/** Fault rules that the program has set. */
export interface CarriedFault {
  count(): number
  clear(): void
}

export interface Carrier {
  /** For everything that waits. */
  readonly clock: Clock
  /** Whether calls cross a process boundary: one chain is then cheaper than many calls. */
  readonly isRemote: boolean
  /** The device's classes, if they were queried at opening. */
  readonly classes?: readonly ObjectClass[]
  /** Runs a method; throws RdmaError. */
  call<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    object: number,
    args: In<C['methods'][K]>,
  ): CallResult<Out<C['methods'][K]>>
  call(...args: Parameters<AnyCall>): ReturnType<AnyCall>
  /**
   * `call` for a method whose handler is asynchronous. Calls to a daemon block until the answer arrives. Rejects with
   * RdmaError. If the signal is aborted first, rejects with the signal's reason; an object that the call creates later
   * is destroyed.
   */
  callAsync<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    object: number,
    args: In<C['methods'][K]>,
    signal?: AbortSignal,
  ): Promise<CallResult<Out<C['methods'][K]>>>
  callAsync(...args: Parameters<AnyCallAsync>): ReturnType<AnyCallAsync>
  /**
   * Runs a chain of calls, all or none, without encoding them as messages. Returns the results of the successful calls,
   * and the `error` of the failed call; `isAsynchronous`: the failed call's handler is asynchronous. Returns undefined
   * if the chain must be encoded (docs/reference/object-dialect.md). A carrier of a daemon has no `chain`.
   */
  chain?(
    calls: readonly ChainedCall[],
  ): { results: readonly CallResult<AnyValues>[]; error: CallError | undefined; isAsynchronous: boolean } | undefined
  readonly descriptors: Descriptors
  readonly layout: RingLayout
  /** Maps the ring that a call returned. */
  ring(info: MmapInfo): RingBytes
  /** Unmaps a ring that is no longer used. */
  release(info: MmapInfo): void
  /** Arguments of every `cq.create`: the completion channel for this carrier's events, if needed. */
  readonly channel: { readonly channel?: number }
  counters(): DeviceCounters
  /**
   * Whether other objects use the object with this handle. Only for devices in this process; others refuse the destroy.
   */
  isUsed?(handle: number): boolean
  /** Why the request with this id has failed, as a sentence, if known. */
  explain?(qpn: number, id: number): string | undefined
  /**
   * Called with true when the first waiter starts, with false when the last waiter has ended. While there are waiters,
   * the descriptors of a daemon's device keep the process alive.
   */
  setWaiting(hasWaiters: boolean): void
  /**
   * Called before each post to a queue of a queue pair or SRQ: the error with which a fault rule refuses it; undefined:
   * none. `qpn`: undefined for an SRQ. `opcode`: ibv_wr_opcode of a send. `data`: what is sent, or where to receive.
   */
  refusesPost(
    handle: number,
    qpn: number | undefined,
    isSend: boolean,
    opcode: number | undefined,
    id: number,
    data: PostedData,
  ): ErrnoName | undefined
  /** Sets fault rules, the text of `--fault`, for this device and this program. Throws RdmaError. */
  setFault(text: string): CarriedFault
  /** Called after each post to a queue of the queue pair with this handle. */
  posted(handle: number): void
  /**
   * Lets the devices of this process work; false if there was no work. For a daemon's device: yields the processor and
   * returns true, and throws RdmaError EIO if the device is closed or the daemon has ended. `callName`: the
   * program's call, for errors.
   */
  drive(callName: string): boolean
  /**
   * Called before waits for completions, events and datagrams. A program that only posts and waits could run in
   * microtasks for ever, and starve timers and I/O. So after many waits in one turn of the event loop, `overdueTurn`
   * returns a promise for the next turn; otherwise undefined. Always undefined for a daemon's device.
   */
  overdueTurn(): Promise<void> | undefined
  /** Whether the device continues its work in the next turn of the event loop; waiters must not poll until then. */
  awaitsNextTurn(): boolean
  /**
   * Counts a registration of a buffer, and returns the buffer's address for the device. Throws RdmaError EINVAL for a
   * resizable buffer. `callName`: the program's call, for errors.
   */
  addressOf(buffer: Uint8Array, callName: string): bigint
  /** Ends one registration of the buffer. */
  forget(buffer: Uint8Array): void
  /** Set once, by the device object. */
  targets: EventTargets | undefined
  /**
   * Closes the context. Resolves when all objects are destroyed, or if a daemon does not answer for 30 s. Undefined:
   * nothing to wait for.
   */
  close(): Promise<void> | undefined
}
