/*
 * Requests of tools and the daemon's replies: the JSON of TOOL messages (spec/session.ts), typed once for both sides.
 */
import type { AdapterName } from '../spec/check/adapters.ts'
import type { FailureJson } from '../spec/check/failures.ts'
import type { Finding } from '../spec/check/findings.ts'
import type { Omission } from '../spec/check/omissions.ts'
import type { BufferCheck } from '../spec/check/requests.ts'
import type { TormentDecision } from '../spec/check/torment.ts'
import type { FaultRuleCounts } from '../spec/faults.ts'
import type { Attributes, ObjectClass } from '../spec/schema/schema.ts'

/** A device in the form of `--device NAME@ADDRESS`. */
export interface DeviceSpec {
  readonly name: string
  /** As text, IPv4 or IPv6; empty for a device without a network. */
  readonly address: string
}

/** An existing device. */
export interface ListedDevice extends DeviceSpec {
  /** N of /dev/infiniband/uverbsN. */
  readonly node: number
}

/** Links of devices, with the words of `--help`. The first is the default. */
export const linkKinds = {
  memory: "the daemon's own memory",
  udp: 'UDP sockets, segmented by the kernel',
  'udp-plain': 'UDP sockets, a datagram per call',
  dgram: "Node's UDP sockets, which reach only others of their kind",
} as const
export type Link = keyof typeof linkKinds
export const links = Object.keys(linkKinds) as readonly Link[]

/** Ways of messages through a daemon's memory, with the words of `--help`. The first is the default. */
export const pathKinds = {
  direct: 'from buffer to buffer while no capture and no fault needs packets',
  packets: 'always as packets',
} as const
export type Path = keyof typeof pathKinds
export const paths = Object.keys(pathKinds) as readonly Path[]

/** A daemon's configuration. A command that requests another one cannot join it. */
export interface DaemonConfig {
  readonly devices: readonly DeviceSpec[]
  /** The current fault rules as text (phy/faults/rules.ts); empty for none. */
  readonly fault: string
  readonly link: Link
  /** Default: direct. */
  readonly path?: Path
  /** Whether programs may register more memory than their RLIMIT_MEMLOCK allows. */
  readonly ignoreMemlock?: boolean
  /** Whether programs are checked, so that tools may subscribe to findings. */
  readonly check?: boolean
  /**
   * SEED or SEED:COUNT of `--torment`: the devices choose among all behaviours that the specification allows
   * (spec/check/torment.ts). Absent: they behave as usual.
   */
  readonly torment?: string
  /** Adapters with whose limits the programs' use of verbs is compared. */
  readonly adapters?: readonly AdapterName[]
  /** How contents of buffers are checked; default: sampled. */
  readonly buffers?: BufferCheck
}

export type ToolRequest =
  | { readonly kind: 'config' }
  | { readonly kind: 'stat' }
  /** The next queue pairs of all devices. `cursor`: `next` of the previous reply; absent in the first request. */
  | { readonly kind: 'qps'; readonly cursor?: QpCursor }
  /** Destroys that wait until programs have acknowledged events. */
  | { readonly kind: 'waits' }
  /** The fault rules; `set`, if given, replaces them first. */
  | { readonly kind: 'fault'; readonly set?: string }
  /** Adds or removes a device; the reply lists the devices that there are then. */
  | { readonly kind: 'device'; readonly add?: DeviceSpec; readonly remove?: string }
  /** Sends findings as TRACE messages, those so far and later ones. */
  | { readonly kind: 'findings' }
  /** How often each finding was found so far, including leaks of ended programs; and the totals in the reply. */
  | { readonly kind: 'counts' }
  /**
   * Sends calls and failures of processes tagged `tag` (all, if empty), and decisions of torment, as TRACE messages
   * from now on. `pcap`: also writes all packets as pcapng to the attached descriptor, a regular file. `abi`: also
   * sends the memory that each call read and wrote.
   */
  | { readonly kind: 'trace'; readonly tag: string; readonly pcap: boolean; readonly abi?: boolean }
  /** Whether all packets so far are in the file of `pcap`. */
  | { readonly kind: 'capture' }

/** A fault rule, and its counts since it was set: packets that it matched, and the faults that it caused. */
export interface FaultStat extends Readonly<FaultRuleCounts> {
  readonly rule: string
}

