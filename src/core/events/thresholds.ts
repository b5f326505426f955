/*
 * Thresholds of completion events (R36; uDAPL's EVD threshold): one event after n completions, or t microseconds after
 * the first of them. Drivers are not involved: events.ts counts completions, and the owner of core calls `expire` at
 * `nextDue`, with core's clock.
 *
 * A pending arming is never weakened: another arming or a new threshold can only make its event earlier, and the
 * completions before count. Otherwise a program that waits could wait for ever.
 */
import type { Affiliation, Core, Deadline, Threshold } from '../model.ts'

/** Every completion raises an event. */
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

/** Whether every completion raises an event. */
const isImmediate = (count: number, period: number): boolean => count <= 1 && (count === 1 || period === 0)

/** Arms the queue with these values for one event; counting starts anew. */
export const rearmThreshold = (threshold: Threshold, count: number, period: number): void => {
  threshold.wanted = count
  threshold.wait = period
  threshold.seen = 0
  threshold.due = Number.POSITIVE_INFINITY
}

const schedule = ({ deadlines }: Core, deadline: Deadline): void => {
  let at = deadlines.length
  // most timers are the latest: periods are similar
  while (at > 0 && deadlines[at - 1].due > deadline.due) at--
  deadlines.splice(at, 0, deadline)
}

/** True if the event is due now; otherwise its timer is set, if it has one. */
const isReached = (events: Affiliation, threshold: Threshold): boolean => {
  const { core, wanted, wait, seen, first } = threshold
  if (isImmediate(wanted, wait) || (wanted > 0 && seen >= wanted)) return true
  if (wait > 0 && first + wait < threshold.due) {
    threshold.due = first + wait
    schedule(core, { due: threshold.due, events })
  }
  return false
}

/** Counts a completion; true if the event is due now. */
export const countCompletion = (events: Affiliation, threshold: Threshold): boolean => {
  if (isImmediate(threshold.wanted, threshold.wait)) return true
  threshold.seen++
  if (threshold.seen === 1) threshold.first = threshold.core.now()
  return isReached(events, threshold)
}

/** The smaller of two limits; 0 is no limit. */
const smallerLimit = (one: number, other: number): number => (one === 0 || (other !== 0 && other < one) ? other : one)

/** Arms a queue that is armed already; true if its event is due now. */
export const tightenThreshold = (events: Affiliation, threshold: Threshold, count: number, period: number): boolean => {
  const { wanted, wait } = threshold
  if (isImmediate(wanted, wait)) return false
  const atOnce = isImmediate(count, period)
  threshold.wanted = atOnce ? 1 : smallerLimit(wanted, count)
  threshold.wait = atOnce ? 0 : smallerLimit(wait, period)
  return threshold.seen > 0 && isReached(events, threshold)
}

/** When to call `expire`; Infinity for never. Microseconds of core's clock. */
export const nextDue = ({ deadlines }: Core): number => deadlines[0]?.due ?? Number.POSITIVE_INFINITY

/** Calls `notify` for the queues whose due time has passed. */
export const expireDue = ({ deadlines }: Core, now: number, notify: (events: Affiliation) => void): boolean => {
  let any = false
  while (deadlines.length > 0 && deadlines[0].due <= now) {
    const { due, events } = deadlines.shift() as Deadline
    // its event may have been raised by count, or it was armed again
    if (events.armed === 0 || events.more?.threshold?.due !== due) continue
    any = true
    notify(events)
  }
  return any
}
