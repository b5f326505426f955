/*
 * The daemon's one loop over all queues: who looks at them, when, and when it may sleep (design.md sections 6 and 7).
 *
 * While there is something to do the loop polls its devices, and programs ring no doorbells. When there is nothing it
 * lingers for a moment, giving up the processor between looks, since the programs that would produce work need it (if
 * somebody else keeps the processor then, it is faster to be woken: for a while it does not linger). Then it parks: it
 * says so in the parked page, looks at all queues once more, and only if that finds nothing goes back to the event
 * loop, where a doorbell, a call or a timer wakes it. A busy loop lets the event loop run in between, so that calls are
 * answered.
 */

import { Where } from '../drivers/rxe/posts.ts'
import { nowMicroseconds } from '../host/clock.ts'
import { setWord } from '../host/fence.ts'
import { createTimer } from '../host/timer.ts'
import { yieldProcessor } from '../host/yield.ts'
import { ParkedPage } from '../spec/session.ts'

/** What the loop drives. Times in microseconds of host/clock.ts. */
export interface Pollable {
  /** Does what can be done now; true if that was anything. `where`: which queues to look at for new requests. */
  poll(now: number, where: Where): boolean
  /** When `poll` must be called next even if nothing happens; Infinity for never. */
  nextTimeout(): number
}

export interface Loop {
  /** A doorbell rang or packets came: there is work. Does nothing when called from within the loop. */
  kick(): void
  /** A call may have changed something: look at just that, and wake up only if it gave work. */
  touch(): void
  stop(): void
}

/** Longest time without the event loop, and how long to look for more work before parking. Microseconds. */
const SLICE = 500
const LINGER = 20
/** Who gets the processor for longer than this is no partner of ours: for so long it is not given up. Microseconds. */
const LOST = 500
const WITHOUT_LINGER = 20_000

/** `turn` is told each time the loop begins to look: what was found out about a process before may be true no more. */
export const createLoop = (parked: Int32Array, devices: readonly Pollable[], turn: () => void = () => {}): Loop => {
  let running = false
  let stopped = false
  let immediate: NodeJS.Immediate | undefined
  const timer = createTimer(() => {
    timerDue = Infinity
    kick()
  })
  let timerDue = Infinity
  let lingerFrom = Number.NEGATIVE_INFINITY

  const pollAll = (where: Where): boolean => {
    const now = nowMicroseconds()
    let progress = false
    for (const device of devices) progress = device.poll(now, where) || progress
    return progress
  }

  /**
   * Polls until there has been nothing to do for a moment; false if the slice is over before that. `recent`: there was
   * something just before.
   */
  const drain = (first: Where, recent: boolean): boolean => {
    const start = nowMicroseconds()
    let last = recent ? start : Number.NEGATIVE_INFINITY
    for (let where = first; ; where = Where.USED) {
      const progress = pollAll(where)
      const now = nowMicroseconds()
      if (progress) last = now
      else if (now - last >= LINGER || now < lingerFrom) return true
      else {
        yieldProcessor()
        if (nowMicroseconds() - now > LOST) lingerFrom = now + WITHOUT_LINGER
      }
      if (now - start >= SLICE && progress) return false
    }
  }

  const armTimer = (): void => {
    let due = Infinity
    for (const device of devices) due = Math.min(due, device.nextTimeout())
    if (due >= timerDue) return
    timerDue = due
    timer.set(due - nowMicroseconds())
  }

  const run = (first: Where): void => {
    if (running || stopped) return
    running = true
    turn()
    setWord(parked, ParkedPage.PARKED, 0)
    for (let late = false; drain(first, late); late = true) {
      setWord(parked, ParkedPage.PARKED, 1)
      if (!pollAll(Where.ALL)) {
        armTimer()
        running = false
        return
      }
      setWord(parked, ParkedPage.PARKED, 0)
    }
    // Not parked: nobody rings, so come back by ourselves, and look at every queue then.
    immediate ??= setImmediate(() => {
      immediate = undefined
      run(Where.ALL)
    })
    running = false
  }
  const kick = (): void => run(Where.USED)

  const touch = (): void => {
    // Awake means that the next slice comes anyway, and sees what was changed.
    if (running || stopped || immediate !== undefined) return
    turn()
    if (pollAll(Where.CHANGED)) kick()
    else armTimer()
  }

  setWord(parked, ParkedPage.PARKED, 1)
  return {
    kick,
    touch,
    stop() {
      stopped = true
      timer.close()
      if (immediate) clearImmediate(immediate)
    },
  }
}
