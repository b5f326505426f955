/*
 * Readiness of file descriptors on Node's event loop: a safe wrapper of koffi.node.poll (uv_poll). Level-triggered: the
 * callback is called again until the descriptor is drained.
 *
 * Hazards, and what this file does:
 * - koffi calls back with (status, events), unlike its typings. The callback must not throw, so an exception is thrown
 *   later, as an uncaughtException of the process.
 * - A handle for a closed descriptor or a file, or a second handle for one descriptor, would abort the process: `watch`
 *   throws SystemError. It recognises neither descriptors that Node itself watches nor devices without poll(2), such as
 *   /dev/null, for which a handle aborts the process too.
 * - A garbage-collected handle stops reporting: a table keeps all handles.
 * - koffi calls back outside a callback scope. Node releases before 26 run promise reactions and `process.nextTick`
 *   callbacks at the end of the loop's turn; later ones only with the next callback of their own. `watch` sets an
 *   immediate, after which Node runs them.
 * - At the end of a worker thread Node unloads koffi, unless another thread has loaded it, and then libuv closes the
 *   thread's handles by functions of koffi: `watch` keeps koffi loaded.
 * - After the `exit` event Node runs its loop once more, and koffi aborts the process if it cannot call back (SIGABRT,
 *   "napi_throw"): at `exit` all handles are stopped.
 * - On POLLERR libuv stops the handle: it is started again and reported as readable, so that the next read returns the
 *   error.
 */
import { fstatSync, readFileSync, type Stats } from 'node:fs'
import { EBADF, EEXIST, EPERM, SystemError } from '../errno.ts'
import { type Arena, mapArena } from '../memory/mapping.ts'
import { koffi, libcFunctions } from '../native.ts'

interface Interest {
  readonly readable?: boolean
  readonly writable?: boolean
}

/**
 * Called when the descriptor is readable or writable. A descriptor with an error is readable, and the read returns the
 * error. The callback should read until EAGAIN.
 */
type ReadyCallback = (readable: boolean, writable: boolean) => void

export interface Watch {
  /** Changes the events to watch for. No effect after stop. */
  update(interest: Interest): void
  /** Ends the watch; no callback follows. Must be called before the descriptor is closed. May be called again. */
  stop(): void
  /** The watch keeps the process alive (the default). */
  ref(): void
  /** The watch does not keep the process alive. */
  unref(): void
}

interface PollHandle {
  start(options: Interest, callback: (status: number, events: Required<Interest>) => void): void
  stop(): void
  close(): void
  ref(): void
  unref(): void
}
type Poll = (
  fd: number,
  options: Interest,
  callback: (status: number, events: Required<Interest>) => void,
) => PollHandle

const watched = new Map<number, PollHandle>()

let stopsAtExit = false
/** In this thread. */
const stopAllAtExit = (): void => {
  if (stopsAtExit) return
  stopsAtExit = true
  process.on('exit', () => {
    for (const handle of watched.values()) handle.stop()
  })
}

let hasImmediate = false
const onImmediate = (): void => {
  hasImmediate = false
}
/** Makes Node run promise reactions and `process.nextTick` callbacks in this turn of the event loop. */
const runReactions = (): void => {
  if (hasImmediate) return
  hasImmediate = true
  setImmediate(onImmediate)
}

/** If watched, the watch must be stopped before the descriptor is closed. */
export const isWatched = (fd: number): boolean => watched.has(fd)

const loader = libcFunctions({ dlopen: 'int64_t dlopen(const char *path, int flags)' })
const RTLD_LAZY = 1
const RTLD_NODELETE = 0x1000
/** Whether `keepLoaded` is done. */
let isKept = false
/** Keeps koffi's library loaded until the end of the process, if /proc can be read. */
const keepLoaded = (): void => {
  if (isKept) return
  try {
    const path = /\/.*koffi\.node$/m.exec(readFileSync('/proc/self/maps', 'latin1'))?.[0]
    if (path !== undefined) loader().dlopen(path, RTLD_LAZY | RTLD_NODELETE)
    isKept = true
  } catch {
    // No /proc, or no descriptor is left: the next watch tries again.
  }
}

const withDefaults = ({ readable = false, writable = false }: Interest): Required<Interest> => ({ readable, writable })

const requirePollable = (fd: number): void => {
  if (watched.has(fd)) throw new SystemError('poll', EEXIST, `fd ${fd} is already watched`)
  let stat: Stats
  try {
    stat = fstatSync(fd)
  } catch {
    throw new SystemError('poll', EBADF, `fd ${fd} is not open`)
  }
  if (stat.isFile() || stat.isDirectory())
    throw new SystemError('poll', EPERM, `fd ${fd} is a file; files are always ready`)
}

/**
 * Watches a descriptor, for example a socket, pipe, eventfd or pidfd, and makes it non-blocking. Throws SystemError:
 * EBADF, EEXIST (already watched), EPERM (a file or folder).
 */
export const watch = (fd: number, interest: Interest, callback: ReadyCallback): Watch => {
  requirePollable(fd)
  keepLoaded()
  stopAllAtExit()
  let wanted = withDefaults(interest)
  let isStopped = false

  const onEvents = (status: number, events: Required<Interest>): void => {
    if (isStopped) return
    runReactions()
    try {
      if (status < 0) {
        handle.start(wanted, onEvents)
        callback(true, wanted.writable)
      } else {
        callback(events.readable, events.writable)
      }
    } catch (error) {
      process.nextTick(() => {
        throw error
      })
    }
  }

  const poll = koffi().node.poll as unknown as Poll
  const handle = poll(fd, wanted, onEvents)
  watched.set(fd, handle)

  return {
    update(next) {
      const { readable, writable } = wanted
      wanted = withDefaults(next)
      // A start without a change would cost two calls of epoll_ctl.
      if (isStopped || (wanted.readable === readable && wanted.writable === writable)) return
      if (wanted.readable || wanted.writable) handle.start(wanted, onEvents)
      else handle.stop()
    },
    stop() {
      if (isStopped) return
      isStopped = true
      watched.delete(fd)
      handle.close()
    },
    ref() {
      if (!isStopped) handle.ref()
    },
    unref() {
      if (!isStopped) handle.unref()
    },
  }
}

const sys = libcFunctions({
  uv_default_loop: 'int64_t uv_default_loop()',
  uv_backend_fd: 'int uv_backend_fd(int64_t loop)',
  poll: 'int poll(int64_t fds, uint64_t count, int milliseconds)',
})
const POLLIN = 1
/** struct pollfd: fd, events, revents. */
const POLLFD = 8
let backendPollfd: Arena | undefined
/** Set at the first use, so that short commands do not load node:worker_threads. */
let isMainThread: boolean | undefined

/**
 * Whether a descriptor of the event loop is ready, so that a long callback should return. Always true in a worker
 * thread, whose loop cannot be queried. About 0.5 µs.
 */
export const hasReadyEvents = (): boolean => {
  if (backendPollfd === undefined) {
    isMainThread ??= process.getBuiltinModule('node:worker_threads').isMainThread
    if (!isMainThread) return true
    backendPollfd = mapArena(POLLFD)
    // libuv's epoll descriptor is readable while any of its members is ready.
    backendPollfd.i32[0] = sys().uv_backend_fd(sys().uv_default_loop())
    backendPollfd.i32[1] = POLLIN
  }
  return sys().poll(backendPollfd.address, 1, 0) !== 0
}
