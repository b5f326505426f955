/*
 * Kind `adapter` of torment (spec/check/torment.ts): some limits of a device are the smallest of all adapters with
 * reliable connections (spec/check/adapters.ts).
 */

import { adapters, type LimitName } from '../../../spec/check/adapters.ts'
import type { Decisions } from '../../../transport/phy/faults/torment-decisions.ts'
import type { QueueLimits } from '../attributes.ts'
import { NO_PROCESS } from './objects.ts'

/** `maxRecvSge` is decided with `maxSge`. */
type Decided = Exclude<keyof QueueLimits, 'maxRecvSge'>

/** By limit of the device: its names in the table of adapters. */
const namesInTable: Readonly<Record<Decided, readonly LimitName[]>> = {
  maxQpWr: ['max_send_wr', 'max_recv_wr'],
  maxSge: ['max_send_sge', 'max_recv_sge'],
  maxSrqWr: ['max_srq_wr'],
  maxSrqSge: ['max_srq_sge'],
  maxInline: ['max_inline_data'],
  maxCqe: ['max_cqe'],
  maxRdAtomic: ['max_rd_atomic', 'max_dest_rd_atomic'],
}
const limitNames = Object.keys(namesInTable) as readonly Decided[]

/** Argument of `Decisions.note`: a listener that comes later gets the decision too. */
const IS_LASTING = true

const adaptersWithRc = Object.values(adapters).filter(({ lacks }) => lacks.rc === undefined)

/** The smallest value of all adapters with reliable connections, but at most the device's own. */
const smallestLimit = (name: Decided, own: number): number =>
  Math.min(own, ...adaptersWithRc.flatMap(({ limits }) => namesInTable[name].map(limit => limits[limit]?.[0] ?? own)))

/** The limits of a new device whose own are `own`. */
export const decideLimits = (decisions: Decisions, device: string, own: QueueLimits): QueueLimits => {
  const limits: { -readonly [name in keyof QueueLimits]: QueueLimits[name] } = { ...own }
  for (const name of limitNames) {
    const small = smallestLimit(name, own[name])
    const [thing] = namesInTable[name]
    const decision =
      small === own[name] ? undefined : decisions.decide('adapter', `${device}/${NO_PROCESS}/device`, thing!, '')
    if (decision === undefined) continue
    limits[name] = small
    if (name === 'maxSge' && own.maxRecvSge !== undefined) limits.maxRecvSge = small
    decision.note(() => `${namesInTable[name].join(' and ')}: at most ${small}`, IS_LASTING)
  }
  return limits
}
