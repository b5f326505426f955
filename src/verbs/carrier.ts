/*
 * The library's connection to a device: the same calls and rings whether the device is in this process or in the daemon
 * (docs/decisions/one-provider.md). The library's objects use this interface only.
 */
import type { ChainedCall } from '../core/dispatch/chain-calls.ts'
import type { RingLayout } from '../spec/drivers/ring-layout.ts'
import type { CallError } from '../spec/errno.ts'
import type { AnyValues, In, ObjectClass, Out } from '../spec/schema/schema.ts'
import type { DeviceStat } from '../uapi/tool.ts'

/** A ring that is mapped in this process; the three views show the same memory. */
export interface RingBytes {
  /** Byte offset of the ring's header in the views. */
  readonly headerAt: number
  /** Byte offset of its first element. */
  readonly elementsAt: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
}

/** A ring as calls return it, like Linux's struct mminfo: its offset, for `Carrier.ring`, and its size in bytes. */
export interface MmapInfo {
  readonly offset: bigint
  readonly size: number
}

/** The result of a call: the handle of the new object (for a descriptor: its number), otherwise 0, and the outputs. */
export interface CallResult<O> {
  readonly object: number
  readonly out: O
}

/**
 * Receives the events of the device, of its ports, and of objects that were created through this carrier. `userHandle`:
 * the attribute with which the object was created.
 */
export interface EventTargets {
  /** A completion event of a CQ that was armed. */
  completion(userHandle: number): void
  /** `type`: ibv_event_type; without a `userHandle` it is an event of port `port`, or, without both, of the device. */
  event(type: number, userHandle: number | undefined, port: number | undefined): void
  /** No event can follow: the device was removed, or the daemon has ended. */
  ended(): void
}

/**
 * Counters of a device by name: those of Linux's files, of its port, of its transport engine
 * (`transport.retransmissions`), and of injected faults (docs/reference/counters.md).
 */
export type DeviceCounters = Pick<DeviceStat, 'hw_counters' | 'counters' | 'port' | 'transport' | 'faults'>

/** A mapping of a driver's memory. */
export interface MappedBytes {
  readonly bytes: Uint8Array
  /** Unmaps it; its views must not be used afterwards. */
  release(): void
}

/**
 * Operations on the descriptors that calls create, beside the methods of their classes (R28, R37); `fd` is the object
 * number that the creation returned. `ioctl`, `write` and `map` throw RdmaError.
 */
export interface Descriptors {
  /**
   * Calls `onRecord` with each record of at most `maxBytes` bytes, which is valid only during the call, and `onEnd`
   * when no more records can follow. A descriptor has one reader: there is no second `read` of it.
   */
  read(fd: number, maxBytes: number, onRecord: (record: DataView) => void, onEnd: () => void): void
  /**
   * Calls `onReadable` when a call that reads records (`cm_channel.getEvent`) may find one. There is no second `watch`
   * of a descriptor.
   */
  watch(fd: number, onReadable: () => void): void
  /** ioctl(2) of the driver. A Uint8Array is passed by address, and the driver may change its bytes. */
  ioctl(fd: number, request: number, argument: bigint | Uint8Array): number
  write(fd: number, bytes: Uint8Array): number
  map(fd: number, offset: number, length: number, isWritable: boolean): MappedBytes
  close(fd: number): void
}

/**
 * `Carrier.call` for a class or method that is known only at run time; implementations have this type. `object`: the
 * handle of the object, the number of the descriptor or port, otherwise 0.
 */
export type AnyCall = (cls: ObjectClass, method: string, object: number, args: AnyValues) => CallResult<AnyValues>
export type AnyCallAsync = (...args: [...Parameters<AnyCall>, signal?: AbortSignal]) => Promise<CallResult<AnyValues>>

export interface Carrier {
  /** Whether calls cross a process boundary: one chain is then cheaper than many calls. */
  readonly isRemote: boolean
  /** The device's classes, if the carrier has queried them when it was opened. */
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
   * `call` for a method whose handler is asynchronous; calls to a daemon block until the answer arrives. Rejects with
   * RdmaError. If the signal is aborted first, it rejects with the signal's reason, and an object that the call still
   * creates is destroyed.
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
   * and `error` of the call after them; `isAsynchronous`: it failed because its handler is asynchronous. Returns
   * undefined if this chain must be encoded (docs/reference/object-dialect.md). A carrier of a daemon has no `chain`.
   */
  chain?(
    calls: readonly ChainedCall[],
  ): { results: readonly CallResult<AnyValues>[]; error: CallError | undefined; isAsynchronous: boolean } | undefined
  readonly descriptors: Descriptors
  /** Layout of all its rings. */
  readonly layout: RingLayout
  /** Maps the ring that a call returned. */
  ring(info: MmapInfo): RingBytes
  /** Unmaps a ring whose object was destroyed or got another ring. */
  release(info: MmapInfo): void
  /** Arguments of every `cq.create`: the completion channel from which this carrier reads events, if it needs one. */
  readonly channel: { readonly channel?: number }
  counters(): DeviceCounters
  /** A sentence that explains the failure of the request with this id better than its completion, if one is known. */
  explain?(qpn: number, id: number): string | undefined
  /**
   * Called with true when the first waiter starts, with false when the last one has ended. In between the descriptors
   * of a daemon's device keep the process alive.
   */
  setWaiting(hasWaiters: boolean): void
  /** Called after each post to a queue of the queue pair with this handle. */
  posted(handle: number): void
  /**
   * Lets devices of this process do their work; false if there was none. For a device of a daemon it yields the
   * processor, and returns true.
   */
  drive(): boolean
  /**
   * Called before waits for completions, events and datagrams. A program that posts and waits may run in microtasks
   * only, which starves timers and I/O: with a device of this process, after many waits without a turn of the event
   * loop, the result is a promise for the next turn; otherwise it is undefined.
   */
  overdueTurn(): Promise<void> | undefined
  /** Whether the device continues its work in the next turn of the event loop; waiters must not poll until then. */
  awaitsNextTurn(): boolean
  /** Counts a registration of a buffer, and returns its address for the device: the same for all its registrations. */
  addressOf(buffer: Uint8Array): bigint
  /** One registration of the buffer has ended. */
  forget(buffer: Uint8Array): void
  /** Set once, by the device object. */
  targets: EventTargets | undefined
  /** Closes the context. In this process it resolves once everything is destroyed; a daemon destroys it afterwards. */
  close(): Promise<void> | undefined
}
