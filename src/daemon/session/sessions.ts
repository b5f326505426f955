/*
 * The connected sessions.
 */
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import type { ProcessHandle } from '../../host/memory/process.ts'
import type { Containment } from '../containment.ts'
import type { ProcessSpace } from '../memory/process-space.ts'

export interface Session {
  readonly process: ProcessHandle
  close(): void
}

export class Sessions {
  readonly #open = new Set<Session>()
  /** Functions that close the memory of ended sessions. */
  readonly #kept = new Set<() => void>()

  /** Of all processes. */
  get count(): number {
    return this.#open.size
  }

  /** Of one process. */
  countOf(pid: number): number {
    let count = 0
    for (const { process } of this.#open) if (process.pid === pid) count++
    return count
  }

  add(session: Session): void {
    this.#open.add(session)
  }

  delete(session: Session): void {
    this.#open.delete(session)
  }

  /**
   * A program may close its session's socket and use another, or the preload library may, because an answer came late.
   * What it has registered stays registered. Calls `close` once `space` is unused or the process has ended. Returns a
   * function that calls it earlier.
   */
  keepMemory(process: ProcessHandle, space: ProcessSpace, { guard }: Containment, close: () => void): () => void {
    const end = (): void => {
      if (!this.#kept.delete(end)) return
      watcher?.stop()
      close()
    }
    let watcher: Watch | undefined
    this.#kept.add(end)
    space.whenUnused(end)
    if (this.#kept.has(end)) watcher = watch(process.pidfd, { readable: true }, guard('the end of a process', end))
    watcher?.unref()
    return end
  }

  /** The processes with a session, `first` before all others. */
  *processes(first: ProcessHandle | undefined): Generator<ProcessHandle> {
    if (first !== undefined) yield first
    for (const { process } of this.#open) if (process !== first) yield process
  }

  /** Functions that close the sessions, and then the memory that was kept. */
  get closeSteps(): (() => void)[] {
    const closeMemory = (): void => {
      for (const close of this.#kept) close()
    }
    return [...[...this.#open].map(session => () => session.close()), closeMemory]
  }
}
