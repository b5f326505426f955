/*
 * Requests of tools and the daemon's replies: the JSON of TOOL messages (spec/session.ts).
 */

import type { AdapterName } from '../spec/check/adapters.ts'
import type { FailureJson } from '../spec/check/failures.ts'
import type { Finding, Story } from '../spec/check/finding.ts'
import type { Frame } from '../spec/check/frames.ts'
import type { Omission } from '../spec/check/omissions.ts'
import type { PeerQuestion } from '../spec/check/peer-facts.ts'
import type { BufferCheck } from '../spec/check/requests.ts'
import type { GraphProcess } from '../spec/check/thread-waits.ts'
import type { TormentedRequest } from '../spec/check/torment-orders.ts'
import type { WaitStat } from '../spec/check/waits.ts'
import type { DeviceLimits } from '../spec/device-limits.ts'
import type { FailedProgram, FaultStat, SurveyFacts, SurveySite } from '../spec/faults.ts'
import type { HealthRow } from '../spec/health.ts'
import type { LentBytes, LentCheck } from '../spec/lends.ts'
import type { LoopWait, LoopWaitStat } from '../spec/loop-waits.ts'
import type { LendRecord, TormentRecord, TraceEvent, TraceRecord } from '../spec/records.ts'
import type { RecordingEnd } from '../spec/session-file.ts'

/** The PCI function that sysfs shows as a device's parent. */
export interface PciFunction {
  /** Domain, bus, device and function, as Linux writes them: `0000:81:00.0`. */
  readonly address: string
  /** The NUMA node; -1 for none. */
  readonly node: number
  readonly model: AdapterName
}

/**
 * `--device
 * NAME@ADDRESS[,driver=NAME][,layer=infiniband[,guid=GUID][,pkeys=KEY+KEY…]][,dcqcn[=RATE]][,pci=BDF[,numa=N][,model=MODEL]][,node_guid=GUID][,vlan=ID+ADDRESS…][,LIMIT=N…]`.
 */
export interface DeviceSpec {
  readonly name: string
  /** IPv4 or IPv6 address as text; empty for a device without a network. */
  readonly address: string
  /** The name of the driver; absent: as daemon/devices/device-spec.ts says. */
  readonly driver?: string
  /** Rate control by DCQCN up to this line rate, bits/s; absent: none. */
  readonly dcqcn?: number
  readonly pci?: PciFunction
  /** The node's GUID: 16 hexadecimal digits, perhaps all 0. Absent: from the address. */
  readonly nodeGuid?: string
  /** Limits that are lower than the driver's own. */
  readonly limits?: DeviceLimits
  /** VLAN interfaces over that of the device, which exist here only, with their IP addresses. */
  readonly vlans?: readonly { readonly id: number; readonly addresses: readonly string[] }[]
  /** Absent: Ethernet. */
  readonly layer?: 'infiniband'
  /** GUID of an InfiniBand port: 16 hexadecimal digits. Absent: from the address. */
  readonly guid?: string
  /** The first partition keys of an InfiniBand port; absent: the default one. */
  readonly pkeys?: readonly number[]
}

/** An existing device. */
export interface ListedDevice extends DeviceSpec {
  /** N of /dev/infiniband/uverbsN. */
  readonly node: number
}

/** Links of devices, with the text of `--help`. The first is the default. */
export const linkKinds = {
  memory: "the daemon's own memory",
  udp: 'UDP sockets, segmented by the kernel',
  'udp-plain': 'UDP sockets, a datagram per call',
  dgram: "Node's UDP sockets, which reach only others of their kind",
} as const
export type Link = keyof typeof linkKinds
export const links = Object.keys(linkKinds) as readonly Link[]

/** How messages pass through a daemon's memory, with the text of `--help`. The first is the default. */
export const pathKinds = {
  direct: 'from buffer to buffer while no capture and no fault needs packets',
  packets: 'always as packets',
} as const
export type Path = keyof typeof pathKinds
export const paths = Object.keys(pathKinds) as readonly Path[]

