/*
 * A finding of `userdma check`, as reports have it.
 */
import type { CaptureCause } from '../captures.ts'
import type { FindingId } from './findings.ts'
import type { Severity } from './severity.ts'
import type { WaitGraph } from './thread-waits.ts'

export interface Program {
  readonly pid: number
  readonly command: string
}

/**
 * The stack of a call or post, innermost frame first. Native frames are return addresses, `file+0xoffset`, with the
 * symbol if there is one. JavaScript frames are V8's `function (file:line:column)`, Python frames `function
 * (file:line)`.
 */
export type Stack = readonly string[]

/** An event in the history of an object or request. */
export interface Moment {
  /** A participle: created, modified to RTR, destroyed, posted. */
  readonly action: string
  /** Microseconds of the clock of the daemon or library. */
  readonly time: number
  readonly stack: Stack
  /** The ibv_qp_state to which a queue pair was modified. */
  readonly state?: number
  /** Present if the queue pair of the peer ended then. */
  readonly isPeersEnd?: true
}

/** An object that a finding names. */
export interface FoundObject {
  /** `ObjectName.id` (program-events.ts). Absent: in a session file of an earlier release. */
  readonly id?: number
  /** For example `QP 0x11 of process 1234 (server)`. */
  readonly name: string
  readonly history: readonly Moment[]
}

/** The kinds of lines of a story. */
export type StoryEventKind =
  /** What was overwritten before the first line: `count` events. */
  | 'overwritten'
  | 'posted'
  | 'refused post'
  /** A completion was written. */
  | 'completed'
  /** An unsignaled send has ended. */
  | 'ended'
  /** Outstanding requests have no completions any more, because of RESET or a destroy. */
  | 'dropped'
  /** A message found no receive. */
  | 'not ready'
  | 'polled'
  | 'called'
  | 'refused call'
  /** An event of rdma_cm was read. */
  | 'read event'
  /** An asynchronous event was raised. */
  | 'raised event'
  /** Events that wait to be read. */
  | 'unread events'
  /** A program ends. */
  | 'program ended'
  /** Of `--who`: an access to the bytes. */
  | 'accessed'
  /** Of `--who`: the program itself has changed the bytes. */
  | 'changed'

/** What happened once, or `count` times at one line of the program. */
export interface StoryLine {
  /** Microseconds, as `Finding.time`: of the last of several. */
  readonly time: number
  /** Of several: of the first. */
  readonly since?: number
  /** Name of the host of a net. */
  readonly host?: string
  /** The process and its name; absent in the library. */
  readonly pid?: number
  readonly command?: string
  /** The thread, if it is known. */
  readonly thread?: number
  /** The object without its process, such as `QP 0x11`; empty: none. */
  readonly object: string
  readonly event: StoryEventKind
  /** A clause without its full stop. */
  readonly text: string
  /** Empty: unknown. */
  readonly stack: Stack
  readonly count: number
  /** Present if this is why what was found could not go well. */
  readonly isDecisive?: true
}
export type Story = readonly StoryLine[]

/** What packets of a capture from elsewhere show (`userdma explain FILE`), in sessions that were made of captures. */
export type CaptureFindingId = `capture ${CaptureCause}`

/** A mistake that the check has found. */
export interface Finding<Id extends string = FindingId> {
  /** Counts the reported findings, from 1. */
  readonly number: number
  /** The kind of mistake. */
  readonly id: Id
  /** 'error': something failed or cannot work. 'warning': it may fail or leak. 'note': not necessarily a mistake. */
  readonly severity: Severity
  /** One sentence without its full stop: what happened. */
  readonly text: string
  /** Further facts, for example the attributes of both ends. One line each. */
  readonly details: readonly string[]
  /** Absent: the advice of the kind, if it has one. */
  readonly advice?: string
  /** Present if it says what a program waits for (waits.ts). */
  readonly isWait?: true
  /** Who waits for whom, with a wait. */
  readonly waits?: WaitGraph
  /** Of a leak: the kind of the object as sentences have it, such as `QP`. */
  readonly left?: string
  /** Present for a leak of a program that a signal ended. */
  readonly wasKilled?: true
  /** The number of the finding from which it follows: then it is a note. */
  readonly follows?: number
  /** The process; absent in the library. */
  readonly program?: Program
  /** Name of the host of a net (`userdma net`). */
  readonly host?: string
  /** Name of the device. */
  readonly device: string
  /** Microseconds of the clock of the daemon or library. */
  readonly time: number
  /** The reported request or call, then other requests or calls that the mistake involves. */
  readonly moments: readonly Moment[]
  /** The objects involved, with their histories. */
  readonly objects: readonly FoundObject[]
  /** Present if it is about a hang, a failure or a wait, and something is known. */
  readonly story?: Story
}
