/*
 * Movers: processes that share our memory (native/mover.c), for system calls that another program can delay: copies to
 * and from its memory, queries of its mappings, duplicates of its descriptors. Such a call can block the mover for
 * ever, but this process only for a limited time.
 *
 * Measured for 4 KiB: 1.3 µs for a copy by this process, 3 µs by a mover that has not slept since its previous copy, 17
 * to 20 µs by one that has.
 */
import { closeSync } from 'node:fs'
import { ECHILD, EFAULT, ETIMEDOUT } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import { countWait, waits, waitsForUser } from '../event-loop/waits.ts'
import { TWO_32 } from '../halves.ts'
import { nativeLibraryPath } from '../library.ts'
import { libraryFunctions, type NativeFunction } from '../native.ts'
import type { Arena } from './mapping.ts'
import { memoryOf, sealsOf } from './memfd.ts'
import { type MoveArguments, requirePieces } from './pieces.ts'

/** Kinds of `Mover.call`. native/mover.c explains `value` and buffer of each. */
export const MoverCall = {
  OPEN: 0,
  IOCTL: 1,
  READ: 2,
  PIDFD_GETFD: 3,
  SEALS: 4,
  STAT: 5,
} as const

/** `length` bytes from offset `at` of an arena. */
export interface ArenaRange {
  readonly arena: Arena
  readonly at: number
  readonly length: number
}

export interface Mover {
  /**
   * Copies to (`write`) or from process `pid`. If `pid` is -1: to or from the file behind the mover's descriptor `fd`;
   * the address is the offset. Other arguments as for `readv` and `writev` of process.ts. `isFrozen`: a page may permit
   * no writes for a moment, so a write to it is tried again for `timeout` microseconds. Returns the number of bytes
   * copied, fewer if the rest is not accessible. If none are copied, returns 0 at the end of a file, -errno of
   * process_vm_readv(2) or pread(2), or
   *
   * - -EINVAL: chunks with gaps, longer than 256 KiB each;
   * - -ETIMEDOUT: one of the system calls, each for at most 256 KiB, took longer than `timeout` microseconds (more if
   *   the mover waited for a processor);
   * - -ECHILD: the mover's process was killed, also in two further attempts. There are no further attempts for an `fd`
   *   that is not inherited, because the next process does not have it.
   */
  move(
    write: boolean,
    pid: number,
    fd: number,
    ...args: [...MoveArguments, timeout: number, isFrozen?: boolean]
  ): number
  /**
   * Makes a call of kind `MoverCall` with a descriptor of the mover. A success overwrites `buffer`. Returns the result
   * or -errno; also -ETIMEDOUT, as `move`, and -ECHILD: the mover's process was killed.
   */
  call(kind: number, fd: number, value: number, buffer: ArenaRange | undefined, timeout: number): number
  /**
   * Receives a message from the mover's socket `fd` into `body`, without waiting. Returns its length, or -errno
   * (-EMSGSIZE: the message does not fit). `passed` gets the number of passed descriptors, at most as many as fit
   * there, as an i32, then the descriptors, which belong to the mover; also with -EMSGSIZE.
   */
  receive(fd: number, body: ArenaRange, passed: ArenaRange, timeout: number): number
  /** A duplicate of a mover's descriptor in this process, or -errno. */
  take(fd: number): number
  /** Increases when the mover's process ends. The next process has only the inherited descriptors. */
  readonly incarnation: number
  /** Microseconds of calls in which the mover slept, since the previous `waited`. */
  waited(): number
  /**
   * Microseconds of other calls beyond USUAL, since the previous `delayed`: the mover, or we, waited for a processor.
   */
  delayed(): number
  /**
   * Ends the mover's process; the next call starts a new one. `mayBlock`: closing its descriptors may block the process
   * at its end, so it counts towards the limit of `createMover`.
   */
  close(mayBlock?: boolean): void
}

interface MoverOptions {
  /** Our descriptors that each of the mover's processes inherits, with the same numbers. At most two. */
  readonly inheritedFds?: readonly number[]
  /** Id of the user whose programs may delay the mover; absent: no limit of hanging movers. */
  readonly user?: number
}

const prototypes = {
  userdma_mover_start: 'int64_t userdma_mover_start(int first, int second, int64_t user)',
  userdma_closers_ending: 'int userdma_closers_ending(int64_t user)',
  userdma_mover_end: 'void userdma_mover_end(int64_t mover, int is_abandoned)',
  userdma_mover_waited: 'uint64_t userdma_mover_waited(int64_t mover)',
  userdma_mover_take: 'int64_t userdma_mover_take(int64_t mover, int fd)',
  userdma_mover_move:
    'int64_t userdma_mover_move(int64_t mover, int write, int pid, int fd, uint64_t remote, int64_t local, uint64_t chunk, uint64_t stride, uint64_t total, uint64_t timeout_us, int is_frozen)',
  userdma_mover_call:
    'int64_t userdma_mover_call(int64_t mover, int operation, int fd, int64_t value, int64_t buffer, uint64_t length, uint64_t timeout_us)',
  userdma_mover_receive:
    'int64_t userdma_mover_receive(int64_t mover, int fd, int64_t buffer, uint64_t length, int64_t passed, int max_fds, uint64_t timeout_us)',
}

