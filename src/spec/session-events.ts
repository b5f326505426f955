/*
 * The events of a session, as a session file has them: what happened to the programs of a daemon, or of the library's
 * devices in a process, or what a capture shows. `userdma check`, `trace`, recordings and the page use these types.
 * Calls, failures, findings and decisions of torment are the records that tools receive (records.ts); requests are
 * those of the checker's feed (check/requests.ts), which refer to each other by their ids here; `program` has the
 * events of the stream of programs (check/program-events.ts).
 */

import type { AdapterName } from './check/adapters.ts'
import type { CaptureFindingId, Finding, Program, Stack } from './check/finding.ts'
import type { FindingId } from './check/findings.ts'
import type { Frame } from './check/frames.ts'
import type { ProbeName, ProducerFacts } from './check/probes.ts'
import type { BufferCheck, RequestCompletion, WorkRequest } from './check/requests.ts'
import type { WaitStat } from './check/waits.ts'
import type { PacketOutcome } from './faults.ts'
import type { LentCheck } from './lends.ts'
import type { FailureRecord, TormentRecord, TraceRecord } from './records.ts'
import type { PacketFlow } from './wire/flow.ts'

/**
 * A device. `exists`: in a checkpoint, or at the start of the recording. `device`: the number of the device, unique
 * among existing devices. `address`: text; empty: none.
 */
export interface DeviceEvent {
  readonly kind: 'device'
  readonly change: 'exists' | 'added' | 'removed' | 'renamed'
  readonly device: number
  readonly name: string
  readonly address: string
}

/** Facts about an object or its change. Numbers of objects that it uses are their ids. */
export interface ObjectDetails {
  /** Ids of the objects that the object uses (its parents). */
  readonly uses?: readonly number[]
  /** The arguments and results of the call, for `JSON.stringify`: bytes and 64-bit numbers are hexadecimal text. */
  readonly values?: Readonly<Record<string, unknown>>
}

/**
 * An object of a program was created, changed or destroyed. `exists`: in a checkpoint, or at the start of the
 * recording; `details` are those of the creation and of the latest changes.
 */
export interface ObjectEvent {
  readonly kind: 'object'
  readonly change: 'exists' | 'created' | 'changed' | 'destroyed'
  /** `CoreObject.id`: never reused. */
  readonly object: number
  /** -1: rdma_cm, whose objects belong to no device. */
  readonly device: number
  /** The number of the context. Handles belong to a context. */
  readonly context: number
  /** Undefined: the process that records. */
  readonly program: Program | undefined
  readonly class: string
  readonly handle: number
  /** The QPN of a queue pair, the lkey of a region, the rkey of a window; otherwise 0. */
  readonly number: number
  /** The method that created or changed the object. Empty: none. */
  readonly method: string
  /**
   * `call`: the program made the call. The others destroy an object: the call that created it was rolled back (`undo`),
   * the program closed the device or ended (`close`), the device was removed (`remove`). Empty for `exists`.
   */
  readonly why: string
  readonly stack: Stack
  readonly details: ObjectDetails
}

/** A call has ended. `object`: the id of its object; 0: none, or unknown. */
export interface CallEvent {
  readonly kind: 'call'
  readonly object: number
  readonly stack: Stack
  readonly call: TraceRecord
}

/** A device has seen a request for the first time. */
export interface PostedEvent {
  readonly kind: 'posted'
  readonly request: WorkRequest
  /** Empty: unknown. */
  readonly stack: Stack
}

/** `request`: `WorkRequest.id`. `owner`: the id of its queue pair or shared receive queue. */
interface OfRequest {
  readonly request: number
  readonly owner: number
}

/** A send has ended, as in `RequestWatcher`. */
interface EndedEvent extends OfRequest {
  readonly kind: 'ended'
}

/** A completion was written. `message`: the id of the received message's request; 0: unknown, or a send. */
export interface CompletedEvent extends OfRequest, Omit<RequestCompletion, 'message'> {
  readonly kind: 'completed'
  readonly message: number
}

/** The queue pair that took this receive of an SRQ was reset or destroyed. */
interface ReceiveLostEvent extends OfRequest {
  readonly kind: 'receiveLost'
}

/** A message for the queue pair found no receive. `qp`: an id. */
interface ReceiverNotReadyEvent {
  readonly kind: 'receiverNotReady'
  readonly qp: number
}

/** The program has polled `count` completions of a CQ (an id) in total. */
interface PolledEvent {
  readonly kind: 'polled'
  readonly cq: number
  readonly count: number
}

