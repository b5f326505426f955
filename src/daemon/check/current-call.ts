/*
 * The call of a program that the daemon handles now: who makes it, and where in the program.
 */
import type { Stack } from '../../spec/check/finding.ts'

export class CurrentCall {
  /** Undefined between calls. */
  stack: Stack | undefined
  thread: number | undefined

  begin(stack: Stack, thread: number): void {
    this.stack = stack
    this.thread = thread
  }

  end(): void {
    this.stack = undefined
    this.thread = undefined
  }

  /** Wraps a job that continues the call later: each step of the job gets the stack of the call. */
  continuedBy(job: Iterator<unknown>): Iterator<unknown> {
    const { stack } = this
    return {
      next: () => {
        const before = this.stack
        this.stack = stack
        try {
          return job.next()
        } finally {
          this.stack = before
        }
      },
    }
  }
}
