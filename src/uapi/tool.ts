/*
 * What tools say to a daemon and what it answers: the JSON of TOOL messages (spec/session.ts), typed once for both
 * ends.
 */
import type { FailureJson } from '../spec/failures.ts'
import type { FaultRuleCounts } from '../spec/faults.ts'
import type { Attributes, ObjectClass } from '../spec/schema/schema.ts'

/** A device as `--device NAME@ADDRESS` names it. */
export interface DeviceSpec {
  readonly name: string
  /** As text, IPv4 or IPv6; empty for a device that is in no network. */
  readonly address: string
}

/** A device that is there: N of /dev/infiniband/uverbsN. */
export interface ListedDevice extends DeviceSpec {
  readonly node: number
}

/** What joins the devices, with the words of `--help`. The first is the default. */
export const linkKinds = {
  memory: "the daemon's own memory",
  udp: 'UDP sockets, segmented by the kernel',
  'udp-plain': 'UDP sockets, a datagram per call',
  dgram: "Node's UDP sockets, which reach only others of their kind",
} as const
export type Link = keyof typeof linkKinds
export const links = Object.keys(linkKinds) as readonly Link[]

/** How messages pass through a daemon's memory, with the words of `--help`. The first is the default. */
export const pathKinds = {
  direct: 'from buffer to buffer while no capture and no fault needs packets',
  packets: 'always as packets',
} as const
export type Path = keyof typeof pathKinds
export const paths = Object.keys(pathKinds) as readonly Path[]

/** What a daemon has; who joins it must ask for the same. */
export interface DaemonConfig {
  readonly devices: readonly DeviceSpec[]
  /** Rules of faults as text (phy/faults/rules.ts), those that hold now; empty for none. */
  readonly fault: string
  readonly link: Link
  /** Default: direct. */
  readonly path?: Path
  /** Programs may register more memory than their RLIMIT_MEMLOCK says. */
  readonly ignoreMemlock?: boolean
}

export type ToolRequest =
  | { readonly what: 'config' }
  | { readonly what: 'stat' }
  /** Queue pairs of all devices, from `from` on: what the answer before has called `next`. */
  | { readonly what: 'qps'; readonly from?: QpPlace }
  /** Destroys for which programs wait. */
  | { readonly what: 'waits' }
  /** The rules of faults; with `set`, they are those of that text from now on. */
  | { readonly what: 'fault'; readonly set?: string }
  /** One more device, or one less; answers those that there are then. */
  | { readonly what: 'device'; readonly add?: DeviceSpec; readonly remove?: string }
  /**
   * Calls of processes tagged `tag` (all, if empty) come as TRACE messages from now on; with a descriptor, packets go
   * to it as pcapng. `abi`: with the bytes that each call has read and written.
   */
  | { readonly what: 'trace'; readonly tag: string; readonly pcap: boolean; readonly abi?: boolean }

/** A rule of faults, and packets since it was set: those that it was for, and what happened to them. */
export interface FaultStat extends Readonly<FaultRuleCounts> {
  readonly rule: string
}

export interface DeviceStat {
  readonly name: string
  readonly address: string
  /** Live objects by class name. */
  readonly objects: Readonly<Record<string, number>>
  /** The numbers of the port's files, by their folders and names (spec/counters.ts). */
  readonly hw_counters: Readonly<Record<string, number>>
  readonly counters: Readonly<Record<string, number>>
  /** What they are made from, and more: what the port and the transport engine count, by their own names. */
  readonly port: Readonly<Record<string, number>>
  readonly transport: Readonly<Record<string, number>>
  /** Packets by what faults did to them since the start. */
  readonly faults: Readonly<Record<string, number>>
}

/** What connection management holds, of all programs. */
export interface ConnectionStat {
  /** Identifiers of rdma_cm, and those among them that listen. */
  readonly identifiers: number
  readonly listeners: number
  /** Connections of the connection manager, those that rest in TIMEWAIT included. */
  readonly connections: number
}

export interface Stat {
  readonly pid: number
  /** Connected sessions and open contexts, the asking tool's own session not counted. */
  readonly sessions: number
  readonly contexts: number
  /**
   * Queues in shared memory; and the pieces of memory files, of some rings each, that the daemon has mapped for them.
   */
  readonly rings: { readonly count: number; readonly bytes: number }
  readonly mappings: { readonly count: number; readonly bytes: number }
  readonly descriptors: number
  /** Bytes: resident set of the daemon, and V8's heap in use. */
  readonly memory: { readonly resident: number; readonly heap: number }
  /** Bytes that objects of programs take, as they are charged for, and those of the processes with most. */
  readonly charged: {
    readonly bytes: number
    readonly processes: readonly { readonly pid: number; readonly bytes: number }[]
  }
  readonly connections: ConnectionStat
  readonly devices: readonly DeviceStat[]
}

/** Where a list of queue pairs goes on: a device, and a row of its table. */
export interface QpPlace {
  readonly device: string
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
  /** Requests that are posted and have not ended, and how many there can be. `shared`: of a shared receive queue. */
  readonly send: { readonly pending: number; readonly depth: number }
  readonly receive: { readonly pending: number; readonly depth: number; readonly shared?: true }
  /** What failed last, and why. */
  readonly lastError?: FailureJson
}

