/*
 * Thresholds of completion events (R36; uDAPL's EVD threshold): one event after n completions, or t microseconds after
 * the first of them. The owner of core calls `expire` (events.ts) at the time `nextDue` on core's clock.
 *
 * Arming an armed CQ again, or a new threshold, can only make its event earlier, and completions since the first arming
 * count. Otherwise a program that waits could wait for ever.
 */
import { type Affiliation, Armed, type Core, type Deadline, type Threshold } from '../model.ts'

export const createThreshold = (core: Core): Threshold => ({
  core,
  count: 0,
  period: 0,
  armedCount: 0,
  armedPeriod: 0,
  completions: 0,
  firstCompletion: 0,
  due: Number.POSITIVE_INFINITY,
})

/** Every completion raises an event with these values (0: no limit); `period` in microseconds. */
const isImmediate = (count: number, period: number): boolean => count === 1 || (count === 0 && period === 0)

/** Index of the first deadline after `due`. There may be one deadline per CQ. */
const indexAfter = (deadlines: readonly Deadline[], due: number): number => {
  let index = 0
  let end = deadlines.length
  while (index < end) {
    const middle = (index + end) >> 1
    if (deadlines[middle]!.due <= due) index = middle + 1
    else end = middle
  }
  return index
}

const insertDeadline = ({ deadlines }: Core, deadline: Deadline): void => {
  deadlines.splice(indexAfter(deadlines, deadline.due), 0, deadline)
}

/** Removes the deadline of a CQ's event, if there is one. */
export const cancelDeadline = (events: Affiliation, threshold: Threshold): void => {
  const { core, due } = threshold
  if (due === Number.POSITIVE_INFINITY) return
  threshold.due = Number.POSITIVE_INFINITY
  const { deadlines } = core
  let index = indexAfter(deadlines, due) - 1
  while (deadlines[index]?.due === due && deadlines[index]?.events !== events) index--
  if (deadlines[index]?.due === due) deadlines.splice(index, 1)
}

/** Arms a CQ that was not armed: sets the values for its next event, and restarts counting. */
export const rearmThreshold = (events: Affiliation, threshold: Threshold, count: number, period: number): void => {
  threshold.armedCount = count
  threshold.armedPeriod = period
  threshold.completions = 0
  cancelDeadline(events, threshold)
}

/** Returns whether the event is due now. If not, sets the deadline of an event with a period. */
const checkDue = (events: Affiliation, threshold: Threshold): boolean => {
  const { core, armedCount, armedPeriod, completions, firstCompletion } = threshold
  if (isImmediate(armedCount, armedPeriod) || (armedCount > 0 && completions >= armedCount)) return true
  if (armedPeriod > 0 && firstCompletion + armedPeriod < threshold.due) {
    cancelDeadline(events, threshold)
    threshold.due = firstCompletion + armedPeriod
    insertDeadline(core, { due: threshold.due, events })
  }
  return false
}

/** Counts `count` completions of an armed CQ; true if the event is due now. */
export const countCompletion = (events: Affiliation, threshold: Threshold, count: number): boolean => {
  if (isImmediate(threshold.armedCount, threshold.armedPeriod)) return true
  threshold.completions += count
  if (threshold.completions === count) threshold.firstCompletion = threshold.core.now()
  return checkDue(events, threshold)
}

/** The smaller of two limits; 0 means unlimited. */
const smallerLimit = (a: number, b: number): number => {
  if (a === 0) return b
  return b === 0 ? a : Math.min(a, b)
}

/** Applies new values to an armed CQ where they make its event earlier. True if the event is due now. */
export const tightenThreshold = (events: Affiliation, threshold: Threshold, count: number, period: number): boolean => {
  const { armedCount, armedPeriod } = threshold
  if (isImmediate(armedCount, armedPeriod)) return false
  const isNowImmediate = isImmediate(count, period)
  threshold.armedCount = isNowImmediate ? 1 : smallerLimit(armedCount, count)
  threshold.armedPeriod = isNowImmediate ? 0 : smallerLimit(armedPeriod, period)
  return threshold.completions > 0 && checkDue(events, threshold)
}

/** When to call `expire`, in microseconds of core's clock; Infinity: never. */
export const nextDue = ({ deadlines }: Core): number => deadlines[0]?.due ?? Number.POSITIVE_INFINITY

/** Calls `notify` for the CQs whose event is due at `now`; true if there were any. */
export const expireDue = ({ deadlines }: Core, now: number, notify: (events: Affiliation) => void): boolean => {
  let isAnyDue = false
  while (deadlines.length > 0 && deadlines[0]!.due <= now) {
    const { events } = deadlines.shift() as Deadline
    // The count may have raised the event before.
    if (events.armed === Armed.NO) continue
    isAnyDue = true
    notify(events)
  }
  return isAnyDue
}
