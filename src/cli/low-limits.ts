/*
 * Limits of a process (getrlimit(2)) that may end a daemon or a program of Node.js when they are lower: measured are
 * 0.9 GiB of address space, 0.13 GiB of data, 128 KiB of stack, and 24 threads for the command and the daemon.
 */

/** In the units of getrlimit(2): bytes, processes, files, seconds. */
export const LowLimits = {
  addressSpace: 4 * 2 ** 30,
  data: 2 ** 30,
  stack: 2 ** 20,
  fileSize: 2 ** 30,
  processes: 200,
  openFiles: 200,
  cpuTime: 60,
} as const
