/*
 * The present owner of a process.
 *
 * The kernel compares owners when a process accesses another one's memory (ptrace(2), "Ptrace access mode checking"). A
 * daemon with CAP_SYS_PTRACE passes this check for every process, also for a set-uid program that its client has become
 * by exec, or a program that is not dumpable. So such a daemon compares owners itself. /proc/PID/ns belongs to the
 * process's effective user and group, or to root if the process is not dumpable. An open descriptor of /proc/PID/ns
 * keeps referring to the process.
 */
import { closeSync, openSync } from 'node:fs'
import { ENOENT, ESRCH, SystemError } from './errno.ts'
import { type Arena, mapArena } from './memory/mapping.ts'
import { libcFunctions } from './native.ts'
import { hasCapability } from './process-status.ts'

const sys = libcFunctions({ statx: 'int statx(int fd, int64_t path, int flags, uint32_t mask, int64_t into)' })

const CAP_SYS_PTRACE = 19
const AT_EMPTY_PATH = 0x1000
const STATX_UID_GID = 0x18
/** Offsets in struct statx, and its size. An empty path follows the struct in the arena. */
const Statx = { UID: 20, GID: 24, BYTES: 256 } as const

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(Statx.BYTES + 1)
  return arena
}

export interface Owner {
  readonly uid: number
  readonly gid: number
  /** Descriptor of /proc/PID/ns. */
  readonly fd: number
}

let hasPtraceCapability: boolean | undefined

/** Whether owners must be checked, because the kernel allows accesses that a client with this uid may not make. */
export const needsOwner = (uid: number): boolean => {
  hasPtraceCapability ??= hasCapability(process.pid, CAP_SYS_PTRACE)
  return hasPtraceCapability && uid !== 0
}

/**
 * Opens /proc/PID/ns for `isOwned`. Returns SystemError: ESRCH if the process has ended, EMFILE and others of open(2).
 */
export const openOwner = (pid: number, uid: number, gid: number): Owner | SystemError => {
  const path = `/proc/${pid}/ns`
  try {
    return { uid, gid, fd: openSync(path, 'r') }
  } catch (error) {
    // node:fs always sets `errno`, to a negative number.
    const errno = -((error as NodeJS.ErrnoException).errno as number)
    return new SystemError('open', errno === ENOENT ? ESRCH : errno, path)
  }
}

/** Whether the process belongs to uid and gid and is dumpable; false if it has ended. Takes 0.4 µs. */
export const isOwned = ({ uid, gid, fd }: Owner): boolean => {
  const { address, u32 } = workArena()
  if (sys().statx(fd, address + Statx.BYTES, AT_EMPTY_PATH, STATX_UID_GID, address) < 0) return false
  return u32[Statx.UID >> 2] === uid && u32[Statx.GID >> 2] === gid
}

export const closeOwner = ({ fd }: Owner): void => closeSync(fd)