/** The clock of programs and devices, with the text of `--help`. The first is the default. */
export const clockKinds = {
  real: "the machine's",
  skip: "as the machine's while anything runs, and else at once at the next deadline",
} as const
export type ClockKind = keyof typeof clockKinds

/** A daemon's configuration. A command that requests another configuration cannot join the daemon. */
export interface DaemonConfig {
  readonly devices: readonly DeviceSpec[]
  /** Fault rules as text (faults/rules.ts); empty for none. */
  readonly fault: string
  readonly link: Link
  /** Default: direct. */
  readonly path?: Path
  /** Whether programs may register more memory than their RLIMIT_MEMLOCK allows. */
  readonly ignoreMemlock?: boolean
  /** Whether fault rules that programs set for themselves may touch devices that other programs of their user use. */
  readonly allowFaults?: boolean
  /** Whether programs are checked, so that tools may subscribe to findings. */
  readonly check?: boolean
  /** The setting of `--torment` as text (spec/check/torment.ts). */
  readonly torment?: string
  /** Programs are checked against the limits of these adapters. */
  readonly adapters?: readonly AdapterName[]
  /** How contents of buffers are checked; default: sampled. */
  readonly buffers?: BufferCheck
  /** What is known of lent memory; default: learnt. */
  readonly lent?: LentCheck
  /** The bytes whose accesses are told (settings/who.ts). */
  readonly who?: string
  /** Times of retries and of the connection manager are multiplied by it; absent: 1. */
  readonly timers?: number
  /** Absent: real. */
  readonly clock?: ClockKind
  /** With a clock that skips: spinning takes real time. Absent: it lets time go on. */
  readonly clockSpin?: false
  /** The switches of InfiniBand ports as text (settings/fabric.ts); absent: as many as needed, and a subnet manager. */
  readonly fabric?: string
  /** Absolute paths of the files of `--driver`. */
  readonly drivers?: readonly string[]
  /** Absolute path of the machine file that programs are shown; absent: the machine itself. */
  readonly machine?: string
}

