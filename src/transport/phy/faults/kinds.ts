/*
 * The effect of each kind of fault on a packet, and the kind's bit in `Decisions.actions` (decider.ts). A new kind
 * needs a row in spec/faults.ts and its effect here.
 */

import { createRandom } from '../../../base/random.ts'
import {
  type FaultCounters,
  type FaultKind,
  FaultKinds,
  type FaultRuleCounts,
  faultKinds,
} from '../../../spec/faults.ts'

/** Changes bytes of a packet. A second call with the same arguments restores them. `seed`: 32 random bits. */
type Damage = (bytes: Uint8Array, at: number, length: number, seed: number) => void

/** Flips one to three random bits. If one bit is chosen twice, it is unchanged. */
const flipBits: Damage = (bytes, at, length, seed) => {
  const random = createRandom(seed)
  for (let flips = 1 + (random() % 3); flips > 0; flips--) {
    const bit = random() % (length * 8)
    bytes[at + (bit >> 3)] ^= 1 << (bit & 7)
  }
}

type Effect = 'lose' | 'repeat' | 'overtake' | 'mark' | Damage

const effects: { readonly [K in FaultKind]: Effect } = {
  drop: 'lose',
  corrupt: flipBits,
  dup: 'repeat',
  reorder: 'overtake',
  ecn: 'mark',
}

/** By kind: its bit. */
export const faultBits = Object.fromEntries(faultKinds.map((kind, i) => [kind, 1 << i])) as Record<FaultKind, number>

const kindTable = faultKinds.map(kind => ({
  bit: faultBits[kind],
  counter: FaultKinds[kind].counter,
  effect: effects[kind],
}))

/** The bit for a delay or a rate limit, which are no kinds. */
export const WAIT = 1 << kindTable.length
/** The bit for a packet that waits until the decider releases its flow (`FaultDecider.late`). */
export const HOLD = WAIT << 1

const bitsOf = (matches: (effect: Effect) => boolean): number =>
  kindTable.reduce((bits, { bit, effect }) => (matches(effect) ? bits | bit : bits), 0)

/** Masks of kinds by their effect. */
export const LOSE = bitsOf(effect => effect === 'lose')
export const REPEAT = bitsOf(effect => effect === 'repeat')
export const OVERTAKE = bitsOf(effect => effect === 'overtake')
export const MARK = bitsOf(effect => effect === 'mark')
export const DAMAGE = bitsOf(effect => typeof effect === 'function')

/** Counts one packet for each kind in `action`. */
export const countHits = (counters: FaultCounters | FaultRuleCounts, action: number): void => {
  for (let i = 0; i < kindTable.length; i++) if (action & kindTable[i].bit) counters[kindTable[i].counter]++
}

/** Damages a packet as each kind in `action` does. A second call with the same arguments restores the packet. */
export const damage = (bytes: Uint8Array, at: number, length: number, action: number, seed: number): void => {
  for (const { bit, effect } of kindTable)
    if (action & bit && typeof effect === 'function') effect(bytes, at, length, seed)
}
