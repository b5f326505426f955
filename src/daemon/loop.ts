/*
 * The daemon's loop, which polls all queues (docs/decisions/doorbell-and-loop.md).
 *
 * While there is work, the loop polls, and programs ring no doorbells. After each SLICE the loop returns to the event
 * loop, so that calls are answered.
 *
 * When work ends, the loop continues to poll for LINGER, and yields the processor to programs between polls. Then the
 * loop parks: it sets the parked word, so that programs ring doorbells, and polls all queues once more. If this poll
 * finds no work, the loop returns to the event loop, until a doorbell, packets, a call or a timer wakes the loop. With
 * very many queues, the last poll is done in slices.
 *
 * Programs that ring by stores alone have doorbell pages (doorbell-pages.ts), which are armed before that last poll. If
 * some cannot be, the loop dozes: it stays awake until there was no work for BUSY, and then parks with a timer. While
 * other programs compete for the processor, it naps between polls: the thread that has rung may need this processor.
 */

import { ScanScope } from '../core/driver-contract.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { createTimer } from '../host/event-loop/timer.ts'
import { nap, yieldOnce } from '../host/event-loop/yield.ts'
import { setWord } from '../host/memory/fence.ts'
import { ParkedPage } from '../spec/session.ts'

/** A device or another source of work. Times are microseconds of host/event-loop/clock.ts. */
export interface Pollable {
  /** Does the work that is possible now; true if there was any. `scope`: which queues to poll for new requests. */
  poll(now: number, scope: ScanScope): boolean
  /** Whether a poll of all queues is unfinished; `ScanScope.CONTINUE` continues it. Absent: never. */
  isUnfinished?(): boolean
  /** When `poll` must be called next, even without an event; Infinity: never. */
  nextTimeout(): number
}

/** Doorbells that programs ring by a store, without a call. A found store must call `kick` with ScanScope.BEGIN. */
export interface StoredDoorbells {
  /** Before the last poll: later stores call `kick`. False if some would not, now or ever: the loop dozes. */
  arm(): boolean
  /** Protects doorbells that were mapped since `arm`. False if others are not protected, or if it is impossible now. */
  protectNew(): boolean
  /** Finds stores while the loop is awake, since it returns to the event loop late. `now`: see `poll`. */
  find(now: number): void
}

/** Calls that clients make without waking the daemon (session/polled-slots.ts). `now`: see `poll`. */
interface AwakeCalls {
  /** Handles waiting calls; true if there were any. */
  poll(now: number): boolean
  /** Before the last poll: later calls wake the daemon. True if there were calls. */
  park(): boolean
}

/** Microseconds after which a loop that still finds work returns to the event loop. */
const SLICE = 500
/** Microseconds for which slices of a busy loop are one turn: checks of processes are repeated in each turn. */
const TURN = 1000
/** Microseconds without work before the loop parks. */
const LINGER = 20
/** Microseconds without work after which the queues are idle. */
const BUSY = 10_000
/** A loop that dozes polls after a tenth of the time since its last work, at most after this many microseconds. */
const LONGEST_DOZE = 10_000
/** Polls with work in a row after which `advance` starts the loop. */
const MAX_ADVANCES = 8

const rethrow = (_device: Pollable, error: unknown): void => {
  throw error
}

/**
 * `kick`, `touch` and `advance` have no effect while the loop is awake. Within a poll of the parked loop, `touch` and
 * `advance` have all devices polled again after it.
 *
 * `parked`: the parked page, which programs read. `devices` may change while the loop runs. `onTurn` is called each
 * time the loop begins to poll, and every TURN while it is busy. `onFailure` is called for a device that threw, after
 * all others were polled; it may remove the device.
 */
