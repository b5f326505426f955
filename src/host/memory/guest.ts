/*
 * A guest: a process of another user, which may block us on purpose. A mover (mover.ts) makes all system calls that can
 * wait for the guest, and the waiting time is charged to its user (budget.ts).
 *
 * The kernel may wait
 * - for the guest's pages;
 * - for the mmap lock of its address space, at each query of its mappings;
 * - for the end of its exec, at each access to its memory or descriptors (exec_update_lock);
 * - for the inode's lock of a memory file that the guest has too, at each write(2): such files are mapped instead;
 * - for a file's server or a socket's peer, when a descriptor of such a file is closed. So only memory files and our
 *   own sockets are accepted from a guest.
 */
import { fstatSync } from 'node:fs'
import { EACCES, EINVAL, EPERM, ESRCH, ETIMEDOUT, SystemError } from '../errno.ts'
import { TWO_32 } from '../halves.ts'
import { atExpense, charged, whenAffordable } from './budget.ts'
import { type Copy, type MappedFile, mapFile } from './mapped-file.ts'
import { type Arena, mapArena } from './mapping.ts'
import { type ArenaRange, createMover, MoverCall } from './mover.ts'
import type { MoveArguments } from './pieces.ts'

/** Device and inode of a file. */
export interface FileIdentity {
  readonly dev: number
  readonly ino: number
}

export interface Guest {
  /** The uid whose waiting time is charged. */
  readonly user: number
  /** Whether a call has failed because the waiting time of the user was used up. */
  readonly isLate: boolean
  /** Calls `listener` once, when `isLate` becomes true, possibly in the middle of a call. */
  whenLate(listener: () => void): void
  /** Opens /proc/PID/mem. Returns our descriptor, which the caller closes, or -errno. */
  openMemory(): number
  /** `mem`: the descriptor from `openMemory`, for `move`. It must stay open until `close`. */
  useMemory(mem: number): void
  /**
   * Copies to (`write`) or from the guest's memory. `isFrozen`: see `Mover.move`. Returns as `Mover.move` for a file
   * (`memResult` converts that); -EPERM without `useMemory`.
   */
  move(write: boolean, isFrozen: boolean, ...args: MoveArguments): number
  /** Makes an ioctl on the guest's maps file. Returns the result or -errno: -ESRCH after `close`. */
  ioctlMaps(request: number, argument: ArenaRange): number
  /** Reads the guest's maps file. Returns the number of bytes or -errno: -ESRCH after `close`. */
  readMaps(offset: number, into: ArenaRange): number
  /**
   * Access to our descriptor `fd`, a memory file that the process shares with us, also after the guest's `close`.
   * Errors are also those of `Mover.move`. The caller closes the descriptor after the file.
   */
  file(fd: number): MappedFile
  /**
   * A duplicate of the guest's descriptor `number`, which must be `socket` if that is given, and otherwise a memory
   * file. Or -errno; -EINVAL for another file.
   */
  descriptor(number: number, socket?: FileIdentity): number
  close(): void
}

const O_RDONLY_CLOEXEC = 0o2000000
const O_RDWR_CLOEXEC = 0o2000002
const STATX_INO = 0x100
/** Offsets in struct statx, and its size. */
const Statx = { INO: 32, DEV_MAJOR: 136, DEV_MINOR: 140, BYTES: 256 } as const

/** Maximum bytes of a file copied by one call. */
const BATCH = 0x10000

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(BATCH)
  return arena
}

/** The device number as in st_dev of stat(2). */
const deviceNumber = (major: number, minor: number): number =>
  (minor & 0xff) + (major & 0xfff) * 0x100 + (minor - (minor & 0xff)) * 0x1000

/** Bytes of a file that are mapped at a time: they are unmapped in less than a millisecond. */
const WINDOW = 2 ** 26

/** For writing, if the descriptor and the file's seals permit it. Throws as `mapFile`. */
const mapShared = (fd: number, offset: number, length: number, copy: Copy): MappedFile => {
  try {
    return mapFile(fd, length, true, { offset, copy })
  } catch (error) {
    if (error instanceof SystemError && [EACCES, EPERM].includes(error.errno))
      return mapFile(fd, length, false, { offset, copy })
    throw error
  }
}

