/*
 * The library's connection to a device: the same calls and rings whether the device is in this process or in the daemon
 * (docs/decisions/one-provider.md). The library's objects use this interface only.
 */
import type { ChainedCall } from '../core/dispatch/chain-calls.ts'
import type { RingLayout } from '../spec/drivers/ring-layout.ts'
import type { CallError } from '../spec/errno.ts'
import type { AnyValues, In, ObjectClass, Out } from '../spec/schema/schema.ts'
import type { DeviceStat } from '../uapi/tool.ts'

/** The mapping of one ring in this process: byte offsets of its header and first element in these views. */
export interface RingBytes {
  readonly head: number
  readonly data: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
}

/** Position of a ring, as calls return it. */
export interface RingPlace {
  readonly offset: bigint
  readonly size: number
}

/** The answer of a call: results, and the handle of the new object (for a descriptor: its number). */
export interface Answered<O> {
  readonly object: number
  readonly out: O
}

/** Receives the events of objects created through this carrier. `userHandle` was passed when the object was created. */
export interface EventTargets {
  completion(userHandle: number): void
  /** `type`: ibv_event_type; without a handle it is an event of the device or of port `port`. */
  event(type: number, userHandle: number | undefined, port: number | undefined): void
  /** No event can follow: the device was closed or removed. */
  ended(): void
}

/**
 * Counters of a device: Linux's files by name, and the counters that they are computed from, especially the transport's
 * (`transport.retransmissions`; docs/reference/counters.md).
 */
export type DeviceCounters = Pick<DeviceStat, 'hw_counters' | 'counters' | 'port' | 'transport' | 'faults'>

/** A mapped piece of a driver's memory. */
export interface MappedBytes {
  readonly bytes: Uint8Array
  /** Unmaps it; its views must not be used afterwards. */
  release(): void
}

/**
 * Operations on the descriptors that calls create, beside the methods of their classes (R28, R37); `fd` is the object
 * number that the creation returned. All throw RdmaError.
 */
export interface Descriptors {
  /**
   * Calls `take` with each record of at most `maxBytes` bytes, valid only during the call; `ended`: no more can follow.
   * Once per descriptor.
   */
  read(fd: number, maxBytes: number, take: (record: DataView) => void, ended: () => void): void
  /** Calls `ready` when records may be available to a call that takes them. Once per descriptor. */
  watch(fd: number, ready: () => void): void
  /** The driver's own calls; the driver may change bytes that are passed as an argument. */
  ioctl(fd: number, request: number, argument: bigint | Uint8Array): number
  write(fd: number, bytes: Uint8Array): number
  map(fd: number, offset: number, length: number, writable: boolean): MappedBytes
  close(fd: number): void
}

/** `Carrier.call` for a class or method that is known only at run time; implementations have this type. */
export type AnyCall = (cls: ObjectClass, method: string, object: number, args: AnyValues) => Answered<AnyValues>
export type AnyCallAsync = (...args: [...Parameters<AnyCall>, signal?: AbortSignal]) => Promise<Answered<AnyValues>>

export interface Carrier {
  /** Calls cross a process boundary: one chain is cheaper than many calls. */
  readonly remote: boolean
  /** The device's classes, if they were queried already. */
  readonly classes?: readonly ObjectClass[]
  /** Runs a method; throws RdmaError. */
  call<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    object: number,
    args: In<C['methods'][K]>,
  ): Answered<Out<C['methods'][K]>>
  call(...args: Parameters<AnyCall>): ReturnType<AnyCall>
  /**
   * Like `call`, for a method that may take time; calls to a daemon block instead. Rejects with RdmaError, or with the
   * signal's reason; the object that the call then creates is destroyed.
   */
  callAsync<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    object: number,
    args: In<C['methods'][K]>,
    signal?: AbortSignal,
  ): Promise<Answered<Out<C['methods'][K]>>>
  callAsync(...args: Parameters<AnyCallAsync>): ReturnType<AnyCallAsync>
  /**
   * Runs a chain of calls, all or none, without encoding them as bytes; undefined if this carrier or chain needs bytes.
   * Returns the successful calls, and why the next call failed; `isAsynchronous`: because its handler is asynchronous.
   */
  chain?(
    calls: readonly ChainedCall[],
  ): { answers: readonly Answered<AnyValues>[]; error: CallError | undefined; isAsynchronous: boolean } | undefined
  readonly descriptors: Descriptors
  /** Layout of all its rings. */
  readonly layout: RingLayout
  /** Maps the ring that a call returned. */
  ring(place: RingPlace): RingBytes
  /** Unmaps a ring whose object was destroyed or got another ring. */
  release(place: RingPlace): void
  /** Attributes with which CQs are created so that their events arrive here. */
  readonly channel: { readonly channel?: number }
  counters(): DeviceCounters
  /** A sentence that explains the failure of the request with this id better than its completion, if one is known. */
  explain?(qpn: number, id: number): string | undefined
  /** The first waiter starts (true), or the last one ends: while there are waiters, the process must not exit. */
  waiting(begins: boolean): void
  /** Something was posted to the send queue with this handle, or to the receive queue of a queue pair in ERR. */
  posted(handle: number): void
  /** Drives the device if this process must; true if it did work. */
  drive(): boolean
  /**
   * Called before each wait. Posts and completions can follow each other in microtasks only, which would starve timers
   * and I/O: a promise for the next turn of the event loop if the last one was long ago, otherwise undefined.
   */
  pause(): Promise<void> | undefined
  /** The device continues its work in the next turn of the event loop: waiters must not poll until then. */
  awaitsNextTurn(): boolean
  /** Assigns a buffer an address that the device can use; the same buffer always gets the same address. */
  addressOf(buffer: Uint8Array): bigint
  /** The buffer is no longer registered. */
  forget(buffer: Uint8Array): void
  /** Set once, by the device object. */
  targets: EventTargets | undefined
  /** Closes the context. Resolves once everything in it is destroyed; undefined if it is destroyed already. */
  close(): Promise<void> | undefined
}
