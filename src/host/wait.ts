/*
 * Waiting for a descriptor without the event loop: what a program does whose next line needs the answer (poll(2)).
 * Everything else waits with poll.ts.
 */
import { EINTR } from './errno.ts'
import { type Arena, mapArena } from './mapping.ts'
import { lastErrno, libcFunctions } from './native.ts'

const sys = libcFunctions({ poll: 'int poll(int64_t fds, uint64_t count, int milliseconds)' })

const POLLIN = 1
/** struct pollfd: fd, events, revents. */
const POLLFD = 8
let arena: Arena | undefined

/**
 * Waits until there is something to read, the end of the stream and errors included; false after `milliseconds` (0: do
 * not wait) or when a signal came. Negative numbers of the system are thrown by whatever reads next.
 */
export const waitReadable = (fd: number, milliseconds: number): boolean => {
  arena ??= mapArena(POLLFD)
  arena.i32[0] = fd
  arena.i32[1] = POLLIN
  const ready = sys().poll(arena.address, 1, milliseconds)
  return ready > 0 || (ready < 0 && lastErrno() !== EINTR)
}
