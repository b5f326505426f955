/*
 * Random decisions of `--torment SEED` (spec/check/torment.ts). A seed first chooses the longest delay, and how often
 * each kind occurs; one seed in three never uses a given kind. So a mistake that shows with one kind only is found by
 * some seeds even if another kind hides it. Then a kind that delays has one random sequence for each queue pair or CQ,
 * in the order of their first use: the decisions about one object do not depend on when requests of others come.
 */
import { createRandom, hashOf } from '../../../phy/faults/random.ts'
import {
  type TormentDecision,
  type TormentKind,
  type TormentSetting,
  tormentKinds,
} from '../../../spec/check/torment.ts'

/** A seed chooses one of these for each kind: the share of its opportunities in which the kind acts. */
const SHARES = [0, 0, 1 / 16, 1 / 4, 1 / 2, 1]
/** A seed chooses one of these: the longest wait, microseconds. */
const LONGEST_WAITS = [20, 500, 5000, 20_000]
/**
 * After this many waits of a sequence its longest wait is half as long, after twice as many a third, and so on: so a
 * program with many requests ends.
 */
const WAITS_UNTIL_HALF = 100
/** Maximum number of lasting decisions that are kept: those of some dozens of devices. */
const MAX_LASTING = 256
/** The random generator returns integers below this. */
const RANDOM_RANGE = 2 ** 32

export interface Decisions {
  readonly seed: number
  /** Number of decisions so far. */
  readonly count: number
  /** Whether `TormentSetting.maxDecisions` decisions are made: from now on the devices behave as without torment. */
  readonly isOver: boolean
  /** The share of the opportunities in which this kind acts with this seed, 0 to 1. */
  share(kind: TormentKind): number
  /** The sequence of a kind for one object of a device; `key` identifies the object, for example its QPN. */
  sequence(kind: TormentKind, device: string, key: object | number): Sequence
  /**
   * Counts a decision, and reports it to the listeners, if there are any. `isLasting`: the decision is about a new
   * device, and is kept for later listeners.
   */
  note(kind: TormentKind, device: string, text: () => string, isLasting?: boolean): void
  /**
   * `listener` gets the lasting decisions so far and all later decisions, with the names of their devices, until the
   * returned function is called.
   */
  listen(listener: Listener): () => void
}

type Listener = (decision: TormentDecision, device: string) => void

/** Random choices about one object. */
export interface Sequence {
  /** Whether the kind acts at this opportunity. */
  acts(): boolean
  /** An integer from 0 to `limit` − 1. */
  below(limit: number): number
  /** Microseconds from 1 to the longest wait: half of the waits are distributed evenly, the others logarithmically. */
  wait(): number
}

export const createDecisions = ({ seed, maxDecisions }: TormentSetting): Decisions => {
  const profile = createRandom(seed ^ hashOf('profile'))
  const longest = LONGEST_WAITS[profile() % LONGEST_WAITS.length]
  const shares = new Map(tormentKinds.map(kind => [kind, SHARES[profile() % SHARES.length]]))
  const listeners = new Set<Listener>()
  /** By kind and device: the sequences of its objects, in the order of their first use. */
  const sequences = new Map<string, Map<object | number, Sequence>>()
  const lasting: (readonly [decision: TormentDecision, device: string])[] = []
  let count = 0

  const createSequence = (kind: TormentKind, name: string): Sequence => {
    const random = createRandom(seed ^ hashOf(name))
    const share = (shares.get(kind) as number) * RANDOM_RANGE
    let waits = 0
    return {
      acts: () => share > 0 && random() < share && count < maxDecisions,
      below: limit => random() % limit,
      wait: () => {
        const max = Math.max(longest / (1 + waits++ / WAITS_UNTIL_HALF), 2)
        const fraction = (random() + 1) / RANDOM_RANGE
        return Math.ceil(random() < RANDOM_RANGE / 2 ? max * fraction : max ** fraction)
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
    share: kind => shares.get(kind) ?? 0,
    sequence(kind, device, key) {
      const group = `${kind} ${device}`
      let sequenceOf = sequences.get(group)
      if (sequenceOf === undefined) {
        sequenceOf = new Map()
        sequences.set(group, sequenceOf)
      }
      let sequence = sequenceOf.get(key)
      if (sequence === undefined) {
        sequence = createSequence(kind, `${group} ${sequenceOf.size}`)
        sequenceOf.set(key, sequence)
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
