/*
 * Another process: its memory, its descriptors, and whether it is still the same process. See process_vm_readv(2),
 * pidfd_open(2), proc(5).
 *
 * Memory is copied by process_vm_readv and process_vm_writev, which obey page protection and ptrace's access rules.
 * /proc/PID/mem writes through read-only pages, and is faster only for small pieces (docs/decisions/client-memory.md).
 * A pid may be reused, or run another program after exec. So a handle has a pidfd, and an open /proc/PID/mem, which
 * refers to one address space. `isSame` checks both. Callers check once, before each batch of copies.
 *
 * Copies by pid are safe if our rights are no greater than the client's. If ours are greater (a daemon of root;
 * owner.ts), a copy by pid could reach a program that the process has become since `isSame`. Such copies use
 * /proc/PID/mem, which no exec redirects. So do copies of a process whose main thread has ended: no pid leads to the
 * memory of its other threads. On most kernels /proc/PID/mem ignores page protection: pages that are protected after
 * their registration are still accessed, as by an RDMA adapter, which has pinned them.
 *
 * Remote addresses are two 32-bit words, or a Number (`readAt`).
 */
import { closeSync, type Dir, opendirSync, openSync, readlinkSync } from 'node:fs'
import { basename } from 'node:path'
import { EBADF, EFAULT, EIO, EMFILE, ENFILE, EPERM, ESRCH, ETIMEDOUT, errnoNumber, SystemError } from '../errno.ts'
import { TWO_32 } from '../halves.ts'
import { libcFunctions, orErrno } from '../native.ts'
import { closeOwner, isOwned, type Owner, openOwner } from '../owner.ts'
import { createGuest, type FileIdentity, type Guest } from './guest.ts'
import { type Arena, mapArena } from './mapping.ts'
import { closeElsewhere, type PassedFd } from './mover.ts'
import { type LocalMemory, type MoveArguments, requirePieces } from './pieces.ts'

const sys = libcFunctions({
  process_vm_readv: 'int64_t process_vm_readv(int pid, int64_t l, uint64_t ln, int64_t r, uint64_t rn, uint64_t flags)',
  process_vm_writev:
    'int64_t process_vm_writev(int pid, int64_t l, uint64_t ln, int64_t r, uint64_t rn, uint64_t flags)',
  syscall: 'int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c)',
  poll: 'int poll(int64_t fds, uint64_t count, int timeout)',
  statx: 'int statx(int fd, const char *path, int flags, uint32_t mask, int64_t into)',
  prctl: 'int prctl(int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d)',
  pwrite: 'int64_t pwrite(int fd, int64_t bytes, uint64_t length, int64_t offset)',
  preadv: 'int64_t preadv(int fd, int64_t pieces, int count, int64_t offset)',
  pwritev: 'int64_t pwritev(int fd, int64_t pieces, int count, int64_t offset)',
})

// Equal on x86-64 and arm64.
const SYS_PIDFD_OPEN = 434
const SYS_PIDFD_GETFD = 438
const PIDFD_THREAD = 0o200
const AT_FDCWD = -100
const AT_STATX_DONT_SYNC = 0x4000
const STATX_INO_BTIME = 0x900
const IOV_MAX = 1024
const POLLIN = 1

export interface ProcessHandle {
  readonly pid: number
  /** Readable when the process has ended; may be watched. */
  readonly pidfd: number
  /** Descriptor of /proc/PID/mem. -1: the kernel refuses it, or the process does not belong to `owner`. */
  readonly mem: number
  /** The user who must own the process; then copies use `mem`. Undefined: the kernel's check suffices. */
  readonly owner: Owner | undefined
  /** Set for a process of another user, which might block us. Undefined if the native library is absent. */
  readonly guest: Guest | undefined
}

// Offsets in the arena: 1024 local iovecs, one remote iovec, a pollfd, a byte, a struct statx.
const REMOTE = IOV_MAX * 16
const POLLFD = REMOTE + 16
const BYTE = POLLFD + 16
const STATX = BYTE + 16
/** Offsets in struct statx, and its size. */
const Statx = { INO: 32, BTIME: 80, DEVICE: 136, BYTES: 256 } as const

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(STATX + Statx.BYTES)
  return arena
}

