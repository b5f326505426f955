/*
 * A timer of microseconds on Node's event loop: a timerfd. Node's own timers count milliseconds and fire up to one
 * millisecond late. That is too coarse for delays of a network and for RNR timers, which begin at 10 µs.
 */

import { type Arena, mapArena } from '../memory/mapping.ts'
import { check, libcFunctions } from '../native.ts'
import { watch } from './poll.ts'

const sys = libcFunctions({
  timerfd_create: 'int timerfd_create(int clock, int flags)',
  timerfd_settime: 'int timerfd_settime(int fd, int flags, int64_t value, int64_t old)',
  read: 'int64_t read(int fd, int64_t buffer, int64_t count)',
  close: 'int close(int fd)',
})

const CLOCK_MONOTONIC = 1
/** By it a daemon's timer is one that looks (shim/clock/keeper.c). */
const CLOCK_BOOTTIME = 7
/** TFD_NONBLOCK | TFD_CLOEXEC. */
const FLAGS = 0o2004000
/** Offset of it_value in the struct itimerspec at 0: seconds and nanoseconds, u64 each. it_interval stays 0. */
const VALUE = 16
/** Offset of the u64 that read(2) returns. */
const EXPIRATIONS = 32
const ARENA_BYTES = 40
/** Maximum wait, microseconds: some 30 years. */
const MAX_WAIT = 1e15

export interface Timer {
  /** Calls back once after this many microseconds, at least one. Replaces an earlier setting. */
  set(microseconds: number): void
  close(): void
}

let scratch: Arena | undefined

/**
 * Creates a timer that calls `expired`. `looks`: a clock that skips passes it when a few looks were made and nothing
 * has happened since. Keeps the process alive while set. Throws SystemError if no descriptor is free.
 */
export const createTimer = (expired: () => void, { looks = false }: { readonly looks?: boolean } = {}): Timer => {
  scratch ??= mapArena(ARENA_BYTES)
  const { address, view } = scratch
  const { timerfd_create, timerfd_settime, read, close } = sys()
  const fd = check('timerfd_create', timerfd_create(looks ? CLOCK_BOOTTIME : CLOCK_MONOTONIC, FLAGS))
  const watcher = watch(fd, { readable: true }, () => {
    // Nothing to read: the timer was set again after it had expired.
    if (read(fd, address + EXPIRATIONS, 8) !== 8) return
    watcher.unref()
    expired()
  })
  watcher.unref()
  let isClosed = false
  return {
    set(microseconds) {
      if (isClosed) return
      const wait = Math.min(Math.max(Math.ceil(microseconds), 1), MAX_WAIT)
      const seconds = Math.floor(wait / 1e6)
      view.setUint32(VALUE, seconds, true)
      view.setUint32(VALUE + 8, (wait - seconds * 1e6) * 1000, true)
      timerfd_settime(fd, 0, address, 0)
      watcher.ref()
    },
    close() {
      if (isClosed) return
      isClosed = true
      watcher.stop()
      close(fd)
    },
  }
}

/** Fulfilled after at least so many milliseconds. Unlike a timer of Node, a deadline for a clock that skips. */
export const waitOnTimer = (milliseconds: number): Promise<void> =>
  new Promise(resolve => {
    const timer = createTimer(() => {
      timer.close()
      resolve()
    })
    timer.set(milliseconds * 1000)
  })

export interface LaterLook {
  /** Runs something once after so many milliseconds; replaces what was to run. */
  after(milliseconds: number, run: () => void): void
  close(): void
}

/** By a timer that looks. */
export const createLaterLook = (): LaterLook => {
  let next = (): void => {}
  const timer = createTimer(() => next(), { looks: true })
  return {
    after(milliseconds, run) {
      next = run
      timer.set(milliseconds * 1000)
    },
    close: timer.close,
  }
}
