/*
 * Synchronous wait for a descriptor (poll(2)), for code that cannot return to the event loop first.
 */

import { EINTR } from '../errno.ts'
import { type Arena, mapArena } from '../memory/mapping.ts'
import { lastErrno, libcFunctions } from '../native.ts'
import { nowMicroseconds } from './clock.ts'

const sys = libcFunctions({ poll: 'int poll(int64_t fds, uint64_t count, int milliseconds)' })

const POLLIN = 1
const POLLOUT = 4
/** struct pollfd: fd, events, revents. */
const POLLFD = 8
let arena: Arena | undefined

/**
 * True if `fd` is readable, at its end, or has an error, which the next read returns. False after `milliseconds` (0: no
 * wait). Signals do not end the wait.
 */
export const waitReadable = (fd: number, milliseconds: number): boolean => {
  arena ??= mapArena(POLLFD)
  const deadline = nowMicroseconds() + milliseconds * 1000
  for (let remaining = milliseconds; ; remaining = Math.max(0, Math.ceil((deadline - nowMicroseconds()) / 1000))) {
    arena.i32[0] = fd
    arena.i32[1] = POLLIN
    const ready = sys().poll(arena.address, 1, remaining)
    if (ready >= 0) return ready > 0
    if (lastErrno() !== EINTR) return true
  }
}

/** Whether `fd` is writable now, or has an error, which the next write returns. */
export const isWritable = (fd: number): boolean => {
  arena ??= mapArena(POLLFD)
  arena.i32[0] = fd
  arena.i32[1] = POLLOUT
  return sys().poll(arena.address, 1, 0) !== 0
}

/** Waits until `fd` is writable, or has an error, which the next write returns. */
export const waitWritable = (fd: number): void => {
  arena ??= mapArena(POLLFD)
  arena.i32[0] = fd
  arena.i32[1] = POLLOUT
  while (sys().poll(arena.address, 1, -1) < 0 && lastErrno() === EINTR);
}
