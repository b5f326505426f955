/*
 * Random decisions of `--torment SEED` (spec/check/torment.ts). A seed first chooses the longest delay, and how often
 * each kind acts. One seed in three does not use a given kind, because a kind may hide a mistake that another kind
 * shows. A kind that delays has one random sequence per queue pair or CQ, so that decisions about one object do not
 * depend on the timing of other objects.
 */

import {
  type TormentDecision,
  type TormentKind,
  type TormentSetting,
  tormentKinds,
} from '../../../spec/check/torment.ts'
import { createRandom, hashOf } from '../../../spec/faults/random.ts'

/** The probability that a kind acts at an opportunity: a seed chooses one for each kind. */
const PROBABILITIES = [0, 0, 1 / 16, 1 / 4, 1 / 2, 1]
/** The longest wait, microseconds: a seed chooses one. */
const LONGEST_WAITS = [20, 500, 5000, 20_000]
/** The longest wait of a sequence shrinks: to 1/2 after this many waits, to 1/3 after twice as many, and so on. */
const WAITS_UNTIL_HALF = 100
/**
 * Maximum number of sequences of a kind on a device: a program may create any number of queue pairs. With more, the
 * oldest sequence is dropped; if its object is still used, a new one begins.
 */
const MAX_SEQUENCES = 16_384
/** Maximum number of lasting decisions that are kept. */
const MAX_LASTING = 256
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
  /** The probability that the kind acts at an opportunity, 0 to 1. */
  probability(kind: TormentKind): number
  /**
   * The sequence of a kind for one object of a device. `key`: the object's number, for example its QPN. A later object
   * with the same number continues the sequence.
   */
  sequence(kind: TormentKind, device: string, key: number): Sequence
  /** Counts a decision and reports it to the listeners. `isLasting`: the decision is kept for later listeners. */
  note(kind: TormentKind, device: string, text: () => string, isLasting?: boolean): void
  /** `listener` gets the lasting decisions so far and all later ones, until the returned function is called. */
  listen(listener: Listener): () => void
}

type Listener = (decision: TormentDecision, device: string) => void

/** The sequences of one kind on one device. */
interface Sequences {
  /** By the object's number, in the order of creation. */
  readonly byKey: Map<number, Sequence>
  /** Number of sequences that were created. */
  created: number
}

/** Random choices about one object. */
export interface Sequence {
  /** Whether the kind acts at this opportunity. */
  acts(): boolean
  /** An integer from 0 to `limit` − 1. */
  below(limit: number): number
  /** Microseconds, from 1 to the longest wait. */
  wait(): number
}

export const createDecisions = ({ seed, maxDecisions }: TormentSetting): Decisions => {
  const profile = createRandom(seed ^ hashOf('profile'))
  const longest = LONGEST_WAITS[profile() % LONGEST_WAITS.length]
  const probabilities = new Map(tormentKinds.map(kind => [kind, PROBABILITIES[profile() % PROBABILITIES.length]]))
  const listeners = new Set<Listener>()
  /** By kind and device. */
  const sequences = new Map<string, Sequences>()
  const lasting: (readonly [decision: TormentDecision, device: string])[] = []
  let count = 0

  const createSequence = (kind: TormentKind, name: string): Sequence => {
    const random = createRandom(seed ^ hashOf(name))
    /** `random` returns a smaller integer with the probability of the kind. */
    const threshold = (probabilities.get(kind) as number) * RANDOM_RANGE
    let waits = 0
    return {
      acts: () => threshold > 0 && random() < threshold && count < maxDecisions,
      below: limit => random() % limit,
      wait: () => {
        const max = Math.max(longest / (1 + waits++ / WAITS_UNTIL_HALF), 2)
        const fraction = (random() + 1) / RANDOM_RANGE
        const uniform = max * fraction
        // mostly short waits, so that both short and long ones are frequent
        const logUniform = max ** fraction
        return Math.ceil(random() < RANDOM_RANGE / 2 ? uniform : logUniform)
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
    probability: kind => probabilities.get(kind) ?? 0,
    sequence(kind, device, key) {
      const group = `${kind} ${device}`
      let ofGroup = sequences.get(group)
      if (ofGroup === undefined) {
        ofGroup = { byKey: new Map(), created: 0 }
        sequences.set(group, ofGroup)
      }
      const { byKey } = ofGroup
      let sequence = byKey.get(key)
      if (sequence === undefined) {
        // numbered in the order of first use, because QPNs begin at a random number
        sequence = createSequence(kind, `${group} ${ofGroup.created++}`)
        if (byKey.size >= MAX_SEQUENCES) byKey.delete(byKey.keys().next().value as number)
        byKey.set(key, sequence)
      }
      return sequence
    },
    note(kind, device, text, isLasting = false) {
      count++
      if (listeners.size === 0 && !isLasting) return
      const decision = { number: count, kind, text: text() }
      if (isLasting && lasting.length < MAX_LASTING) lasting.push([decision, device])
      for (const listener of listeners) listener(decision, device)
    },
    listen(listener) {
      for (const [decision, device] of lasting) listener(decision, device)
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