/** Outstanding requests of a queue pair or shared receive queue (an id) have no completions. */
interface QueueResetEvent {
  readonly kind: 'queueReset'
  readonly owner: number
}

/**
 * `count` packets in a row, of one port, which differ only in their PSNs, which ascend by one. All have `packetBytes`
 * bytes (BTH to ICRC), the last `lastBytes`. `expandPackets` (packets.ts) makes single packets of them.
 */
export interface PacketsEvent {
  readonly kind: 'packets'
  readonly device: number
  readonly direction: 'sent' | 'received'
  readonly outcome: PacketOutcome
  readonly flow: PacketFlow
  /** Identification of the first packet's IPv4 header. */
  readonly identification: number
  readonly count: number
  readonly packetBytes: number
  readonly lastBytes: number
  /** Bytes of the headers, from the BTH on, at the start of `bytes`. */
  readonly headerBytes: number
  /** The headers of the first packet, then the recorded part of its payload. */
  readonly bytes: Uint8Array
}

/** A failure with its cause, or an asynchronous event. `object`: the id of the queue pair; 0: unknown. */
export interface FailureEvent {
  readonly kind: 'failure'
  readonly object: number
  readonly failure: FailureRecord
}

/** A finding of the checker, or what a capture from elsewhere shows. */
export type RecordedFinding = Finding<FindingId | CaptureFindingId>

export interface FindingEvent {
  readonly kind: 'finding'
  readonly finding: RecordedFinding
}

interface TormentEvent {
  readonly kind: 'torment'
  readonly torment: TormentRecord
}

/**
 * Counters (which only grow) and gauges at this time, by name: of a device, or of an object (0: of the device). Only
 * values that have changed since the last event. A queue pair has `window`, the bytes that it may have unacknowledged
 * (`Engine.windowOf`), at its posts and ends.
 */
interface CountersEvent {
  readonly kind: 'counters'
  readonly device: number
  readonly object: number
  readonly values: Readonly<Record<string, number>>
}

/** Events were lost before this one, because the recorder's buffers were full. */
interface LostEvent {
  readonly kind: 'lost'
  readonly count: number
}

/** The start of a checkpoint. `omitted`: number of existing objects that the checkpoint leaves out. */
interface CheckpointEvent {
  readonly kind: 'checkpoint'
  readonly omitted: number
}

/** The recording has ended in order. */
interface EndEvent {
  readonly kind: 'end'
  readonly reason: string
}

/** What a program waits for, as `userdma stat --qps` says it. */
export interface WaitFacts extends WaitStat {
  /** Since when it was seen: microseconds of the recorder's clock. */
  readonly since: number
  /** Ids of the objects that it names: queue pairs, first the program's own, and a CQ. */
  readonly objects: readonly number[]
}

/**
 * A wait (spec/check/waits.ts) has lasted for a second (`began`) or is over, because what the program waited for has
 * come (`over`) or because the program has closed the device or ended while it waited (`closed`). `exists`: in a
 * checkpoint, a wait that is not over; `closed` ones are repeated there. `wait`: its number in the recording, from 1.
 */
export interface WaitEvent {
  readonly kind: 'wait'
  readonly change: 'exists' | 'began' | 'over' | 'closed'
  readonly wait: number
  readonly facts: WaitFacts
}

/**
 * The program of `userdma run` or `check` has ended. `status`: its exit status, or 128+n after signal n. `signal`: its
 * name; empty: none. Checkpoints repeat it.
 */
export interface ProgramEndEvent {
  readonly kind: 'programEnd'
  readonly pid: number
  readonly command: string
  readonly status: number
  readonly signal: string
}

/** A function of a frame, and lines of its source: `first` is the number of the first of `lines`. */
export interface SymbolFrame extends Frame {
  readonly source?: { readonly first: number; readonly lines: readonly string[] }
}

/**
 * What a frame of stacks is (tools/record/symbols.ts). `frame`: its text in the stacks. `frames`: innermost first;
 * functions that were inlined at the address have frames of their own. In the last blocks of a recording.
 */
export interface SymbolEvent {
  readonly kind: 'symbol'
  readonly frame: string
  readonly frames: readonly SymbolFrame[]
}

/**
 * One direction of a link of a virtual network, with its counts since the network's start: once a second if they have
 * changed, and at the end. `link`: the number of the direction, from 0; two for each link, in the order of the
 * topology.
 */
