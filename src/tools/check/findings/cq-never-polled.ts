/*
 * Finding cq-never-polled: a CQ was full that no thread has ever polled, though its program polls others. One that
 * posts more than the CQ has entries before its first poll needs a larger CQ, which cq-overrun says.
 */
import { counted } from '../../../base/text.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { getOrAdd, type KnownObject } from '../objects.ts'

/** Polls of other CQs, with completions, after which the program is taken to go on without this one. */
const MIN_OTHERS = 3

export const createNeverPolledDetector = (services: DetectorServices): Detector => {
  /**
   * By pid, while the program has CQs with a completion and without a poll: its polls of CQs, and how many there were
   * then.
   */
  const waiting = new Map<number | undefined, { polls: number; readonly since: Map<number, number> }>()
  /** Polled completions of other CQs, while there are such. */
  const counts = new Map<number, number>()

  const forget = ({ id, program }: KnownObject): void => {
    const own = waiting.get(program?.pid)
    own?.since.delete(id)
    if (own?.since.size === 0) waiting.delete(program?.pid)
  }

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
        if (known === undefined) return
        const own = getOrAdd(waiting, known.program?.pid, () => ({ polls: 0, since: new Map<number, number>() }))
        own.since.set(cq, own.polls)
      },
      polled(id, count) {
        if (waiting.size === 0 || count === 0 || counts.get(id) === count) return
        counts.set(id, count)
        const cq = services.objects.find(id)
        if (cq === undefined) return
        forget(cq)
        const own = waiting.get(cq.program?.pid)
        if (own !== undefined) own.polls++
      },
      called({ class: name, method, refused }, object) {
        if (name !== 'cq' || method !== 'destroy' || refused !== undefined) return
        forget(object)
        counts.delete(object.id)
      },
      failed({ context, failure: { cause } }) {
        if (cause.id !== 'CQ_FULL' || typeof cause.args.cq !== 'number') return
        const cq = services.objects.byHandle(context, 'cq', cause.args.cq)
        const own = cq && waiting.get(cq.program?.pid)
        const before = cq && own?.since.get(cq.id)
        if (cq === undefined || own === undefined || before === undefined || own.polls - before < MIN_OTHERS) return
        // A program that polls by itself tells the device nothing.
        if (services.directOf(cq.program?.pid) !== undefined) return
        const { stack, action } = cq.creation
        services.report('cq-never-polled', services.occurrenceAt(cq, stack, action), {
          text: `${cq.name} of ${cq.size} entries is full, and no thread has ever polled it: it has the completions of ${usersOf(cq)}; other CQs were polled meanwhile`,
          objects: [cq, ...cq.users],
        })
      },
    },
  }
}
