/*
 * Connects the model test (random-program.ts) to a real subsystem: core in this process (core-carrier.ts), or the
 * sessions of a daemon (daemon-carrier.ts). Processes, openings and descriptors are those of the reference; a carrier
 * maps them to its own.
 */
import type { AnyValues, ObjectClass } from '../../../src/spec/schema/schema.ts'
import type { Entry } from '../chain.ts'
import type { Code, ModelDevice, ModelObject, Opening } from '../reference.ts'

/** A program: its descriptors by number, and its open contexts. */
export interface Process {
  readonly fds: Map<number, ModelObject>
  readonly openings: Set<Opening>
}

export type Op =
  | { readonly do: 'start'; readonly process: Process }
  /** `child` gets everything of `parent`; returns the numbers of its descriptors, in the parent's order. */
  | { readonly do: 'fork'; readonly parent: Process; readonly child: Process }
  | { readonly do: 'end'; readonly process: Process }
  | { readonly do: 'open'; readonly process: Process; readonly opening: Opening }
  | { readonly do: 'close'; readonly process: Process; readonly opening: Opening }
  /** Copies a descriptor, perhaps to another process; returns its number there. */
  | { readonly do: 'copy'; readonly from: Process; readonly fd: number; readonly to: Process }
  /** `isLast`: no process has another copy. */
  | { readonly do: 'closeFd'; readonly process: Process; readonly fd: number; readonly isLast: boolean }
  /** `fd`: the call is made on this descriptor. */
  | {
      readonly do: 'call'
      readonly process: Process
      readonly opening: Opening
      readonly fd?: number
      readonly cls: ObjectClass
      readonly methodName: string
      readonly object: number
      readonly args: AnyValues
    }
  | {
      readonly do: 'chain'
      readonly process: Process
      readonly opening: Opening
      readonly entries: readonly Entry[]
      readonly undo: boolean
    }
  /** read(2) of a descriptor: one record in `out.bytes`; if there is none, EAGAIN, or EIO if there will be none. */
  | { readonly do: 'read'; readonly process: Process; readonly fd: number }
  | { readonly do: 'remove'; readonly device: ModelDevice }
  | { readonly do: 'add'; readonly device: ModelDevice }
  /** Device events, only if `Facts.raisesEvents`. */
  | { readonly do: 'complete'; readonly modelObject: ModelObject; readonly solicited: boolean }
  | { readonly do: 'raise'; readonly modelObject: ModelObject; readonly type: number }
  | { readonly do: 'port'; readonly device: ModelDevice; readonly type: number }
  | { readonly do: 'bind'; readonly window: ModelObject; readonly region: ModelObject }
  /** Compares the state of the subsystem with the reference. */
  | { readonly do: 'compare'; readonly devices: readonly ModelDevice[] }

export interface Answer {
  readonly code: Code
  readonly object?: number
  readonly out: AnyValues
  /** Numbers of new descriptors. */
  readonly fds: readonly number[]
}

/** What the test must know of a carrier. */
export interface Facts {
  /** The carrier can raise device events. */
  readonly raisesEvents: boolean
  /** Address of 4096 bytes of memory of a process. */
  address(process: Process): bigint
  gid(device: ModelDevice): Uint8Array
  /** Descriptors of files, which identify XRC domains. */
  readonly files: readonly number[]
}

export const OK: Answer = { code: 'ok', out: {}, fds: [] }
