/*
 * Thresholds of completion events (R36; uDAPL's EVD threshold): one event after n completions, or t microseconds after
 * the first of them, whichever comes first. No driver takes part: completions are counted where events are made
 * (events.ts), and who owns the core calls `expire` when `nextDue` has come, with the clock that the core was made
 * with.
 *
 * An arming that waits is never weakened: what is asked for while it does (another arming, a new threshold of the
 * queue) can only make its event come sooner, and the completions that it has seen count. Else somebody who waits
 * already could wait for ever.
 */
import type { Affiliation, Core, Deadline, Threshold } from '../model.ts'

/** Every completion makes its event at once. */
export const createThreshold = (core: Core): Threshold => ({
  core,
  count: 0,
  period: 0,
  wanted: 0,
  wait: 0,
  seen: 0,
  first: 0,
  due: Number.POSITIVE_INFINITY,
})

/** Whether every completion makes its event at once. */
const isImmediate = (count: number, period: number): boolean => count <= 1 && (count === 1 || period === 0)

/** The queue is armed: counting begins anew, for this time with these values. */
export const rearmThreshold = (threshold: Threshold, count: number, period: number): void => {
  threshold.wanted = count
  threshold.wait = period
  threshold.seen = 0
  threshold.due = Number.POSITIVE_INFINITY
}

const schedule = ({ deadlines }: Core, deadline: Deadline): void => {
  let at = deadlines.length
  // Most come last: periods are much alike.
  while (at > 0 && deadlines[at - 1].due > deadline.due) at--
  deadlines.splice(at, 0, deadline)
}

/** True if the event comes now; else its time is set, if it has one. */
const isReached = (events: Affiliation, threshold: Threshold): boolean => {
  const { core, wanted, wait, seen, first } = threshold
  if (isImmediate(wanted, wait) || (wanted > 0 && seen >= wanted)) return true
  if (wait > 0 && first + wait < threshold.due) {
    threshold.due = first + wait
    schedule(core, { due: threshold.due, events })
  }
  return false
}

/** One more completion of those that count; true if the event comes now. */
export const countCompletion = (events: Affiliation, threshold: Threshold): boolean => {
  if (isImmediate(threshold.wanted, threshold.wait)) return true
  threshold.seen++
  if (threshold.seen === 1) threshold.first = threshold.core.now()
  return isReached(events, threshold)
}

/** The less of two limits; 0 is none. */
const smallerLimit = (one: number, other: number): number => (one === 0 || (other !== 0 && other < one) ? other : one)

/** The queue is armed already, and these values are asked for too; true if its event comes now. */
export const tightenThreshold = (events: Affiliation, threshold: Threshold, count: number, period: number): boolean => {
  const { wanted, wait } = threshold
  if (isImmediate(wanted, wait)) return false
  const atOnce = isImmediate(count, period)
  threshold.wanted = atOnce ? 1 : smallerLimit(wanted, count)
  threshold.wait = atOnce ? 0 : smallerLimit(wait, period)
  return threshold.seen > 0 && isReached(events, threshold)
}

/** When `expire` must be called; Infinity for never. Microseconds of the core's clock. */
export const nextDue = ({ deadlines }: Core): number => deadlines[0]?.due ?? Number.POSITIVE_INFINITY

/** Calls `notify` for those whose time has come. */
export const expireDue = ({ deadlines }: Core, now: number, notify: (events: Affiliation) => void): boolean => {
  let any = false
  while (deadlines.length > 0 && deadlines[0].due <= now) {
    const { due, events } = deadlines.shift() as Deadline
    // Its event may have come by count, or it was armed anew since.
    if (events.armed === 0 || events.more?.threshold?.due !== due) continue
    any = true
    notify(events)
  }
  return any
}
