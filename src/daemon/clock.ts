/*
 * The clock of a daemon with `--clock skip` (docs/decisions/clock-that-skips.md). The daemon has the library of the
 * clock preloaded, so that its time is that of its programs. The library makes the page of the clock beside the socket,
 * and lets the clock jump. The daemons of a net share a page, which the player of the net keeps.
 *
 * The deadlines of the daemon are its timerfds (host/event-loop/timer.ts): of devices, of the connection manager and of
 * fault rules. Timers of Node are none: they look, write, and limit waits for clients.
 */
import { rmSync, symlinkSync } from 'node:fs'
import { SystemError } from '../host/errno.ts'
import { libcFunctions, libraryFunctions } from '../host/native.ts'
import { clockPageOf } from '../spec/clock-page.ts'
import type { DaemonConfig } from '../uapi/tool.ts'

const makers = { userdma_clock_make: 'int userdma_clock_make(const char *path, int spins)' }
const library = libcFunctions({
  ...makers,
  userdma_clock_serve: 'int userdma_clock_serve(const char *path)',
  userdma_clock_keep: 'int userdma_clock_keep()',
  userdma_clock_watch: 'int userdma_clock_watch(const char *path)',
  userdma_clock_is_clean: 'int userdma_clock_is_clean()',
})

/** Throws SystemError. */
const requireDone = (call: string, result: number, path?: string): void => {
  if (result < 0) throw new SystemError(call, -result, path)
}

/**
 * Makes the page of a clock, which begins to skip when a process keeps it. `path`: of the library, if it is not
 * preloaded. Throws SystemError, or an Error without the library.
 */
export const makeClock = (page: string, { clockSpin }: Pick<DaemonConfig, 'clockSpin'>, path?: string): void => {
  const { userdma_clock_make: make } = path === undefined ? library() : libraryFunctions(path, makers)
  requireDone('userdma_clock_make', make(page, clockSpin === false ? 0 : 1), page)
}

/**
 * Of a process that takes part in a clock (`SessionEnv.clock`): from now on it lets the clock jump, but not while
 * packets wait in the links of these network namespaces. Throws SystemError, or an Error if the library is not
 * preloaded.
 */
export const keepClock = (namespaces: readonly string[] = []): void => {
  for (const path of namespaces) requireDone('userdma_clock_watch', library().userdma_clock_watch(path), path)
  requireDone('userdma_clock_keep', library().userdma_clock_keep())
}

const serveClock = (page: string): void => requireDone('userdma_clock_serve', library().userdma_clock_serve(page), page)

/**
 * Makes a clock, of which this daemon is the keeper. Throws SystemError, or an Error if the library is not preloaded.
 */
export const openClock = (page: string, config: Pick<DaemonConfig, 'clockSpin'>): void => {
  makeClock(page, config)
  serveClock(page)
  keepClock()
}

/** Whether a page can be that of a further daemon: no program is left in it, and none has changed what it covers. */
export const isClockClean = (): boolean => library().userdma_clock_is_clean() !== 0

/** Removes the page of a daemon that was killed, too. */
export const endClock = (socket: string): void => rmSync(clockPageOf(socket), { force: true })

/** `shared`: the page of a net's clock. Throws SystemError, or an Error if the library is not preloaded. */
export const startClock = (socket: string, config: DaemonConfig, shared?: string): void => {
  endClock(socket)
  if (config.clock !== 'skip') return
  const page = clockPageOf(socket)
  if (shared === undefined) {
    openClock(page, config)
    return
  }
  symlinkSync(shared, page)
  serveClock(page)
}
