/*
 * Timers of a device, all in one heap (transport/engine/timers.ts): a pair's next retransmission, a request's next try,
 * and the end of a READ without data. A row of the heap is given to what sets its timer, until it expires or is
 * cleared.
 */
import { clearTimer, setTimer, takeExpired } from '../../transport/engine/timers.ts'
import type { EfaState } from './device-state.ts'
import { NO_TIMER, type Pair, type Request } from './state.ts'

/** Sets the only timer of a pair or request. Infinity: clears it. */
export const setDeadline = (efa: EfaState, owner: Pair | Request, at: number): void => {
  if (at === Number.POSITIVE_INFINITY) {
    clearDeadline(efa, owner)
    return
  }
  if (owner.timer === NO_TIMER) {
    owner.timer = efa.timerRows.pop() ?? efa.timed.length
    efa.timed[owner.timer] = owner
  }
  setTimer(efa.timers, owner.timer, at)
}

export const clearDeadline = (efa: EfaState, owner: Pair | Request): void => {
  if (owner.timer === NO_TIMER) return
  clearTimer(efa.timers, owner.timer)
  release(efa, owner.timer)
}

const release = (efa: EfaState, row: number): Pair | Request => {
  const owner = efa.timed[row]!
  efa.timed[row] = undefined
  efa.timerRows.push(row)
  owner.timer = NO_TIMER
  return owner
}

/** Takes a timer that has expired; undefined if there is none. */
export const takeDue = (efa: EfaState): Pair | Request | undefined => {
  const row = takeExpired(efa.timers, efa.now)
  return row < 0 ? undefined : release(efa, row)
}