/** The SystemError for an exception of node:fs; throws any other exception. */
const systemError = (call: string, error: unknown): SystemError => {
  if (!(error instanceof Error) || !('code' in error)) throw error
  return new SystemError(call, errnoNumber(String(error.code)) ?? 0)
}

/**
 * Opens /proc/PID/mem for the handle. Returns the descriptor or -errno: -EPERM if the kernel refuses it or the process
 * does not belong to `owner`; -EMFILE or -ENFILE.
 */
const openMem = (pid: number, owner: Owner | undefined, guest: Guest | undefined): number => {
  let mem: number
  try {
    mem = guest ? guest.openMemory() : openSync(`/proc/${pid}/mem`, 'r+')
  } catch (error) {
    mem = -systemError('open', error).errno
  }
  if (mem < 0) return isOutOfDescriptors(mem) ? mem : -EPERM
  // Checked after the open: during an exec the kernel refuses the open until the process has its new owner.
  if (owner === undefined || isOwned(owner)) {
    guest?.useMemory(mem)
    return mem
  }
  closeSync(mem)
  return -EPERM
}

const isOutOfDescriptors = (result: number): boolean => result === -EMFILE || result === -ENFILE

/** Whether the process has not ended. */
const isRunning = (pidfd: number): boolean => {
  const { address, u32 } = workArena()
  u32[POLLFD >> 2] = pidfd
  u32[(POLLFD >> 2) + 1] = POLLIN
  // A result of -1 (EINTR) says nothing about the process.
  return sys().poll(address + POLLFD, 1, 0) < 1
}

const PR_SET_PTRACER = 0x5961_6d61

/** Allows a process to access our memory where the Yama security module restricts that. */
export const allowPtraceBy = (pid: number): void => {
  sys().prctl(PR_SET_PTRACER, pid, 0, 0, 0)
}

interface ProcessOptions {
  /**
   * The pidfd from `peerPidfd`, owned by the handle from now on, or its -errno, with which `openProcess` fails. If
   * undefined, `openProcess` opens a pidfd by the pid, which may already belong to another process.
   */
  readonly pidfd?: number | undefined
  /** The handle gives access only while the process belongs to this user and group. Required if `needsOwner`. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined
  /** If the process might block us on purpose: the uid whose waiting time is charged. */
  readonly guestUid?: number | undefined
}

/**
 * A handle of a process, to be opened right after its pid is known. Returns SystemError: ESRCH (no such process),
 * EMFILE, ENFILE, EACCES, ETIMEDOUT (`Guest.isLate`). If the process does not belong to `owner`, the handle gives no
 * access (`mayAccess`).
 */
export const openProcess = (
  pid: number,
  { pidfd, owner: wantedOwner, guestUid }: ProcessOptions = {},
): ProcessHandle | SystemError => {
  const ownPidfd = pidfd ?? orErrno(sys().syscall(SYS_PIDFD_OPEN, pid, 0, 0))
  if (ownPidfd < 0) return new SystemError('pidfd_open', ownPidfd, `process ${pid}`)
  const owner = wantedOwner && openOwner(pid, wantedOwner.uid, wantedOwner.gid)
  if (owner instanceof SystemError) {
    closeSync(ownPidfd)
    return owner
  }
  const guest = guestUid === undefined ? undefined : createGuest(pid, ownPidfd, guestUid)
  const mem = openMem(pid, owner, guest)
  const handle = { pid, pidfd: ownPidfd, mem: Math.max(mem, -1), owner, guest }
  let error: SystemError | undefined
  if (guest?.isLate) error = new SystemError('open', ETIMEDOUT, `/proc/${pid}/mem`)
  else if (isOutOfDescriptors(mem)) error = new SystemError('open', mem, `/proc/${pid}/mem`)
  // If the process still runs after the open, the opened file belongs to the pidfd's process.
  else if (!isRunning(ownPidfd)) error = new SystemError('pidfd_open', ESRCH, `process ${pid}`)
  if (error === undefined) return handle
  closeProcess(handle)
  return error
}

/** Handles that `closeProcess` has closed: the numbers of their descriptors may now be those of other files. */
const closedHandles = new WeakSet<ProcessHandle>()

/** Closes the descriptors of the handle. A watch of its pidfd must be stopped first. */
export const closeProcess = (handle: ProcessHandle): void => {
  closedHandles.add(handle)
  handle.guest?.close()
  closeSync(handle.pidfd)
  if (handle.mem >= 0) closeSync(handle.mem)
  if (handle.owner) closeOwner(handle.owner)
}