export type ToolRequest =
  | { readonly kind: 'config' }
  /** `devices`: the names of the devices in the reply, default all. 64 devices do not fit into one reply. */
  | { readonly kind: 'stat'; readonly devices?: readonly string[] }
  /** The next queue pairs of all devices. `cursor`: `next` of the previous reply. */
  | { readonly kind: 'qps'; readonly cursor?: QpCursor }
  /** What programs wait for: destroys, and queues (spec/check/waits.ts). */
  | { readonly kind: 'waits' }
  /** What programs have not done with what came to them, from the `from`-th on; 0 looks anew (spec/health.ts). */
  | { readonly kind: 'health'; readonly from: number }
  /** The threads of programs that wait, and who could end that (spec/check/thread-waits.ts). */
  | { readonly kind: 'thread-waits' }
  /** A queue pair, for the checker of another host of a net (spec/check/peer-facts.ts). */
  | ({ readonly kind: 'peer' } & PeerQuestion)
  /** Reports what programs wait for now as findings. */
  | { readonly kind: 'report-waits' }
  /** The reply follows when the context with this number has ended and its objects are destroyed. */
  | { readonly kind: 'closed'; readonly context: number }
  /** The fault rules. `set` first replaces them; `keeps`: those that were there before go on with their counts. */
  | { readonly kind: 'fault'; readonly set?: string; readonly keeps?: boolean }
  /** Answered, with the rules, when one of these has matched so often, or the rules have changed. */
  | { readonly kind: 'fault-matches'; readonly matches: readonly RuleMatches[] }
  /**
   * Takes the link of a device, or those between two switches (`device` is `a:b`), down or up. `milliseconds`: down for
   * so long.
   */
  | { readonly kind: 'link'; readonly device: string; readonly up: boolean; readonly milliseconds?: number }
  /**
   * What the links between switches do to packets (`conditionsText` of settings/fabric.ts), for so long or from now on.
   */
  | {
      readonly kind: 'conditions'
      readonly between: readonly [string, string]
      readonly conditions: string
      readonly milliseconds?: number
    }
  /** Begins a new survey of call sites. With `from`: the sites of the survey so far, from this number on. */
  | { readonly kind: 'sites'; readonly from?: number }
  /** Adds or removes a device. The reply lists the devices after the change. */
  | { readonly kind: 'device'; readonly add?: DeviceSpec; readonly remove?: string }
  /**
   * Removes all devices until the end of the session: a command needs them for a daemon of its own. Refused while
   * programs use them.
   */
  | { readonly kind: 'borrow' }
  /** Sends records of a topic as TRACE messages, from the reply on. */
  | SubscribeRequest
  /** Ends a subscription of this session. All its records precede the reply. */
  | { readonly kind: 'unsubscribe'; readonly id: number }
  /** How often each finding was found so far, with leaks of ended programs; and totals. */
  | { readonly kind: 'counts' }
  /** The accesses to the bytes of `--who`, from the line `from` on. */
  | { readonly kind: 'who'; readonly from: number }
  /** What programs lend now, from the row `from` on. */
  | { readonly kind: 'lent'; readonly from: number }
  /** The posts and completions of a daemon with `--torment` and `--check`, by identities, from number `from` on. */
  | { readonly kind: 'orders'; readonly from: number }
  /** Whether all packets so far are in the file of `pcap`. */
  | { readonly kind: 'capture' }
  /**
   * Records the events of all programs in the attached descriptor, an empty regular file, until `end-record` or the end
   * of the session (docs/reference/session-file.md). `payload`: recorded bytes of each packet's payload. `limit`:
   * maximum bytes of the file. `application`: the program that asks. `depth`: also what the checker needs.
   */
  | {
      readonly kind: 'record'
      readonly application: string
      readonly payload: number
      readonly limit?: number
      readonly depth?: 'check'
    }
  /** The frames of the stacks in the recording. `from`: the number of those that the tool has. */
  | { readonly kind: 'record-frames'; readonly from: number }
  /** What frames of the recording are: they become part of the file when it ends. */
  | { readonly kind: 'record-symbols'; readonly symbols: readonly FrameSymbol[] }
  /** The reply follows when the file is written. `program`: the tool's program, which has ended. */
  | { readonly kind: 'end-record'; readonly program?: ProgramEnd }
  /** Ends the daemon, after the reply. The attached descriptor stays open until the daemon's process has ended. */
  | { readonly kind: 'stop' }

/**
 * Topics of subscriptions: the options of the request, the state soon after its answer, and the changes from then on. A
 * topic whose snapshot is `never` has only changes. A tool that is far behind may get a new snapshot of a state.
 */
export interface Topics {
  /**
   * Calls and failures of processes with tag `tag` (empty: of all), and decisions of `--torment`. `pcap`: also writes
   * all packets as pcapng to the attached descriptor, a regular file. `abi`: with the memory that each call read and
   * wrote. A slow tool loses records.
   */
  readonly trace: {
    readonly options: { readonly tag: string; readonly pcap: boolean; readonly abi?: boolean }
    readonly snapshot: never
    readonly change: TraceEvent | TormentRecord | LendRecord
  }
  /**
   * The findings so far, then each new one. None is lost. `hang`: waits of this many seconds are findings. `fresh`:
   * only new ones, and mistakes that were found before are new too.
   */
  readonly findings: {
    readonly options: { readonly hang?: number; readonly fresh?: boolean }
    readonly snapshot: readonly Finding[]
    readonly change: Finding
  }
  /**
   * The daemon's state, then each `interval` milliseconds its changes, as a merge patch (uapi/merge-patch.ts). `qps`:
   * with queue pairs and waits. A slow tool gets fewer changes, each since the preceding one.
   */
  readonly stat: {
    readonly options: { readonly interval: number; readonly qps?: boolean }
    readonly snapshot: StatView
    readonly change: unknown
  }
  /**
   * The devices, and again all of them when one was added, removed or renamed. A slow tool gets only the newest list.
   */
  readonly devices: {
    readonly options: Readonly<Record<never, never>>
    readonly snapshot: readonly ListedDevice[]
    readonly change: readonly ListedDevice[]
  }
  /**
   * The fault rules with their counts, and again all of them after each `interval` milliseconds in which one changed.
   */
  readonly faults: {
    readonly options: { readonly interval: number }
    readonly snapshot: readonly FaultStat[]
    readonly change: readonly FaultStat[]
  }
}

