/*
 * What programs of a daemon wait for, for tools. One look cannot tell a wait from work in progress
 * (spec/check/waits.ts), so a tool looks twice.
 */
import { setTimeout } from 'node:timers/promises'
import type { WaitStat } from '../../spec/check/waits.ts'

/** Milliseconds between two looks: what has changed is work in progress. */
const SECOND_LOOK = 250

/** The waits that two looks find. Throws the error of `waits`. */
export const lastingWaits = async (waits: () => Promise<readonly WaitStat[]>): Promise<readonly WaitStat[]> => {
  const first = await waits()
  if (first.length === 0) return first
  await setTimeout(SECOND_LOOK)
  const second = await waits()
  return second.filter(({ pid, device, text }) =>
    first.some(wait => wait.pid === pid && wait.device === device && wait.text === text),
  )
}
