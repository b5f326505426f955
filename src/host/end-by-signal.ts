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
 * If a signal ends Node.js, pipes that it has used stay non-blocking. A program that shares our standard error would
 * then get EAGAIN.
 */
const makeBlocking = (fd: number): void => {
  const flags = sys().fcntl(fd, F_GETFL, 0)
  if (flags >= 0 && (flags & constants.O_NONBLOCK) !== 0) sys().fcntl(fd, F_SETFL, flags & ~constants.O_NONBLOCK)
}

/**
 * Sends the signal to this process, without a core dump. Returns if the signal does not end the process: the signal is
 * blocked or does nothing by default, or this is the first process of a PID namespace. Also returns if the system does
 * not allow a process to disable its core dumps.
 */
export const endBySignal = (signal: NodeJS.Signals): void => {
  for (const fd of [0, 1, 2]) makeBlocking(fd)
  if (sys().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) !== 0) return
  // Removing the last handler restores the default action, also of signals that Node.js ignores or uses itself.
  if (signal !== 'SIGKILL') process.on(signal, () => {}).removeAllListeners(signal)
  process.kill(process.pid, signal)
}
