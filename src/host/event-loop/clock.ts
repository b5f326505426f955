/*
 * The clock of this process for timers and time stamps, and what a clock is: a network in virtual time has another one
 * (library/network/virtual/virtual-clock.ts).
 *
 * performance.now() is CLOCK_MONOTONIC as a double, since the start of the process. It allocates nothing and was the
 * cheapest of the measured clocks: 44 ns (clock_gettime through koffi 62).
 */
import { onNextTurn } from './next-turn.ts'

/** A copy of the global, which is a slower accessor. */
const source = performance

/** Microseconds since the process started, with fractions. Never goes back. */
export const nowMicroseconds = (): number => source.now() * 1000

/** The longest delay of setTimeout and setInterval, milliseconds. A longer delay would fire at once. */
export const MAX_TIMER_DELAY = 2 ** 31 - 1

/** A timer of a clock, for `Clock.clear`. */
export type Timer = object

/**
 * What a timer is for.
 * - 'program': a wait of the program, which it knows to end: a sleep or a timeout. Keeps the process alive.
 * - 'device': a retry, for example. Keeps the process alive.
 * - 'background': of the library, for something that the program may wait for: keep-alives, the connection manager.
 * - 'passive': changes nothing that a program waits for, such as writing to a file. Virtual time does not pass for it.
 */
export type TimerKind = 'program' | 'device' | 'background' | 'passive'

export interface Clock {
  readonly isVirtual: boolean
  /** Milliseconds since 1970 at time 0. */
  readonly origin: number
  /** Microseconds since time 0, with fractions. Never goes back. */
  now(): number
  /** Calls back once, at `due` or later; `due` is in microseconds of `now`. */
  at(due: number, kind: TimerKind, callback: () => void): Timer
  /** Calls back once after so many milliseconds, at most MAX_TIMER_DELAY. */
  after(milliseconds: number, kind: TimerKind, callback: () => void): Timer
  /** Calls back again and again. */
  every(milliseconds: number, kind: 'background' | 'passive', callback: () => void): Timer
  /** Stops a timer; does nothing for undefined and after the timer has fired. */
  clear(timer: Timer | undefined): void
  /** Calls back in the next turn of the event loop. */
  onNextTurn(callback: () => void): void
  /** `call` of the program polls, and has found nothing. */
  polled(call: string): void
  /**
   * Settles as `wait`, for which the program waits with `call`. In virtual time it also rejects when nothing can settle
   * it any more.
   */
  watch<T>(call: string, wait: Promise<T>): Promise<T>
  /**
   * The program waits for what cannot follow any more, and goes on at once. In virtual time it goes on in the next
   * turn, and a program that does nothing else is told.
   */
  inVain?(): Promise<void>
}

/** The next turn of the event loop, of a clock. */
export const nextTurnOf = ({ onNextTurn }: Clock): Promise<void> => new Promise(onNextTurn)

const startTimer = (milliseconds: number, kind: TimerKind, callback: () => void): Timer => {
  const timer = setTimeout(callback, milliseconds)
  // A browser's timer is a number.
  if (kind === 'background' || kind === 'passive') timer.unref?.()
  return timer
}

/** The clock of this process. */
export const realClock: Clock = {
  isVirtual: false,
  origin: source.timeOrigin,
  now: nowMicroseconds,
  at: (due, kind, callback) =>
    startTimer(Math.min(Math.max(Math.ceil((due - nowMicroseconds()) / 1000), 1), MAX_TIMER_DELAY), kind, callback),
  after: startTimer,
  every(milliseconds, _kind, callback) {
    const timer = setInterval(callback, milliseconds)
    timer.unref?.()
    return timer
  },
  clear: timer => clearTimeout(timer as NodeJS.Timeout | undefined),
  onNextTurn,
  polled() {},
  watch: (_call, wait) => wait,
}

/** Sleeps on a clock. Rejects with the signal's reason. */
export const sleepOn = (clock: Clock, milliseconds: number, signal: AbortSignal | undefined): Promise<void> =>
  new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clock.clear(timer)
      reject(signal?.reason)
    }
    const timer = clock.after(milliseconds, 'program', () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })

/**
 * Fulfilled after at least so many milliseconds. A timer of Node counts whole milliseconds of its clock, so it may fire
 * up to one early. `keepsRunning`: whether the wait keeps the process alive.
 */
export const waitAtLeast = async (milliseconds: number, keepsRunning: boolean): Promise<void> => {
  const end = source.now() + milliseconds
  for (let left = milliseconds; left > 0; left = end - source.now())
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, Math.ceil(left))
      if (!keepsRunning) timer.unref()
    })
}
