/*
 * The record of a fault rule. rules.ts has its text.
 */
import type { ErrnoName } from '../spec/errno.ts'
import { type FaultKind, type FaultTarget, faultKinds, type RuleSignal } from '../spec/faults.ts'
import type { DscpRange } from '../spec/wire/dscp.ts'

export const faultDirections = ['received', 'sent', 'both'] as const
export type FaultDirection = (typeof faultDirections)[number]

/** 0 to 1. */
type Probabilities = { readonly [K in FaultKind]: number }

/** Whole numbers from `min` to `max`, which may be infinite. */
export interface LengthRange {
  readonly min: number
  readonly max: number
}

export const faultCounting = ['device', 'qp', 'flow'] as const

/** Cables between switches that are pulled. */
export interface CableOutage {
  /** The switches; `way`: those of the first link between switches on the way of the device's packets. */
  readonly between: readonly [string, string] | typeof CABLE_ON_WAY
  /** Milliseconds; undefined: for good. */
  readonly lasts: number | undefined
}
export const CABLE_ON_WAY = 'way'

/** How devices die. */
export const deviceDeaths = ['qps', 'silent', 'half'] as const

/** A router of simulated links: it is down, or a selector of packets that cross it. */
interface RouterPlace {
  readonly name: string
  /** Milliseconds for which it is down; undefined: it selects packets. */
  readonly lasts: number | undefined
}

/** What a rule lets happen to the device or the process. Times are milliseconds; 0 and '' are nothing. */
export interface Happening {
  /** The link of the device is down for so long. */
  readonly link: number
  /** The device's address returns at an index so much higher. */
  readonly gid: number
  /** Cables between switches of InfiniBand ports are pulled. */
  readonly cable: CableOutage | ''
  /** A router of simulated links is down; without a time nothing happens to it. */
  readonly router: RouterPlace | ''
  /** The subnet manager of InfiniBand ports is gone for so long. */
  readonly manager: number
  /** The device is removed for so long. */
  readonly gone: number
  /**
   * The device fails: with all its queue pairs and an event (`qps`), or with neither completions nor events, of all
   * (`silent`) or of every second queue pair (`half`).
   */
  readonly fatal: (typeof deviceDeaths)[number] | ''
  /** The process gets this signal. */
  readonly signal: RuleSignal | ''
  /** The process is stopped for so long. */
  readonly stop: number
}

export const noHappening: Happening = {
  link: 0,
  gid: 0,
  cable: '',
  router: '',
  manager: 0,
  gone: 0,
  fatal: '',
  signal: '',
  stop: 0,
}
const happeningNames = Object.keys(noHappening) as readonly (keyof Happening)[]
export const happens = (happening: Happening): boolean =>
  happeningNames.some(name => happening[name] !== noHappening[name] && (name !== 'router' || isRouterDown(happening)))

const isRouterDown = ({ router }: Pick<Happening, 'router'>): boolean => router !== '' && router.lasts !== undefined

/** Whether what happens concerns the whole device, and not the process alone. */
export const changesDevice = ({ link, gid, gone, fatal }: Happening): boolean =>
  link > 0 || gid > 0 || gone > 0 || fatal !== ''

/** Whether what happens concerns all devices with InfiniBand ports, or all of simulated links. */
export const changesFabric = (happening: Happening): boolean =>
  happening.cable !== '' || happening.manager > 0 || isRouterDown(happening)

/** Of several, the longest times and the first names. */
export const happeningOf = (all: readonly Happening[]): Happening => ({
  link: Math.max(0, ...all.map(({ link }) => link)),
  gid: Math.max(0, ...all.map(({ gid }) => gid)),
  cable: all.find(({ cable }) => cable !== '')?.cable ?? '',
  router: all.find(isRouterDown)?.router ?? '',
  manager: Math.max(0, ...all.map(({ manager }) => manager)),
  gone: Math.max(0, ...all.map(({ gone }) => gone)),
  fatal: all.find(({ fatal }) => fatal !== '')?.fatal ?? '',
  signal: all.find(({ signal }) => signal !== '')?.signal ?? '',
  stop: Math.max(0, ...all.map(({ stop }) => stop)),
})

/** In place of a device's name. */
export const ALL_DEVICES = ''

/** What a rule of a program may act on, besides its selectors. */
export interface RuleScope {
  /** The process whose calls, posts, completions, contexts and pages the rule acts on. */
  readonly pid: number
  /** Whether a device gets packets to this queue pair for the process. */
  receives(device: string, qpn: number): boolean
  /**
   * Whether a device sends packets to the queue pair `destQpn` of a peer for the process alone. `sourceQpn`: 0:
   * unknown.
   */
  sends(device: string, destQpn: number, sourceQpn: number): boolean
  /** Whether the rule may change the whole device; ALL_DEVICES: all of them. */
  mayChange(device: string): boolean
}

