/*
 * Decides which calls, posts, completions, contexts and pages of programs the fault rules (rules.ts) act on. Pure:
 * knows neither objects nor processes, only what the caller says about them. Every rule that matches acts; of several
 * errors the first rule's counts. A rule counts its matches over all programs.
 */
import { createRandom, hashOf } from '../base/random.ts'
import type { ErrnoName } from '../spec/errno.ts'
import {
  type ActingRule,
  type FaultTarget,
  isRepeatable,
  type ProgramPhase,
  type ProgramRuleCounts,
  phaseWord,
  programPhases,
} from '../spec/faults.ts'
import { isOfQueuePair, roleOf } from '../spec/methods.ts'
import { completionsOfRule, methodsOfRule } from './program-rules.ts'
import {
  ALL_DEVICES,
  changesDevice,
  changesFabric,
  type FaultRule,
  type Happening,
  happeningOf,
  isActive,
  isInRanges,
  type RuleScope,
  targetOf,
} from './rule.ts'
import { formatRule } from './rules.ts'

/** The program and device of an opportunity. The functions are called only if a rule needs the answer. */
export interface FaultSubject {
  readonly device: string
  readonly pid: number
  /** The program's command. */
  program(): string
  /** The call site (`siteOf` in survey.ts); undefined: unknown. */
  site?(): string | undefined
}

/** What is known of a request that is posted. Absent: unknown. */
export interface PostDetails {
  readonly wrId?: bigint
  /** Of its data. */
  readonly length?: number
  readonly isInline?: boolean
}

/** What happens to a call. */
export interface CallFault extends ActingRule {
  /** Before the call, milliseconds. */
  readonly delay: number
  /** Empty: the call is executed. */
  readonly errno: ErrnoName | ''
  /** An asynchronous event after the call; empty: none. */
  readonly event: string
  readonly happening: Happening
}

interface PostFault extends ActingRule {
  readonly errno: ErrnoName
}

interface CompletionFault extends ActingRule {
  /** A name of `WcStatus`; empty: the completion does not fail. */
  readonly status: string
  readonly happening: Happening
}

/** A received event: `delay`, `again` and `turn` as in rules; 0: not. */
export interface NoticeFault extends ActingRule {
  readonly delay: number
  readonly again: number
  readonly turn: number
}

/** `delay`: milliseconds until the event, and until what happens. */
interface EventFault extends ActingRule {
  /** Empty: none. */
  readonly event: string
  readonly happening: Happening
  readonly delay: number
}

export interface ProgramFaults {
  /**
   * Replaces all rules; those for packets are ignored. Counts and random sequences restart, and processes are known no
   * more. `kept`: by rule, the index that it has had among the rules before: it goes on, and processes stay known;
   * undefined: it is new.
   */
  setRules(rules: readonly FaultRule[], kept?: readonly (number | undefined)[]): void
  /** Whether a rule may act on this target. */
  has(target: FaultTarget): boolean
  /** As `has`, without rules that have acted as often as they may. */
  canAct(target: FaultTarget): boolean
  /**
   * `method`: `class.method`. `canRaise`: whether the call can lead to an event; rules with other events do not match.
   */
  onCall(subject: FaultSubject, method: string, canRaise?: (event: string) => boolean): CallFault | undefined
  /**
   * `cls`: class of the queue. `qpn`: undefined for an SRQ. `request`: a name of `requestNames`; undefined: unknown.
   */
  onPost(
    subject: FaultSubject,
    cls: string,
    qpn: number | undefined,
    request: string | undefined,
    details?: PostDetails,
  ): PostFault | undefined
  /** `cls`: class of the queue pair. `completion`: a name of `completionNames`. */
  onCompletion(
    subject: FaultSubject,
    cls: string,
    qpn: number,
    completion: string,
    wrId?: bigint,
  ): CompletionFault | undefined
  /** A program has opened a device. `since`: the edition of the rules that were asked about it before; 0: none were. */
  onOpen(subject: FaultSubject, since?: number): readonly EventFault[]
  /** The number of the last change of the rules, from 1. */
  readonly edition: number
  /** A program receives an event. `notice`: a name of `noticeNames`. */
  onNotice(subject: FaultSubject, notice: string): NoticeFault | undefined
  /** The number of a process in the order of first calls since the rules were set, from 1. */
  processNumber(pid: number): number
  /** What a process is in each run, as in rules: a hash of its role, with `.2` if it is the second to make a call. */
  roleOf(pid: number): string
  /** How far a process has come before what it does now. */
  phaseOf(pid: number): ProgramPhase
  /** The device accesses an on-demand region of a program. Undefined: the page is there. */
  onPage(subject: FaultSubject): ActingRule | undefined
  /** By index in the list of all rules; undefined for rules that are not for programs. */
  readonly counts: readonly (ProgramRuleCounts | undefined)[]
}

