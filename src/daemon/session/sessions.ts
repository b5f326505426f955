/*
 * The connected sessions.
 */
import type { ProcessHandle } from '../../host/memory/process.ts'

export interface Session {
  readonly process: ProcessHandle
  close(): void
}

export class Sessions {
  readonly #open = new Set<Session>()

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

  /** The processes with a session, `first` before all others. */
  *processes(first: ProcessHandle | undefined): Generator<ProcessHandle> {
    if (first !== undefined) yield first
    for (const { process } of this.#open) if (process !== first) yield process
  }

  /** Functions that close the sessions. */
  get closeSteps(): (() => void)[] {
    return [...this.#open].map(session => () => session.close())
  }
}