export interface DeviceStat {
  readonly name: string
  readonly address: string
  /** Live objects by class name. */
  readonly objects: Readonly<Record<string, number>>
  /** Values of the port's counter files in the folders hw_counters and counters, by name (spec/counters.ts). */
  readonly hw_counters: Readonly<Record<string, number>>
  readonly counters: Readonly<Record<string, number>>
  /** All counters of the device's `Port` and of its transport engine, by their own names. */
  readonly port: Readonly<Record<string, number>>
  readonly transport: Readonly<Record<string, number>>
  /** Numbers of the device's packets since it was added, by the fault that the rules caused. */
  readonly faults: Readonly<Record<string, number>>
}

/** Totals of connection management, over all programs. */
export interface ConnectionStat {
  /** rdma_cm identifiers, and those of them that listen. */
  readonly identifiers: number
  readonly listeners: number
  /** Connections of the connection manager, including those in TIMEWAIT. */
  readonly connections: number
}

export interface Stat {
  readonly pid: number
  /** Connected sessions and open contexts, without the requesting tool's session. */
  readonly sessions: number
  readonly contexts: number
  /** Rings in shared memory, and the mapped parts of memory files, each with several rings. */
  readonly rings: { readonly count: number; readonly bytes: number }
  readonly mappings: { readonly count: number; readonly bytes: number }
  /** Event sockets and netlink sockets of programs. */
  readonly descriptors: number
  /** Bytes: resident set of the daemon, and V8's heap in use. */
  readonly memory: { readonly resident: number; readonly heap: number }
  /** Bytes charged for the programs' objects, and the processes with the highest charges. */
  readonly charged: {
    readonly bytes: number
    readonly processes: readonly { readonly pid: number; readonly bytes: number }[]
  }
  readonly connections: ConnectionStat
  readonly devices: readonly DeviceStat[]
}

/** Where a list of queue pairs continues. */
export interface QpCursor {
  /** Node number of the device (`ListedDevice.node`), which no later device has. */
  readonly node: number
  /** The row of the next queue pair in the device's table. */
  readonly row: number
}

/** One queue pair. */
export interface QpStat {
  readonly device: string
  readonly qpn: number
  readonly pid: number
  readonly command: string
  /** Its class: rc_qp, ud_qp, … */
  readonly type: string
  readonly state: string
  readonly peer?: { readonly qpn: number; readonly address: string }
  /** Outstanding requests, and the maximum. `shared`: receives come from an SRQ, whose requests are shown. */
  readonly send: { readonly pending: number; readonly depth: number }
  readonly receive: { readonly pending: number; readonly depth: number; readonly shared?: true }
  /** The last failure and its cause. */
  readonly lastError?: FailureJson
}

/** A destroy that waits until its program has acknowledged events. */
export interface WaitStat {
  readonly device: string
  readonly pid: number
  readonly command: string
  /** The object and the unacknowledged events, as a sentence. */
  readonly text: string
}

export type ToolReply =
  | { readonly error: string }
  | { readonly config: DaemonConfig & { readonly devices: readonly ListedDevice[] } }
  | { readonly devices: readonly ListedDevice[] }
  | { readonly stat: Stat }
  | { readonly qps: readonly QpStat[]; readonly next?: QpCursor }
  | { readonly waits: readonly WaitStat[] }
  | { readonly faults: readonly FaultStat[] }
  | { readonly tracing: true }
  /** The error that has ended the capture; null: none. */
  | { readonly captureError: string | null }
  /**
   * `counts`: how often each finding was found, by its number − 1. `omissions`: records that the checks dropped;
   * `calls`: number of checked calls; `decisions`: number of decisions of torment, if it is on.
   */
  | {
      readonly counts: readonly number[]
      readonly omissions: readonly Omission[]
      readonly calls: number
      readonly decisions?: number
    }

/**
 * One access to the program's memory: its address in hexadecimal (0x…), the bytes in base64, which may be only the
 * first ones, and the length of the access.
 */
export type RawAccess = readonly [address: string, bytes: string, length: number]

/** A method as the device declares it, with its class. */
export interface Declaration {
  readonly classId: number
  readonly class: string
  readonly identity: ObjectClass['identity']
  readonly call: number
  readonly method: string
  readonly in: Attributes
  readonly out: Attributes
}

