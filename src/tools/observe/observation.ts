/*
 * What the parts of the observer share: where findings and records go, and the time of the record that is read.
 */

import type { Stack } from '../../spec/check/finding.ts'
import type { CheckedCall, ObjectName, ProgramConsumer } from '../../spec/check/program-events.ts'
import type { RequestWatcher } from '../../spec/check/requests.ts'
import type { FailureRecord, TraceRecord } from '../../spec/records.ts'
import type { ProgramStream } from '../events/stream.ts'
import type { ObservedFaults } from './faults.ts'
import type { ObservedContext, ObservedProcess } from './objects.ts'

export const NO_STACK: Stack = []
/** The beginning of CLOCK_MONOTONIC, in milliseconds since the epoch. */
export const MONOTONIC_START = Date.now() - Number(process.hrtime.bigint()) / 1e6

/** A call whose object exists. */
export type CallOnObject = CheckedCall & { readonly object: ObjectName }

/** Receives what the observer learns, for a recording: the events of its stream, and what only people want to know. */
export interface ObservedEvents extends ProgramConsumer {
  readonly requests: RequestWatcher
  /** Records the events of the stream too (`--record-depth check`). Absent: it does not. */
  programs?(stream: ProgramStream): void
  /** What follows happens at this time, in microseconds. */
  at(time: number): void
  /** The stack of the next requests that are posted. */
  posting(stack: Stack): void
  call(record: TraceRecord, object: number, stack: Stack): void
  /** An object exists that no event of `event` creates. `args`, `out`: of its creation and its changes. */
  exists(call: CallOnObject): void
  lost(count: number): void
}

/** Receives what the trace prints. */
export interface ObserverOutput {
  call?(record: TraceRecord): void
  failure?(record: FailureRecord): void
  /** Records were dropped. */
  lost?(count: number): void
  /** A program has read an event of its device (ibv_event_type). */
  asyncEvent?(pid: number, type: number): void
  /** A process has ended, by itself or not; before its objects are forgotten. */
  gone?(pid: number, hasEnded: boolean): void
  /** A recording of what happens. */
  readonly recording?: ObservedEvents
  /** A program takes queues around libibverbs' tables by this function, so its requests are not seen. */
  direct?(process: ObservedProcess, name: string): void
}

export interface Observation {
  /** Where the events of the checker and of recordings go. */
  readonly stream: ProgramStream
  readonly output: ObserverOutput
  /** Undefined: no fault rules. */
  readonly faults: ObservedFaults | undefined
  /** Microseconds of the last record. */
  readonly time: number
}

/** The facts of a call or post for the checker. */
export const callFacts = (
  { time }: Observation,
  { device, id, process: { program } }: ObservedContext,
  stack: Stack,
) => ({ time, device: device.name, deviceNumber: device.index, context: id, program, stack })

export const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined
