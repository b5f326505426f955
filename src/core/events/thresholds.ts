/*
 * Thresholds of completion events (R36; uDAPL's EVD threshold): one event after n completions, or t microseconds after
 * the first of them. Drivers are not involved: events.ts counts completions, and the owner of core calls `expire` at
 * `nextDue` of core's clock.
 *
 * The event of an armed queue never becomes later: arming again or a new threshold can only make it earlier, and
 * completions since the first arming count. Otherwise a waiting program could wait for ever.
 */
import type { Affiliation, Core, Deadline, Threshold } from '../model.ts'

/** A threshold with which every completion raises an event. */
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

/** Arms the queue for one event with these values; counting restarts. */
export const rearmThreshold = (threshold: Threshold, count: number, period: number): void => {
  threshold.wanted = count
  threshold.wait = period
  threshold.seen = 0
  threshold.due = Number.POSITIVE_INFINITY
}

const schedule = ({ deadlines }: Core, deadline: Deadline): void => {
  let at = deadlines.length
  // Most deadlines are the latest, since periods are similar.
  while (at > 0 && deadlines[at - 1].due > deadline.due) at--
  deadlines.splice(at, 0, deadline)
}

/** True if the event is due now; otherwise sets its deadline, if it has a period. */
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

/** The smaller of two limits; 0 means unlimited. */
const smallerLimit = (a: number, b: number): number => (a === 0 || (b !== 0 && b < a) ? b : a)

/** Arms a queue that is armed already; true if its event is due now. */
export const tightenThreshold = (events: Affiliation, threshold: Threshold, count: number, period: number): boolean => {
  const { wanted, wait } = threshold
  if (isImmediate(wanted, wait)) return false
  const isNowImmediate = isImmediate(count, period)
  threshold.wanted = isNowImmediate ? 1 : smallerLimit(wanted, count)
  threshold.wait = isNowImmediate ? 0 : smallerLimit(wait, period)
  return threshold.seen > 0 && isReached(events, threshold)
}

/** When to call `expire`, in microseconds of core's clock; Infinity for never. */
export const nextDue = ({ deadlines }: Core): number => deadlines[0]?.due ?? Number.POSITIVE_INFINITY

/** Calls `notify` for the queues whose due time has passed. */
export const expireDue = ({ deadlines }: Core, now: number, notify: (events: Affiliation) => void): boolean => {
  let any = false
  while (deadlines.length > 0 && deadlines[0].due <= now) {
    const { due, events } = deadlines.shift() as Deadline
    // The event may have been raised by count, or the queue armed again.
    if (events.armed === 0 || events.more?.threshold?.due !== due) continue
    any = true
    notify(events)
  }
  return any
}