export type Topic = keyof Topics

export type SubscribeRequest = {
  readonly [T in Topic]: { readonly kind: 'subscribe'; readonly topic: T } & Topics[T]['options']
}[Topic]

/** What a subscription sends. `lost`: number of changes dropped at this place, because the tool read too slowly. */
export type TopicRecord<T extends Topic = Topic> =
  | { readonly snapshot: Topics[T]['snapshot'] }
  | { readonly change: Topics[T]['change'] }
  | { readonly lost: number }

/** Limits of `interval`, milliseconds. */
export const MIN_INTERVAL = 100
export const MAX_INTERVAL = 3_600_000

/** A `Stat` whose lists are by name, for merge patches. */
export interface StatView {
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly daemon: Omit<Stat, 'devices'>
  readonly devices: Readonly<Record<string, DeviceStat>>
  /** By device and number. Present if requested. */
  readonly qps?: Readonly<Record<string, QpStat>>
  readonly waits?: readonly WaitStat[]
}

export interface DeviceStat {
  readonly name: string
  readonly address: string
  /** Of an InfiniBand port: its state (`PortState`), its LID and its subnet manager's; 0: none. */
  readonly subnet?: { readonly state: string; readonly lid: number; readonly smLid: number }
  /** Live objects by class name. */
  readonly objects: Readonly<Record<string, number>>
  /** The port's counter files in folder hw_counters, by name (spec/counters.ts). */
  readonly hw_counters: Readonly<Record<string, number>>
  /** The port's counter files in folder counters, by name. */
  readonly counters: Readonly<Record<string, number>>
  /** Counters of the device's `Port`. */
  readonly port: Readonly<Record<string, number>>
  /** Counters of the transport engine. */
  readonly transport: Readonly<Record<string, number>>
  /** Number of packets since the device was added, by fault. */
  readonly faults: Readonly<Record<string, number>>
}

export interface Stat {
  readonly pid: number
  /** Connected sessions, without the requesting tool's. */
  readonly sessions: number
  /** Open contexts. */
  readonly contexts: number
  /** Rings in shared memory. */
  readonly rings: { readonly count: number; readonly bytes: number }
  /** Mapped parts of memory files. A part may have several rings. */
  readonly mappings: { readonly count: number; readonly bytes: number }
  /** Number of event sockets and netlink sockets of programs. */
  readonly descriptors: number
  /** Resident set of the daemon, and V8's heap in use; bytes. */
  readonly memory: { readonly resident: number; readonly heap: number }
  /** Bytes charged for the programs' objects, and the processes with the highest charges. */
  readonly charged: {
    readonly bytes: number
    readonly processes: readonly { readonly pid: number; readonly bytes: number }[]
  }
  /** What the daemon's thread has waited for since its start. */
  readonly waited: Readonly<Record<LoopWait, LoopWaitStat>>
  /** Of `waited.movers` and `waited.memory`: the users of programs for which it waited, the longest sums first. */
  readonly waitedFor: readonly (Required<LoopWaitStat> & { readonly user: number })[]
  /** Totals of connection management, over all programs. */
  readonly connections: {
    /** Number of rdma_cm identifiers. */
    readonly identifiers: number
    /** Number of identifiers that listen. */
    readonly listeners: number
    /** Number of connections, also in TIMEWAIT. */
    readonly connections: number
  }
  readonly devices: readonly DeviceStat[]
}

