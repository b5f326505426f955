/*
 * Records of what programs and devices did, as tools receive them and session files keep them: calls, failures,
 * decisions of torment.
 */
import { type Failure, type FailureJson, failureJson } from './check/failures.ts'
import type { Program } from './check/finding.ts'
import type { TormentDecision } from './check/torment.ts'
import type { ReasonData } from './reason.ts'
import type { Attributes, ObjectClass } from './schema/schema.ts'

/** One access to the program's memory: address (0x…), all or the first bytes in base64, and length. */
export type RawAccess = readonly [address: string, bytes: string, length: number]

/** A method as the device declares it. */
export interface Declaration {
  readonly classId: number
  readonly class: string
  readonly identity: ObjectClass['identity']
  readonly call: number
  readonly method: string
  readonly in: Attributes
  readonly out: Attributes
}

/** A failure of an object of a traced program, or of a device (`pid` 0). */
export interface FailureRecord {
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly pid: number
  readonly command: string
  readonly device: string
  readonly failure: FailureJson
}

/** `time`: as in `FailureRecord`. `program`: undefined: of no program. */
export const failureRecord = (time: number, program: Program | undefined, failure: Failure): FailureRecord => ({
  time,
  pid: program?.pid ?? 0,
  command: program?.command ?? '',
  device: failure.device,
  failure: failureJson(failure),
})

/** One traced call (JSON, `traceTexts`). `message` and `answer` are in the object dialect, base64. */
export interface TraceRecord {
  /** Milliseconds since the epoch. */
  readonly time: number
  /** Microseconds. */
  readonly duration: number
  readonly pid: number
  readonly tid: number
  readonly fd: number
  /** Name of the process. */
  readonly command: string
  readonly device: string
  /**
   * `driver`: a call on a descriptor of a driver's interface. `event`: a read of an event descriptor. `netlink`: a
   * message on a NETLINK_RDMA socket. The last two only with `--host`.
   */
  readonly dialect: 'ioctl' | 'write' | 'rdma_cm' | 'umad' | 'object' | 'driver' | 'event' | 'netlink'
  /** The request of an ioctl of the object dialect or of a driver. */
  readonly request?: number
  /** Name of a call that was not decoded into a method, or text of a driver's call. */
  readonly attempt?: string
  /** The arguments of a call that has no method, as text. */
  readonly detail?: string
  /** Absent when the bytes could not be decoded. */
  readonly call?: {
    readonly classId: number
    readonly call: number
    readonly message: string
    readonly answer: string
    /** Memory of indirect attributes: addresses (0x…) and bytes, base64. */
    readonly memory?: readonly (readonly [address: string, bytes: string])[]
    /** In a chain: memory of the entries' indirect attributes, when the entry read or wrote it. */
    readonly pointed?: readonly (readonly [entry: number, direction: 'in' | 'out', address: string, bytes: string])[]
    /** The driver's own methods in the record. */
    readonly declared?: readonly Declaration[]
  }
  /**
   * The program's memory that the call read (`in`, first the call's message) and wrote (`out`). Present if requested,
   * and for calls that could not be decoded.
   */
  readonly raw?: { readonly in: readonly RawAccess[]; readonly out: readonly RawAccess[] }
  /** ≥ 0: the call's result. < 0: negative errno. */
  readonly ret: number
  readonly reason?: ReasonData
  /** New descriptors by attribute. `fd`: the program's number, if known. */
  readonly descriptors?: readonly { readonly attribute: string; readonly fd?: number }[]
}

/** One decision of `--torment`. */
export interface TormentRecord {
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly device: string
  readonly torment: TormentDecision
}

/** What a program says of the memory that it lends, or what a peer accesses there. Only of a daemon with `--check`. */
export interface LendRecord extends Program {
  /** Milliseconds since the epoch. */
  readonly time: number
  /**
   * `event`: `lent`, `takenBack`, `unchecked`, `named`, `advertised` or `accessed`, with its fields
   * (check/program-events.ts). Addresses are those of the process.
   */
  readonly lent: { readonly event: string } & Readonly<Record<string, unknown>>
}

export type TraceEvent = TraceRecord | FailureRecord