/** A destroy that waits until its program has acknowledged events. */
export interface WaitStat {
  readonly device: string
  readonly pid: number
  readonly command: string
  readonly text: string
}

export type ToolReply =
  | { readonly error: string }
  | { readonly config: DaemonConfig & { readonly devices: readonly ListedDevice[] } }
  | { readonly devices: readonly ListedDevice[] }
  | { readonly stat: Stat }
  | { readonly qps: readonly QpStat[]; readonly next?: QpPlace }
  | { readonly waits: readonly WaitStat[] }
  | { readonly faults: readonly FaultStat[] }
  | { readonly tracing: true }

/** Memory of the program: its address in hexadecimal (0x…), bytes in base64, how many there were if these are fewer. */
export type RawPiece = readonly [address: string, bytes: string, length: number]

/** A method as a device has it, with its class. */
export interface Declaration {
  readonly classId: number
  readonly class: string
  readonly identity: ObjectClass['identity']
  readonly call: number
  readonly method: string
  readonly in: Attributes
  readonly out: Attributes
}

/** One failure of a traced program's queue pair, or of what it has opened; `pid` 0: of a device. */
export interface FailureRecord {
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly pid: number
  readonly command: string
  readonly device: string
  readonly failure: FailureJson
}

/** One traced call, the JSON of TRACE messages (`traceTexts`). Messages of a call are in the object dialect, base64. */
export interface TraceRecord {
  /** Milliseconds since the epoch, and how long the call took, in microseconds. */
  readonly time: number
  readonly duration: number
  readonly pid: number
  readonly tid: number
  readonly fd: number
  /** Name of the process. */
  readonly command: string
  readonly device: string
  /** `driver`: a call on the descriptor of a driver's interface, which is of no class. */
  readonly dialect: 'ioctl' | 'write' | 'umad' | 'object' | 'driver'
  /** The request of an ioctl of the object dialect (its call number is in it) or of a driver. */
  readonly request?: number
  /** Linux's name of a call that was refused before it was decoded, or the text of one of a driver. */
  readonly attempt?: string
  /** Absent when the bytes did not decode to a call. */
  readonly call?: {
    readonly classId: number
    readonly call: number
    readonly message: string
    readonly answer: string
    /** What indirect attributes of the two point to: addresses (0x…) and bytes, base64. */
    readonly memory?: readonly (readonly [address: string, bytes: string])[]
    /** Of a chain: what indirect attributes of its entries point to, as it was when an entry read or wrote it. */
    readonly pointed?: readonly (readonly [entry: number, way: 'in' | 'out', address: string, bytes: string])[]
    /** Methods in it that are a driver's own, and not in spec/classes. */
    readonly declared?: readonly Declaration[]
  }
  /**
   * The program's memory that the call has read and written, in that order; the call itself comes first. For who asked
   * for it, and for calls that could not be decoded.
   */
  readonly raw?: { readonly in: readonly RawPiece[]; readonly out: readonly RawPiece[] }
  /** ≥ 0 the call's value, < 0 minus errno. */
  readonly ret: number
  readonly reason?: string
  /** Descriptors that the call made, by attribute; `fd` is the program's number, absent if it is not known. */
  readonly descriptors?: readonly { readonly attribute: string; readonly fd?: number }[]
  /** Calls that were not traced before this one, since the tool read too slowly. */
  readonly lost?: number
}

// ---- records as texts ----

/** Characters of one text: however they are encoded, they fit a message. */
const MOST_CHARACTERS = 16_000
/** Characters of a record; one that has more is told without its bytes. */
const LONGEST = 4_000_000
/** Begins a text that goes on in the next one. */
const MORE = '+'

/** What a tool that traces gets. */
export type TraceEvent = TraceRecord | FailureRecord

/** A record as the texts of one or several TRACE messages. */
export const traceTexts = (record: TraceEvent): string[] => {
  let text = JSON.stringify(record)
  if (text.length > LONGEST) {
    const { call: _call, raw: _raw, ...rest } = record as TraceRecord
    text = JSON.stringify({ ...rest, reason: 'too long to trace' })
  }
  const texts: string[] = []
  while (text.length > MOST_CHARACTERS) {
    // A pair of surrogates stays together.
    const isPair = /[\ud800-\udbff]/.test(text[MOST_CHARACTERS - 1]!)
    const end = isPair ? MOST_CHARACTERS - 1 : MOST_CHARACTERS
    texts.push(MORE + text.slice(0, end))
    text = text.slice(end)
  }
  return [...texts, text]
}

/** Takes texts in their order; the record that ends with this one, undefined if it goes on. */
export const traceReader = (): ((text: string) => TraceEvent | undefined) => {
  let begun = ''
  return text => {
    if (text.startsWith(MORE)) {
      begun += text.slice(1)
      return undefined
    }
    const whole = begun + text
    begun = ''
    return JSON.parse(whole) as TraceEvent
  }
}
