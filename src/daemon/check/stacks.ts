/*
 * The call stacks that programs send (message STACK), by process and id, within limits for each process and for all.
 */
import type { Stack } from '../../spec/check/finding.ts'
import { MAX_STACKS } from '../../spec/session.ts'

/** Maximum number of frames of a stack. */
const MAX_FRAMES = 64
/** Approximate maximum bytes of the stacks of one process, and of all processes. */
const MAX_PROCESS_BYTES = 2 ** 24
const MAX_TOTAL_BYTES = 2 ** 27
/** Maximum number of processes whose stacks are kept. Ended processes count too; the oldest are removed first. */
const MAX_PROCESSES = 256
/** Bytes charged for a frame in addition to its text. */
const FRAME_BYTES = 32

const NO_STACK: Stack = []

interface ProcessStacks {
  readonly session: object
  /** The pid in the process's own namespace. */
  readonly namespacePid: number
  readonly byId: Map<number, Stack>
  bytes: number
}

/** Is told of what is kept and what is not. */
interface StackSink {
  kept(pid: number, id: number, stack: Stack): void
  omitted(count: number): void
}

export class Stacks {
  readonly #sink: StackSink
  /** By pid. */
  readonly #processes = new Map<number, ProcessStacks>()
  #bytes = 0

  constructor(sink: StackSink) {
    this.#sink = sink
  }

  /**
   * `id` is unique in the process's `session`. `frames`: one per line. False if the process has too much, or this id
   * already.
   */
  define(
    session: object,
    { pid, namespacePid }: { readonly pid: number; readonly namespacePid: number },
    id: number,
    frames: string,
  ): boolean {
    let ofProcess = this.#processes.get(pid)
    if (ofProcess?.session !== session) {
      this.#remove(pid)
      ofProcess = { session, namespacePid, byId: new Map(), bytes: 0 }
      this.#processes.set(pid, ofProcess)
    }
    const stack = frames.split('\n').filter(Boolean).slice(0, MAX_FRAMES)
    const bytes = frames.length + stack.length * FRAME_BYTES
    const { byId } = ofProcess
    if (byId.size >= MAX_STACKS || ofProcess.bytes + bytes > MAX_PROCESS_BYTES || byId.has(id)) {
      this.#sink.omitted(1)
      return false
    }
    byId.set(id, stack)
    this.#sink.kept(pid, id, stack)
    ofProcess.bytes += bytes
    this.#bytes += bytes
    for (const oldest of this.#processes.keys()) {
      const isWithinLimits = this.#processes.size <= MAX_PROCESSES && this.#bytes <= MAX_TOTAL_BYTES
      if (oldest === pid || isWithinLimits) break
      this.#sink.omitted(this.#processes.get(oldest)?.byId.size ?? 0)
      this.#remove(oldest)
    }
    return true
  }

  #remove(pid: number): void {
    this.#bytes -= this.#processes.get(pid)?.bytes ?? 0
    this.#processes.delete(pid)
  }

  /** Whether the process has sent any. */
  has(pid: number): boolean {
    return this.#processes.has(pid)
  }

  /** Empty if no stack has this id. */
  of(pid: number, id: number): Stack {
    return this.#processes.get(pid)?.byId.get(id) ?? NO_STACK
  }

  /** The frames of the stacks, each once, `most` of them: those of `first`, and then of the newest processes. */
  frames(most: number, first: readonly Stack[]): readonly string[] {
    const frames = new Set<string>()
    const known = [...this.#processes.values()].reverse().map(({ byId }) => byId.values())
    for (const stacks of [first, ...known])
      for (const stack of stacks)
        for (const frame of stack) {
          if (frames.size === most) return [...frames]
          frames.add(frame)
        }
    return [...frames]
  }

  /**
   * The pid, in the daemon's namespace, of a process with `namespacePid`; −1: unknown. Several processes can have the
   * same `namespacePid`: `owner`, which opened the context, comes first.
   */
  processOf(owner: number | undefined, namespacePid: number): number {
    if (owner !== undefined && this.#processes.get(owner)?.namespacePid === namespacePid) return owner
    for (const [pid, other] of this.#processes) if (other.namespacePid === namespacePid) return pid
    return -1
  }
}