const happeningIn = (rules: readonly ActiveRule[]): Happening => happeningOf(rules.map(({ rule }) => rule))

/** Linux keeps this many characters of a program's name. */
const COMMAND_LENGTH = 15

interface ActiveRule {
  readonly rule: FaultRule
  readonly target: FaultTarget
  readonly acting: ActingRule
  /** What the rule selects: methods, or completions with their class; empty: no such selector. */
  readonly names: ReadonlySet<string>
  readonly program: string
  readonly counts: ProgramRuleCounts
  /** By device or queue pair, for rules that count them apart. */
  readonly apart: Map<string, ProgramRuleCounts>
  readonly random: () => number
  /** The edition of the rules (`ProgramFaults.edition`) since which it exists. */
  readonly since: number
  /** The first match on which the rule may act, and the number of times. */
  readonly first: number
  readonly times: number
}

/** `before`: the same rule, which goes on. */
const activeRule = (rule: FaultRule, index: number, edition: number, before: ActiveRule | undefined): ActiveRule => {
  const target = targetOf(rule)
  const noNames: ReadonlySet<string> = new Set()
  return {
    rule,
    target,
    acting: { number: index + 1, text: formatRule(rule), ...(rule.scope && { scope: rule.scope }) },
    names: target === 'call' ? methodsOfRule(rule) : target === 'completion' ? completionsOfRule(rule) : noNames,
    program: rule.program.slice(0, COMMAND_LENGTH),
    counts: before?.counts ?? { matched: 0, injected: 0 },
    apart: before?.apart ?? new Map(),
    random: before?.random ?? createRandom(rule.seed ^ hashOf(`program ${index}`)),
    since: before?.since ?? edition,
    first: rule.nth || rule.every || 1,
    times: rule.count || (rule.nth > 0 ? 1 : Number.POSITIVE_INFINITY),
  }
}

const includes = <T>(selected: readonly T[], value: T | undefined): boolean =>
  selected.length === 0 || (value !== undefined && selected.includes(value))

const isInScope = (rule: FaultRule, { pid, mayChange }: RuleScope, subject: FaultSubject): boolean =>
  pid === subject.pid &&
  (!changesDevice(rule) || mayChange(subject.device)) &&
  (!changesFabric(rule) || mayChange(ALL_DEVICES))

const isOfProgram = ({ rule, program }: ActiveRule, subject: FaultSubject): boolean =>
  (rule.device === '' || rule.device === subject.device) &&
  (rule.scope === undefined || isInScope(rule, rule.scope, subject)) &&
  includes(rule.pid, subject.pid) &&
  (program === '' || program === subject.program().slice(0, COMMAND_LENGTH)) &&
  (rule.site.length === 0 || includes(rule.site, subject.site?.()))

/** Devices and queue pairs whose matches a rule counts apart: beyond, all begin anew. */
const MAX_COUNTED = 65_536

const countsOf = ({ rule, counts, apart }: ActiveRule, subject: FaultSubject, qpn: number | undefined) => {
  if (rule.per === '') return counts
  const key = rule.per === 'qp' ? `${subject.device} ${qpn ?? `srq of ${subject.pid}`}` : subject.device
  let own = apart.get(key)
  if (own === undefined) {
    if (apart.size >= MAX_COUNTED) apart.clear()
    own = { matched: 0, injected: 0 }
    apart.set(key, own)
  }
  return own
}

