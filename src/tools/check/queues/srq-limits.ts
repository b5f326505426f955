/*
 * Limits of shared receive queues (srq_limit): armed once, the limit raises SRQ_LIMIT_REACHED once and is disarmed by
 * it. For findings about a message that found no receive: what became of the event by which the program refills its
 * SRQ.
 */
import type { Stack } from '../../../spec/check/finding.ts'
import type { CheckedCall, CheckedFailure } from '../../../spec/check/program-events.ts'
import { isSrqClass } from '../../../spec/classes/ids.ts'
import type { DetectorServices } from '../detector.ts'
import { before } from '../findings/outages.ts'
import { type KnownObject, moment } from '../objects.ts'
import type { FindingContent } from '../reporting.ts'

interface Limit {
  /** srq_limit of ibv_create_srq, which is ignored. 0: none. */
  readonly atCreation: number
  /** The limit that was armed last, and the call. */
  armed: { readonly limit: number; readonly time: number; readonly stack: Stack } | undefined
  /** When the event came; undefined: not since the limit was armed. */
  reached: number | undefined
  /** Receives that were posted since. */
  refilled: number
}

export class SrqLimits {
  readonly #services: DetectorServices
  /** By `KnownObject.id`, of SRQs with a limit. */
  readonly #limits = new Map<number, Limit>()

  constructor(services: DetectorServices) {
    this.#services = services
  }

  /** A call on an object has succeeded. */
  called({ class: name, method, args, time, stack }: CheckedCall, { id }: KnownObject): void {
    if (!isSrqClass(name)) return
    const limit = typeof args.limit === 'number' ? args.limit : 0
    const known = this.#limits.get(id)
    if (method === 'destroy') this.#limits.delete(id)
    else if (limit > 0 && method === 'create')
      this.#limits.set(id, { atCreation: limit, armed: undefined, reached: undefined, refilled: 0 })
    else if (method === 'modify' && args.limit !== undefined) {
      const armed = limit === 0 ? undefined : { limit, time, stack }
      this.#limits.set(id, { atCreation: known?.atCreation ?? 0, armed, reached: undefined, refilled: 0 })
    }
  }

  /** SRQ_LIMIT_REACHED was raised. */
  raised({ context, time, failure: { cause } }: CheckedFailure): void {
    const { srq } = cause.args
    const known = typeof srq === 'number' ? this.#services.objects.byHandle(context, 'srq', srq) : undefined
    const limit = known && this.#limits.get(known.id)
    if (limit === undefined) return
    limit.reached = time
    limit.refilled = 0
  }

  posted(owner: number): void {
    const limit = this.#limits.get(owner)
    if (limit?.reached !== undefined) limit.refilled++
  }

  /**
   * What became of the limit of the SRQ of a queue pair for which a message found no receive; empty: nothing explains
   * that.
   */
  explain(peer: KnownObject | undefined): Pick<FindingContent, 'details' | 'advice' | 'moments'> {
    const srq = peer?.uses.get('srq')
    const limit = srq && this.#limits.get(srq.id)
    if (srq === undefined || limit === undefined) return {}
    const { atCreation, armed, reached, refilled } = limit
    if (armed === undefined)
      return atCreation === 0
        ? {}
        : {
            details: [
              `srq_limit ${atCreation} of ibv_create_srq is ignored (ibv_create_srq(3)): ${srq.name} raises no event`,
            ],
            advice: 'arm the limit of the SRQ by ibv_modify_srq with IBV_SRQ_LIMIT',
          }
    if (reached === undefined) return {}
    const came = `SRQ_LIMIT_REACHED of ${srq.name} (srq_limit ${armed.limit}) came ${before(reached, this.#services.sources.now())}`
    const moments = [moment('armed the limit', armed.time, armed.stack)]
    return (this.#services.sources.unreadEvents?.(srq.context) ?? 0) > 0
      ? {
          details: [`${came}, and an event of the device is not read (ibv_get_async_event)`],
          advice: 'read the events of the device, and post receives to the SRQ at each SRQ_LIMIT_REACHED',
          moments,
        }
      : {
          details: [
            `${came} and has disarmed the limit; receives posted since: ${refilled}; nothing has armed it again`,
          ],
          advice:
            'arm the limit again when the receives are posted (ibv_modify_srq with IBV_SRQ_LIMIT): each arming raises one event',
          moments,
        }
  }
}
