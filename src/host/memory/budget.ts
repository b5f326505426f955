/*
 * Two budgets for each user: how long calls that wait for the user's programs may block the daemon, and how long those
 * may that wait for a processor meanwhile. The program is at fault for the first, which ends its session. The second
 * also runs out on a machine that has much to do, so then the user's next requests wait.
 */
import { type Budget, createBudget } from '../budget.ts'
import { ETIMEDOUT } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import { libcFunctions } from '../native.ts'
import { type Arena, mapArena } from './mapping.ts'
import type { Mover } from './mover.ts'

/** Maximum of a budget, and maximum timeout of a mover's system call. Microseconds. */
export const MAX_WAIT = 250_000
/** A budget below this is used up. Microseconds. */
const MIN_REMAINING = 1000
/** Waits take at most this share of the time. */
const SHARE = 0.05

/** Requests that have waited are handled again when so many microseconds of the second budget are left. */
const MIN_LEFT = 500

interface Budgets {
  readonly waits: Budget
  readonly delays: Budget
}

const sys = libcFunctions({ getrusage: 'int getrusage(int who, int64_t usage)' })
/** Of struct rusage: the offset of the voluntary switches, its size; RUSAGE_THREAD. */
const Usage = { THREAD: 1, SLEEPS: 128, BYTES: 144 } as const
let usage: Arena | undefined

/** By user. */
const budgets = new Map<number, Budgets>()

const budgetsOf = (uid: number): Budgets => {
  const known = budgets.get(uid) ?? {
    waits: createBudget(MAX_WAIT, SHARE),
    delays: createBudget(MAX_WAIT, SHARE),
  }
  budgets.set(uid, known)
  return known
}

/** Microseconds until requests of the user may be handled; 0 or less: now. */
export const untilRequests = (uid: number): number => {
  const delays = budgets.get(uid)?.delays
  return delays === undefined || delays.remaining() > 0 ? 0 : delays.untilRemaining(MIN_LEFT)
}

/** The user whose request is handled. */
let requester: number | undefined

/**
 * Handles a request of the user: waits for a processor are charged to the second budget. Those of the user's queues,
 * which other programs' packets need too, are not.
 */
export const chargedRequest = (uid: number, handle: () => void): void => {
  requester = uid
  try {
    handle()
  } finally {
    requester = undefined
  }
}

/**
 * Runs `call` with the user's remaining waiting time as its timeout (µs). Charges the user for the time that `mover`
 * waited, or for all that was left if `call` returns -ETIMEDOUT, and in a request for its delay. If no time is left,
 * returns -ETIMEDOUT without a call.
 */
export const charged = (uid: number, mover: Mover, call: (timeout: number) => number): number => {
  const { waits, delays } = budgetsOf(uid)
  const timeout = waits.remaining()
  if (timeout < MIN_REMAINING) return -ETIMEDOUT
  const result = call(timeout)
  waits.take(result === -ETIMEDOUT ? waits.remaining() : mover.waited())
  const delay = mover.delayed()
  // A single long wait costs the user no more than all that can be saved up.
  if (uid === requester && delay > 0) delays.take(Math.min(delay, Math.max(0, delays.remaining() + MAX_WAIT)))
  return result
}

/** How often this thread has slept. */
const sleeps = (): number => {
  usage ??= mapArena(Usage.BYTES)
  sys().getrusage(Usage.THREAD, usage.address)
  return usage.u32[Usage.SLEEPS >> 2]!
}

/**
 * Makes a system call of this thread that no mover can make, and that the user's programs can delay: to map or unmap
 * their file. They are charged for its time if it has slept. `uid` undefined: nobody is.
 */
export const atExpense = <T>(uid: number | undefined, call: () => T): T => {
  if (uid === undefined) return call()
  const [before, begin] = [sleeps(), nowMicroseconds()]
  try {
    return call()
  } finally {
    if (sleeps() !== before) budgetsOf(uid).waits.take(nowMicroseconds() - begin)
  }
}

/** Whether the user's programs have used up their time, so that calls fail with -ETIMEDOUT. */
export const isUsedUp = (uid: number): boolean => {
  const known = budgets.get(uid)
  return known !== undefined && known.waits.remaining() < MIN_REMAINING
}

/** By user: calls of `whenAffordable` that wait. */
const waiting = new Map<number, (() => void)[]>()

const runWaiting = (uid: number): void => {
  const calls = waiting.get(uid)!
  while (calls.length > 0 && !isUsedUp(uid)) atExpense(uid, calls.shift()!)
  if (calls.length > 0) runLater(uid)
  else waiting.delete(uid)
}

const runLater = (uid: number): void =>
  void setTimeout(runWaiting, budgetsOf(uid).waits.untilRemaining(MIN_REMAINING) / 1000, uid).unref()

/** As `atExpense`, but later if the user's time is used up. Calls of a user are made in their order. */
export const whenAffordable = (uid: number | undefined, call: () => void): void => {
  const calls = uid === undefined ? undefined : waiting.get(uid)
  if (calls !== undefined) calls.push(call)
  else if (uid === undefined || !isUsedUp(uid)) atExpense(uid, call)
  else {
    waiting.set(uid, [call])
    runLater(uid)
  }
}
