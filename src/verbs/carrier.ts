/*
 * How the library reaches a device: the same calls and rings whether it is in this process or in the daemon
 * (docs/decisions/one-provider.md). Objects of the library are written against this and know nothing of the way.
 */
import type { ChainedCall } from '../core/dispatch/chain-calls.ts'
import type { RingLayout } from '../spec/drivers/ring-layout.ts'
import type { CallError } from '../spec/errno.ts'
import type { AnyValues, In, ObjectClass, Out } from '../spec/schema/schema.ts'
import type { DeviceStat } from '../uapi/tool.ts'

/** Memory of one ring as this process sees it: where in its views header and first element begin. */
export interface RingBytes {
  readonly head: number
  readonly data: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
}

/** Where a ring lies, as calls answer it. */
export interface RingPlace {
  readonly offset: bigint
  readonly size: number
}

/** What a call answered: results, and the handle of what it made (of a descriptor: its number). */
export interface Answered<O> {
  readonly object: number
  readonly out: O
}

/** Where the events of what this carrier made go. `userHandle` is what the object was made with. */
export interface EventTargets {
  completion(userHandle: number): void
  /** `type`: ibv_event_type; without a handle an event of the device or of port `port`. */
  event(type: number, userHandle: number | undefined, port: number | undefined): void
  /** Nothing comes any more: the device is gone. */
  ended(): void
}

/**
 * What a device counts: Linux's files by their names, and what they are made of, the transport's own names above all
 * (`transport.retransmissions`; docs/reference/counters.md).
 */
export type DeviceCounters = Pick<DeviceStat, 'hw_counters' | 'counters' | 'port' | 'transport' | 'faults'>

/** A piece of memory that a driver's descriptor maps. */
export interface MappedBytes {
  readonly bytes: Uint8Array
  /** Its views are worth nothing from now on. */
  release(): void
}

/**
 * What can be done with the descriptors that calls make, beside the methods of their classes (R28, R37); `fd` is what
 * the creation answered as object. All throw RdmaError.
 */
export interface Descriptors {
  /**
   * From now on `take` gets each record, which is only valid during the call, of at most `most` bytes; `ended`: nothing
   * will come any more. Once for a descriptor.
   */
  read(fd: number, most: number, take: (record: DataView) => void, ended: () => void): void
  /** From now on `ready` is called when records may be there for a call that takes them. Once for a descriptor. */
  watch(fd: number, ready: () => void): void
  /** The driver's own calls; bytes as an argument may be changed by it. */
  ioctl(fd: number, request: number, argument: bigint | Uint8Array): number
  write(fd: number, bytes: Uint8Array): number
  map(fd: number, offset: number, length: number, writable: boolean): MappedBytes
  close(fd: number): void
}

export interface Carrier {
  /** Calls go to another process: one chain is cheaper than many calls. */
  readonly remote: boolean
  /** What the device has, if that was asked for already. */
  readonly classes?: readonly ObjectClass[]
  /** Runs a method; throws RdmaError. */
  call<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    object: number,
    args: In<C['methods'][K]>,
  ): Answered<Out<C['methods'][K]>>
  /**
   * The same for a method that may take time; one of a daemon is waited for on the spot. Rejects with RdmaError, or
   * with the signal's reason: then what the call makes is taken back.
   */
  callAsync<C extends ObjectClass, K extends keyof C['methods'] & string>(
    cls: C,
    method: K,
    object: number,
    args: In<C['methods'][K]>,
    signal?: AbortSignal,
  ): Promise<Answered<Out<C['methods'][K]>>>
  /**
   * Runs a chain of calls, all or none of it, where calls need not be written as bytes; undefined if this one must.
   * Answers those that succeeded, and why the one after them did not; `waits`: because its handler takes time.
   */
  chain?(
    calls: readonly ChainedCall[],
  ): { answers: readonly Answered<AnyValues>[]; error: CallError | undefined; waits: boolean } | undefined
  readonly descriptors: Descriptors
  /** Of all its rings. */
  readonly layout: RingLayout
  /** The ring that a call answered, and its end: the object that had it is gone or has another one. */
  ring(place: RingPlace): RingBytes
  release(place: RingPlace): void
  /** What completion queues are made with so that their events arrive, as the device has them. */
  readonly channel: { readonly channel?: number }
  counters(): DeviceCounters
  /** Why the request with this id of a queue pair failed, beyond its completion: a sentence, if that is known here. */
  explain?(qpn: number, id: number): string | undefined
  /** Somebody begins (true) or ends to wait: until then the process must not end for lack of work. */
  waiting(begins: boolean): void
  /** Something was posted to the send queue with this handle, or to the receive queue of one in error. */
  posted(handle: number): void
  /** Lets the device work, if it is this process that must; true if something was done. */
  drive(): boolean
  /**
   * Asked before each wait: a promise if timers and sockets of the program have not had their turn for long, since
   * everything here may happen in microtasks.
   */
  pause(): Promise<void> | undefined
  /** Long work of this process goes on in the next turn: those who can wait let others have this one. */
  isResting(): boolean
  /** Makes a buffer known by an address that the device can use; the same buffer again has the same address. */
  addressOf(buffer: Uint8Array): bigint
  /** The buffer is not registered any more. */
  forget(buffer: Uint8Array): void
  /** Set once, by the device object. */
  targets: EventTargets | undefined
  /** Ends the context. Resolves once all that was made in it is gone; undefined: it is. */
  close(): Promise<void> | undefined
}
