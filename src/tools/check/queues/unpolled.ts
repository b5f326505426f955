/*
 * The completions in CQs that programs have not polled, for the detectors of queues.
 */
import type { RequestCompletion, WorkRequest } from '../../../spec/check/requests.ts'
import { type KnownObject, unreleasedIn } from '../objects.ts'
import { shared } from '../shared.ts'

export interface UnpolledCompletion {
  readonly request: WorkRequest
  readonly completion: RequestCompletion
  readonly qp: KnownObject
  /** The queue pair was reset or destroyed: it uses no memory, and adapters may remove its completions from the CQ. */
  isOver: boolean
}

const NONE: readonly never[] = []

export class UnpolledCompletions {
  /** By `KnownObject.id` of the CQ; oldest first. */
  readonly #byCq = new Map<number, UnpolledCompletion[]>()

  /** The ids of the CQs that have had completions. */
  get cqs(): Iterable<number> {
    return this.#byCq.keys()
  }

  /** The completions in a CQ that the program cannot have polled. */
  of(cq: KnownObject): readonly UnpolledCompletion[] {
    return this.#byCq.get(cq.id)?.slice(unreleasedIn(cq)) ?? NONE
  }

  completed(request: WorkRequest, completion: RequestCompletion, qp: KnownObject): void {
    const one = { request, completion, qp, isOver: false }
    const unpolled = this.#byCq.get(completion.cq)
    if (unpolled === undefined) this.#byCq.set(completion.cq, [one])
    else unpolled.push(one)
  }

  /** The program has polled `count` completions of the CQ in total. Calls `onPolled` for each that is new. */
  polled(cq: number, count: number, onPolled: (one: UnpolledCompletion) => void): void {
    const unpolled = this.#byCq.get(cq)
    if (unpolled === undefined) return
    let removed = 0
    for (; removed < unpolled.length; removed++) {
      const one = unpolled[removed]!
      if (one.completion.cqPosition > count) break
      onPolled(one)
    }
    // Called for each request: most calls have nothing new.
    if (removed === 1) unpolled.shift()
    else if (removed > 1) unpolled.splice(0, removed)
  }

  /** Whether the program has polled none of the completions of a CQ, which has some. */
  isNonePolled(cq: number): boolean {
    return this.#byCq.get(cq)?.[0]?.completion.cqPosition === 1
  }

  /** Whether a CQ has completions that the device has not seen polled. */
  has(cq: number): boolean {
    return (this.#byCq.get(cq)?.length ?? 0) > 0
  }

  qpReset(id: number): void {
    for (const unpolled of this.#byCq.values()) for (const one of unpolled) if (one.qp.id === id) one.isOver = true
  }

  cqDestroyed(id: number): void {
    this.#byCq.delete(id)
  }
}

export const unpolledCompletions = shared({ name: 'unpolled completions' }, () => new UnpolledCompletions())