/** Undefined if the native library is absent: then the caller makes the system calls itself, and waits. */
export const createGuest = (pid: number, pidfd: number, uid: number): Guest | undefined => {
  /** Every new process of the mover inherits those that the list has then. */
  const inheritedFds = [pidfd]
  const mover = createMover({ inheritedFds, user: uid })
  if (mover === undefined) return undefined
  let isLate = false
  let lateListener = (): void => {}
  /** Our descriptor of /proc/PID/mem; -1 before `useMemory` and after `close`. */
  let mem = -1
  /** The mover's descriptor of the maps file, and the mover's incarnation that has it. */
  let maps = -1
  let mapsIncarnation = -1
  let isClosed = false
  let openFiles = 0

  /** Makes a call that may wait, at the user's expense. */
  const chargeUser = (call: (timeout: number) => number): number => {
    const answer = charged(uid, mover, call)
    if (answer === -ETIMEDOUT && !isLate) {
      isLate = true
      lateListener()
    }
    return answer
  }
  const open = (name: string, flags: number): number => {
    const { bytes } = workArena()
    const path = `/proc/${pid}/${name}\0`
    bytes.set(Buffer.from(path))
    const range = { arena: workArena(), at: 0, length: path.length }
    return chargeUser(timeout => mover.call(MoverCall.OPEN, -1, flags, range, timeout))
  }
  const callOnMaps = (call: number, value: number, range: ArenaRange): number => {
    // A search of the mappings may outlive the guest (`MappedRanges.search`), and must not start the mover again.
    if (isClosed) return -ESRCH
    if (mapsIncarnation !== mover.incarnation) {
      maps = open('maps', O_RDONLY_CLOEXEC)
      mapsIncarnation = maps < 0 ? -1 : mover.incarnation
    }
    return maps < 0 ? maps : chargeUser(timeout => mover.call(call, maps, value, range, timeout))
  }

  /** Whether a descriptor of the mover is a memory file or `socket`. */
  const isAccepted = (fd: number, socket: FileIdentity | undefined): boolean => {
    if (socket === undefined) return chargeUser(timeout => mover.call(MoverCall.SEALS, fd, 0, undefined, timeout)) >= 0
    const range = { arena: workArena(), at: 0, length: Statx.BYTES }
    if (chargeUser(timeout => mover.call(MoverCall.STAT, fd, STATX_INO, range, timeout)) < 0) return false
    const { u32 } = workArena()
    const ino = u32[Statx.INO >> 2]! + u32[(Statx.INO >> 2) + 1]! * TWO_32
    return ino === socket.ino && deviceNumber(u32[Statx.DEV_MAJOR >> 2]!, u32[Statx.DEV_MINOR >> 2]!) === socket.dev
  }

  return {
    user: uid,
    get isLate() {
      return isLate
    },
    whenLate(listener) {
      lateListener = listener
    },
    openMemory() {
      const opened = open('mem', O_RDWR_CLOEXEC)
      const taken = opened < 0 ? opened : mover.take(opened)
      // The next process inherits the descriptor (`useMemory`).
      mover.close()
      return taken
    },
    useMemory(opened) {
      mem = opened
      inheritedFds[1] = mem
    },
    move: (write, isFrozen, ...args) =>
      mem < 0 ? -EPERM : chargeUser(timeout => mover.move(write, -1, mem, ...args, timeout, isFrozen)),
    ioctlMaps: (request, argument) => callOnMaps(MoverCall.IOCTL, request, argument),
    readMaps: (offset, into) => callOnMaps(MoverCall.READ, offset, into),
    descriptor(number, socket) {
      const fd = chargeUser(timeout => mover.call(MoverCall.PIDFD_GETFD, pidfd, number, undefined, timeout))
      if (fd < 0) return fd
      const taken = isAccepted(fd, socket) ? mover.take(fd) : -EINVAL
      // The mover's copy is closed when its process ends. Closing a file that was not accepted may block.
      mover.close(taken === -EINVAL)
      return taken
    },
    file(fd) {
      let window: { readonly file: MappedFile; readonly start: number; readonly end: number } | undefined
      let isOpen = true
      openFiles++
      const unmap = (): void => {
        const { file } = window ?? {}
        window = undefined
        if (file !== undefined) whenAffordable(uid, () => file.close())
      }
      const copy = (write: boolean, local: Arena, address: number, length: number): number => {
        const [high, low] = [Math.floor(address / TWO_32), address % TWO_32]
        return chargeUser(timeout =>
          mover.move(write, process.pid, -1, high, low, local, 0, length, length, length, timeout),
        )
      }
      /** The window at a position of the file, or -errno. */
      const windowAt = (position: number) => {
        if (window !== undefined && position >= window.start && position < window.end) return window
        const { size } = fstatSync(fd)
        if (!isOpen || position >= size) return -EINVAL
        unmap()
        const start = position - (position % WINDOW)
        const length = Math.min(WINDOW, size - start)
        window = { file: atExpense(uid, () => mapShared(fd, start, length, copy)), start, end: start + length }
        return window
      }
      const transfer = (
        write: boolean,
        bytes: Uint8Array,
        offset: number,
        length: number,
        position: number,
      ): number => {
        for (let done = 0; done < length; ) {
          const at = windowAt(position + done)
          if (typeof at === 'number') return done > 0 ? done : at
          const part = Math.min(length - done, at.end - position - done)
          const { file } = at
          const moved = (write ? file.write : file.read)(bytes, offset + done, part, position + done)
          if (moved <= 0) return done > 0 ? done : moved
          done += moved
        }
        return length
      }
      return {
        read: (bytes, offset, length, position) => transfer(false, bytes, offset, length, position),
        write: (bytes, offset, length, position) => transfer(true, bytes, offset, length, position),
        close() {
          if (!isOpen) return
          isOpen = false
          unmap()
          openFiles--
          // A file that was used after the guest's `close` has started the mover again.
          if (isClosed && openFiles === 0) mover.close()
        },
      }
    },
    close() {
      isClosed = true
      mover.close()
      // The numbers of these descriptors will be those of other files. The mover starts again if an open file is used.
      inheritedFds.length = 0
      mem = -1
    },
  }
}
