/*
 * The processes, contexts and objects of observed programs, as their calls show them.
 */

import type { Program, Stack } from '../../spec/check/finding.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'
import type { UmadMode } from '../../uapi/linux/umad.ts'
import type { KnownRegion } from './causes.ts'
import type { DescriptorRecord, ObservedRecord } from './records.ts'

/** An adapter of the machine. Devices of the same name in one machine are one device. */
export interface ObservedDevice {
  readonly index: number
  name: string
  /** Regions by lkey and rkey, also deregistered ones. */
  readonly regions: Map<number, KnownRegion>
  readonly qps: Map<number, ObservedObject>
  /** False once there are keys that no decoded call has created, such as those of memory windows. */
  knowsAllKeys: boolean
}

export interface ObservedObject {
  readonly id: number
  /** The handle; of an object with a descriptor, the descriptor's number. */
  readonly handle: number
  readonly class: ObjectClass
  /** Arguments and outputs of its creation. */
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
  readonly qpn: number | undefined
  /** Attributes of a queue pair that calls have set. */
  readonly attributes: Record<string, unknown>
}

/** An open file. Descriptors are duplicated, inherited and passed; each of them refers to one context. */
export interface ObservedContext {
  /** Numbers contexts, from 1. */
  readonly id: number
  /** FileKind. */
  readonly fileKind: number
  readonly process: ObservedProcess
  device: ObservedDevice
  /** Whether the context was opened (GET_CONTEXT). */
  isOpen: boolean
  /** Whether other processes may have a descriptor: their calls are not among this context's, nor is its end known. */
  isShared: boolean
  /** Number of forked children that have recorded nothing yet, and may have a descriptor. */
  pendingForks: number
  /** Of a umad file. */
  readonly mode: UmadMode
  /** By handle, in the order of their creation. */
  readonly objects: Map<number, ObservedObject>
  /** Objects with a descriptor, by its number. */
  readonly descriptors: Map<number, ObservedObject>
}

export interface ObservedProcess {
  readonly program: Program
  readonly stacks: Map<number, Stack>
  /** By descriptor. */
  readonly contexts: Map<number, ObservedContext>
  /** The contexts of event descriptors. */
  readonly events: Map<number, ObservedContext>
  /** Descriptors that were open before exec, until START. */
  readonly kept: Map<number, DescriptorRecord>
  /** Calls that have not returned, by thread. */
  readonly calls: Map<number, Extract<ObservedRecord, { readonly kind: 'call' | 'return' }>>
  /** Whether it has ended by itself. */
  hasEnded: boolean
  /** Whether records were dropped: which requests are outstanding is unknown. */
  isLossy: boolean
}

/** The object of a context with this handle, or descriptor; undefined: unknown. */
export const objectIn = (
  { objects, descriptors }: ObservedContext,
  kind: string,
  number: number,
): ObservedObject | undefined => (kind === 'fd' ? descriptors : objects).get(number)
