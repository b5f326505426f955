/*
 * Kinds `numbers`, `reuse` and `keys` of torment (spec/check/torment.ts). `numbers`: the random numbers from which keys
 * and QPNs of a new device begin are those of all other devices, so that equal objects have equal numbers, as on two
 * adapters of one model. `reuse`: a device gives out the newest free number first. `keys`: lkey and rkey of a region
 * differ.
 */
import { createRandom, hashOf } from '../../../base/random.ts'
import type { Decisions } from '../../../transport/phy/faults/torment-decisions.ts'
import { NO_PROCESS } from './objects.ts'

/** Argument of `Decisions.note`: a listener that comes later gets the decision too. */
const IS_LASTING = true

const decided = new WeakMap<Decisions, boolean>()

/** The random numbers of a new device; undefined: its own. */
export const decideNumbers = (decisions: Decisions): (() => number) | undefined => {
  // One decision for all devices: with one alone nothing is equal.
  let isEqual = decided.get(decisions)
  if (isEqual === undefined) {
    const decision = decisions.decide('numbers', `all/${NO_PROCESS}/devices`, 'first', '', { isAlways: true })
    decision?.note(() => 'first QPNs and keys of all devices are equal', IS_LASTING)
    isEqual = decision !== undefined
    decided.set(decisions, isEqual)
  }
  return isEqual ? createRandom(decisions.seed ^ hashOf('numbers')) : undefined
}

/** Whether a new device gives out the newest free number first. */
export const decideReuse = (decisions: Decisions, device: string): boolean => {
  const decision = decisions.decide('reuse', `${device}/${NO_PROCESS}/device`, 'numbers', '')
  decision?.note(
    () => 'numbers of destroyed queue pairs and keys of deregistered regions come back at once',
    IS_LASTING,
  )
  return decision !== undefined
}

/** Whether lkey and rkey of a new region differ. `name`: its DEVICE/PROCESS/OBJECT. */
export const decideKeys = (decisions: Decisions, name: string): boolean => {
  const decision = decisions.decide('keys', name, 'rkey', '')
  decision?.note(() => 'lkey and rkey of the region differ')
  return decision !== undefined
}
