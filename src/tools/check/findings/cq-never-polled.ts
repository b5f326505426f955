/*
 * Finding cq-never-polled: a CQ was full that no thread has ever polled, though its program polls others. One that posts more
 * than the CQ has entries before its first poll needs a larger CQ, which cq-overrun says.
 */
import { counted } from '../../../spec/text.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'

/** Polls of other CQs, with completions, after which the program is taken to go on without this one. */
const MIN_OTHERS = 3

export const createNeverPolledDetector = (services: DetectorServices): Detector => {
  /** CQs with a completion and without a poll, by `KnownObject.id`: how often their programs have polled other ones since. */
  const others = new Map<number, { readonly cq: KnownObject; polls: number }>()
  /** Polled completions of other CQs, while there are such. */
  const counts = new Map<number, number>()

  const usersOf = (cq: KnownObject): string => {
    const queues = [...cq.users].flatMap(user => [
      ...(user.uses.get('sendCq') === cq ? [`the sends of ${user.name}`] : []),
      ...(user.uses.get('recvCq') === cq ? [`the receives of ${user.name}`] : []),
    ])
    return queues.length === 1 ? queues[0]! : counted(queues.length, 'queue')
  }

  return {
    on: {
      completed(_request, { cq, cqPosition }) {
        const known = cqPosition === 1 ? services.objects.find(cq) : undefined
        if (known !== undefined) others.set(cq, { cq: known, polls: 0 })
      },
      polled(id, count) {
        if (others.size === 0 || count === 0) return
        others.delete(id)
        if (counts.get(id) === count) return
        counts.set(id, count)
        const pid = services.objects.find(id)?.program?.pid
        for (const one of others.values()) if (one.cq.program?.pid === pid) one.polls++
      },
      called({ method, refused }, { id }) {
        if (method !== 'destroy' || refused !== undefined) return
        others.delete(id)
        counts.delete(id)
      },
      failed({ context, failure: { cause } }) {
        if (cause.id !== 'CQ_FULL' || typeof cause.args.cq !== 'number') return
        const cq = services.objects.byHandle(context, 'cq', cause.args.cq)
        const { polls = 0 } = (cq && others.get(cq.id)) ?? {}
        // A program that polls by itself tells the device nothing.
        if (cq === undefined || polls < MIN_OTHERS || services.directOf(cq.program?.pid) !== undefined) return
        const { stack, action } = cq.creation
        services.report('cq-never-polled', services.occurrenceAt(cq, stack, action), {
          text: `${cq.name} of ${cq.size} entries is full, and no thread has ever polled it: it has the completions of ${usersOf(cq)}; other CQs were polled meanwhile`,
          objects: [cq, ...cq.users],
        })
      },
    },
  }
}