export interface LinkEvent {
  readonly kind: 'link'
  readonly link: number
  /** Names of the hosts or switches that send and receive. */
  readonly from: string
  readonly to: string
  /** Bits/s. */
  readonly rate: number
  /** One way, microseconds. */
  readonly delay: number
  /** Bytes that a switch keeps in front of the link. */
  readonly capacity: number
  /** Packets that were put in front of the link and not lost, their bytes on the link, and packets that were marked. */
  readonly packets: number
  readonly bytes: number
  readonly marked: number
  /** Packets that were lost: the queue was full, by chance, longer than the MTU. */
  readonly overflowed: number
  readonly lost: number
  readonly tooLong: number
  /** Bytes in front of the link: now, at most, and their mean over time. */
  readonly queue: number
  readonly maxQueue: number
  readonly meanQueue: number
  /** Share of the time in which the link was busy, 0 to 1. */
  readonly utilization: number
  /** Of the link's classes, in their order; absent: it has none. */
  readonly classes?: readonly LinkClassEvent[]
}

/** A class of packets in one direction of a link. */
export interface LinkClassEvent {
  readonly name: string
  readonly lossless: boolean
  readonly packets: number
  readonly bytes: number
  readonly marked: number
  /** Packets that were lost since the queue was full, or the buffer at the other end. */
  readonly lost: number
  /** Bytes. */
  readonly maxQueue: number
  /** Pauses that the sender of this direction has sent to the other end, and got; and how long it was paused, ms. */
  readonly pausesSent: number
  readonly pausesReceived: number
  readonly pausedTime: number
}

/**
 * A part of the JSON of an event of the stream of programs (spec/check/program-events.ts), or of an answer about the
 * last one: src/tools/record/program/replay.ts puts them together. `--record-depth check` records them.
 */
export interface ProgramPart {
  readonly kind: 'program' | 'answer'
  /** Whether the next event of the kind has the rest. */
  readonly hasMore: boolean
  readonly text: string
}

/** A peer has accessed registered memory, as in `ProgramConsumer`. */
interface AccessedEvent {
  readonly kind: 'accessed'
  readonly device: number
  readonly rkey: number
  readonly high: number
  readonly low: number
  readonly length: number
  readonly access: number
  readonly qpn: number
}

/** Whether an event is of use to the checker only, not to people. */
export const isForChecker = ({ kind }: AnyEvent): boolean =>
  kind === 'program' || kind === 'answer' || kind === 'accessed'

export type AnyEvent =
  | DeviceEvent
  | ObjectEvent
  | CallEvent
  | PostedEvent
  | EndedEvent
  | CompletedEvent
  | ReceiveLostEvent
  | ReceiverNotReadyEvent
  | PolledEvent
  | QueueResetEvent
  | PacketsEvent
  | FailureEvent
  | FindingEvent
  | TormentEvent
  | CountersEvent
  | LostEvent
  | CheckpointEvent
  | EndEvent
  | WaitEvent
  | ProgramEndEvent
  | SymbolEvent
  | LinkEvent
  | ProgramPart
  | AccessedEvent

/**
 * An event with its time, in microseconds of the recorder's clock: when the recorder learned of it, so events are in
 * the order of their times. The time of a call is that of its end.
 */
export type SessionEvent = AnyEvent & { readonly time: number }

/** Of a recording of depth `check`: the producer of the events of programs, and the options with which it was asked. */
export interface RecordedCheck extends ProducerFacts {
  /** The probes that it has. */
  readonly probes: readonly ProbeName[]
  readonly buffers?: BufferCheck
  readonly lent?: LentCheck
  readonly adapters?: readonly AdapterName[]
}

/** What a session file says about itself. */
export interface SessionHeader {
  /** SESSION_FILE_VERSION. */
  readonly version: number
  /** The program that wrote the file: `userdma 0.1.0`. */
  readonly application: string
  /** Milliseconds since the epoch at time 0 of the recorder's clock. */
  readonly origin: number
  /** Bytes of each packet's payload that are recorded. */
  readonly payload: number
  /** Bytes of a segment. */
  readonly segmentBytes: number
  /** Maximum number of segments: afterwards, the oldest is overwritten. 0: no limit. */
  readonly segments: number
  /** For example `linux x64, kernel 6.1.0, node v20.19.0`. */
  readonly machine: string
  /** What the checker needs is recorded (`--record-depth check`): facts about the events' producer. */
  readonly check?: RecordedCheck | undefined
  /** Programs on the machine's own adapters (`--host`). */
  readonly isObserved?: true
  /** The session was made of a capture: it has packets, and what they show, and no calls. */
  readonly isCapture?: true
}
