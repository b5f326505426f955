/*
 * System calls in a separate process (native/mover.c) that another program can delay: copies to and from its memory,
 * queries of its mappings, duplicates of its descriptors. Such a call blocks the mover, and us only for a limited time.
 *
 * Measured, 4 KiB: 3 µs while the mover is still awake from the previous copy, 17 to 20 if it sleeps, against 1.3 for a
 * copy by this process.
 */
import { closeSync } from 'node:fs'
import { ECHILD, EFAULT, ETIMEDOUT } from '../errno.ts'
import { nativeLibraryPath } from '../library.ts'
import { libraryFunctions, type NativeFunction } from '../native.ts'
import type { Arena } from './mapping.ts'
import { type MoveArguments, requirePieces } from './pieces.ts'

/** Calls with a descriptor of the mover's: see native/mover.c for `value` and the buffer. */
export const MoverCall = { OPEN: 0, IOCTL: 1, READ: 2, GETFD: 3, SEALS: 4, STAT: 5, COPY: 6, CLOSE: 7 } as const

/** `length` bytes of an arena. */
export interface Room {
  readonly arena: Arena
  readonly at: number
  readonly length: number
}

export interface Mover {
  /**
   * Arguments and result as for `readv` and `writev` of process.ts; `pid` -1 for the file behind the mover's descriptor
   * `fd`. -ETIMEDOUT: not within `patience` microseconds.
   */
  move(write: boolean, pid: number, fd: number, ...what: [...MoveArguments, patience: number]): number
  /** Makes a call (`MoverCall`); its result or -errno, including those of `move`. */
  call(what: number, fd: number, value: number, room: Room | undefined, patience: number): number
  /**
   * Receives a message from socket `fd`: its length, or -errno (-EMSGSIZE: it does not fit). `passed` gets the number
   * of its descriptors, then the descriptors, which belong to the mover.
   */
  receive(fd: number, body: Room, passed: Room, patience: number): number
  /** A duplicate of a descriptor of the mover, or -errno. */
  take(fd: number): number
  /** Changes when its process ends, and with it all its descriptors but those that are kept. */
  readonly incarnation: number
  /** Microseconds for which calls have waited since the previous query; without those that took too long. */
  waited(): number
  /** Ends the mover's process; `stuck`: ending it may have to wait for a file. */
  close(stuck?: boolean): void
}

export interface MoverOptions {
  /** Our descriptors that each of its processes inherits, with the same numbers; at most two. */
  readonly kept?: readonly number[]
  /** The user whose programs may delay it. */
  readonly user?: number
}

const TWO_32 = 2 ** 32

const prototypes = {
  userdma_mover_start: 'int64_t userdma_mover_start(int first, int second, int64_t user)',
  userdma_mover_end: 'void userdma_mover_end(int64_t mover, int late)',
  userdma_mover_waited: 'uint64_t userdma_mover_waited(int64_t mover)',
  userdma_mover_take: 'int64_t userdma_mover_take(int64_t mover, int fd)',
  userdma_mover_move:
    'int64_t userdma_mover_move(int64_t mover, int write, int pid, int fd, uint64_t remote, int64_t local, uint64_t chunk, uint64_t stride, uint64_t total, uint64_t patience)',
  userdma_mover_call:
    'int64_t userdma_mover_call(int64_t mover, int what, int fd, int64_t value, int64_t buffer, uint64_t length, uint64_t patience)',
  userdma_mover_receive:
    'int64_t userdma_mover_receive(int64_t mover, int fd, int64_t buffer, uint64_t length, int64_t passed, int most, uint64_t patience)',
}

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

/**
 * Closes a descriptor in a separate process, where that may have to wait for another program's address space, or for
 * descriptors in messages that were not received.
 */
export const closeElsewhere = (fd: number): void => {
  const calls = native()
  const closer = calls ? calls.userdma_mover_start(fd, -1, -1) : 0
  closeSync(fd)
  if (closer > 0) calls?.userdma_mover_end(closer, 0)
}

/**
 * A mover. Its process is created with the first call, and again after one that took too long. It is not created while
 * eight movers of `user` wait that not even SIGKILL ends: then calls fail with -ETIMEDOUT immediately. Undefined where
 * the native library is absent.
 */
export const createMover = ({ kept = [], user = -1 }: MoverOptions = {}): Mover | undefined => {
  const calls = native()
  if (!calls) return undefined
  let mover = 0
  let incarnation = 0
  const end = (late: boolean): void => {
    if (mover === 0) return
    calls.userdma_mover_end(mover, late ? 1 : 0)
    mover = 0
    incarnation++
  }
  /** The mover's process, or -errno. */
  const running = (): number => {
    if (mover > 0) return mover
    const started = calls.userdma_mover_start(kept[0] ?? -1, kept[1] ?? -1, user)
    if (started < 0) return started
    mover = started
    return mover
  }
  /** Kills a process that did not answer. */
  const answered = (answer: number): number => {
    if (answer === -ETIMEDOUT || answer === -ECHILD) end(answer === -ETIMEDOUT)
    return answer
  }
  return {
    move(write, pid, fd, high, low, local, offset, chunk, stride, total, patience) {
      if (total === 0) return 0
      requirePieces(local, offset, chunk, stride, total)
      const at = high * TWO_32 + low
      if (!(at < Number.MAX_SAFE_INTEGER)) return -EFAULT
      const from = local.address + offset
      for (let attempts = 2; ; attempts--) {
        const process = running()
        if (process < 0) return process
        const moved = answered(
          calls.userdma_mover_move(process, write ? 1 : 0, pid, fd, at, from, chunk, stride, total, patience),
        )
        // The process was killed by someone else.
        if (moved !== -ECHILD || attempts === 0) return moved
      }
    },
    call(what, fd, value, room, patience) {
      const process = running()
      if (process < 0) return process
      const [address, length] = room ? [room.arena.address + room.at, room.length] : [0, 0]
      return answered(calls.userdma_mover_call(process, what, fd, value, address, length, patience))
    },
    receive(fd, body, passed, patience) {
      const process = running()
      if (process < 0) return process
      const [buffer, numbers] = [body.arena.address + body.at, passed.arena.address + passed.at]
      const maxNumbers = (passed.length >> 2) - 1
      return answered(calls.userdma_mover_receive(process, fd, buffer, body.length, numbers, maxNumbers, patience))
    },
    take: fd => (mover === 0 ? -ECHILD : calls.userdma_mover_take(mover, fd)),
    get incarnation() {
      return incarnation
    },
    waited: () => (mover === 0 ? 0 : calls.userdma_mover_waited(mover)),
    close: (stuck = false) => end(stuck),
  }
}