/** Microseconds that a call takes at most while there is a processor for the mover, and another one for us. */
const USUAL = 100

/** For `userdma_mover_start`: no descriptor, no user whose movers are limited, and a closer. */
const [NO_FD, NO_USER, ALL_FDS] = [-1, -1, -2]

let loaded: Record<keyof typeof prototypes, NativeFunction> | undefined | null
const native = () => {
  if (loaded === undefined) {
    const path = nativeLibraryPath()
    try {
      loaded = path === undefined ? null : libraryFunctions(path, prototypes)
    } catch {
      loaded = null
    }
  }
  return loaded
}

declare const passed: unique symbol
/**
 * A descriptor of a file that a program has chosen or may have filled. Only `closeElsewhere` closes it: `close` of
 * src/host/net/sockets.ts takes an `OwnFd`, which it is not.
 */
export type PassedFd = number & { readonly [passed]: true }
export type OwnFd = number & { readonly [passed]?: never }

const OWN_USER = process.geteuid?.()
/** The last close of a memory file with so many bytes takes 0.3 ms, and starts no process for the own user. */
const SMALL_FILE = 2 ** 22
/** Microseconds between the starts of two closers of a user. */
const SHORT_CLOSE = 1000
/** Microseconds after which a user's closer that has not ended is one that may hang: another one is started. */
const LONG_CLOSE = 1_000_000
/** Closers of a user that may hang. Further descriptors wait for the end of one. */
const MAX_CLOSERS = 8
/** Descriptors of a user that wait. If more are closed, a closer takes them in any case. */
const MAX_WAITING = 64
/** Milliseconds between looks whether a closer has ended; each interval is twice the previous one. */
const LOOK_INTERVAL = { first: 1, longest: 128 }

interface Closing {
  /** Descriptors that wait. */
  readonly fds: number[]
  isLooking: boolean
  /** When the user's last closer was started. */
  begin: number
}

/** By user. */
const closings = new Map<number, Closing>()

const closeNow = (fd: number): void => {
  try {
    closeSync(fd)
  } catch {
    // A file system may answer an error; the descriptor is closed.
  }
}

/** Closes the descriptors of a user that wait, if a closer may be started. */
const closeWaiting = (user: number, closing: Closing, calls: NonNullable<ReturnType<typeof native>>): void => {
  const now = nowMicroseconds()
  const ending = calls.userdma_closers_ending(user)
  const age = now - closing.begin
  const mayStart = ending === 0 ? age >= SHORT_CLOSE : ending < MAX_CLOSERS && age > LONG_CLOSE
  const isFull = closing.fds.length > MAX_WAITING
  if (!mayStart && !isFull) return
  const closer = calls.userdma_mover_start(ALL_FDS, NO_FD, user)
  if (closer < 0 && !isFull) return
  closing.begin = now
  for (const fd of closing.fds.splice(0)) closeNow(fd)
  if (closer > 0) calls.userdma_mover_end(closer, 0)
}

/**
 * Whether this process may close a descriptor itself. The own user, which could stop it anyway, passes what it likes.
 */
const isQuick = (fd: number, user: number): boolean => {
  const isOwn = user === OWN_USER
  if (sealsOf(fd) < 0) return isOwn
  return (isOwn || user === NO_USER) && memoryOf(fd).heldBytes <= SMALL_FILE
}

/**
 * Closes a descriptor whose last close may take long: of a file that a program can fill (a second for 6 GB), of one
 * that has to wait for another program's address space, of a socket with messages that may have such descriptors. No
 * mapping of the file may be left: the end of the last one would free the file here. `user`: whose programs have it;
 * absent: the own user's, or unknown. A negative `fd` is none.
 *
 * A separate process, a closer, makes the last close. While it has not ended, the user's next descriptors wait, up to
 * MAX_WAITING, and stay open here; then one closer takes them all. A closer that takes LONG_CLOSE may hang: another one
 * is started beside it, but a user has at most MAX_CLOSERS, and then one more for MAX_WAITING descriptors. Until they
 * have ended, the files are not freed. If no process can be started, this process closes what is more than MAX_WAITING.
 */
