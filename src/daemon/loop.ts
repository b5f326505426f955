/*
 * The daemon's one loop over all queues: when they are polled, and when it may sleep
 * (docs/decisions/doorbell-and-loop.md).
 *
 * While there is work the loop polls its devices, and programs ring no doorbells. When there is none it lingers
 * briefly, yielding the processor between polls, since the programs that produce work need it (if another process keeps
 * the processor then, waking up is faster: lingering is suspended for a while). Then it parks: it sets the parked word,
 * polls all queues once more, and only if that finds nothing returns to the event loop, where a doorbell, a call or a
 * timer wakes it. Of very many queues it polls a slice at a time, and returns to the event loop in between: from the
 * parked word on programs ring doorbells. A busy loop lets the event loop run in between, so that calls are answered.
 *
 * A device that throws is reported to `failed` after the others had their turn; the loop goes on with them.
 */

import { Where } from '../drivers/rxe/rings/posts.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { createTimer } from '../host/event-loop/timer.ts'
import { yieldOnce } from '../host/event-loop/yield.ts'
import { setWord } from '../host/memory/fence.ts'
import { ParkedPage } from '../spec/session.ts'

/** A device driven by the loop. Times in microseconds of host/event-loop/clock.ts. */
export interface Pollable {
  /** Does all work that is possible now; true if there was any. `where`: which queues to poll for new requests. */
  poll(now: number, where: Where): boolean
  /** Whether a check of all queues that was begun goes on with `Where.CONTINUE`; absent: never. */
  isUnfinished?(): boolean
  /** When `poll` must be called next without an event; Infinity for never. */
  nextTimeout(): number
}

export interface Loop {
  /** A doorbell rang or packets arrived. Does nothing when called from within the loop. */
  kick(): void
  /** A call may have changed something: polls just that, and wakes only if it produced work. */
  touch(): void
  /**
   * A device has work that no program posted (messages of the connection manager): executes it without polling the
   * queues, for which programs ring doorbells.
   */
  advance(): void
  /** Work is in progress: return to the event loop soon. */
  readonly awake: boolean
  stop(): void
}

/** Maximum time without the event loop, and lingering time before parking. Microseconds. */
const SLICE = 500
const LINGER = 20
/** Rounds of work that no program posted, before other work has its turn. */
const MAX_TURNS = 8

const rethrow = (_device: Pollable, error: unknown): void => {
  throw error
}

/**
 * `devices` may grow and shrink. `turn` is called at the start of each turn of the loop: facts about processes must
 * then be checked again. `failed` is called for a device that threw, and may remove it.
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
  /** The next slice of a check of all queues. */
  let checking: NodeJS.Immediate | undefined
  const timer = createTimer(() => {
    timerDue = Infinity
    kick()
  })
  let timerDue = Infinity

  /** Devices that threw in the current round; undefined if none did. */
  let thrown: Map<Pollable, unknown> | undefined
  const noteThrown = (device: Pollable, error: unknown): void => {
    thrown ??= new Map()
    thrown.set(device, error)
  }
  const reportThrown = (): void => {
    const reported = thrown
    thrown = undefined
    for (const [device, error] of reported ?? []) failed(device, error)
  }

  const pollAll = (where: Where): boolean => {
    const now = nowMicroseconds()
    let progress = false
    for (let i = 0; i < devices.length; i++)
      try {
        progress = devices[i]!.poll(now, where) || progress
      } catch (error) {
        noteThrown(devices[i]!, error)
      }
    if (thrown !== undefined) reportThrown()
    return progress
  }

  /**
   * Polls until there has been no work for a moment; false if the slice ended before that. `recent`: there was work
   * just before.
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
        noteThrown(devices[i]!, error)
      }
    if (thrown !== undefined) reportThrown()
    if (due >= timerDue) return
    timerDue = due
    timer.set(due - nowMicroseconds())
  }

  /** The loop is parked: checks the remaining queues in slices, for posts that came before it was. */
  const rest = (): void => {
    armTimer()
    if (devices.some(device => device.isUnfinished?.())) checking ??= setImmediate(checkOn)
  }
  const checkOn = (): void => {
    checking = undefined
    // Awake: when it parks, the check begins anew.
    if (running || stopped || immediate !== undefined) return
    // Programs that poll may need the processor, and what they post is more urgent.
    yieldOnce(nowMicroseconds())
    turn()
    if (pollAll(Where.CONTINUE)) kick()
    else rest()
  }

  /** Polls until there is no work and the loop is parked; false if the slice ended before that. */
  const untilParked = (first: Where): boolean => {
    for (let late = false; drain(first, late); late = true) {
      setWord(parked, ParkedPage.PARKED, 1)
      if (!pollAll(Where.BEGIN)) {
        rest()
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
      // Not parked: no doorbells will ring, so continue by ourselves and poll every queue then.
      if (!rests)
        immediate ??= setImmediate(() => {
          immediate = undefined
          run(Where.BEGIN)
        })
    }
  }
  const kick = (): void => run(Where.USED)

  const touch = (): void => {
    // Awake: the next slice follows in any case and sees the change.
    if (running || stopped || immediate !== undefined) return
    turn()
    if (pollAll(Where.CHANGED)) kick()
    else armTimer()
  }

  const advance = (): void => {
    if (running || stopped || immediate !== undefined) return
    turn()
    for (let turns = 0; pollAll(Where.CHANGED); turns++)
      if (turns === MAX_TURNS) {
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
      if (checking) clearImmediate(checking)
    },
  }
}
