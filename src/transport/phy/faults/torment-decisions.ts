/*
 * Random decisions of `--torment SEED` (spec/check/torment.ts). A seed first chooses the longest delay, and how often
 * each kind acts. One seed in three does not use a given kind, because a kind may hide a mistake that another kind
 * shows.
 *
 * A decision has an identity, KIND/DEVICE/PROCESS/OBJECT/THING, which names what it is about: the third completion of a
 * work queue, not the third time that torment is asked. Whether it acts, and how, are random numbers from a hash of the
 * seed and the identity. So a decision that is left out (`only`) changes no other.
 *
 * What a decision holds may also be held until an event (`TormentHold`): `occurred` and `retired` tell that it has
 * come.
 */

import { createRandom, hashOf } from '../../../base/random.ts'
import {
  Awaited,
  awaitedIn,
  decisionKind,
  MAX_HOLD,
  readHold,
  type TormentDecision,
  type TormentHeld,
  type TormentHold,
  type TormentKind,
  type TormentSetting,
  tormentKinds,
} from '../../../spec/check/torment.ts'

/** The probability that a kind acts at an opportunity: a seed chooses one for each kind. */
const PROBABILITIES = [0, 0, 1 / 16, 1 / 4, 1 / 2, 1]
/** The longest wait, microseconds: a seed chooses one. */
const LONGEST_WAITS = [20, 500, 5000, 20_000]
/**
 * The longest wait shrinks: to 1/2 after this many waits about the same object, to 1/3 after twice as many, and so on.
 */
const WAITS_UNTIL_HALF = 100
/** Maximum number of lasting decisions that are kept. */
const MAX_LASTING = 256
/** How many of the completions that pass what is held are named, the last ones. */
const MAX_PASSED = 16
/** The random generator returns integers below this. */
const RANDOM_RANGE = 2 ** 32

export interface Decisions {
  readonly seed: number
  /** Number of decisions so far. */
  readonly count: number
  /**
   * Whether `TormentSetting.maxDecisions` decisions are made: from then on, devices behave as without torment.
   * Decisions about packets of one burst are made together, so `count` may be larger.
   */
  readonly isOver: boolean
  /** The identities of `TormentSetting.only` that have not occurred. */
  readonly missed: readonly string[]
  /** The probability that the kind acts at an opportunity, 0 to 1. */
  probability(kind: TormentKind): number
  /** Whether the kind may act at all. */
  mayAct(kind: TormentKind): boolean
  /**
   * An opportunity: the decision if the kind acts. `object`: DEVICE/PROCESS/OBJECT; `thing` and `nth`: THING, of which
   * several are numbered. `isAlways`: the kind acts unless its probability is 0. `round`: how many opportunities about
   * the object preceded; waits become shorter with it, so that long runs end.
   */
  decide(
    kind: TormentKind,
    object: string,
    thing: string,
    nth: number | '',
    options?: { readonly isAlways?: boolean; readonly round?: number },
  ): Decision | undefined
  /** A completion was written: it passes what is held, except what is of its own queue. `name`: as in `TormentHeld`. */
  passed(object: string, thing: string, nth: number): void
  /** Whether a decision is held until this event, which has not come (`TormentHold.until`). */
  isAwaited(event: string): boolean
  /** An event has come: what is held until then goes on. */
  occurred(event: string): void
  /** Sends of a queue pair are done. */
  retired(object: string): void
  /** `listener` gets the lasting decisions so far and all later ones, until the returned function is called. */
  listen(listener: Listener): () => void
}

type Listener = (decision: TormentDecision, device: string) => void

/** A decision that acts, and its random numbers. */
export interface Decision {
  /** It is held until a queue pair does something (`Awaited`), at most half the ACK timeout. */
  readonly isBounded: boolean
  /** An integer from 0 to `limit` − 1. */
  below(limit: number): number
  /** Microseconds, from 1 to the longest wait. */
  wait(): number
  /** The longest wait for something that comes or not, microseconds: `most`, unless `only` tells another. */
  bound(most: number): number
  /**
   * Counts the decision and reports it to the listeners. `isLasting`: it is kept for later listeners. To be called
   * once, if the decision has an effect.
   */
  note(text: () => string, isLasting?: boolean): void
  /**
   * After `note`, if it holds something from `now` on, microseconds. The returned function is to be called when that
   * goes on; `isEarly` as in `TormentHeld`. `release` is called when the event comes until which it is held: then it is
   * due.
   */
  hold(now: number, release: () => void): HoldEnd
}

