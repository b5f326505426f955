/*
 * The clock of a network in virtual time (docs/decisions/virtual-time.md). Time stands still while the program runs. It
 * passes when everything waits: in a turn of Node's event loop in which all promise reactions have run, nothing is left
 * for this turn, and the operating system works on nothing for the program. Then the earliest timer fires, and the time
 * is when it was due. So a run depends only on the program and the seed.
 *
 * The clock knows what the program waits for (`watch`), and rejects these waits if nothing can end them.
 */
import { type Clock, MAX_TIMER_DELAY, type Timer } from '../../../host/event-loop/clock.ts'
import { onNextTurn } from '../../../host/event-loop/next-turn.ts'
import { durationText } from '../../../spec/duration.ts'
import type { ErrnoName } from '../../../spec/errno.ts'
import { refused, warn } from '../../verbs/error.ts'
import { captureStack, type LazyStack } from '../../verbs/watch/stacks.ts'
import { startOwnTimer, watchExternal } from './external.ts'
import { type VirtualTimer, VirtualTimers } from './timers.ts'

/** What happens when time should pass while the program has real timers or sockets. */
type ExternalRule = 'refuse' | 'wait'

/** Time 0 of every network in virtual time, for captures and recordings: 2000-01-01, in milliseconds since 1970. */
const ORIGIN = 946_684_800_000
/** Microseconds that a poll takes that finds nothing: a program that polls without end lets time pass, too. */
const POLL_TIME = 1
/** Polls in one turn of the event loop, without a timer of a device, after which no completion can follow. */
const MAX_POLLS = 2 ** 22
/**
 * Real milliseconds without anything to do after which the program is stuck: Node does not list work in its thread
 * pool. With handles that are not the network's, a test runner may start the next test from there.
 */
const GRACE = 100
const LONG_GRACE = 1000
/**
 * Microseconds of virtual time that pass at least before a program is stuck for which only the library works (pings of
 * idle messages, RNR retries), and the multiple of the library's longest timer.
 */
const HORIZON = 600e6
const HORIZON_TIMERS = 10
/** Turns in which the clock looks again at once whether requests to the operating system have ended. */
const LOOKS = 64
/** Looks, one per millisecond, after which a warning says what time waits for. */
const LOOKS_UNTIL_WARNING = 1000
/**
 * Failed waits and sleeps of no time after which a program is a loop that tries again without a pause, if the virtual
 * time that has passed is less than 10 µs for each.
 */
const MAX_TRIES = 50_000
const TRY_TIME = 10
/** Waits that an error names. */
const MAX_NAMED = 16

/** Counts what happens in all virtual clocks: a program may pass messages from one network to another. */
let progress = 0

interface Watched {
  readonly call: string
  readonly stack: LazyStack
  reject(error: unknown): void
}

