/*
 * Thresholds of completion events (R36; uDAPL's EVD threshold): one event after n completions, or t microseconds after
 * the first of them, whichever comes first. No driver takes part: completions are counted where events are made
 * (events.ts), and who owns the core calls `expire` when `nextDue` has come, with the clock that the core was made
 * with.
 */
import type { Affiliation, Core, Deadline, Threshold } from './model.ts'

export const createThreshold = (core: Core): Threshold => ({
  core,
  count: 0,
  period: 0,
  wanted: 0,
  wait: 0,
  seen: 0,
  due: Number.POSITIVE_INFINITY,
})

/** Whether every completion makes its event at once. */
export const isImmediate = (count: number, period: number): boolean => count <= 1 && (count === 1 || period === 0)

/** The queue is armed: counting begins anew, for this time with these values. */
export const beginCount = (threshold: Threshold, count: number, period: number): void => {
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

/** One more completion of those that count; true if the event comes now. */
export const countTowards = (events: Affiliation, threshold: Threshold): boolean => {
  const { core, wanted, wait } = threshold
  threshold.seen++
  if (isImmediate(wanted, wait) || (wanted > 0 && threshold.seen >= wanted)) return true
  if (threshold.seen === 1 && wait > 0) {
    threshold.due = core.now() + wait
    schedule(core, { due: threshold.due, events })
  }
  return false
}

/** When `expire` must be called; Infinity for never. Microseconds of the core's clock. */
export const nextDue = ({ deadlines }: Core): number => deadlines[0]?.due ?? Number.POSITIVE_INFINITY

/** Calls `notify` for those whose time has come. */
export const expireDue = ({ deadlines }: Core, now: number, notify: (events: Affiliation) => void): boolean => {
  let any = false
  while (deadlines.length > 0 && deadlines[0].due <= now) {
    const { due, events } = deadlines.shift() as Deadline
    // Its event may have come by count, or it was armed anew since.
    if (events.armed === 0 || events.threshold?.due !== due) continue
    any = true
    notify(events)
  }
  return any
}