export class Loop {
  readonly #parked: Int32Array
  readonly #devices: Pollable[]
  readonly #onTurn: () => void
  readonly #onFailure: (device: Pollable, error: unknown) => void
  readonly #doorbells: StoredDoorbells | undefined
  readonly #calls: AwakeCalls | undefined
  #isRunning = false
  /** When the loop last called `onTurn` in `#run`. */
  #turnAt = Number.NEGATIVE_INFINITY
  /** When a poll last had work. */
  #lastWork = Number.NEGATIVE_INFINITY
  /** Whether devices are polled by `#pollParked`. */
  #isPolling = false
  /** Whether `touch` or `advance` was called during `#pollParked`. */
  #pollsAgain = false
  #isStopped = false
  /** Whether stores to all doorbells that were known when the loop parked would wake it. */
  #isArmed = false
  /** The queues of the next poll of the awake loop. */
  #nextScope: ScanScope = ScanScope.USED
  /** The next slice of the busy loop; undefined while the loop is parked or runs. */
  #nextSlice: NodeJS.Immediate | undefined
  /** The next slice of the last poll before sleep. */
  #nextCheck: NodeJS.Immediate | undefined
  readonly #timer = createTimer(() => {
    this.#timerDue = Infinity
    this.kick()
  })
  #timerDue = Infinity
  /** Devices that threw in the current `#pollAll` or `#armTimer`, with their errors; undefined if none did. */
  #thrown: Map<Pollable, unknown> | undefined

  constructor(
    parked: Int32Array,
    devices: Pollable[],
    onTurn: () => void = () => {},
    onFailure: (device: Pollable, error: unknown) => void = rethrow,
    doorbells?: StoredDoorbells,
    calls?: AwakeCalls,
  ) {
    this.#parked = parked
    this.#devices = devices
    this.#onTurn = onTurn
    this.#onFailure = onFailure
    this.#doorbells = doorbells
    this.#calls = calls
    setWord(parked, ParkedPage.PARKED, 1)
  }

  /** Polls `device` too. */
  add(device: Pollable): void {
    this.#devices.push(device)
  }

  remove(device: Pollable): void {
    const at = this.#devices.indexOf(device)
    if (at >= 0) this.#devices.splice(at, 1)
  }

  /** Call after a doorbell or packets: the loop runs. `scope`: USED or BEGIN, the queues that it polls next. */
  kick(scope: ScanScope = ScanScope.USED): void {
    if (scope === ScanScope.BEGIN) this.#nextScope = scope
    if (this.#nextSlice === undefined) this.#run(scope)
  }

  /**
   * Call before a program learns where it has mapped doorbells. A parked loop protects them, without a poll of all
   * queues: there are no stores yet. False: `kick` after the answer.
   */
  protect(): boolean {
    return this.isAwake || this.#isStopped || (this.#isArmed && this.#doorbells?.protectNew() === true)
  }

  /** A parked loop runs in at most so many microseconds. */
  runWithin(microseconds: number): void {
    if (!this.#isStopped && !this.isAwake) this.#armTimer(nowMicroseconds() + microseconds)
  }

  /** Call after a call that may have changed queues. Polls only changed queues; if they have work, the loop runs. */
  touch(): void {
    if (this.#isStopped || this.isAwake || this.#deferWithinPoll()) return
    this.#onTurn()
    if (this.#pollParked(ScanScope.CHANGED)) this.kick()
    else this.#armTimer()
  }

  /** Does work that is in no program's queue, such as messages of the connection manager. Polls only changed queues. */
  advance(): void {
    if (this.#isStopped || this.isAwake || this.#deferWithinPoll()) return
    this.#onTurn()
    for (let polls = 1; this.#pollParked(ScanScope.CHANGED); polls++)
      if (polls === MAX_ADVANCES) {
        this.kick()
        return
      }
    this.#armTimer()
  }

  /** Within a poll of the parked loop: returns true, and the devices are polled again after it. */
  #deferWithinPoll(): boolean {
    if (this.#isPolling) this.#pollsAgain = true
    return this.#isPolling
  }

  /** Whether the loop runs, or continues soon. Then code on the event loop should return soon. */
  get isAwake(): boolean {
    return this.#isRunning || this.#nextSlice !== undefined
  }

  /** Whether there is work, or was any within the last BUSY. */
  get isBusy(): boolean {
    return this.isAwake || this.#hadWorkLately
  }

  get #hadWorkLately(): boolean {
    return nowMicroseconds() - this.#lastWork < BUSY
  }

  stop(): void {
    this.#isStopped = true
    this.#timer.close()
    if (this.#nextSlice) clearImmediate(this.#nextSlice)
    if (this.#nextCheck) clearImmediate(this.#nextCheck)
  }

  #noteThrown(device: Pollable, error: unknown): void {
    this.#thrown ??= new Map()
    this.#thrown.set(device, error)
  }

  #reportThrown(): void {
    const reported = this.#thrown
    this.#thrown = undefined
    for (const [device, error] of reported ?? []) this.#onFailure(device, error)
  }

  /** Polls all devices; true if any had work. */
  #pollAll(scope: ScanScope): boolean {
    const now = nowMicroseconds()
    let hadWork = false
    for (let i = 0; i < this.#devices.length; i++)
      try {
        hadWork = this.#devices[i]!.poll(now, scope) || hadWork
      } catch (error) {
        this.#noteThrown(this.#devices[i]!, error)
      }
    if (this.#thrown !== undefined) this.#reportThrown()
    if (hadWork) this.#lastWork = now
    return hadWork
  }

  /**
   * `#pollAll` while the loop is parked; also true if the devices must be polled again. A device may call `advance` in
   * its poll, for example to answer a message. A poll within its poll would overwrite the packets that it reads.
   */
  #pollParked(scope: ScanScope): boolean {
    this.#isPolling = true
    this.#pollsAgain = false
    try {
      return this.#pollAll(scope) || this.#pollsAgain
    } finally {
      this.#isPolling = false
    }
  }

  /**
   * Polls until there was no work for LINGER. One poll without work suffices if `yieldOnce` advises against waiting, or
   * if there was no work before. False if there is still work at `sliceEnd`. `firstScope`: the queues of the first
   * poll. `lastWork`: the time of the last work; −Infinity: there was none.
   */
  #drain(firstScope: ScanScope, lastWork: number, sliceEnd: number): boolean {
    for (let scope = firstScope; ; scope = this.#nextScope) {
      this.#nextScope = ScanScope.USED
      const hadQueueWork = this.#pollAll(scope)
      const now = nowMicroseconds()
      this.#doorbells?.find(now)
      // A client that calls without pause must not keep us from the event loop, either.
      const hadWork = this.#takeCalls(now) || hadQueueWork
      if (hadWork) lastWork = now
      else if (this.#nextScope === ScanScope.USED && (now - lastWork >= LINGER || !yieldOnce(now))) return true
      if (now >= sliceEnd && hadWork) return false
    }
  }

  /** Handles waiting calls, and polls the queues that they have changed; true if there were any. */
  #takeCalls(now: number): boolean {
    if (this.#calls?.poll(now) !== true) return false
    this.#pollAll(ScanScope.CHANGED)
    return true
  }

  /** `due`: when the next poll is due at the latest. */
  #armTimer(due = Infinity): void {
    for (let i = 0; i < this.#devices.length; i++)
      try {
        due = Math.min(due, this.#devices[i]!.nextTimeout())
      } catch (error) {
        this.#noteThrown(this.#devices[i]!, error)
      }
    if (this.#thrown !== undefined) this.#reportThrown()
    // A timer that fires too early only causes a poll.
    if (due >= this.#timerDue) return
    this.#timerDue = due
    this.#timer.set(due - nowMicroseconds())
  }

  #endOfDoze(): number {
    const now = nowMicroseconds()
    return now + Math.min(LONGEST_DOZE, (now - this.#lastWork) / 10)
  }

  #onParked(due?: number): void {
    this.#armTimer(due)
    // Continue the last poll in slices: requests may have been posted before the parked word was set.
    if (this.#devices.some(device => device.isUnfinished?.()))
      this.#nextCheck ??= setImmediate(() => this.#continueCheck())
  }

  #continueCheck(): void {
    this.#nextCheck = undefined
    // An awake loop polls all queues when it parks.
    if (this.#isStopped || this.isAwake) return
    // First the programs, which may need the processor for their next posts.
    yieldOnce(nowMicroseconds())
    this.#onTurn()
    if (this.#pollParked(ScanScope.CONTINUE)) this.kick()
    else this.#onParked()
  }

  /** Polls until the loop is parked; false if there is still work after SLICE. */
  #untilParked(firstScope: ScanScope): boolean {
    let lastWork = Number.NEGATIVE_INFINITY
    const sliceEnd = nowMicroseconds() + SLICE
    while (this.#drain(firstScope, lastWork, sliceEnd)) {
      const dozes = this.#doorbells?.arm() === false
      if (dozes && this.#hadWorkLately) {
        if (!yieldOnce(nowMicroseconds())) nap()
        return false
      }
      this.#isArmed = !dozes
      setWord(this.#parked, ParkedPage.PARKED, 1)
      if (this.#calls?.park() !== true && !this.#pollAll(ScanScope.BEGIN)) {
        this.#onParked(dozes ? this.#endOfDoze() : undefined)
        return true
      }
      setWord(this.#parked, ParkedPage.PARKED, 0)
      lastWork = nowMicroseconds()
      if (lastWork >= sliceEnd) return false
    }
    return false
  }

  /** `isNextSlice`: the loop is busy since the slice before. */
  #run(firstScope: ScanScope, isNextSlice = false): void {
    if (this.#isRunning || this.#isStopped) return
    this.#isRunning = true
    let isParked = false
    try {
      const now = nowMicroseconds()
      if (!isNextSlice || now - this.#turnAt >= TURN) {
        this.#turnAt = now
        this.#onTurn()
      }
      setWord(this.#parked, ParkedPage.PARKED, 0)
      isParked = this.#untilParked(firstScope)
    } finally {
      this.#isRunning = false
      // While the parked word is 0, no doorbell wakes the loop.
      if (!isParked)
        this.#nextSlice = setImmediate(() => {
          this.#nextSlice = undefined
          // Not only USED: a loop that is never idle must find posts to all queues.
          this.#run(ScanScope.BEGIN, true)
        })
    }
  }
}
