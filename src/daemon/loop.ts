/*
 * The loop that polls all queues: when they are polled, and when the daemon may sleep
 * (docs/decisions/doorbell-and-loop.md).
 *
 * While there is work the loop polls its devices, and programs ring no doorbells. Without work it first lingers,
 * yielding the processor between polls to the programs that produce work. (If another process keeps the processor then,
 * sleeping is better: lingering is suspended for a while.) Then it parks: it sets the parked word, so that programs
 * ring doorbells, polls all queues once more, and if that finds nothing returns to the event loop, where a doorbell, a
 * call or a timer wakes it. With very many queues that last poll is done in slices, with the event loop running in
 * between. A busy loop also returns to the event loop after each slice, so that calls are answered.
 *
 * A device that throws is reported to `failed` after the others were polled; the loop continues with them.
 */

import { Where } from '../drivers/rxe/rings/posts.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { createTimer } from '../host/event-loop/timer.ts'
import { yieldOnce } from '../host/event-loop/yield.ts'
import { setWord } from '../host/memory/fence.ts'
import { ParkedPage } from '../spec/session.ts'

/** A device that the loop polls. Times are microseconds of host/event-loop/clock.ts. */
export interface Pollable {
  /** Does all work that is possible now; true if there was any. `where`: the queues to poll for new requests. */
  poll(now: number, where: Where): boolean
  /** Whether a check of all queues is unfinished, and `Where.CONTINUE` continues it; undefined: never. */
  isUnfinished?(): boolean
  /** When `poll` must be called next without an event; Infinity for never. */
  nextTimeout(): number
}

export interface Loop {
  /** A doorbell rang or packets arrived: polls. No effect when called from within the loop. */
  kick(): void
  /** A call may have changed something: polls the changed queues only, and continues only if that was work. */
  touch(): void
  /**
   * A device has work that no program posted (messages of the connection manager): does that work without polling the
   * queues, for which programs ring doorbells.
   */
  advance(): void
  /** The loop has work: code on the event loop should return soon. */
  readonly awake: boolean
  stop(): void
}

/** Microseconds: maximum time between returns to the event loop, and time of lingering before parking. */
const SLICE = 500
const LINGER = 20
/** Maximum polls by `advance` in a row. */
const MAX_ADVANCES = 8

const rethrow = (_device: Pollable, error: unknown): void => {
  throw error
}

/**
 * `devices` may change. `turn` is called at the start of each turn of the loop: cached facts about processes expire
 * then. `failed` is called for a device that threw, and may remove it.
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
  let nextCheck: NodeJS.Immediate | undefined
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
   * Polls until there was no work for LINGER; false if SLICE ended before that. `recent`: there was work just before.
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

  /**
   * The loop is parked: continues the check of all queues in slices, for requests that were posted before the parked
   * word was set.
   */
  const onParked = (): void => {
    armTimer()
    if (devices.some(device => device.isUnfinished?.())) nextCheck ??= setImmediate(continueCheck)
  }
  const continueCheck = (): void => {
    nextCheck = undefined
    // The loop is not parked; it starts a new check when it parks.
    if (running || stopped || immediate !== undefined) return
    // Programs that poll may need the processor, and their next posts are more urgent.
    yieldOnce(nowMicroseconds())
    turn()
    if (pollAll(Where.CONTINUE)) kick()
    else onParked()
  }

  /** Polls until there is no work and the loop is parked; false if SLICE ended before that. */
  const untilParked = (first: Where): boolean => {
    for (let late = false; drain(first, late); late = true) {
      setWord(parked, ParkedPage.PARKED, 1)
      if (!pollAll(Where.BEGIN)) {
        onParked()
        return true
      }
      setWord(parked, ParkedPage.PARKED, 0)
    }
    return false
  }

  const run = (first: Where): void => {
    if (running || stopped) return
    running = true
    let isParked = false
    try {
      turn()
      setWord(parked, ParkedPage.PARKED, 0)
      isParked = untilParked(first)
    } finally {
      running = false
      // Not parked, so no doorbells ring: continues soon, with a poll of every queue.
      if (!isParked)
        immediate ??= setImmediate(() => {
          immediate = undefined
          run(Where.BEGIN)
        })
    }
  }
  const kick = (): void => run(Where.USED)

  const touch = (): void => {
    // Not parked: the next slice follows in any case and sees the change.
    if (running || stopped || immediate !== undefined) return
    turn()
    if (pollAll(Where.CHANGED)) kick()
    else armTimer()
  }

  const advance = (): void => {
    if (running || stopped || immediate !== undefined) return
    turn()
    for (let turns = 0; pollAll(Where.CHANGED); turns++)
      if (turns === MAX_ADVANCES) {
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
      if (nextCheck) clearImmediate(nextCheck)
    },
  }
}
