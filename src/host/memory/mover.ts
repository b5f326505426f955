/*
 * Copies between this process and another one's memory by a mover (native/mover.c): a page that its owner never
 * provides blocks the mover, and us only for a limited time.
 *
 * Measured, 4 KiB: 3 µs while the mover is still awake from the previous copy, 17 to 20 if it sleeps, against 1.3 for a
 * copy by this process.
 */
import { closeSync } from 'node:fs'
import { ECHILD, EFAULT, ETIMEDOUT } from '../errno.ts'
import { nativeLibraryPath } from '../library.ts'
import { libraryFunctions, type NativeFunction } from '../native.ts'
import { type MoveArguments, requirePieces } from './process.ts'

export interface Mover {
  /**
   * Arguments and result as for `readv` and `writev` of process.ts; `pid` -1 for the memory behind the mover's
   * descriptor. -ETIMEDOUT: not within `patience` microseconds.
   */
  move(write: boolean, pid: number, ...what: [...MoveArguments, patience: number]): number
  /** Microseconds for which copies have waited since the previous call; without those that took too long. */
  waited(): number
  close(): void
}

const TWO_32 = 2 ** 32

const prototypes = {
  userdma_mover_start: 'int64_t userdma_mover_start(int fd, int64_t user)',
  userdma_mover_end: 'void userdma_mover_end(int64_t mover, int late)',
  userdma_mover_waited: 'uint64_t userdma_mover_waited(int64_t mover)',
  userdma_mover_move:
    'int64_t userdma_mover_move(int64_t mover, int write, int pid, uint64_t remote, int64_t local, uint64_t chunk, uint64_t stride, uint64_t total, uint64_t patience)',
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

/** Closes a descriptor in a separate process, where that may have to wait for another program's address space. */
export const closeElsewhere = (fd: number): void => {
  const calls = native()
  const closer = calls ? calls.userdma_mover_start(fd, -1) : 0
  closeSync(fd)
  if (closer > 0) calls?.userdma_mover_end(closer, 0)
}

/**
 * A mover for any process's memory by its pid, or for the memory behind `fd`, an open /proc/PID/mem. Its process is
 * created with the first copy, and again after one that took too long. It is not created while eight movers of `user`
 * wait that not even SIGKILL ends: then copies fail with -ETIMEDOUT immediately. Undefined where the native library is
 * absent.
 */
export const createMover = (fd = -1, user = -1): Mover | undefined => {
  const calls = native()
  if (!calls) return undefined
  let mover = 0
  const end = (late: boolean): void => {
    if (mover > 0) calls.userdma_mover_end(mover, late ? 1 : 0)
    mover = 0
  }
  return {
    move(write, pid, high, low, local, offset, chunk, stride, total, patience) {
      if (total === 0) return 0
      requirePieces(local, offset, chunk, stride, total)
      const at = high * TWO_32 + low
      if (!(at < Number.MAX_SAFE_INTEGER)) return -EFAULT
      const from = local.address + offset
      for (let attempts = 2; ; attempts--) {
        if (mover === 0) {
          const started = calls.userdma_mover_start(fd, user)
          if (started < 0) return started
          mover = started
        }
        const moved = calls.userdma_mover_move(mover, write ? 1 : 0, pid, at, from, chunk, stride, total, patience)
        if (moved === -ETIMEDOUT || moved === -ECHILD) end(moved === -ETIMEDOUT)
        // It was killed from outside.
        if (moved !== -ECHILD || attempts === 0) return moved
      }
    },
    waited: () => (mover === 0 ? 0 : calls.userdma_mover_waited(mover)),
    close: () => end(false),
  }
}
