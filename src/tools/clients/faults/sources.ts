/*
 * What the faults of programs ask of their host, the daemon or the library, and what their parts share.
 */
import type { CallingProcess, Context, Core, Device } from '../../../core/model.ts'
import type { FaultSubject, ProgramFaults } from '../../../faults/program-faults.ts'
import { type Survey, siteOf } from '../../../faults/survey.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { RuleSignal } from '../../../spec/faults.ts'
import type { Disturbance } from '../../../spec/subnet-port.ts'

/** A router of simulated links is down. */
export interface RouterOutage {
  readonly kind: 'router'
  readonly name: string
}

export interface FaultSources {
  /** Fulfilled after so many milliseconds. */
  wait(milliseconds: number): Promise<void>
  /** Takes the link of a device down or up: its port's state, and its packets. Nothing for a device without link. */
  setLink(device: Device, isUp: boolean): void
  /** The device neither sends nor receives packets any more, and nothing tells. Nothing for a device without link. */
  cutOff(device: Device): void
  /** The address of a device leaves, and returns at an index so much higher. Nothing for a device without link. */
  moveGid(device: Device, by: number): void
  /**
   * Disturbs the subnet of a device's InfiniBand port, or simulated links. Returns what ends it; undefined: there is
   * nothing to end.
   */
  disturb(device: Device, disturbance: Disturbance | RouterOutage): (() => void) | undefined
  /** Removes a device, and adds it again after so many milliseconds. */
  remove(device: Device, milliseconds: number): void
  /** Sends a signal to a process. */
  signal(pid: number, signal: RuleSignal | 'STOP' | 'CONT'): void
  /** Whether a process has several threads. Absent: none has. */
  isThreaded?(pid: number): boolean
  /** Milliseconds. */
  now(): number
  /** The process that has opened a context; undefined for a client inside the subsystem. */
  processOf(context: Context): CallingProcess | undefined
  /** The stack of the current call; empty: unknown. Absent: always. */
  callStack?(): Stack
  /** The stack of the post of a completed request. `queue`: a PostQueue. `index`: as `WorkRequest.postIndex`. */
  postStack?(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack
}

/** What the parts share. */
export interface Injection {
  readonly core: Core
  readonly faults: ProgramFaults
  readonly sources: FaultSources
  /** What rules can act on; undefined: nobody asks. */
  survey: Survey | undefined
}

export const NO_STACK: Stack = []
export const noStack = (): Stack => NO_STACK

/** `stack`: looks the stack up. */
export const subjectOf = (
  { device }: Context,
  process: CallingProcess | undefined,
  stack: () => Stack,
): FaultSubject | undefined =>
  process && {
    device: device.name,
    pid: process.pid,
    program: () => process.name(),
    site: () => siteOf(stack()),
  }

/** Acts after so many milliseconds; 0: now. */
export const afterDelay = (
  { wait }: FaultSources,
  milliseconds: number,
  act: () => void,
): Promise<void> | undefined => {
  if (milliseconds > 0) return wait(milliseconds).then(act)
  act()
  return undefined
}
