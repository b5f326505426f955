/*
 * Watches what programs wait for (spec/check/waits.ts), for `userdma check`. One look cannot tell a wait from work in
 * progress, so the queues are looked at now and then: what is the same for MIN_WAIT is a wait. It becomes a finding
 * when a signal ends its program, after the time of `--hang`, or on request.
 */

import type { ContextWait } from '../../../core/driver-contract.ts'
import type { Context, CoreObject } from '../../../core/model.ts'
import type { LaterLook } from '../../../host/event-loop/timer.ts'
import { inReportOrder, type Wait } from '../../../spec/check/waits.ts'
import type { Containment } from '../../containment.ts'

/** Milliseconds between two looks; longer if a look takes long. */
const INTERVAL = 500
/** Looks take at most this part of a processor, unless they would come less often than MAX_INTERVAL says. */
const MAX_SHARE = 1 / 20
/**
 * Milliseconds: a program that waits for some seconds before a signal ends it is looked at twice, however many others
 * wait.
 */
const MAX_INTERVAL = 2000
/** Microseconds after which an unchanged state counts as a wait. */
const MIN_WAIT = 1_000_000

interface Watched extends ContextWait {
  /** Microseconds. */
  readonly since: number
  isReported: boolean
}

/** By a timer of Node.js, which is no deadline. */
const nodeLook = (): LaterLook => {
  let timer: NodeJS.Timeout | undefined
  return {
    after(milliseconds, run) {
      timer = setTimeout(run, milliseconds).unref()
    },
    close: () => clearTimeout(timer),
  }
}

export class WaitWatch {
  readonly #look: () => readonly ContextWait[]
  readonly #now: () => number
  readonly #report: (context: Context, wait: Wait) => void
  readonly #containment: Pick<Containment, 'guard'>
  readonly #isEnded: (context: Context) => boolean
  readonly #later: LaterLook
  /** By context and key. */
  #watched = new Map<string, Watched>()
  /** Microseconds after which a wait is a finding. */
  #reportAfter = Number.POSITIVE_INFINITY
  #isStarted = false

  /**
   * `look`: the present state. `now`: microseconds. `isEnded`: whether the program has ended. `later`: when it looks.
   */
  constructor(
    look: () => readonly ContextWait[],
    now: () => number,
    report: (context: Context, wait: Wait) => void,
    containment: Pick<Containment, 'guard'>,
    isEnded: (context: Context) => boolean,
    later = nodeLook(),
  ) {
    this.#look = look
    this.#now = now
    this.#report = report
    this.#containment = containment
    this.#isEnded = isEnded
    this.#later = later
  }

  /** Begins to look. No effect when repeated. */
  start(): void {
    if (this.#isStarted) return
    this.#isStarted = true
    this.#lookLater(INTERVAL)
  }

  #lookLater(delay: number): void {
    const look = this.#containment.guard('a look at what programs wait for', () => {
      const start = process.cpuUsage()
      this.look()
      const { user, system } = process.cpuUsage(start)
      this.#lookLater(Math.min(MAX_INTERVAL, Math.max(INTERVAL, (user + system) / 1000 / MAX_SHARE)))
    })
    this.#later.after(delay, look)
  }

  close(): void {
    this.#later.close()
  }

  /** Looks at the present state. */
  look(): void {
    const now = this.#now()
    const before = this.#watched
    this.#watched = new Map()
    for (const found of this.#look()) {
      const { context, wait } = found
      const key = `${context.id} ${wait.id} ${found.key ?? wait.text}`
      const { since = found.since ?? now, isReported = false } = before.get(key) ?? {}
      this.#watched.set(key, { ...found, since, isReported })
    }
    // Between the end of a program and that of its contexts its threads are gone: what they waited for stays.
    for (const [key, watched] of before)
      if (!this.#watched.has(key) && this.#isEnded(watched.context)) this.#watched.set(key, watched)
    this.#reportWhere(({ since }) => now - since >= this.#reportAfter)
  }

  /** From now on, waits of `seconds` are reported. */
  reportAfter(seconds: number): void {
    this.#reportAfter = Math.min(this.#reportAfter, seconds * 1e6)
  }

  /** Reports all waits. */
  reportAll(): void {
    const now = this.#now()
    this.#reportWhere(({ since }) => now - since >= MIN_WAIT)
  }

  /** Reports the waits of a context that ends; with `channel`, of this channel of the context. */
  ended(context: Context, channel?: CoreObject): void {
    const now = this.#now()
    this.#reportWhere(
      watched =>
        watched.context === context &&
        (channel === undefined || watched.channel === channel) &&
        now - watched.since >= MIN_WAIT,
    )
  }

  #reportWhere(isWanted: (watched: Watched) => boolean): void {
    const wanted = [...this.#watched.values()].filter(
      watched => !watched.isReported && isWanted(watched) && watched.holds?.() !== false,
    )
    for (const { wait, context } of inReportOrder(wanted.map(({ wait, context }) => ({ id: wait.id, wait, context }))))
      this.#report(context, wait)
    for (const watched of wanted) watched.isReported = true
  }
}