/** One failure of an object of a traced program, or of a device (`pid` 0). */
export interface FailureRecord {
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly pid: number
  readonly command: string
  readonly device: string
  readonly failure: FailureJson
}

/** One traced call, the JSON of TRACE messages (`traceTexts`). Its messages are in the object dialect, base64. */
export interface TraceRecord {
  /** Milliseconds since the epoch, and the call's duration in microseconds. */
  readonly time: number
  readonly duration: number
  readonly pid: number
  readonly tid: number
  readonly fd: number
  /** Name of the process. */
  readonly command: string
  readonly device: string
  /** `driver`: a call on the descriptor of a driver's interface, which has no class. */
  readonly dialect: 'ioctl' | 'write' | 'rdma_cm' | 'umad' | 'object' | 'driver'
  /** The request of an ioctl of the object dialect (with its call number) or of a driver. */
  readonly request?: number
  /** The name of a call that was not decoded into a method, or the text of a driver's call. */
  readonly attempt?: string
  /** Absent when the bytes could not be decoded. */
  readonly call?: {
    readonly classId: number
    readonly call: number
    readonly message: string
    readonly answer: string
    /** Memory of indirect attributes of the two messages: addresses (0x…) and bytes, base64. */
    readonly memory?: readonly (readonly [address: string, bytes: string])[]
    /** In a chain: memory of indirect attributes of the entries, as it was when an entry read or wrote it. */
    readonly pointed?: readonly (readonly [entry: number, way: 'in' | 'out', address: string, bytes: string])[]
    /** The driver's own methods in the record, which are not in spec/classes. */
    readonly declared?: readonly Declaration[]
  }
  /**
   * The program's memory that the call read (`in`, the call's message first) and wrote (`out`). If requested, and for
   * calls that could not be decoded.
   */
  readonly raw?: { readonly in: readonly RawAccess[]; readonly out: readonly RawAccess[] }
  /** ≥ 0 the call's result, < 0 negative errno. */
  readonly ret: number
  readonly reason?: string
  /** New descriptors, by attribute; `fd` is the program's number, absent if unknown. */
  readonly descriptors?: readonly { readonly attribute: string; readonly fd?: number }[]
  /** Calls lost before this one because the tool read too slowly. */
  readonly lost?: number
}

/** One decision of torment. */
export interface TormentRecord {
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly device: string
  readonly torment: TormentDecision
}

/** A finding for a checking tool. */
export interface FindingRecord {
  readonly finding: Finding
}

/** A record for a tracing tool. */
export type TraceEvent = TraceRecord | FailureRecord
/** A record of TRACE messages. */
export type ToolRecord = TraceEvent | TormentRecord | FindingRecord

// ---- records as texts ----

/** Maximum characters of one text: it fits in a message (SessionLimits.bytes) even if each has 3 bytes in UTF-8. */
const MAX_CHARACTERS = 16_000
/** Maximum characters of a record; a longer one is sent without its messages and memory. */
const MAX_RECORD = 4_000_000
/** First character of a text that continues in the next one; JSON never begins with it. */
const MORE = '+'

/** A record as the texts of one or several TRACE messages. */
export const traceTexts = (record: ToolRecord): string[] => {
  let text = JSON.stringify(record)
  if (text.length > MAX_RECORD) {
    const { call: _call, raw: _raw, ...rest } = record as TraceRecord
    text = JSON.stringify({ ...rest, reason: 'too long to trace' })
  }
  const texts: string[] = []
  while (text.length > MAX_CHARACTERS) {
    // Surrogate pairs stay together.
    const isPair = /[\ud800-\udbff]/.test(text[MAX_CHARACTERS - 1]!)
    const end = isPair ? MAX_CHARACTERS - 1 : MAX_CHARACTERS
    texts.push(MORE + text.slice(0, end))
    text = text.slice(end)
  }
  return [...texts, text]
}

/** A function that takes texts in order, and returns the record that ends with a text; undefined if it continues. */
export const traceReader = (): ((text: string) => ToolRecord | undefined) => {
  let partial = ''
  return text => {
    if (text.startsWith(MORE)) {
      partial += text.slice(1)
      return undefined
    }
    const joined = partial + text
    partial = ''
    return JSON.parse(joined) as ToolRecord
  }
}
