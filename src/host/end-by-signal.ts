/*
 * Ends this process by a signal, so that the parent sees the signal.
 */
import { constants } from 'node:fs'
import { libcFunctions } from './native.ts'

const sys = libcFunctions({
  fcntl: 'int fcntl(int fd, int command, int64_t argument)',
  prctl: 'int prctl(int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d)',
})

const F_GETFL = 3
const F_SETFL = 4
const PR_SET_DUMPABLE = 4

/**
 * Pipes that Node.js has used stay non-blocking until its end. A program that shares our standard error would get
 * EAGAIN.
 */
const makeBlocking = (fd: number): void => {
  const flags = sys().fcntl(fd, F_GETFL, 0)
  if (flags >= 0 && (flags & constants.O_NONBLOCK) !== 0) sys().fcntl(fd, F_SETFL, flags & ~constants.O_NONBLOCK)
}

/**
 * Sends the signal to this process, without a core dump. Returns if the signal does not end it: it is blocked, or this
 * is the first process of a PID namespace.
 */
export const endBySignal = (signal: NodeJS.Signals): void => {
  for (const fd of [0, 1, 2]) makeBlocking(fd)
  if (sys().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) !== 0) return
  // Removing the last handler restores the default action, also of signals that Node.js ignores or uses itself.
  if (signal !== 'SIGKILL') {
    const ignore = (): void => {}
    process.on(signal, ignore).off(signal, ignore)
  }
  process.kill(process.pid, signal)
}
