/*
 * Long work in slices, so that no job blocks the event loop for long: each turn of the loop runs one slice, or a given
 * number, of all jobs in rotation.
 *
 * A slice is a number of steps, not a time: a job is a generator that yields after some 0.2 ms of work.
 */
import { onNextTurn } from './next-turn.ts'

/** Ends with the job's value; yields between its slices. */
export type Job<T> = Iterator<unknown, T>

export interface Slices {
  /** Runs a job to its end, from the next turn on. Rejects with what it throws. */
  run<T>(job: Job<T>): Promise<T>
  /**
   * Like `run`, and runs the rest of this turn's slices immediately. `failed` is called with an exception of the job.
   */
  begin(job: Job<unknown>, failed: (error: unknown) => void): void
  /** Runs all jobs to their ends, now. */
  finish(): void
  /** Jobs that have not ended. */
  readonly waiting: number
}

/** A job of one slice. */
export function* oneSlice(slice: () => void): Generator<void> {
  yield slice()
}

/** `turn` is called before the slices of each turn, of which there are at most `maxSlices`. */
export const createSlices = (turn: () => void = () => {}, maxSlices = 1): Slices => {
  /** Each runs one slice; false once its job has ended. */
  const slices: (() => boolean)[] = []
  /** Slices that are left in this turn. */
  let left = maxSlices
  let isScheduled = false
  let isRunning = false

  const schedule = (): void => {
    if (!isScheduled) onNextTurn(onTurn)
    isScheduled = true
  }

  const work = (): void => {
    if (isRunning) return
    isRunning = true
    try {
      for (; left > 0 && slices.length > 0; left--) {
        const slice = slices.shift()
        if (slice?.()) slices.push(slice)
      }
    } finally {
      isRunning = false
    }
  }

  const onTurn = (): void => {
    isScheduled = false
    left = maxSlices
    if (slices.length === 0) return
    schedule()
    turn()
    work()
  }

  const sliceOf =
    <T>(job: Job<T>, ended: (value: T) => void, failed: (error: unknown) => void) =>
    (): boolean => {
      try {
        const { done, value } = job.next()
        if (done) ended(value)
        return !done
      } catch (error) {
        failed(error)
        return false
      }
    }

  return {
    run: job =>
      new Promise((resolve, reject) => {
        slices.push(sliceOf(job, resolve, reject))
        schedule()
      }),
    begin(job, failed) {
      slices.push(sliceOf(job, () => {}, failed))
      schedule()
      work()
    },
    finish() {
      left = Number.POSITIVE_INFINITY
      work()
      left = 0
    },
    get waiting() {
      return slices.length
    },
  }
}