export const closeElsewhere = (fd: number, user: number = NO_USER): void => {
  if (fd < 0) return
  const calls = native()
  if (!calls || isQuick(fd, user)) {
    closeNow(fd)
    return
  }
  const closing = closings.get(user) ?? { fds: [], isLooking: false, begin: 0 }
  closings.set(user, closing)
  closing.fds.push(fd)
  closeWaiting(user, closing, calls)
  const lookAfter = (delay: number): void => {
    closing.isLooking = closing.fds.length > 0
    if (!closing.isLooking) return
    const look = (): void => {
      closeWaiting(user, closing, calls)
      lookAfter(Math.min(2 * delay, LOOK_INTERVAL.longest))
    }
    setTimeout(look, delay).unref()
  }
  if (!closing.isLooking) lookAfter(LOOK_INTERVAL.first)
}

/**
 * Undefined if the native library is absent. The mover's process is created at the first call, and again at the next
 * call after `close`, -ETIMEDOUT or -ECHILD. If eight earlier movers of `user` hang in the kernel and ignore SIGKILL,
 * no process is created, and calls fail with -ETIMEDOUT immediately.
 */
export const createMover = ({ inheritedFds = [], user = NO_USER }: MoverOptions = {}): Mover | undefined => {
  const calls = native()
  if (!calls) return undefined
  let mover = 0
  let incarnation = 0
  const end = (mayBlock: boolean): void => {
    if (mover === 0) return
    calls.userdma_mover_end(mover, mayBlock ? 1 : 0)
    mover = 0
    incarnation++
  }
  /** The native handle of the mover, or -errno. Starts its process if necessary. */
  const runningMover = (): number => {
    if (mover > 0) return mover
    const started = calls.userdma_mover_start(inheritedFds[0] ?? NO_FD, inheritedFds[1] ?? NO_FD, user)
    if (started < 0) return started
    mover = started
    return mover
  }
  const ofUser = user === NO_USER ? undefined : waitsForUser(user)
  /** For `waited` and `delayed`. */
  let slept = 0
  let delay = 0
  /**
   * Counts the wait for `answer`, and returns it. Ends a process that did not answer in time or was killed. `begin`:
   * when the call began.
   */
  const ended = (answer: number, begin: number): number => {
    const elapsed = nowMicroseconds() - begin
    const asleep = answer === -ETIMEDOUT ? elapsed : Math.min(elapsed, calls.userdma_mover_waited(mover))
    countWait(waits.movers, elapsed - asleep)
    if (elapsed - asleep > USUAL) delay += elapsed - asleep - USUAL
    if (ofUser !== undefined) countWait(ofUser.movers, elapsed - asleep)
    if (asleep > 0) {
      slept += asleep
      countWait(waits.memory, asleep)
      if (ofUser !== undefined) countWait(ofUser.memory, asleep)
    }
    if (answer === -ETIMEDOUT || answer === -ECHILD) end(answer === -ETIMEDOUT)
    return answer
  }
  return {
    move(write, pid, fd, high, low, local, offset, chunk, stride, total, timeout, isFrozen = false) {
      if (total === 0) return 0
      requirePieces(local, offset, chunk, stride, total)
      const remote = high * TWO_32 + low
      if (!(remote < Number.MAX_SAFE_INTEGER)) return -EFAULT
      const localAddress = local.address + offset
      const isInherited = fd < 0 || inheritedFds.includes(fd)
      for (let attemptsLeft = isInherited ? 2 : 0; ; attemptsLeft--) {
        const handle = runningMover()
        if (handle < 0) return handle
        const begin = nowMicroseconds()
        const [isWrite, tries] = [write ? 1 : 0, isFrozen ? 1 : 0]
        const moved = ended(
          calls.userdma_mover_move(
            handle,
            isWrite,
            pid,
            fd,
            remote,
            localAddress,
            chunk,
            stride,
            total,
            timeout,
            tries,
          ),
          begin,
        )
        if (moved !== -ECHILD || attemptsLeft === 0) return moved
      }
    },
    call(kind, fd, value, buffer, timeout) {
      const handle = runningMover()
      if (handle < 0) return handle
      const [address, length] = buffer ? [buffer.arena.address + buffer.at, buffer.length] : [0, 0]
      const begin = nowMicroseconds()
      return ended(calls.userdma_mover_call(handle, kind, fd, value, address, length, timeout), begin)
    },
    receive(fd, body, passed, timeout) {
      const handle = runningMover()
      if (handle < 0) return handle
      const [buffer, passedFds] = [body.arena.address + body.at, passed.arena.address + passed.at]
      // The first i32 is the number of descriptors.
      const maxFds = (passed.length >> 2) - 1
      const begin = nowMicroseconds()
      return ended(calls.userdma_mover_receive(handle, fd, buffer, body.length, passedFds, maxFds, timeout), begin)
    },
    take: fd => (mover === 0 ? -ECHILD : calls.userdma_mover_take(mover, fd)),
    get incarnation() {
      return incarnation
    },
    waited() {
      const before = slept
      slept = 0
      return before
    },
    delayed() {
      const before = delay
      delay = 0
      return before
    },
    close: (mayBlock = false) => end(mayBlock),
  }
}
