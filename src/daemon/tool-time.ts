/*
 * The daemon's time for tools: their requests, subscriptions and netlink queries. The data path comes first: in each
 * turn of the event loop tools get TURN, after the queues were polled and calls were answered, and long work is a job
 * of short slices. Each user has a budget, so that many processes of one user get no more than one process does. Work
 * beyond the budget waits.
 */
import type { Account } from '../core/model.ts'
import { type Budget, createBudget } from '../host/budget.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import type { Slices } from '../host/event-loop/slices.ts'

/** Microseconds for tools in a turn. The last slice may take longer. */
const TURN = 100
/**
 * Shares of the time: of a guest, always, and of the daemon's own user while queues have work. At other times nothing
 * bounds the work for the daemon's own user.
 */
const GUEST_SHARE = 0.05
const OWNER_SHARE = 0.1
/** What a user can save up, microseconds: enough for a command that asks once. */
const MAX_SAVED = 50_000
/** Work that has waited begins again with so much time, microseconds. */
const MIN_REMAINING = 500
/** Milliseconds after which it is looked again whether queues still have work. */
const LATEST_LOOK = 10

/** The time of one user. */
export interface ToolShare extends Pick<Slices, 'run'> {
  /** Whether the user has time in this turn. */
  readonly hasTime: boolean
  /** Does work now, at the user's expense. */
  charge<T>(work: () => T): T
}

interface User {
  readonly budget: Budget
  readonly isGuest: boolean
  /** By job: runs its next slice; returns false if the job has ended. */
  readonly slices: (() => boolean)[]
}

interface ToolTimeParts {
  /** Whether queues have work, or had work a short time ago. */
  isBusy(): boolean
  /** Called in each turn with waiting jobs, before their slices. */
  beforeSlices(): void
}

export class ToolTime {
  readonly #parts: ToolTimeParts
  readonly #users = new Map<number, User>()
  /** Users whose jobs wait; the first one has its turn next. */
  readonly #waiting = new Set<User>()
  /** What is left for tools in this turn. */
  #turnLeft = TURN
  #nextTurn: NodeJS.Immediate | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(parts: ToolTimeParts) {
    this.#parts = parts
  }

  /** The share of the user who pays. `isGuest`: not the daemon's own user. */
  of({ payer }: Pick<Account, 'payer'>, isGuest: boolean): ToolShare {
    const share = isGuest ? GUEST_SHARE : OWNER_SHARE
    const user = this.#users.get(payer) ?? { budget: createBudget(MAX_SAVED, share), isGuest, slices: [] }
    this.#users.set(payer, user)
    const hasTime = (): boolean => this.#turnLeft > 0 && this.#untilTime(user, 0) <= 0
    return {
      get hasTime() {
        return hasTime()
      },
      charge: work => {
        this.#nextTurn ??= setImmediate(() => this.#onTurn())
        return this.#charge(user, work)
      },
      run: job =>
        new Promise((resolve, reject) => {
          user.slices.push(() => {
            try {
              const { done, value } = job.next()
              if (done) resolve(value)
              return !done
            } catch (error) {
              reject(error)
              return false
            }
          })
          this.#waiting.add(user)
          this.#schedule()
        }),
    }
  }

  /** Microseconds until the user has `amount`; 0 or less: now. */
  #untilTime({ budget, isGuest }: User, amount: number): number {
    return isGuest || this.#parts.isBusy() ? budget.untilRemaining(amount) : 0
  }

  #charge<T>({ budget, isGuest }: User, work: () => T): T {
    const begin = nowMicroseconds()
    const isCharged = isGuest || this.#parts.isBusy()
    try {
      return work()
    } finally {
      const taken = nowMicroseconds() - begin
      this.#turnLeft -= taken
      if (isCharged) budget.take(taken)
    }
  }

  #schedule(): void {
    if (this.#nextTurn !== undefined || this.#waiting.size === 0) return
    const wait = Math.min(...Array.from(this.#waiting, user => this.#untilTime(user, MIN_REMAINING)))
    clearTimeout(this.#timer)
    if (wait <= 0) this.#nextTurn = setImmediate(() => this.#onTurn())
    else this.#timer = setTimeout(() => this.#onTurn(), Math.min(LATEST_LOOK, wait / 1000)).unref()
  }

  #onTurn(): void {
    clearImmediate(this.#nextTurn)
    this.#nextTurn = undefined
    this.#turnLeft = TURN
    if (this.#waiting.size === 0) return
    this.#parts.beforeSlices()
    const late: User[] = []
    for (const user of this.#waiting) {
      if (this.#turnLeft <= 0) break
      // Added again, a user is last, and has a further turn in this loop.
      this.#waiting.delete(user)
      if (this.#untilTime(user, 0) > 0) late.push(user)
      else this.#runSlice(user)
    }
    for (const user of late) this.#waiting.add(user)
    this.#schedule()
  }

  /** Runs a slice of the user's first job. */
  #runSlice(user: User): void {
    const slice = user.slices.shift()!
    if (this.#charge(user, slice)) user.slices.push(slice)
    if (user.slices.length > 0) this.#waiting.add(user)
  }
}
