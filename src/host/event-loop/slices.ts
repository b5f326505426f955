/*
 * Long work in slices, so that no job blocks the event loop for long. A job is a generator. The work between two yields
 * is a slice, and should take less than a millisecond. Each turn runs a limited number of slices, of all jobs in
 * rotation.
 */
import { onNextTurn } from './next-turn.ts'

/** An iterator that yields between its slices and returns the job's value. */
export type Job<T> = Iterator<unknown, T>

export interface Slices {
  /** Runs a job to its end; `run` itself runs no slice. Rejects with what the job throws. */
  run<T>(job: Job<T>): Promise<T>
  /**
   * Like `run`, but immediately runs the slices that this turn still allows (of all jobs); none if a slice calls
   * `begin`. `failed` gets an exception of the job.
   */
  begin(job: Job<unknown>, failed: (error: unknown) => void): void
  /**
   * Runs all jobs to their ends immediately, those of all users: at the end of the process. No effect if a slice calls
   * it.
   */
  finish(): void
  /** Number of jobs that wait for their next slice. */
  readonly waiting: number
}

/** A job of one slice. */
export const oneSlice = <T>(slice: () => T): Job<T> => ({ next: () => ({ done: true, value: slice() }) })

/**
 * `maxSlices`: the maximum in a turn. `beforeSlices` is called in each turn with waiting jobs, before its slices.
 * `callInNextTurn`: calls back in the next turn.
 */
export const createSlices = (
  beforeSlices: () => void = () => {},
  maxSlices = 1,
  callInNextTurn: (callback: () => void) => void = onNextTurn,
): Slices => {
  /** By job: runs its next slice; returns false if the job has ended. */
  const slices: (() => boolean)[] = []
  /** Slices that this turn may still run. */
  let slicesLeft = maxSlices
  let isScheduled = false
  let isRunning = false

  const schedule = (): void => {
    if (!isScheduled) callInNextTurn(onTurn)
    isScheduled = true
  }

  const runSlices = (): void => {
    if (isRunning) return
    isRunning = true
    try {
      for (; slicesLeft > 0 && slices.length > 0; slicesLeft--) {
        const slice = slices.shift()
        if (slice?.()) slices.push(slice)
      }
    } finally {
      isRunning = false
    }
  }

  const onTurn = (): void => {
    isScheduled = false
    slicesLeft = maxSlices
    if (slices.length === 0) return
    schedule()
    beforeSlices()
    runSlices()
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
      runSlices()
    },
    finish() {
      slicesLeft = Number.POSITIVE_INFINITY
      runSlices()
      slicesLeft = 0
    },
    get waiting() {
      return slices.length
    },
  }
}