export interface VirtualClock extends Clock {
  readonly isVirtual: true
  /** Time does not pass until `release` is called as often: the library imports files. */
  hold(): void
  release(): void
  /** The program is a test, which the clock watches, and nothing but the network continues it. */
  isAlone: boolean
  /** Called with what `refuse` or a stuck program rejects waits with. */
  onProblem: ((error: Error) => void) | undefined
  /** Rejects everything that the program waits for. */
  fail(code: ErrnoName, reason: string): void
  /** Timers and handles of the program, in words, with which time would not pass; none with `external: 'wait'`. */
  outside(): readonly string[]
  /** Ends all: no timer fires any more. */
  stop(): void
}

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: they decide together when time passes
export const createVirtualClock = (rule: ExternalRule): VirtualClock => {
  let now = 0
  const timers = new VirtualTimers()
  const watched = new Set<Watched>()
  let turns: (() => void)[] = []
  let isScheduled = false
  let isStopped = false
  let holds = 0
  /** When the program was last active, and the horizon, microseconds. */
  let lastActivity = 0
  let horizon = HORIZON
  let stopGrace: (() => void) | undefined
  let isGraceOver = false
  /** `progress` when the grace began. */
  let progressBefore = 0
  let looks = 0
  let polls = 0
  /** Failed waits and sleeps of no time since `triesSince`, microseconds. */
  let tries = 0
  let triesSince = 0
  let hasWarned = false
  const look = watchExternal()

  const schedule = (): void => {
    if (isScheduled || isStopped) return
    isScheduled = true
    onNextTurn(onTurn)
  }
  const noteActivity = (): void => {
    progress++
    lastActivity = now
    isGraceOver = false
    stopGrace?.()
    stopGrace = undefined
    schedule()
  }

  /** Time passes only for something: a wait of the program, or a timer that keeps the process alive. */
  const isWanted = (): boolean => watched.size > 0 || timers.counts.program + timers.counts.device > 0
  const lineOf = ({ call, stack }: Watched): string => {
    // A frame such as `async Promise.all (index 0)` says nothing.
    const frame = stack().find(one => /:\d+/.test(one)) ?? stack()[0]
    return frame === undefined ? call : `${call} at ${frame}`
  }

  /** Rejects everything that the program waits for. */
  const fail = (code: ErrnoName, reason: string, hint: string): void => {
    const all = [...watched]
    const named = all.slice(0, MAX_NAMED).map(wait => `\n  ${lineOf(wait)}`)
    const more = all.length > MAX_NAMED ? `\n  and ${all.length - MAX_NAMED} more` : ''
    const text = `${reason}. At ${(now / 1000).toFixed(3)} ms of virtual time the program waits for${named.join('')}${more}${hint && `\n${hint}`}`
    const errors = all.map(wait => ({ wait, error: refused(code, wait.call, text, '') }))
    clock.onProblem?.(errors[0]?.error ?? refused(code, 'network', text, ''))
    for (const { wait, error } of errors) wait.reject(error)
  }
  const failStuck = (reason: string): void =>
    fail('EDEADLK', reason, 'a peer has to send or connect, or the wait needs a timeout')

  /** A wait of the program fails, or it sleeps for no time. */
  const countTry = (): void => {
    if (++tries < MAX_TRIES) return
    const time = now - triesSince
    tries = 0
    triesSince = now
    if (time < MAX_TRIES * TRY_TIME)
      fail(
        'EDEADLK',
        `${MAX_TRIES} waits have failed, or were for no time, within ${durationText(time)} of virtual time`,
        'a loop that tries again needs a pause: await network.sleep(1)',
      )
  }

  /** Nothing can happen by itself. True if the program is stuck, false if that is not yet certain. */
  const isStuck = (isAlone: boolean): boolean => {
    if (watched.size === 0 || stopGrace !== undefined) return false
    if (isGraceOver && progress === progressBefore) return true
    isGraceOver = false
    progressBefore = progress
    // A test alone waits for something that the clock does not know.
    const isShort = clock.isAlone ? watched.size > 1 : isAlone
    stopGrace = startOwnTimer(
      () => {
        stopGrace = undefined
        isGraceOver = true
        schedule()
      },
      isShort ? GRACE : LONG_GRACE,
    )
    return false
  }

  /** Whether time may not pass, because of what the program waits for elsewhere. */
  const waitsElsewhere = (isRequest: boolean, added: readonly string[]): boolean => {
    if (!isRequest && added.length === 0) {
      looks = 0
      return false
    }
    if (!isRequest && rule === 'refuse') {
      const what = added.join(', ')
      if (watched.size === 0 && !hasWarned)
        warn(`virtual time does not pass while the program has ${what}, which cannot repeat`)
      hasWarned = true
      fail(
        'EOPNOTSUPP',
        `the program has ${what}, which virtual time cannot repeat`,
        "use network.sleep() and network.timeout() in place of real timers, unref() what is only a guard, or set external: 'wait'",
      )
    }
    if (++looks === LOOKS_UNTIL_WARNING && !isRequest)
      warn(`virtual time waits until the program has no more ${added.join(', ')}`)
    if (looks < LOOKS) schedule()
    else startOwnTimer(schedule, 1)
    return true
  }

  const runTurns = (): void => {
    const callbacks = turns
    turns = []
    schedule()
    for (const [i, callback] of callbacks.entries())
      try {
        callback()
      } catch (error) {
        turns.unshift(...callbacks.slice(i + 1))
        throw error
      }
  }

  const onTurn = (): void => {
    isScheduled = false
    polls = 0
    if (isStopped) return
    if (turns.length > 0) {
      runTurns()
      return
    }
    if (holds > 0 || !isWanted()) return
    const { hasRequests, added, isAlone } = look()
    if (waitsElsewhere(hasRequests, added)) return
    const timer = timers.counts.passive < total() ? timers.first : undefined
    if (timer === undefined) {
      if (isStuck(isAlone))
        failStuck(
          clock.isAlone && watched.size === 1
            ? 'nothing is left to do on the network, and the test waits for something else'
            : 'no packet is in flight and no timer is set, so that nothing can end the wait',
        )
      return
    }
    if (timers.counts.program === 0 && timer.due - lastActivity > horizon) {
      // Without a wait the library's timers change nothing for the program.
      if (isStuck(isAlone)) failStuck(`for ${durationText(horizon)} of virtual time nothing has ended the wait`)
      return
    }
    progress++
    now = Math.max(now, timer.due)
    const callback = timers.take(timer)
    schedule()
    if (timer.kind === 'program') noteActivity()
    callback()
  }
  const total = (): number => {
    const { program, device, background, passive } = timers.counts
    return program + device + background + passive
  }

  const setTimer = (due: number, kind: VirtualTimer['kind'], callback: () => void): VirtualTimer => {
    const isTry = kind === 'program' && due - now < 1
    const fire = isTry
      ? (): void => {
          countTry()
          callback()
        }
      : callback
    const timer = timers.set(due, kind, fire)
    if (kind === 'program') noteActivity()
    else if (kind !== 'passive') horizon = Math.max(horizon, HORIZON_TIMERS * (due - now))
    schedule()
    return timer
  }

  const watch = <T>(call: string, wait: Promise<T>): Promise<T> => {
    // The run of a test is over: what is left of it does not go on.
    if (isStopped && clock.isAlone) return new Promise(() => {})
    const stack = captureStack()
    noteActivity()
    const result = new Promise<T>((resolve, reject) => {
      const entry: Watched = {
        call,
        stack,
        reject(error) {
          watched.delete(entry)
          reject(error)
          // Nobody may wait for it yet, as for a receive that was posted early.
          queueMicrotask(() => result.catch(() => {}))
        },
      }
      watched.add(entry)
      const settle = (): void => {
        if (watched.delete(entry)) noteActivity()
      }
      wait.then(
        value => {
          settle()
          resolve(value)
        },
        error => {
          const end = (): void => {
            settle()
            reject(error)
          }
          if (isStopped) return onNextTurn(end)
          // A call that fails at once would otherwise keep a loop from the next turn.
          countTry()
          turns.push(end)
          schedule()
        },
      )
    })
    return result
  }

  const clock: VirtualClock = {
    isVirtual: true,
    origin: ORIGIN,
    isAlone: false,
    onProblem: undefined,
    now: () => now,
    at: (due, kind, callback) => setTimer(Math.max(due, now), kind, callback),
    after: (milliseconds, kind, callback) =>
      setTimer(now + Math.min(Math.max(milliseconds, 0), MAX_TIMER_DELAY) * 1000, kind, callback),
    every(milliseconds, kind, callback) {
      const repeated: { timer: VirtualTimer | undefined } = { timer: undefined }
      const start = (): void => {
        repeated.timer = setTimer(now + milliseconds * 1000, kind, () => {
          start()
          callback()
        })
      }
      start()
      return repeated
    },
    clear(timer: Timer | undefined) {
      if (timer === undefined) return
      const one = 'timer' in timer ? (timer.timer as VirtualTimer) : (timer as VirtualTimer)
      timers.stop(one)
    },
    onNextTurn(callback) {
      turns.push(callback)
      schedule()
    },
    polled(call) {
      // No activity of the program: the library polls too.
      now += POLL_TIME
      if (++polls < MAX_POLLS || timers.counts.device > 0) return
      polls = 0
      throw refused(
        'EDEADLK',
        call,
        `${MAX_POLLS} polls have found nothing, and no packet is in flight`,
        'await something between polls',
      )
    },
    watch,
    inVain: () =>
      new Promise(resolve => {
        // As in `watch`.
        if (isStopped && clock.isAlone) return
        if (isStopped) return onNextTurn(resolve)
        countTry()
        turns.push(resolve)
        schedule()
      }),
    hold() {
      holds++
    },
    release() {
      holds--
      schedule()
    },
    fail: (code, reason) => fail(code, reason, ''),
    outside: () => (rule === 'refuse' ? look().added : []),
    stop() {
      isStopped = true
      stopGrace?.()
    },
  }
  return clock
}