export type HoldEnd = (now: number, isEarly: boolean) => void

interface Holding {
  /** DEVICE/PROCESS/OBJECT/THING without the number: completions of the same queue do not pass. */
  readonly queue: string
  /** The event until which it is held. */
  readonly until: string | undefined
  /** Of one until a queue pair has done something. */
  readonly awaited: Goal | undefined
  readonly release: () => void
  readonly passed: string[]
  passedCount: number
}

/** The sends of a queue pair since RESET: those that are done, and those that are posted and not done. */
export interface SendCounts {
  readonly done: number
  readonly pending: number
}

/** Until a queue pair has done so many things, something is held. `counted`: `Awaited`, or a queue of completions. */
interface Goal {
  readonly object: string
  readonly counted: 'done' | 'send' | 'receive'
  readonly goal: number
}

/** `sendsOf`: the sends of a queue pair, DEVICE/PROCESS/OBJECT, which may not exist yet. */
export const createDecisions = (
  { seed, maxDecisions, kinds, only }: TormentSetting,
  sendsOf: (object: string) => SendCounts | undefined = () => undefined,
): Decisions => {
  const profile = createRandom(seed ^ hashOf('profile'))
  const longest = LONGEST_WAITS[profile() % LONGEST_WAITS.length]
  const probabilities = new Map(
    tormentKinds.map(kind => {
      const ofSeed = PROBABILITIES[profile() % PROBABILITIES.length]
      return [kind, kinds === undefined ? ofSeed : Number(kinds.includes(kind))]
    }),
  )
  const holds = only?.flatMap(text => readHold(text) ?? [])
  const wanted = holds && new Map(holds.map(hold => [hold.id, hold]))
  /** By event: whether it has come. */
  const events = new Map<string, boolean>(
    holds?.flatMap(({ until }) => (until === undefined ? [] : [[until, false] as const])),
  )
  const wantedKinds = wanted && new Set([...wanted.keys(), ...events.keys()].map(decisionKind))
  const missed = new Set(wanted?.keys())
  const beginnings = holds?.filter(({ id }) => id.endsWith('*')) ?? []
  const holdOf = (id: string): TormentHold | undefined =>
    wanted?.get(id) ?? beginnings.find(hold => id.startsWith(hold.id.slice(0, -1)))
  const listeners = new Set<Listener>()
  const lasting: (readonly [decision: TormentDecision, device: string])[] = []
  const held = new Set<Holding>()
  let count = 0

  const tell = (decision: TormentDecision, device: string, isLasting: boolean): void => {
    if (isLasting && lasting.length < MAX_LASTING) lasting.push([decision, device])
    for (const listener of listeners) listener(decision, device)
  }

  const isAwaited = (event: string): boolean => events.get(event) === false
  const occurred = (event: string): void => {
    if (!isAwaited(event)) return
    events.set(event, true)
    for (const { until, release } of held) if (until === event) release()
  }

  /** How many completions of a queue have come, by DEVICE/PROCESS/OBJECT/send or /receive: if they are awaited. */
  const written = new Map<string, number>()
  const countsWritten = holds?.some(({ until = '' }) => /\/as-many-(?:sends|receives)$/.test(until)) === true
  const countOf = ({ object, counted }: Goal): number =>
    counted === 'done' ? (sendsOf(object)?.done ?? 0) : (written.get(`${object}/${counted}`) ?? 0)
  const isReached = (awaited: Goal): boolean => countOf(awaited) >= awaited.goal
  const releaseReached = (of: string): void => {
    for (const { awaited, release } of held) if (awaited?.object === of && isReached(awaited)) release()
  }

  /** Of post or completion `nth` of `own`; a post does not wait for itself. */
  const goalOf = (until: string, own: string, nth: number): Goal | undefined => {
    const { object, word } = awaitedIn(until) ?? {}
    if (object === undefined || word === undefined) return undefined
    if (word === Awaited.SENDS) return { object, counted: 'send', goal: nth }
    if (word === Awaited.RECEIVES) return { object, counted: 'receive', goal: nth }
    const { done, pending } = sendsOf(object) ?? { done: 0, pending: 0 }
    const goal = object === own ? nth - 1 : done + Math.max(pending, Number(word === Awaited.NEXT))
    return { object, counted: 'done', goal }
  }

  const mayAct = (kind: TormentKind): boolean =>
    count < maxDecisions && (wantedKinds?.has(kind) ?? probabilities.get(kind) !== 0)

  const createDecision = (
    kind: TormentKind,
    object: string,
    thing: string,
    id: string,
    random: () => number,
    round: number,
    hold: TormentHold | undefined,
    awaited: Goal | undefined,
  ): Decision => {
    const device = object.slice(0, object.indexOf('/'))
    const { wait, until } = hold ?? {}
    /** The wait that `only` gives. */
    const given = (): number | undefined => (until === undefined ? wait : events.get(until) ? 0 : MAX_HOLD)
    let told: TormentDecision | undefined
    return {
      isBounded: awaited !== undefined,
      below: limit => random() % limit,
      bound: most => given() ?? most,
      wait: () => {
        const own = given()
        if (own !== undefined) return own
        const waits = round * (probabilities.get(kind) || 1)
        const max = Math.max(longest / (1 + waits / WAITS_UNTIL_HALF), 2)
        const fraction = (random() + 1) / RANDOM_RANGE
        const uniform = max * fraction
        // mostly short waits, so that both short and long ones are frequent
        const logUniform = max ** fraction
        return Math.ceil(random() < RANDOM_RANGE / 2 ? uniform : logUniform)
      },
      note(describe, isLasting = false) {
        count++
        missed.delete(hold?.id ?? id)
        if (listeners.size === 0 && !isLasting) return
        told = { number: count, kind, id, text: describe() }
        tell(told, device, isLasting)
      },
      hold(from, release) {
        const holding: Holding = { queue: `${object}/${thing}`, until, awaited, release, passed: [], passedCount: 0 }
        held.add(holding)
        return (now, isEarly) => {
          held.delete(holding)
          const { passed, passedCount } = holding
          const hasCome = until === undefined ? undefined : awaited ? isReached(awaited) : events.get(until)
          const outcome: TormentHeld = {
            ...{ microseconds: Math.round(now - from), passed, passedCount, isEarly },
            ...(hasCome !== undefined && { hasCome }),
          }
          if (told !== undefined) tell({ ...told, held: outcome }, device, false)
          occurred(id)
        }
      },
    }
  }

  return {
    seed,
    get count() {
      return count
    },
    get isOver() {
      return count >= maxDecisions
    },
    get missed() {
      return [...missed]
    },
    probability: kind => probabilities.get(kind) ?? 0,
    mayAct,
    decide(kind, object, thing, nth, { isAlways = false, round = nth || 0 } = {}) {
      if (!mayAct(kind)) return undefined
      const id = `${kind}/${object}/${thing}${nth}`
      const random = createRandom(seed ^ hashOf(id))
      const isDrawn = random() < probabilities.get(kind)! * RANDOM_RANGE || isAlways
      const hold = holdOf(id)
      const isOfSeed = hold?.id.endsWith('*') && hold.wait === undefined && hold.until === undefined
      const isMade = wanted === undefined || isOfSeed ? isDrawn : hold !== undefined
      const awaited = hold?.until === undefined ? undefined : goalOf(hold.until, object, Number(nth))
      const hasCome = awaited !== undefined && isReached(awaited)
      if (hasCome) missed.delete(hold!.id)
      if (hasCome || !isMade) {
        occurred(id)
        return undefined
      }
      return createDecision(kind, object, thing, id, random, round, hold, awaited)
    },
    isAwaited,
    occurred,
    retired: releaseReached,
    passed(object, thing, nth) {
      const queue = `${object}/${thing}`
      if (countsWritten) written.set(queue, (written.get(queue) ?? 0) + 1)
      if (held.size === 0) return
      if (countsWritten) releaseReached(object)
      for (const holding of held) {
        if (holding.queue === queue) continue
        holding.passedCount++
        holding.passed.push(`${queue}${nth}`)
        if (holding.passed.length > MAX_PASSED) holding.passed.shift()
      }
    },
    listen(listener) {
      for (const [decision, device] of lasting) listener(decision, device)
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
