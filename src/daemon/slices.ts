/*
 * Long work of calls, cut into slices, so that no client keeps the loop from the others for as long as it likes: each
 * turn of the event loop runs one slice of one job, all jobs in turn.
 *
 * A slice is a number of steps, not a time: a job is a generator that yields after so much work as takes some 0.2 ms.
 */

/** Ends with the job's value; yields between its slices. */
export type Job<T> = Iterator<unknown, T>

export interface Slices {
  /** Runs a job to its end, from the next turn on. Rejects with what it throws. */
  run<T>(job: Job<T>): Promise<T>
  /** Jobs that have not ended. */
  readonly waiting: number
}

/** `begin` is told before each slice. */
export const createSlices = (begin: () => void = () => {}): Slices => {
  /** Each runs one slice; false once its job has ended. */
  const slices: (() => boolean)[] = []
  let isScheduled = false
  const schedule = (): void => {
    if (!isScheduled && slices.length > 0) setImmediate(turn)
    isScheduled = slices.length > 0
  }

  const turn = (): void => {
    isScheduled = false
    const slice = slices.shift()
    begin()
    if (slice?.()) slices.push(slice)
    schedule()
  }

  return {
    run: <T>(job: Job<T>) =>
      new Promise<T>((resolve, reject) => {
        slices.push(() => {
          try {
            const { done, value } = job.next()
            if (done) resolve(value)
            return !done
          } catch (error) {
            reject(error)
            return false
          }
        })
        schedule()
      }),
    get waiting() {
      return slices.length
    },
  }
}