/** Where a list of queue pairs continues. */
export interface QpCursor {
  /** `ListedDevice.node`. The list is in the order of nodes. */
  readonly node: number
  /** The row of the next queue pair in the device's table. */
  readonly row: number
}

export interface QpStat {
  readonly device: string
  readonly qpn: number
  readonly pid: number
  readonly command: string
  /** Class: rc_qp, ud_qp, … */
  readonly type: string
  readonly state: string
  /** `dscp`, `hopLimit`, `sourcePort` (UDP; 0: RoCE v1): of the packets to it, on RoCE. */
  readonly peer?: {
    readonly qpn: number
    readonly address: string
    readonly dscp?: number
    readonly hopLimit?: number
    readonly sourcePort?: number
  }
  /** Outstanding requests, and the maximum. `shared`: of the queue pair's SRQ. */
  readonly send: { readonly pending: number; readonly depth: number }
  readonly receive: { readonly pending: number; readonly depth: number; readonly shared?: true }
  /**
   * The PSNs of the next packet to send and to receive, 24 bits: their differences count packets. UD: `expected` stays.
   */
  readonly psn: { readonly next: number; readonly expected: number }
  /** How often requests were sent again after a loss or timeout, since RESET. Absent: the device does not count it. */
  readonly retries?: number
  readonly lastError?: FailureJson
}

/** The rule with this index, and how often it matches. */
export interface RuleMatches {
  readonly rule: number
  readonly count: number
}

export type ToolReply =
  | { readonly error: string }
  | { readonly config: DaemonConfig & { readonly devices: readonly ListedDevice[] } }
  | { readonly devices: readonly ListedDevice[] }
  | { readonly borrowed: readonly DeviceSpec[] }
  | { readonly stat: Stat }
  | { readonly qps: readonly QpStat[]; readonly next?: QpCursor }
  | { readonly waits: readonly WaitStat[] }
  | { readonly processes: readonly GraphProcess[] }
  /** `total`: number of all rows; the rest follows in further replies. */
  | { readonly health: readonly HealthRow[]; readonly total: number }
  | { readonly closed: true }
  | { readonly faults: readonly FaultStat[] }
  /** `total`: number of all sites; the rest follows in further replies. */
  | {
      readonly sites: readonly SurveySite[]
      readonly total: number
      readonly failed?: FailedProgram
      readonly facts?: SurveyFacts
    }
  /** `total`: number of all lines; the rest follows in further replies. */
  | { readonly who: Story; readonly total: number }
  | { readonly lent: readonly LentBytes[]; readonly total: number }
  | { readonly orders: readonly TormentedRequest[]; readonly total: number }
  | { readonly linkSet: true }
  | { readonly waitsReported: true }
  /** The text of `PeerFacts`; null: no device has the address, or programs are not checked. */
  | { readonly peer: string | null }
  | { readonly subscribed: number }
  /** `lost`: number of all the subscription's lost changes. */
  | { readonly unsubscribed: number; readonly lost: number }
  /** The error that has ended the capture; null: none. */
  | { readonly captureError: string | null }
  | { readonly recording: true }
  /** `total`: number of all frames; the rest follows in further replies. */
  | { readonly frames: readonly string[]; readonly total: number }
  /** Whether there is room for more. */
  | { readonly hasRoom: boolean }
  | { readonly recorded: RecordingEnd }
  | { readonly stopping: true }
  /**
   * `counts`: how often each finding was found, by finding number − 1. `omissions`: records that the checks dropped.
   * `calls`: number of checked calls. `decisions`: number of decisions of `--torment`; `missed`: the identities of its
   * `only` that have not occurred.
   */
  | {
      readonly counts: readonly number[]
      readonly omissions: readonly Omission[]
      readonly calls: number
      readonly decisions?: number
      readonly missed?: readonly string[]
    }

/** How a program has ended. `status`: its exit status, or 128+n after signal n. `signal`: its name; empty: none. */
export interface ProgramEnd {
  readonly pid: number
  readonly command: string
  readonly status: number
  readonly signal: string
}

