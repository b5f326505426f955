/*
 * Random decisions of `--torment SEED` (spec/check/torment.ts). A seed first chooses the longest delay, and how often
 * each kind acts. One seed in three does not use a given kind, because a kind may hide a mistake that another kind
 * shows.
 *
 * A decision has an identity, KIND/DEVICE/PROCESS/OBJECT/THING, which names what it is about: the third completion of a
 * work queue, not the third time that torment is asked. Whether it acts, and how, are random numbers from a hash of the
 * seed and the identity. So a decision that is left out (`only`) changes no other.
 */

import {
  type TormentDecision,
  type TormentHeld,
  type TormentKind,
  type TormentSetting,
  tormentKinds,
} from '../../../spec/check/torment.ts'
import { createRandom, hashOf } from '../../../spec/faults/random.ts'

/** The probability that a kind acts at an opportunity: a seed chooses one for each kind. */
const PROBABILITIES = [0, 0, 1 / 16, 1 / 4, 1 / 2, 1]
/** The longest wait, microseconds: a seed chooses one. */
const LONGEST_WAITS = [20, 500, 5000, 20_000]
/** The longest wait shrinks: to 1/2 after this many waits about the same object, to 1/3 after twice as many, and so on. */
const WAITS_UNTIL_HALF = 100
/** Maximum number of lasting decisions that are kept. */
const MAX_LASTING = 256
/** How many of the completions that pass what is held are named. */
const MAX_PASSED = 16
/** The random generator returns integers below this. */
const RANDOM_RANGE = 2 ** 32

export interface Decisions {
  readonly seed: number
  /** Number of decisions so far. */
  readonly count: number
  /**
   * Whether `TormentSetting.maxDecisions` decisions are made: from then on, devices behave as without torment. Decisions
   * about packets of one burst are made together, so `count` may be larger.
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
  /** `listener` gets the lasting decisions so far and all later ones, until the returned function is called. */
  listen(listener: Listener): () => void
}

type Listener = (decision: TormentDecision, device: string) => void

/** A decision that acts, and its random numbers. */
export interface Decision {
  /** An integer from 0 to `limit` − 1. */
  below(limit: number): number
  /** Microseconds, from 1 to the longest wait. */
  wait(): number
  /**
   * Counts the decision and reports it to the listeners. `isLasting`: it is kept for later listeners. To be called once,
   * if the decision has an effect.
   */
  note(text: () => string, isLasting?: boolean): void
  /**
   * After `note`, if it holds something from `now` on, microseconds. The returned function is to be called when that goes
   * on; `isEarly` as in `TormentHeld`.
   */
  hold(now: number): HoldEnd
}

export type HoldEnd = (now: number, isEarly: boolean) => void

interface Holding {
  /** DEVICE/PROCESS/OBJECT/THING without the number: completions of the same queue do not pass. */
  readonly queue: string
  readonly passed: string[]
  passedCount: number
}

export const createDecisions = ({ seed, maxDecisions, kinds, only }: TormentSetting): Decisions => {
  const profile = createRandom(seed ^ hashOf('profile'))
  const longest = LONGEST_WAITS[profile() % LONGEST_WAITS.length]
  const probabilities = new Map(
    tormentKinds.map(kind => {
      const ofSeed = PROBABILITIES[profile() % PROBABILITIES.length]
      return [kind, kinds === undefined ? ofSeed : Number(kinds.includes(kind))]
    }),
  )
  const wanted = only && new Set(only)
  const wantedKinds = only && new Set(only.map(id => id.slice(0, id.indexOf('/'))))
  const missed = new Set(only)
  const listeners = new Set<Listener>()
  const lasting: (readonly [decision: TormentDecision, device: string])[] = []
  const held = new Set<Holding>()
  let count = 0

  const tell = (decision: TormentDecision, device: string, isLasting: boolean): void => {
    if (isLasting && lasting.length < MAX_LASTING) lasting.push([decision, device])
    for (const listener of listeners) listener(decision, device)
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
  ): Decision => {
    const device = object.slice(0, object.indexOf('/'))
    let number = 0
    let text = ''
    return {
      below: limit => random() % limit,
      wait: () => {
        const waits = round * (probabilities.get(kind) || 1)
        const max = Math.max(longest / (1 + waits / WAITS_UNTIL_HALF), 2)
        const fraction = (random() + 1) / RANDOM_RANGE
        const uniform = max * fraction
        // mostly short waits, so that both short and long ones are frequent
        const logUniform = max ** fraction
        return Math.ceil(random() < RANDOM_RANGE / 2 ? uniform : logUniform)
      },
      note(describe, isLasting = false) {
        number = ++count
        missed.delete(id)
        if (listeners.size === 0 && !isLasting) return
        text = describe()
        tell({ number, kind, id, text }, device, isLasting)
      },
      hold(from) {
        const holding: Holding = { queue: `${object}/${thing}`, passed: [], passedCount: 0 }
        held.add(holding)
        return (now, isEarly) => {
          held.delete(holding)
          const { passed, passedCount } = holding
          const outcome: TormentHeld = { microseconds: Math.round(now - from), passed, passedCount, isEarly }
          tell({ number, kind, id, text, held: outcome }, device, false)
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
      if (!(wanted?.has(id) ?? isDrawn)) return undefined
      return createDecision(kind, object, thing, id, random, round)
    },
    passed(object, thing, nth) {
      if (held.size === 0) return
      const queue = `${object}/${thing}`
      for (const holding of held) {
        if (holding.queue === queue) continue
        holding.passedCount++
        if (holding.passed.length < MAX_PASSED) holding.passed.push(`${queue}${nth}`)
      }
    },
    listen(listener) {
      for (const [decision, device] of lasting) listener(decision, device)
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
