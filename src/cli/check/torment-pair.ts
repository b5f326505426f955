/*
 * The last part of `userdma check --torment-search`: of decisions that make a program fail, which order decides.
 *
 * The wait of each decision is bisected. The completions that what it holds lets pass in the shortest failing wait and
 * not in the longest passing one are candidates. Each is tried: what the decision is about is held until the program
 * has polled the candidate, which must fail, and the candidate until that has come, which must pass.
 */
import type { Stack } from '../../spec/check/finding.ts'
import { type Frame, ownFrame } from '../../spec/check/frames.ts'
import { decisionKind, MAX_HOLD, type TormentHeld, type TormentKind, TormentKinds } from '../../spec/check/torment.ts'
import {
  eventOf,
  isHolding,
  orderClause,
  partsOfName,
  SRD_ORDER,
  type TormentedRequest,
} from '../../spec/check/torment-orders.ts'

/** What is known of a run of the program. */
export interface PairRun {
  /** By identity: the last that each decision has held. */
  readonly held: ReadonlyMap<string, TormentHeld>
  readonly orders: readonly TormentedRequest[]
  /** When the first finding that counts as a failure was reported, microseconds; absent: there is none. */
  readonly failedAt?: number
}

/** What two of at most three runs have done. */
export interface PairTrial {
  readonly hasFailed: boolean
  readonly run: PairRun
}

/** Runs the program with only these decisions; undefined: the search ends. */
type Try = (only: readonly string[]) => Promise<PairTrial | undefined>

/** What comes later or earlier. */
interface Side {
  /** The decision, or DEVICE/PROCESS/OBJECT/THING of the completion. */
  readonly id: string
  readonly text: string
}

export interface Pair {
  readonly later: Side
  readonly earlier: Side
  readonly clause: string
  /** The decisions that bring the order about. */
  readonly only: readonly string[]
}

/** A search for the pair. `failed`, `passed`: the shortest failing run and the longest passing one. */
export interface PairSearch {
  readonly pair: Pair | undefined
  readonly failed: PairRun | undefined
  readonly passed: PairRun | undefined
}

/** Decisions of which the wait is bisected, and the candidates of each. */
const MAX_BISECTED = 4
const MAX_TRIED = 8
/** A bisection ends at this difference of waits, microseconds, or this part of the wait. */
const NEAR = 20
const NEAR_PART = 8

export type FramesOf = (stack: Stack) => readonly Frame[]

/** `SEND wr_id 7 (a.c:40)`. */
const requestWithLine = ({ text, stack }: TormentedRequest, framesOf: FramesOf): string => {
  const { file, line } = ownFrame(framesOf(stack)) ?? {}
  return file === undefined ? text : `${text} (${file}:${line})`
}

const completionText = (name: string, request: TormentedRequest | undefined, framesOf: FramesOf): string => {
  if (request !== undefined) return `the completion of ${requestWithLine(request, framesOf)}`
  const { object, thing } = partsOfName(name)
  return `completion ${thing} of ${object}`
}

/** What a decision holds, as a noun phrase. */
const heldText = (id: string, request: TormentedRequest | undefined, framesOf: FramesOf): string => {
  const { object, thing } = partsOfName(id)
  const texts: Partial<Record<TormentKind, string>> = {
    request: `the start of ${request === undefined ? `${thing} of ${object}` : requestWithLine(request, framesOf)}`,
    ack: `the acknowledgement of ${thing} by ${object}`,
    event: `${thing} of ${object}`,
    bytes: `what ${object} has got from ${thing} on`,
  }
  return texts[decisionKind(id) as TormentKind] ?? completionText(eventOf(id), request, framesOf)
}

const requestOf = ({ orders }: PairRun, name: string): TormentedRequest | undefined =>
  orders.find(one => one.name === name)

/**
 * Whether the program had polled a completion before the run failed, as far as that is known: else it decides nothing.
 */
const isBefore = (run: PairRun, name: string): boolean => {
  const errors = run.orders.flatMap(({ isError, polled }) => (isError && polled !== undefined ? [polled] : []))
  const end = Math.min(run.failedAt ?? Number.POSITIVE_INFINITY, ...errors)
  const request = requestOf(run, name)
  return request === undefined || end === Number.POSITIVE_INFINITY || (request.polled ?? end) < end
}

