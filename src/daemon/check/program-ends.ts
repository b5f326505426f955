/*
 * How programs end: by themselves, which their preload libraries tell (message END), or by a signal.
 */
import type { Context, Core } from '../../core/model.ts'
import type { ContextEnd } from '../../spec/check/program-events.ts'
import type { FailureReports } from '../failures.ts'

export class ProgramEnds {
  readonly #core: Core
  readonly #ownerOf: FailureReports['ownerOf']
  readonly #sendsStacks: (pid: number) => boolean
  readonly #contextEnds: (context: Context, how: ContextEnd['how']) => void
  /** Contexts that their program closes, or whose program ends by exit(3), _exit(2) or exec(2). */
  readonly #ending = new WeakSet<Context>()

  constructor(
    core: Core,
    ownerOf: FailureReports['ownerOf'],
    sendsStacks: (pid: number) => boolean,
    contextEnds: (context: Context, how: ContextEnd['how']) => void,
  ) {
    this.#core = core
    this.#ownerOf = ownerOf
    this.#sendsStacks = sendsStacks
    this.#contextEnds = contextEnds
  }

  /** Message END of a process: about one context, or all contexts that the process has opened. */
  told(pid: number, context: Context | undefined): void {
    if (context !== undefined) {
      this.#ends(context, 'close')
      return
    }
    const { devices, system } = this.#core
    for (const { contexts } of [...devices.values(), ...(system === undefined ? [] : [system])])
      for (const one of contexts) if (this.#ownerOf(one)?.pid === pid) this.#ends(one, 'exit')
  }

  #ends(context: Context, how: ContextEnd['how']): void {
    this.#ending.add(context)
    this.#contextEnds(context, how)
  }

  /**
   * Whether a signal ended the program of a context that is being closed. Only programs that send stacks send END; the
   * TypeScript library does not.
   */
  wasKilled(context: Context): boolean {
    const sendsStacks = this.#sendsStacks(this.#ownerOf(context)?.pid ?? -1)
    return sendsStacks && !this.#ending.has(context) && context.mapped?.packed === undefined
  }
}