/**
 * Whether the process still belongs to its owner. To be checked after reading descriptors or /proc: if false, the
 * result may belong to another program.
 */
export const isStillOwned = ({ owner }: ProcessHandle): boolean => owner === undefined || isOwned(owner)

/**
 * Whether the handle's address space has no users left; false if unknown. If the space has users, the write fails with
 * EFAULT, because our address 0 is not readable. The kernel finds that before it takes the address space's lock, which
 * may be held for ever.
 */
export const isAddressSpaceGone = ({ mem }: ProcessHandle): boolean => mem >= 0 && sys().pwrite(mem, 0, 1, 0) === 0

/**
 * Whether the process is alive, runs the same program as when the handle was opened, and belongs to its owner. To be
 * checked before each batch of reads and writes. 1.4 µs, with an owner 1.8 µs. An exec is not noticed if `mem` is -1,
 * or while another task shares the earlier program's address space (clone with CLONE_VM). `isSpaceInUse`: it is known
 * already that the handle's address space has users (ResidentPages).
 */
export const isSame = (handle: ProcessHandle, isSpaceInUse = false): boolean => {
  if (handle.pid === process.pid) return true
  if (!isRunning(handle.pidfd) || !isStillOwned(handle)) return false
  return isSpaceInUse || !isAddressSpaceGone(handle)
}

/** Writes `count` local iovecs into the arena. */
const putPieces = (u32: Uint32Array, address: number, count: number, chunk: number, stride: number): void => {
  for (let i = 0, at = address, slot = 0; i < count; i++, at += stride, slot += 4) {
    const high = Math.floor(at / TWO_32)
    u32[slot] = at - high * TWO_32
    u32[slot + 1] = high
    u32[slot + 2] = chunk
    u32[slot + 3] = 0
  }
}

/** Copies between `count` local iovecs and the remote iovec of the arena. Returns bytes copied or -errno. */
const moveByPid = (write: boolean, pid: number, count: number): number => {
  const { address } = workArena()
  const call = write ? sys().process_vm_writev : sys().process_vm_readv
  return orErrno(call(pid, address, count, address + REMOTE, 1, 0))
}

/** Like `moveByPid`, through /proc/PID/mem. */
const moveByMem = (write: boolean, mem: number, count: number): number => {
  const { address, u32 } = workArena()
  if (mem < 0) return -EPERM
  const at = u32[REMOTE >> 2]! + u32[(REMOTE >> 2) + 1]! * TWO_32
  if (!(at < Number.MAX_SAFE_INTEGER)) return -EFAULT
  return memResult(orErrno((write ? sys().pwritev : sys().preadv)(mem, address, count, at)))
}

/**
 * Converts a result of /proc/PID/mem to process_vm_readv's: 0 bytes mean that no process uses the address space
 * (-ESRCH), EIO that the address is not mapped (-EFAULT).
 */
export const memResult = (moved: number): number => {
  if (moved === 0) return -ESRCH
  return moved === -EIO ? -EFAULT : moved
}

/**
 * Whether a copy by pid must be repeated through /proc/PID/mem, whose access the kernel checked when it was opened: the
 * main thread has ended, or the process has become undumpable (setuid) or has permitted another tracer (Yama).
 */
export const needsMem = (moved: number): boolean => moved === -ESRCH || moved === -EPERM

type ProcessMove = (handle: ProcessHandle, ...args: MoveArguments) => number