export interface FaultRule extends Probabilities, Happening {
  /** Absent: of the daemon or network. */
  readonly scope?: RuleScope
  /** Called after each match that is counted. */
  readonly onMatch?: () => void
  /** Selector: `class.method`, where `*` stands for any characters. Not empty: the rule is for calls. */
  readonly call: readonly string[]
  /** Selector: names of completions, or `*`. Not empty: the rule is for completions. */
  readonly completion: readonly string[]
  /** Selector: name of the device; empty: all devices. */
  readonly device: string
  /** Selector: the command of the program; empty: all programs. */
  readonly program: string
  /** Selector: processes by the order of their first calls since the rules were set, from 1; empty: all. */
  readonly process: readonly number[]
  /** Selector: what processes are in each run (`ProgramFaults.roleOf`); empty: all. */
  readonly role: readonly string[]
  /** Selector: how far processes have come (`phaseWord`); empty: all. */
  readonly phase: readonly string[]
  /** Selector: process ids; empty: all. */
  readonly pid: readonly number[]
  /** Selector: names of classes; empty: all. */
  readonly class: readonly string[]
  /** Selector: call sites (`siteOf` in survey.ts); empty: all. */
  readonly site: readonly string[]
  /** Selector: direction. */
  readonly dir: FaultDirection
  /** Selector: destination QPNs (BTH.destQP); empty: all. */
  readonly qp: readonly number[]
  /** Selector: opcode numbers (0x11), or names, where `*` stands for any characters; empty: all. */
  readonly opcode: readonly string[]
  /** Selector: names of messages of the connection manager (`CmMessageName`); empty: all packets. */
  readonly cm: readonly string[]
  /** Selector: what acknowledgements say; empty: all packets. */
  readonly ack: readonly string[]
  /** Selector: names of received events (`noticeNames`), or `*`. Not empty: the rule is for received events. */
  readonly notice: readonly string[]
  /** Selector: names of posted requests; empty: all. */
  readonly request: readonly string[]
  /** Selector: wr_ids; empty: all. */
  readonly wr_id: readonly bigint[]
  /** Selector: bytes of payload or of a request; empty: all. */
  readonly length: readonly LengthRange[]
  /** Selector: whether the data of a post is inline; empty: all. */
  readonly inline: 'yes' | 'no' | ''
  /** Selector: rkeys; empty: all packets. */
  readonly rkey: readonly number[]
  /** Selector: immediate data, as the program's number in network byte order; empty: all packets. */
  readonly imm: readonly number[]
  /** Selector: DSCPs; empty: all packets. */
  readonly dscp: readonly DscpRange[]
  /** Selector: messages of a flow, from 1; empty: all packets. */
  readonly message: readonly number[]
  /** Selector: packets of a flow, or with `message` of the message, from 1; empty: all. */
  readonly packet: readonly number[]
  /** What `nth`, `every` and `count` count; empty: the default. */
  readonly per: (typeof faultCounting)[number] | ''
  /** Selector: the first match that counts, from 1; 0: the first, or with `every` that one. */
  readonly nth: number
  /** Selector: one match of so many; 0: all. */
  readonly every: number
  /** Selector: probability, 0 to 1. */
  readonly share: number
  /** Selector: how often the rule acts; 0: once with `nth`, otherwise without limit. */
  readonly count: number
  /** Effect: error of the call; empty: none. */
  readonly errno: ErrnoName | ''
  /** Effect: error of the post. Not empty: the rule is for posts. */
  readonly post: ErrnoName | ''
  /** Effect: status of the completion. */
  readonly status: string
  /** Effect: the program gets this asynchronous event. Without `call` the rule is for events. */
  readonly event: string
  /** Effect: what an access to an on-demand region finds. Not empty: the rule is for pages. */
  readonly page: 'gone' | ''
  /** Effect: the received event comes once more after so many milliseconds. */
  readonly again: number
  /** Effect: the received event comes after so many milliseconds, to the next of the threads that wait for it. */
  readonly turn: number
  /** Effect: delay of every packet, of a call, or of an event, milliseconds. */
  readonly delay: number
  /** Effect: maximum random change of `delay` (up or down), milliseconds; at most `delay`. */
  readonly jitter: number
  /** Effect: rate limit in bits per second, including UDP and IP headers; 0: unlimited. */
  readonly rate: number
  /** Seed of the random sequence. */
  readonly seed: number
}

export const ofKinds = <T>(value: T): Record<FaultKind, T> =>
  Object.fromEntries(faultKinds.map(kind => [kind, value])) as Record<FaultKind, T>

/** The effects on packets. */
export const packetEffects: readonly (FaultKind | 'delay' | 'jitter' | 'rate')[] = [
  ...faultKinds,
  'delay',
  'jitter',
  'rate',
]

/** A rule for all received packets, without effects. */
export const noFaults: FaultRule = {
  call: [],
  completion: [],
  device: '',
  program: '',
  process: [],
  role: [],
  phase: [],
  pid: [],
  class: [],
  site: [],
  dir: 'received',
  qp: [],
  opcode: [],
  cm: [],
  ack: [],
  notice: [],
  request: [],
  wr_id: [],
  length: [],
  inline: '',
  rkey: [],
  imm: [],
  dscp: [],
  message: [],
  packet: [],
  per: '',
  nth: 0,
  every: 0,
  share: 1,
  count: 0,
  ...ofKinds(0),
  errno: '',
  post: '',
  status: '',
  event: '',
  page: '',
  ...noHappening,
  again: 0,
  turn: 0,
  delay: 0,
  jitter: 0,
  rate: 0,
  seed: 1,
}

/** What the rule acts on. */
export const targetOf = (rule: FaultRule): FaultTarget => {
  const { call, post, completion, event, page, notice } = rule
  if (call.length > 0) return 'call'
  if (notice.length > 0) return 'notice'
  if (post !== '') return 'post'
  if (page !== '') return 'page'
  if (completion.length > 0) return 'completion'
  return event === '' && !happens(rule) ? 'packet' : 'event'
}

/** Whether a rule for posts or completions selects a request. `value`: undefined, it is unknown. */
export const isInRanges = (ranges: readonly LengthRange[], value: number | undefined): boolean =>
  ranges.length === 0 || (value !== undefined && ranges.some(({ min, max }) => value >= min && value <= max))

export const isActive = (rule: FaultRule): boolean =>
  targetOf(rule) === 'packet' ? packetEffects.some(name => rule[name] > 0) : rule.share > 0
