/*
 * A carrier runs the actions of the model test (random-program.ts) on a real subsystem: core-carrier.ts on core in this
 * process, daemon-carrier.ts on a daemon. Actions name the objects of the reference.
 */
import type { AnyValues, ObjectClass } from '../../../../src/spec/schema/schema.ts'
import type { Entry } from '../chain.ts'
import type { Code, ModelDevice, ModelObject, Opening } from '../reference.ts'

export interface Process {
  /** The object of each descriptor, by the descriptor's number. */
  readonly fds: Map<number, ModelObject>
  readonly openings: Set<Opening>
}

export type Op =
  | { readonly do: 'start'; readonly process: Process }
  /** Returns the numbers of the child's descriptors, in the parent's order. */
  | { readonly do: 'fork'; readonly parent: Process; readonly child: Process }
  | { readonly do: 'end'; readonly process: Process }
  | { readonly do: 'open'; readonly process: Process; readonly opening: Opening }
  | { readonly do: 'close'; readonly process: Process; readonly opening: Opening }
  /** Copies a descriptor from process `from` to process `to`; returns the number of the copy. */
  | { readonly do: 'copy'; readonly from: Process; readonly fd: number; readonly to: Process }
  /** `isLast`: no process has another copy. */
  | { readonly do: 'closeFd'; readonly process: Process; readonly fd: number; readonly isLast: boolean }
  /** `fd` is present if the call is made on a descriptor. */
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
      /** Whether a failed entry rolls back the earlier ones. */
      readonly undo: boolean
    }
  /** read(2) of a descriptor: `out.bytes` has one record. EAGAIN: no record yet; EIO: no record will come. */
  | { readonly do: 'read'; readonly process: Process; readonly fd: number }
  | { readonly do: 'remove'; readonly device: ModelDevice }
  | { readonly do: 'add'; readonly device: ModelDevice }
  /** These four actions are used only if `Facts.raisesEvents` is true. `type`: an AsyncEventType. */
  | { readonly do: 'complete'; readonly modelObject: ModelObject; readonly solicited: boolean }
  | { readonly do: 'raise'; readonly modelObject: ModelObject; readonly type: number }
  | { readonly do: 'port'; readonly device: ModelDevice; readonly type: number }
  | { readonly do: 'bind'; readonly window: ModelObject; readonly region: ModelObject }
  /** Compares the subsystem's state with the reference's devices. */
  | { readonly do: 'compare'; readonly devices: readonly ModelDevice[] }

export interface Answer {
  readonly code: Code
  readonly object?: number
  readonly out: AnyValues
  /** Numbers of the new descriptors. */
  readonly fds: readonly number[]
}

/** What the model test must know about a carrier. */
export interface Facts {
  /** Whether the carrier can make a device complete requests, raise events and bind windows. */
  readonly raisesEvents: boolean
  /** The address of 4096 bytes in the memory of the process. */
  address(process: Process): bigint
  gid(device: ModelDevice): Uint8Array
  /** File descriptors that identify XRC domains. */
  readonly files: readonly number[]
}

export const OK: Answer = { code: 'ok', out: {}, fds: [] }
