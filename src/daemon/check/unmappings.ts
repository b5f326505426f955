/*
 * The stacks of calls that may unmap registered memory (UNMAP in spec/session.ts). The userfaultfd reports what was
 * unmapped, without its caller.
 */
import type { Stack } from '../../spec/check/finding.ts'

interface Unmapping {
  readonly pid: number
  readonly stack: Stack
  readonly start: number
  readonly end: number
  /** Microseconds of the announcement. */
  readonly time: number
}

/** Maximum kept calls of all processes, the latest. */
const MAX_CALLS = 64
/** The call follows its announcement: later unmapping of the memory is another call, without an announcement. */
const MAX_DELAY = 1_000_000

export class Unmappings {
  readonly #now: () => number
  readonly #calls: Unmapping[] = []

  constructor(now: () => number) {
    this.#now = now
  }

  add(pid: number, stack: Stack, { address, length }: { readonly address: bigint; readonly length: bigint }): void {
    const call = { pid, stack, start: Number(address), end: Number(address + length), time: this.#now() }
    if (this.#calls.push(call) > MAX_CALLS) this.#calls.shift()
  }

  /** The stack of the latest call of a process that may have unmapped memory of the range; undefined: unknown. */
  stackOf(pid: number, start: number, end: number): Stack | undefined {
    const now = this.#now()
    return this.#calls.findLast(
      call => call.pid === pid && call.start < end && start < call.end && now - call.time < MAX_DELAY,
    )?.stack
  }
}