const move = (
  write: boolean,
  handle: ProcessHandle,
  high: number,
  low: number,
  local: LocalMemory,
  offset: number,
  chunk: number,
  stride: number,
  total: number,
): number => {
  if (total === 0) return 0
  requirePieces(local, offset, chunk, stride, total)
  // Pieces without gaps are copied as one.
  const size = stride === chunk ? total : chunk
  const { u32 } = workArena()
  const remote = REMOTE >> 2
  let done = 0
  let from = local.address + offset
  let remoteLow = low >>> 0
  let remoteHigh = high >>> 0
  while (done < total) {
    const remaining = total - done
    const count = Math.min(Math.ceil(remaining / size), IOV_MAX)
    const bytes = Math.min(remaining, count * size)
    putPieces(u32, from, count, size, stride)
    // The last piece may be shorter. It also limits a copy through /proc/PID/mem, which has no remote length.
    u32[(count - 1) * 4 + 2] = bytes - (count - 1) * size
    u32[remote] = remoteLow
    u32[remote + 1] = remoteHigh
    u32[remote + 2] = bytes
    u32[remote + 3] = 0
    let moved = handle.owner ? moveByMem(write, handle.mem, count) : moveByPid(write, handle.pid, count)
    // The main thread may have ended, or the kernel now refuses us new access (`needsMem`).
    if (needsMem(moved) && handle.mem >= 0) moved = moveByMem(write, handle.mem, count)
    if (moved < 0) return done > 0 ? done : moved
    done += moved
    if (moved < bytes) return done > 0 ? done : -EFAULT
    from += count * stride
    remoteLow += moved
    if (remoteLow >= TWO_32) {
      remoteLow -= TWO_32
      remoteHigh = (remoteHigh + 1) >>> 0
    }
  }
  return done
}

/**
 * Reads `total` bytes from address high·2^32 + low of the process into pieces of `chunk` bytes every `stride` bytes of
 * `local`, from `offset`. A plain read has chunk = stride = total. Returns the bytes copied, fewer than `total` if a
 * page is not readable. If none are copied, returns -EFAULT, -ESRCH (ended) or -EPERM (the kernel's access check). At
 * most 2^31-4096 bytes a call.
 */
export const readv: ProcessMove = (handle, high, low, local, offset, chunk, stride, total) =>
  move(false, handle, high, low, local, offset, chunk, stride, total)

/** Writes pieces of `local` to an address of the process, in ascending order. Otherwise as `readv`. */
export const writev: ProcessMove = (handle, high, low, local, offset, chunk, stride, total) =>
  move(true, handle, high, low, local, offset, chunk, stride, total)

/** Reads `length` bytes at a Number address (below 2^53) into `local` from `offset`; returns as `readv`. */
export const readAt = (
  handle: ProcessHandle,
  address: number,
  local: LocalMemory,
  offset: number,
  length: number,
): number => move(false, handle, Math.floor(address / TWO_32), address % TWO_32, local, offset, length, length, length)

/**
 * Whether the kernel allows us to access the process's memory. The kernel checks that before the address, so a read of
 * address 0 tells. With an owner or a guest, the kernel has checked at the open of /proc/PID/mem. A process that has no
 * pid in our namespace, and so pid 0, is not accessible.
 */
export const mayAccess = (handle: ProcessHandle): boolean => {
  if (handle.owner || handle.guest) return handle.mem >= 0 && isStillOwned(handle)
  return handle.pid !== 0 && readAt(handle, 0, workArena(), BYTE, 1) !== -EPERM
}

/**
 * As `pidfdGetfd`, from another thread of a process whose main thread has ended; otherwise undefined. Also undefined
 * for a guest, and before Linux 6.9, which introduced pidfds of threads.
 */
const threadGetfd = ({ pid, guest }: ProcessHandle, fd: number): number | undefined => {
  if (guest) return undefined
  const folder = procFolder(pid)
  if (folder === `/proc/${pid}`) return undefined
  const pidfd = orErrno(sys().syscall(SYS_PIDFD_OPEN, Number(basename(folder)), PIDFD_THREAD, 0))
  if (pidfd < 0) return undefined
  try {
    // While the thread's folder exists, the number is the thread's.
    return hasEnded(folder) ? undefined : orErrno(sys().syscall(SYS_PIDFD_GETFD, pidfd, fd, 0))
  } finally {
    closeSync(pidfd)
  }
}

/**
 * A duplicate of the process's descriptor `fd`, close-on-exec; or -errno: -EBADF, -ESRCH (also for a closed handle),
 * -EPERM. From a guest only a memory file is taken, or, if `socket` is given, only the file with this identity: -EINVAL
 * for another file, -ETIMEDOUT if the waiting time of its user is used up.
 */
export const pidfdGetfd = (handle: ProcessHandle, fd: number, socket?: FileIdentity): PassedFd => {
  if (closedHandles.has(handle)) return -ESRCH as PassedFd
  let got = handle.guest
    ? handle.guest.descriptor(fd, socket)
    : orErrno(sys().syscall(SYS_PIDFD_GETFD, handle.pidfd, fd, 0))
  if (got === -EBADF || got === -ESRCH) got = threadGetfd(handle, fd) ?? got
  if (got < 0 || isStillOwned(handle)) return got as PassedFd
  closeElsewhere(got, handle.guest?.user)
  return -EPERM as PassedFd
}

