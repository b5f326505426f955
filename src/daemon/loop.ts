/*
 * The loop that polls all queues: when they are polled, and when the daemon may sleep
 * (docs/decisions/doorbell-and-loop.md).
 *
 * While there is work the loop polls its devices, and programs ring no doorbells. Without work it first lingers: it
 * polls on for LINGER, and yields the processor between polls to the programs that produce work. (If another process
 * keeps the processor then, sleeping is better, and lingering is suspended for a while.) Then the loop parks: it sets
 * the parked word, so that programs ring doorbells, and polls all queues once more. If that finds no work, the loop
 * returns to the event loop, where a doorbell, a call or a timer wakes it. With very many queues that last poll is done
 * in slices, with the event loop running in between. A busy loop also returns to the event loop after each slice, so
 * that calls are answered.
 *
 * A device that throws is reported to `onFailure` after the others were polled; the loop continues with the others.
 */

import { ScanScope } from '../drivers/rxe/rings/posts.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { createTimer } from '../host/event-loop/timer.ts'
import { yieldOnce } from '../host/event-loop/yield.ts'
import { setWord } from '../host/memory/fence.ts'
import { ParkedPage } from '../spec/session.ts'

/** A device, or another source of work, that the loop polls. Times are microseconds of host/event-loop/clock.ts. */
export interface Pollable {
  /** Does work that is possible now; true if there was any. `scope`: which queues to poll for new requests. */
  poll(now: number, scope: ScanScope): boolean
  /** Whether a poll of all queues is unfinished, so that `ScanScope.CONTINUE` continues it; absent: never. */
  isUnfinished?(): boolean
  /** The time at which `poll` must be called next, even without an event; Infinity for never. */
  nextTimeout(): number
}

/** `kick`, `touch` and `advance` have no effect while the loop is awake: it is polling, or polls soon. */
export interface Loop {
  /** A doorbell rang or packets arrived: polls. */
  kick(): void
  /** A call may have changed queues: polls only the changed queues; if these had work, the loop runs. */
  touch(): void
  /**
   * A device has work that no program posted (messages of the connection manager): does that work, and polls only the
   * changed queues.
   */
  advance(): void
  /** Whether the loop is not parked: code on the event loop should return soon. */
  readonly isAwake: boolean
  stop(): void
}

/** Microseconds after which a loop that still finds work returns to the event loop. */
const SLICE = 500
/** Microseconds without work before the loop parks. */
const LINGER = 20
/** Polls with work in a row after which `advance` starts the loop. */
const MAX_ADVANCES = 8

const rethrow = (_device: Pollable, error: unknown): void => {
  throw error
}

/**
 * `parked`: the parked page, which programs read. `devices` may change while the loop runs. `onTurn` is called at the
 * start of each turn of the loop: cached facts about processes expire then. `onFailure` is called for a device that
 * threw, and may remove it.
 */
export const createLoop = (
  parked: Int32Array,
  devices: readonly Pollable[],
  onTurn: () => void = () => {},
  onFailure: (device: Pollable, error: unknown) => void = rethrow,
): Loop => {
  let isRunning = false
  let isStopped = false
  /** The next slice of the busy loop; undefined while the loop is parked or runs. */
  let nextSlice: NodeJS.Immediate | undefined
  /** The next slice of a poll of all queues. */
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
    for (const [device, error] of reported ?? []) onFailure(device, error)
  }

  /** Polls all devices; true if any had work. */
  const pollAll = (scope: ScanScope): boolean => {
    const now = nowMicroseconds()
    let hadWork = false
    for (let i = 0; i < devices.length; i++)
      try {
        hadWork = devices[i]!.poll(now, scope) || hadWork
      } catch (error) {
        noteThrown(devices[i]!, error)
      }
    if (thrown !== undefined) reportThrown()
    return hadWork
  }

  /**
   * Polls until there was no work for LINGER, or until the first poll without work while lingering is suspended; false if
   * there is still work at `sliceEnd`. `firstScope`: the queues of the first poll. `lastWork`: the time at which there was
   * work last.
   */
  const drain = (firstScope: ScanScope, lastWork: number, sliceEnd: number): boolean => {
    for (let scope = firstScope; ; scope = ScanScope.USED) {
      const hadWork = pollAll(scope)
      const now = nowMicroseconds()
      if (hadWork) lastWork = now
      else if (now - lastWork >= LINGER || !yieldOnce(now)) return true
      if (now >= sliceEnd && hadWork) return false
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
   * The loop is parked: continues the poll of all queues in slices, for requests that were posted before the parked
   * word was set.
   */
  const onParked = (): void => {
    armTimer()
    if (devices.some(device => device.isUnfinished?.())) nextCheck ??= setImmediate(continueCheck)
  }
  const continueCheck = (): void => {
    nextCheck = undefined
    // The loop is not parked any more; it starts a new poll of all queues when it parks.
    if (isRunning || isStopped || nextSlice !== undefined) return
    // Programs that poll may need the processor, and their next posts are more urgent.
    yieldOnce(nowMicroseconds())
    onTurn()
    if (pollAll(ScanScope.CONTINUE)) kick()
    else onParked()
  }

  /** Polls until there is no work and the loop is parked; false if there is still work after SLICE. */
  const untilParked = (firstScope: ScanScope): boolean => {
    let lastWork = Number.NEGATIVE_INFINITY
    const sliceEnd = nowMicroseconds() + SLICE
    while (drain(firstScope, lastWork, sliceEnd)) {
      setWord(parked, ParkedPage.PARKED, 1)
      if (!pollAll(ScanScope.BEGIN)) {
        onParked()
        return true
      }
      setWord(parked, ParkedPage.PARKED, 0)
      lastWork = nowMicroseconds()
      if (lastWork >= sliceEnd) return false
    }
    return false
  }

  const run = (firstScope: ScanScope): void => {
    if (isRunning || isStopped) return
    isRunning = true
    let isParked = false
    try {
      onTurn()
      setWord(parked, ParkedPage.PARKED, 0)
      isParked = untilParked(firstScope)
    } finally {
      isRunning = false
      // Without parking no doorbells ring, so the loop continues soon, with a poll of all queues.
      if (!isParked)
        nextSlice = setImmediate(() => {
          nextSlice = undefined
          run(ScanScope.BEGIN)
        })
    }
  }
  const kick = (): void => {
    if (nextSlice === undefined) run(ScanScope.USED)
  }

  const touch = (): void => {
    // The loop is not parked: its next slice sees the change.
    if (isRunning || isStopped || nextSlice !== undefined) return
    onTurn()
    if (pollAll(ScanScope.CHANGED)) kick()
    else armTimer()
  }

  const advance = (): void => {
    if (isRunning || isStopped || nextSlice !== undefined) return
    onTurn()
    for (let polls = 1; pollAll(ScanScope.CHANGED); polls++)
      if (polls === MAX_ADVANCES) {
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
    get isAwake() {
      return isRunning || nextSlice !== undefined
    },
    stop() {
      isStopped = true
      timer.close()
      if (nextSlice) clearImmediate(nextSlice)
      if (nextCheck) clearImmediate(nextCheck)
    },
  }
}
