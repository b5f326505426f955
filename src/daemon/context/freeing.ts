/*
 * The freeing of memory in slices, by user: an allocation that needs what its own user has freed finishes that, and
 * never the work of another user.
 */
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { createSlices, type Job, type Slices } from '../../host/event-loop/slices.ts'

const rethrow = (error: unknown): void => {
  throw error
}

export class Freeing {
  readonly #slices: Slices
  readonly #failed: (error: unknown) => void
  readonly #jobs = new Map<number | undefined, Set<Job<unknown>>>()

  /** `failed` gets exceptions of jobs. */
  constructor(slices: Slices = createSlices(), failed: (error: unknown) => void = rethrow) {
    this.#slices = slices
    this.#failed = failed
  }

  /** What ends in one slice is done now. `user`: who has freed the memory. */
  begin(user: number | undefined, job: Job<unknown>): void {
    if (job.next().done) return
    const jobs = this.#jobs.get(user) ?? new Set()
    this.#jobs.set(user, jobs.add(job))
    const forget = (): void => {
      if (jobs.delete(job) && jobs.size === 0) this.#jobs.delete(user)
    }
    const next = (): IteratorResult<unknown> => {
      const result = job.next()
      if (result.done) forget()
      return result
    }
    this.#slices.begin({ next }, error => {
      forget()
      this.#failed(error)
    })
  }

  /** Runs the user's jobs now, for at most so many microseconds, a slice longer. */
  finish(user: number | undefined, microseconds: number): void {
    const end = nowMicroseconds() + microseconds
    for (const job of this.#jobs.get(user) ?? []) while (!job.next().done) if (nowMicroseconds() >= end) return
  }
}