/** How many threads of a process are examined for one that has not ended: a process may have 100,000. */
const MAX_THREADS = 64

/** Whether the thread with this folder in /proc has ended: an ended thread has no program. */
const hasEnded = (folder: string): boolean => {
  try {
    readlinkSync(`${folder}/exe`)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
  }
}

/** The folder in /proc with a process's descriptors and mappings. If the main thread has ended, another thread's. */
export const procFolder = (pid: number): string => {
  const own = `/proc/${pid}`
  if (!hasEnded(own)) return own
  let threads: Dir
  try {
    threads = opendirSync(`${own}/task`, { bufferSize: MAX_THREADS })
  } catch {
    return own
  }
  try {
    for (let examined = 0; examined < MAX_THREADS; examined++) {
      const thread = threads.readSync()
      if (thread === null) return own
      const folder = `${own}/task/${thread.name}`
      if (!hasEnded(folder)) return folder
    }
  } catch {
    // The process has ended meanwhile.
  } finally {
    threads.closeSync()
  }
  return own
}

/** The target of a descriptor in /proc: a path, 'socket:[123]', '/memfd:name (deleted)'. */
export const fdTarget = (pid: number, fd: number): string | SystemError => {
  const own = `/proc/${pid}`
  try {
    return readlinkSync(`${own}/fd/${fd}`)
  } catch (error) {
    const folder = procFolder(pid)
    if (folder === own) return systemError('readlink', error)
    try {
      return readlinkSync(`${folder}/fd/${fd}`)
    } catch (error) {
      return systemError('readlink', error)
    }
  }
}

/**
 * Reads what the kernel knows of the file behind a descriptor, without its server, into the arena; false: it refuses.
 */
const statOfFd = (pid: number, fd: number): boolean => {
  const path = `${procFolder(pid)}/fd/${fd}`
  return sys().statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_INO_BTIME, workArena().address + STATX) >= 0
}

/**
 * A permanent and unique identity of the file behind a descriptor: device, inode, and birth time. The birth time is
 * left out if the kernel would have to ask the file's server, which may not answer. Undefined: no such descriptor, or
 * no permission.
 */
export const fdFile = (handle: ProcessHandle, fd: number): string | undefined => {
  const { u32 } = workArena()
  if (!statOfFd(handle.pid, fd) || !isStillOwned(handle)) return undefined
  const words = (offset: number, count: number) => u32.subarray((STATX + offset) >> 2, ((STATX + offset) >> 2) + count)
  return [...words(Statx.DEVICE, 2), ...words(Statx.INO, 2), ...words(Statx.BTIME, 3)].join(':')
}

/**
 * The inode of the file behind a descriptor, as `fdFile` without waiting; undefined: no such descriptor, or no
 * permission.
 */
export const fdInode = (pid: number, fd: number): number | undefined => {
  const { u32 } = workArena()
  if (!statOfFd(pid, fd)) return undefined
  return u32[(STATX + Statx.INO) >> 2]! + u32[((STATX + Statx.INO) >> 2) + 1]! * TWO_32
}

/** Descriptors that `searchFd` checks per step: some 0.3 ms. */
export const FDS_PER_SLICE = 32

/**
 * The lowest descriptor of a process with this target ('socket:[123]', …); undefined if there is none. Works in steps,
 * because a process may have a million descriptors.
 */
export function* searchFd(pid: number, target: string): Generator<undefined, number | undefined> {
  let folder: Dir
  try {
    folder = opendirSync(`${procFolder(pid)}/fd`, { bufferSize: FDS_PER_SLICE })
  } catch {
    return undefined
  }
  try {
    for (let checked = 1; ; checked++) {
      const entry = folder.readSync()
      if (entry === null) return undefined
      const number = Number(entry.name)
      if (fdTarget(pid, number) === target) return number
      if (checked % FDS_PER_SLICE === 0) yield
    }
  } catch {
    // The process has ended meanwhile.
    return undefined
  } finally {
    folder.closeSync()
  }
}
