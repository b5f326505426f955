/*
 * Kind `numbers` of torment (spec/check/torment.ts): the random numbers from which keys and QPNs of a new device begin are
 * those of all other devices, so that equal objects have equal numbers, as on two adapters of one model.
 */
import { createRandom, hashOf } from '../../../spec/faults/random.ts'
import type { Decisions } from '../../../transport/phy/faults/torment-decisions.ts'

/** Argument of `Decisions.note`: a listener that comes later gets the decision too. */
const IS_LASTING = true

const noted = new WeakSet<Decisions>()

/** The random numbers of a new device; undefined: its own. */
export const decideNumbers = (decisions: Decisions, device: string): (() => number) | undefined => {
  // One decision for all devices: with one alone nothing is equal.
  if (decisions.isOver || decisions.probability('numbers') === 0) return undefined
  if (!noted.has(decisions))
    decisions.note('numbers', device, () => 'first QPNs and keys of all devices are equal', IS_LASTING)
  noted.add(decisions)
  return createRandom(decisions.seed ^ hashOf('numbers'))
}
