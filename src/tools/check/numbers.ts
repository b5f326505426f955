/*
 * Explains the number of a queue pair that does not exist: it may be that of another one, in the other byte order or
 * cut to 16 bits on the way.
 */
import { CUT_NUMBER, SWAPPED_QPN } from './advice.ts'
import { hex, type KnownObject, type KnownObjects } from './objects.ts'

export interface WrongNumber {
  readonly details?: readonly string[]
  readonly advice?: string
  /** The queue pair that was meant. */
  readonly meant?: KnownObject
}

/** Empty: nothing is known of the number. */
export const explainNumber = (objects: KnownObjects, device: number, qpn: number): WrongNumber => {
  const swapped = objects.qpWithSwapped(device, qpn)
  if (swapped !== undefined)
    return {
      details: [`${hex(qpn)} is ${swapped.nameWithProgram} in the other byte order`],
      advice: SWAPPED_QPN,
      meant: swapped,
    }
  const cut = objects.qpWithLowBits(device, qpn)
  return cut === undefined
    ? {}
    : { details: [`${hex(qpn)} is the lower 16 bits of ${cut.nameWithProgram}`], advice: CUT_NUMBER, meant: cut }
}