/** Counts a match; true if the rule acts on it. `qpn`: undefined of an SRQ, and of what is of no queue. */
const acts = (active: ActiveRule, subject: FaultSubject, qpn: number | undefined): boolean => {
  const { rule, counts, first, times, random } = active
  const own = countsOf(active, subject, qpn)
  const match = ++own.matched
  if (own !== counts) counts.matched++
  rule.onMatch?.()
  if (match < first || (match - first) % (rule.every || 1) !== 0 || own.injected >= times) return false
  if (rule.share < 1 && random() >= rule.share * 2 ** 32) return false
  own.injected++
  if (own !== counts) counts.injected++
  return true
}

/** A send does not wait for its completion, whose time is not the program's. */
const TRANSFERS: readonly FaultTarget[] = ['completion', 'post']

const phaseOfCall = (name: string): ProgramPhase => {
  const role = roleOf(name)
  if (role === 'connects') return 'connects'
  if (role === 'closes') return 'closes'
  if (!isOfQueuePair(name)) return 'begins'
  if (role === 'creates') return 'has a queue pair'
  if (role === 'modifies') return 'connects'
  return role === 'destroys' ? 'closes' : 'begins'
}

/** The phase of a process after what it does now. */
const phaseAfter = (before: ProgramPhase, target: FaultTarget, name: string): ProgramPhase => {
  const now = TRANSFERS.includes(target) ? 'transfers' : phaseOfCall(name)
  // A program that has closed its connections begins anew with the next queue pair.
  if (before === 'closes' && now === 'has a queue pair') return now
  return programPhases.indexOf(now) > programPhases.indexOf(before) ? now : before
}

