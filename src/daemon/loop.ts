/*
 * The daemon's one loop over all queues: who looks at them, when, and when it may sleep
 * (docs/decisions/doorbell-and-loop.md).
 *
 * While there is something to do the loop polls its devices, and programs ring no doorbells. When there is nothing it
 * lingers for a moment, giving up the processor between looks, since the programs that would produce work need it (if
 * somebody else keeps the processor then, it is faster to be woken: for a while it does not linger). Then it parks: it
 * says so in the parked page, looks at all queues once more, and only if that finds nothing goes back to the event
 * loop, where a doorbell, a call or a timer wakes it. A busy loop lets the event loop run in between, so that calls are
 * answered.
 *
 * A device that throws is told to `failed`, once the others have had their turn; the loop goes on with them.
 */

import { Where } from '../drivers/rxe/rings/posts.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { createTimer } from '../host/event-loop/timer.ts'
import { yieldOnce } from '../host/event-loop/yield.ts'
import { setWord } from '../host/memory/fence.ts'
import { ParkedPage } from '../spec/session.ts'

/** What the loop drives. Times in microseconds of host/event-loop/clock.ts. */
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
  /**
   * A device has work that no program has posted (messages of the connection manager): it is done, without a look at
   * the queues, for which programs ring.
   */
  advance(): void
  /** Work is in progress: the event loop is to be given back soon. */
  readonly awake: boolean
  stop(): void
}

/** Longest time without the event loop, and how long to look for more work before parking. Microseconds. */
const SLICE = 500
const LINGER = 20
/** Turns of what no program has posted, before all else has its turn too. */
const MOST_TURNS = 8

const rethrow = (_device: Pollable, error: unknown): void => {
  throw error
}

/**
 * `devices` may grow and shrink. `turn` is told each time the loop begins to look: what was found out about a process
 * before may be true no more. `failed` is told of a device that has thrown, and may take it out.
 */
export const createLoop = (
  parked: Int32Array,
  devices: readonly Pollable[],
  turn: () => void = () => {},
  failed: (device: Pollable, error: unknown) => void = rethrow,
): Loop => {
  let running = false
  let stopped = false
  let immediate: NodeJS.Immediate | undefined
  const timer = createTimer(() => {
    timerDue = Infinity
    kick()
  })
  let timerDue = Infinity

  /** Devices that threw in this look, which is not over: undefined if none did. */
  let thrown: Map<Pollable, unknown> | undefined
  const note = (device: Pollable, error: unknown): void => {
    thrown ??= new Map()
    thrown.set(device, error)
  }
  const tellThrown = (): void => {
    const told = thrown
    thrown = undefined
    for (const [device, error] of told ?? []) failed(device, error)
  }

  const pollAll = (where: Where): boolean => {
    const now = nowMicroseconds()
    let progress = false
    for (let i = 0; i < devices.length; i++)
      try {
        progress = devices[i]!.poll(now, where) || progress
      } catch (error) {
        note(devices[i]!, error)
      }
    if (thrown !== undefined) tellThrown()
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
      else if (now - last >= LINGER || !yieldOnce(now)) return true
      if (now - start >= SLICE && progress) return false
    }
  }

  const armTimer = (): void => {
    let due = Infinity
    for (let i = 0; i < devices.length; i++)
      try {
        due = Math.min(due, devices[i]!.nextTimeout())
      } catch (error) {
        note(devices[i]!, error)
      }
    if (thrown !== undefined) tellThrown()
    if (due >= timerDue) return
    timerDue = due
    timer.set(due - nowMicroseconds())
  }

  /** Polls until there is nothing to do, and then is parked; false if the slice is over before that. */
  const untilParked = (first: Where): boolean => {
    for (let late = false; drain(first, late); late = true) {
      setWord(parked, ParkedPage.PARKED, 1)
      if (!pollAll(Where.ALL)) {
        armTimer()
        return true
      }
      setWord(parked, ParkedPage.PARKED, 0)
    }
    return false
  }

  const run = (first: Where): void => {
    if (running || stopped) return
    running = true
    let rests = false
    try {
      turn()
      setWord(parked, ParkedPage.PARKED, 0)
      rests = untilParked(first)
    } finally {
      running = false
      // Not parked: nobody rings, so come back by ourselves, and look at every queue then.
      if (!rests)
        immediate ??= setImmediate(() => {
          immediate = undefined
          run(Where.ALL)
        })
    }
  }
  const kick = (): void => run(Where.USED)

  const touch = (): void => {
    // Awake means that the next slice comes anyway, and sees what was changed.
    if (running || stopped || immediate !== undefined) return
    turn()
    if (pollAll(Where.CHANGED)) kick()
    else armTimer()
  }

  const advance = (): void => {
    if (running || stopped || immediate !== undefined) return
    turn()
    for (let turns = 0; pollAll(Where.CHANGED); turns++)
      if (turns === MOST_TURNS) {
        kick()
        return
      }
    armTimer()
  }

  setWord(parked, ParkedPage.PARKED, 1)
  return {
    kick,
    touch,
    advance,
    get awake() {
      return running || immediate !== undefined
    },
    stop() {
      stopped = true
      timer.close()
      if (immediate) clearImmediate(immediate)
    },
  }
}