/**
 * `only`: the decisions that make the program fail. `attempt`: tries others. `render`: makes what has lines of source.
 * `onStep`: says what is tried. Finds no pair if none decides, or if the search ends before.
 */
export const findPair = async (
  only: readonly string[],
  attempt: Try,
  render: <T>(make: (framesOf: FramesOf) => T) => Promise<T>,
  onStep: (text: string) => void,
): Promise<PairSearch> => {
  let failed: PairRun | undefined
  let passed: PairRun | undefined
  const without = (id: string): readonly string[] => only.filter(other => other !== id)

  for (const id of only.filter(isHolding).slice(0, MAX_BISECTED)) {
    onStep(`how long ${id} must wait`)
    const waiting = (wait: number): Promise<PairTrial | undefined> => attempt([...without(id), `${id}~${wait}`])
    const own = await attempt(only)
    if (own === undefined) break
    const longest = Math.min(own.run.held.get(id)?.microseconds ?? 0, MAX_HOLD)
    if (!own.hasFailed || longest === 0) continue
    let shortest = longest
    let [fails, passes]: [PairRun, PairRun | undefined] = [own.run, undefined]
    for (let low = 0; shortest - low > Math.max(NEAR, shortest / NEAR_PART); ) {
      const middle = Math.round((low + shortest) / 2)
      const tried = await waiting(middle)
      if (tried === undefined) break
      if (tried.hasFailed) [shortest, fails] = [middle, tried.run]
      else [low, passes] = [middle, tried.run]
    }
    failed = fails
    passed = passes
    const before = new Set(passes?.held.get(id)?.passed)
    const all = fails.held.get(id)?.passed ?? []
    const between = all.filter(name => !before.has(name))
    const known = between.length > 0 ? between : [...all].reverse()
    const candidates = known.filter(name => isBefore(fails, name)).slice(0, MAX_TRIED)
    for (const name of candidates) {
      onStep(`whether ${id} must come after ${name}`)
      const held = `${id}~${name}`
      const after = await attempt([...without(id), held])
      if (after === undefined) return { pair: undefined, failed, passed }
      if (!after.hasFailed || after.run.held.get(id)?.hasCome !== true) continue
      const other = await attempt([...without(id), `completion/${name}~${eventOf(id)}`])
      if (other === undefined) return { pair: undefined, failed, passed }
      if (other.hasFailed) continue
      const earlier = requestOf(after.run, name)
      const isPost = decisionKind(id) === 'request'
      const later = requestOf(after.run, isPost ? id.slice(id.indexOf('/') + 1) : eventOf(id))
      const pair = await render(framesOf => ({
        later: { id, text: heldText(id, later, framesOf) },
        earlier: { id: name, text: completionText(name, earlier, framesOf) },
        clause: orderClause(id, later, earlier, name),
        only: [...without(id), held],
      }))
      return { pair, failed: after.run, passed: other.run }
    }
  }
  return { pair: undefined, failed, passed }
}

/** What a sentence says of a pair. */
export type Order = Pick<Pair, 'later' | 'earlier' | 'clause'>

export const orderText = ({ later, earlier, clause }: Order): string =>
  `${later.text} comes after ${earlier.text}; nothing orders them (${clause})`

export const pairSentence = (pair: Pair): string => `it fails if ${orderText(pair)}`

/** Of packets: the rule of the object's service. */
const ruleOf = (id: string): string => {
  const kind = decisionKind(id) as TormentKind
  const { rule } = TormentKinds[kind]
  if (kind !== 'packet') return rule
  if (id.includes('/driver_qp')) return SRD_ORDER
  const [reliable, datagrams] = rule.split('; ')
  return (/\/(?:rc|xrc\w*)_qp/.test(id) ? reliable : id.includes('/ud_qp') ? datagrams : rule) ?? rule
}

/** Why a correct program tolerates these decisions, each rule once. */
export const rulesOf = (only: readonly string[]): readonly string[] => [
  ...new Set(only.map(id => `${decisionKind(id)}: ${ruleOf(id)}`)),
]
