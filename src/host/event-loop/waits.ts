/*
 * Counts what this process's thread waits for, other than in the event loop.
 */
import { readFileSync } from 'node:fs'

/** Times are microseconds. */
export interface WaitCount {
  count: number
  microseconds: number
  longest: number
}

const createWaitCount = (): WaitCount => ({ count: 0, microseconds: 0, longest: 0 })

export const countWait = (count: WaitCount, microseconds: number): void => {
  count.count++
  count.microseconds += microseconds
  if (microseconds > count.longest) count.longest = microseconds
}

/** The waits of this process. `movers`, `memory`: as in host/memory/mover.ts. `yields`, `naps`: as in yield.ts. */
export const waits = {
  movers: createWaitCount(),
  memory: createWaitCount(),
  yields: createWaitCount(),
  naps: createWaitCount(),
}

/** Waits for the processes of a user, in movers. */
interface UserWaits {
  readonly movers: WaitCount
  readonly memory: WaitCount
}

const byUser = new Map<number, UserWaits>()

export const waitsForUser = (user: number): UserWaits => {
  const found = byUser.get(user) ?? { movers: createWaitCount(), memory: createWaitCount() }
  byUser.set(user, found)
  return found
}

/** By user. */
export const waitsForUsers = (): ReadonlyMap<number, UserWaits> => byUser

const NANOSECONDS = 1000

/**
 * Microseconds in which this process's main thread could run and another thread had its processor (the second number of
 * /proc/self/schedstat); undefined if the kernel does not tell.
 */
export const processorWait = (): number | undefined => {
  try {
    const waited = Number(readFileSync('/proc/self/schedstat', 'latin1').split(' ')[1])
    return Number.isNaN(waited) ? undefined : waited / NANOSECONDS
  } catch {
    return undefined
  }
}
