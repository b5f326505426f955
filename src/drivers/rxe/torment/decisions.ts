/*
 * Decisions of `--torment SEED` (spec/check/torment.ts). A seed first chooses how often each kind occurs, often never, and how
 * long things wait: a mistake that needs one kind alone is found although another kind would hide it. Then each kind
 * has one random sequence for each queue pair or CQ, in the order of their first use: what happens to one object depends
 * on its own requests, not on when those of others come.
 */
import { createRandom, hashOf } from '../../../phy/faults/random.ts'
import {
  type TormentDecision,
  type TormentKind,
  type TormentSetting,
  tormentKinds,
} from '../../../spec/check/torment.ts'

/** Shares of the opportunities that a kind takes, one of which a seed chooses for each kind. */
const SHARES = [0, 0, 1 / 16, 1 / 4, 1 / 2, 1]
/** Longest waits, microseconds, one of which a seed chooses. */
const WAITS = [20, 500, 5000, 20_000]
/** Waits of a sequence after which the longest one is half as long, so that long runs end. */
const HALVING = 100
/** Lasting decisions that are kept: those of some dozens of devices. */
const MAX_LASTING = 256
const WORDS = 2 ** 32

export interface Decisions {
  readonly seed: number
  /** Decisions so far. */
  readonly count: number
  /** No more decisions are made. */
  readonly isOver: boolean
  /** The share of the opportunities that this kind takes with this seed, 0 to 1. */
  share(kind: TormentKind): number
  /** The sequence of a kind for one object: `key` is its identity, such as its QPN. */
  sequence(kind: TormentKind, device: string, key: object | number): Sequence
  /**
   * A decision was made; `text` is called only if somebody listens. `isLasting`: it is about a device, before anybody can
   * listen.
   */
  note(kind: TormentKind, device: string, text: () => string, isLasting?: boolean): void
  /**
   * `listener` gets the lasting decisions so far and all later ones, with their devices, until the function returned is
   * called.
   */
  listen(listener: Listener): () => void
}

type Listener = (decision: TormentDecision, device: string) => void

/** Random choices about one object. */
export interface Sequence {
  /** Whether to act this time. */
  acts(): boolean
  /** An integer from 0 to `below` − 1. */
  below(below: number): number
  /** Microseconds from 1 to the longest wait: half of the waits are distributed evenly, the others logarithmically. */
  wait(): number
}

export const createDecisions = ({ seed, most }: TormentSetting): Decisions => {
  const profile = createRandom(seed ^ hashOf('profile'))
  const longest = WAITS[profile() % WAITS.length]
  const shares = new Map(tormentKinds.map(kind => [kind, SHARES[profile() % SHARES.length]]))
  const listeners = new Set<Listener>()
  /** By kind and device: the sequences of its objects, in the order of their first use. */
  const known = new Map<string, Map<object | number, Sequence>>()
  const lasting: (readonly [decision: TormentDecision, device: string])[] = []
  let count = 0

  const createSequence = (kind: TormentKind, name: string): Sequence => {
    const random = createRandom(seed ^ hashOf(name))
    const share = (shares.get(kind) as number) * WORDS
    let waits = 0
    return {
      acts: () => share > 0 && random() < share && count < most,
      below: below => random() % below,
      wait: () => {
        const max = Math.max(longest / (1 + waits++ / HALVING), 2)
        const place = (random() + 1) / WORDS
        return Math.ceil(random() < WORDS / 2 ? max * place : max ** place)
      },
    }
  }

  return {
    seed,
    get count() {
      return count
    },
    get isOver() {
      return count >= most
    },
    share: kind => shares.get(kind) ?? 0,
    sequence(kind, device, key) {
      const group = `${kind} ${device}`
      let objects = known.get(group)
      if (objects === undefined) {
        objects = new Map()
        known.set(group, objects)
      }
      let found = objects.get(key)
      if (found === undefined) {
        found = createSequence(kind, `${group} ${objects.size}`)
        objects.set(key, found)
      }
      return found
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