/** `nameOf`: what a process is in each run of the same programs (`roleOf` in host/process-status.ts). */
export const createProgramFaults = (
  initial: readonly FaultRule[] = [],
  nameOf: (pid: number) => string = () => '',
): ProgramFaults => {
  /** By index in the list of all rules. */
  let all: readonly (ActiveRule | undefined)[] = []
  let active: readonly ActiveRule[] = []
  let counts: readonly (ProgramRuleCounts | undefined)[] = []
  let edition = 0
  const targets = new Set<FaultTarget>()
  const numbers = new Map<number, number>()
  const numberOf = (pid: number): number => {
    const known = numbers.get(pid) ?? numbers.size + 1
    numbers.set(pid, known)
    return known
  }
  const roles = new Map<number, string>()
  /** By role: how many processes have it. */
  const alike = new Map<string, number>()
  const roleOf = (pid: number): string => {
    const known = roles.get(pid)
    if (known !== undefined) return known
    const hash = hashOf(nameOf(pid)).toString(16).padStart(8, '0')
    const number = (alike.get(hash) ?? 0) + 1
    alike.set(hash, number)
    const role = number === 1 ? hash : `${hash}.${number}`
    roles.set(pid, role)
    return role
  }
  const phases = new Map<number, ProgramPhase>()
  const phaseOf = (pid: number): ProgramPhase => phases.get(pid) ?? 'begins'
  /** Call this after rules were asked: they see the phase before. */
  const advance = (pid: number, target: FaultTarget, name: string): void => {
    phases.set(pid, phaseAfter(phaseOf(pid), target, name))
  }

  const setRules = (rules: readonly FaultRule[], kept?: readonly (number | undefined)[]): void => {
    edition++
    const before = all
    all = rules.map((rule, index) =>
      targetOf(rule) === 'packet' || !isActive(rule)
        ? undefined
        : activeRule(rule, index, edition, before[kept?.[index] ?? -1]),
    )
    active = all.filter(rule => rule !== undefined)
    counts = all.map(rule => rule?.counts)
    targets.clear()
    for (const {
      target,
      rule: { process: numbered, role, phase },
    } of active) {
      targets.add(target)
      // Processes are counted by their calls, and come to phases by all that they do.
      if (numbered.length > 0 || role.length > 0) targets.add('call')
      if (phase.length > 0) for (const one of ['call', ...TRANSFERS] as const) targets.add(one)
    }
    if (kept !== undefined) return
    numbers.clear()
    roles.clear()
    alike.clear()
    phases.clear()
  }
  setRules(initial)

  /** The rules of a target that act on an opportunity; counts it for all that match. */
  const acting = (
    target: FaultTarget,
    subject: FaultSubject,
    isSelected: (rule: ActiveRule) => boolean,
    qpn?: number,
  ): readonly ActiveRule[] =>
    active.filter(
      one =>
        one.target === target &&
        isSelected(one) &&
        isOfProgram(one, subject) &&
        includes(one.rule.process, numberOf(subject.pid)) &&
        (one.rule.role.length === 0 || includes(one.rule.role, roleOf(subject.pid))) &&
        (one.rule.phase.length === 0 || includes(one.rule.phase, phaseWord(phaseOf(subject.pid)))) &&
        acts(one, subject, qpn),
    )

  return {
    setRules,
    has: target => targets.has(target),
    canAct: target =>
      active.some(
        ({ target: own, rule, counts, times }) => own === target && (rule.per !== '' || counts.injected < times),
      ),
    processNumber: numberOf,
    roleOf,
    phaseOf,
    onCall(subject, method, canRaise = () => true) {
      numberOf(subject.pid)
      roleOf(subject.pid)
      const rules = acting('call', subject, ({ rule, names }) => names.has(method) && canRaise(rule.event))
      advance(subject.pid, 'call', method)
      const failing = rules.find(({ rule }) => rule.errno !== '')
      const raising = rules.find(({ rule }) => rule.event !== '')
      const [first] = rules
      if (first === undefined) return undefined
      return {
        ...(failing ?? raising ?? first).acting,
        delay: rules.reduce((sum, { rule }) => sum + rule.delay, 0),
        errno: failing?.rule.errno ?? '',
        event: failing === undefined ? (raising?.rule.event ?? '') : '',
        happening: happeningIn(rules),
      }
    },
    onPost(subject, cls, qpn, request, { wrId, length, isInline } = {}) {
      const inline = isInline === undefined ? undefined : isInline ? 'yes' : 'no'
      const [first] = acting(
        'post',
        subject,
        ({ rule }) =>
          includes(rule.class, cls) &&
          includes(rule.qp, qpn) &&
          includes(rule.request, request) &&
          includes(rule.wr_id, wrId) &&
          isInRanges(rule.length, length) &&
          (rule.inline === '' || rule.inline === inline),
        qpn,
      )
      if (request !== 'RECV') advance(subject.pid, 'post', request ?? '')
      return first === undefined || first.rule.post === '' ? undefined : { ...first.acting, errno: first.rule.post }
    },
    onCompletion(subject, cls, qpn, completion, wrId) {
      const rules = acting(
        'completion',
        subject,
        ({ rule, names }) => names.has(`${cls} ${completion}`) && includes(rule.qp, qpn) && includes(rule.wr_id, wrId),
        qpn,
      )
      advance(subject.pid, 'completion', completion)
      const first = rules.find(({ rule }) => rule.status !== '') ?? rules[0]
      return first && { ...first.acting, status: first.rule.status, happening: happeningIn(rules) }
    },
    onOpen: (subject, asked = 0) =>
      acting('event', subject, ({ since }) => since > asked).map(({ acting, rule }) => ({
        ...acting,
        event: rule.event,
        happening: happeningOf([rule]),
        delay: rule.delay,
      })),
    onNotice(subject, notice) {
      const rules = acting(
        'notice',
        subject,
        ({ rule }) =>
          (rule.notice.includes('*') || rule.notice.includes(notice)) && (rule.again === 0 || isRepeatable(notice)),
      )
      const [first] = rules
      return (
        first && {
          ...first.acting,
          delay: Math.max(...rules.map(({ rule }) => rule.delay)),
          again: Math.max(...rules.map(({ rule }) => rule.again)),
          turn: Math.max(...rules.map(({ rule }) => rule.turn)),
        }
      )
    },
    onPage: subject => acting('page', subject, () => true)[0]?.acting,
    get edition() {
      return edition
    },
    get counts() {
      return counts
    },
  }
}
