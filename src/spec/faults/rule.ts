/*
 * The record of a fault rule. rules.ts has its text.
 */
import type { ErrnoName } from '../errno.ts'
import { type FaultKind, type FaultTarget, faultKinds } from '../faults.ts'

export const faultDirections = ['received', 'sent', 'both'] as const
export type FaultDirection = (typeof faultDirections)[number]

/** 0 to 1. */
type Probabilities = { readonly [K in FaultKind]: number }

export interface FaultRule extends Probabilities {
  /** Selector: `class.method`, where `*` stands for any characters. Not empty: the rule is for calls. */
  readonly call: readonly string[]
  /** Selector: names of completions, or `*`. Not empty: the rule is for completions. */
  readonly completion: readonly string[]
  /** Selector: name of the device; empty: all devices. */
  readonly device: string
  /** Selector: the command of the program; empty: all programs. */
  readonly program: string
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
  /** Selector: names of posted requests; empty: all. */
  readonly request: readonly string[]
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
  /** Effect: the link of the device is down for so many milliseconds. Without `call` and `completion` the rule is for events. */
  readonly link: number
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
  pid: [],
  class: [],
  site: [],
  dir: 'received',
  qp: [],
  opcode: [],
  cm: [],
  request: [],
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
  link: 0,
  delay: 0,
  jitter: 0,
  rate: 0,
  seed: 1,
}

/** What the rule acts on. */
export const targetOf = ({ call, post, completion, event, page, link }: FaultRule): FaultTarget => {
  if (call.length > 0) return 'call'
  if (post !== '') return 'post'
  if (page !== '') return 'page'
  if (completion.length > 0) return 'completion'
  return event === '' && link === 0 ? 'packet' : 'event'
}

export const isActive = (rule: FaultRule): boolean =>
  targetOf(rule) === 'packet' ? packetEffects.some(name => rule[name] > 0) : rule.share > 0