/** What a frame of stacks is; `frames`: as in tools/record/symbols.ts, innermost first. */
export interface FrameSymbol {
  readonly frame: string
  readonly frames: readonly (Frame & {
    /** Lines of the source file, from line `first` on. */
    readonly source?: { readonly first: number; readonly lines: readonly string[] }
  })[]
}

/** A record of TRACE messages. `id`: of the subscription. */
export type ToolRecord = { readonly id: number } & TopicRecord

// ---- records as texts ----

/** Maximum characters of one text: at 3 bytes each (UTF-8), it fits in a message (SessionLimits.bytes). */
const MAX_CHARACTERS = 16_000
/** Maximum characters of a traced call's record. A longer one is sent without `call` and `raw`. */
const MAX_RECORD = 4_000_000
/** Characters around the JSON of a record: `{"id":N,"snapshot":` and `}`. */
const MARGIN = 64
/** First characters of the texts of a record in several: those that continue in the next one, and the last. */
const MORE = '+'
const LAST = '.'

const isTraceRecord = (value: unknown): value is TraceRecord =>
  typeof value === 'object' && value !== null && 'dialect' in value

/** The parts of a text that fit in one message. */
const partsOf = (text: string): string[] => {
  const parts: string[] = []
  let rest = text
  while (rest.length > MAX_CHARACTERS) {
    // surrogate pairs stay together
    const isPair = /[\ud800-\udbff]/.test(rest[MAX_CHARACTERS - 1]!)
    const end = isPair ? MAX_CHARACTERS - 1 : MAX_CHARACTERS
    parts.push(rest.slice(0, end))
    rest = rest.slice(end)
  }
  return [...parts, rest]
}

const messagesOf = (parts: readonly string[]): readonly string[] =>
  parts.length === 1 ? parts : parts.map((part, i) => (i < parts.length - 1 ? MORE : LAST) + part)

/** A record as the texts of one or several TRACE messages. */
export const traceTexts = (record: ToolRecord): readonly string[] => {
  const text = JSON.stringify(record)
  if (text.length <= MAX_RECORD || !('change' in record) || !isTraceRecord(record.change))
    return messagesOf(partsOf(text))
  const { call: _call, raw: _raw, ...rest } = record.change
  return messagesOf(partsOf(JSON.stringify({ id: record.id, change: { ...rest, reason: 'too long to trace' } })))
}

/** The JSON of a snapshot or change in texts, of which each fits in one message: the same for all subscribers. */
export interface RecordParts {
  readonly kind: 'snapshot' | 'change'
  readonly texts: readonly string[]
}

/** Joins pieces to `texts` of RecordParts, in steps. */
export function* piecesText(pieces: Iterable<string>, texts: string[]): Generator<void> {
  let text = ''
  for (const piece of pieces) {
    const parts = partsOf(text + piece)
    text = parts.pop()!
    texts.push(...parts)
    yield
  }
  if (text !== '') texts.push(text)
}

/** The texts of TRACE messages of a subscription's record. */
export const recordTexts = (id: number, { kind, texts }: RecordParts): readonly string[] => {
  const head = `{"id":${id},"${kind}":`
  const isShort = texts.length === 1 && texts[0]!.length <= MAX_CHARACTERS - MARGIN
  return messagesOf(isShort ? [`${head}${texts[0]}}`] : [head, ...texts, '}'])
}

/** Returns a function that takes texts in order and returns each record with its last text, otherwise undefined. */
export const traceReader = (): ((text: string) => ToolRecord | undefined) => {
  let partial = ''
  return text => {
    // A record in one message begins with a brace.
    const isPart = text.startsWith(MORE) || text.startsWith(LAST)
    const joined = isPart ? partial + text.slice(1) : text
    partial = text.startsWith(MORE) ? joined : ''
    return partial === '' ? (JSON.parse(joined) as ToolRecord) : undefined
  }
}
