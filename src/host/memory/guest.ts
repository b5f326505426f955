/*
 * A process of another user, which may block us on purpose: a mover makes all system calls that can wait for it, and
 * the waiting time is charged to its user.
 *
 * The kernel may wait for its pages; for the mmap lock of its address space, at each query of its mappings; for the end
 * of its exec, at each access to its memory or descriptors (exec_update_lock); and for a file's server or a socket's
 * peer, when a descriptor of such a file is closed. So the only descriptors accepted from it are memory files and our
 * own sockets.
 */
import { EINVAL, ETIMEDOUT } from '../errno.ts'
import { charged } from './budget.ts'
import { type Arena, mapArena } from './mapping.ts'
import { createMover, MoverCall, type Room } from './mover.ts'
import type { MoveArguments } from './pieces.ts'

/** Device and inode of a file. */
export interface FileIdentity {
  readonly dev: number
  readonly ino: number
}

/** As readSync and writeSync of node:fs at a position, but errors are -errno. */
export interface GuestFile {
  read(bytes: Uint8Array, at: number, length: number, position: number): number
  write(bytes: Uint8Array, at: number, length: number, position: number): number
  /** Closes the mover's duplicate. */
  close(): void
}

export interface Guest {
  /** Whether the process has blocked us for too long. */
  readonly late: boolean
  /** Called once when the process has blocked us for too long, possibly in the middle of a call. */
  whenLate(listener: () => void): void
  /** Opens /proc/PID/mem, which `move` then uses: our descriptor, or -errno. */
  openMemory(): number
  move(write: boolean, ...what: MoveArguments): number
  /** An ioctl on its maps file, or -errno. */
  askMaps(request: number, room: Room): number
  /** Reads its maps file from an offset on: the number of bytes, or -errno. */
  readMaps(offset: number, room: Room): number
  /** A memory file that the process shares with us as `fd`: a write of its own may hold the file's lock. */
  file(fd: number): GuestFile
  /** A duplicate of its descriptor, which must be a memory file or `socket`; or -errno, -EINVAL for another file. */
  descriptor(number: number, socket?: FileIdentity): number
  close(): void
}

const O_RDONLY_CLOEXEC = 0o2000000
const O_RDWR_CLOEXEC = 0o2000002
const STATX_INO = 0x100
/** Of struct statx: the inode, and the device's numbers. */
const Statx = { INO: 32, DEV_MAJOR: 136, DEV_MINOR: 140, BYTES: 256 } as const
const TWO_32 = 2 ** 32

/** Bytes of a file that are copied at once. */
const BATCH = 0x10000

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(BATCH)
  return arena
}

/** stat's st_dev as node:fs shows it. */
const deviceNumber = (major: number, minor: number): number =>
  (minor & 0xff) + (major & 0xfff) * 0x100 + (minor - (minor & 0xff)) * 0x1000

/** Undefined where the native library is absent: then we make its calls ourselves, and wait. */
export const createGuest = (pid: number, pidfd: number, uid: number): Guest | undefined => {
  const kept = [pidfd]
  const mover = createMover({ kept, user: uid })
  if (mover === undefined) return undefined
  let late = false
  let lateListener = (): void => {}
  let mem = -1
  /** The mover's descriptor of the maps file, and the incarnation of the mover that has it. */
  let maps = -1
  let mapsIn = -1

  const within = (call: (patience: number) => number): number => {
    const answer = charged(uid, mover, call)
    if (answer === -ETIMEDOUT && !late) {
      late = true
      lateListener()
    }
    return answer
  }
  const open = (name: string, flags: number): number => {
    const { bytes } = workArena()
    const path = `/proc/${pid}/${name}\0`
    bytes.set(Buffer.from(path))
    const room = { arena: workArena(), at: 0, length: path.length }
    return within(patience => mover.call(MoverCall.OPEN, -1, flags, room, patience))
  }
  const callOnMaps = (call: number, value: number, room: Room): number => {
    if (mapsIn !== mover.incarnation) {
      maps = open('maps', O_RDONLY_CLOEXEC)
      mapsIn = maps < 0 ? -1 : mover.incarnation
    }
    return maps < 0 ? maps : within(patience => mover.call(call, maps, value, room, patience))
  }

  /** Whether a descriptor of the mover is a memory file, or `socket`. */
  const isAccepted = (fd: number, socket: FileIdentity | undefined): boolean => {
    if (socket === undefined) return within(patience => mover.call(MoverCall.SEALS, fd, 0, undefined, patience)) >= 0
    const room = { arena: workArena(), at: 0, length: Statx.BYTES }
    if (within(patience => mover.call(MoverCall.STAT, fd, STATX_INO, room, patience)) < 0) return false
    const { u32 } = workArena()
    const ino = u32[Statx.INO >> 2] + u32[(Statx.INO >> 2) + 1] * TWO_32
    return ino === socket.ino && deviceNumber(u32[Statx.DEV_MAJOR >> 2], u32[Statx.DEV_MINOR >> 2]) === socket.dev
  }

  return {
    get late() {
      return late
    },
    whenLate(listener) {
      lateListener = listener
    },
    openMemory() {
      const opened = open('mem', O_RDWR_CLOEXEC)
      mem = opened < 0 ? opened : mover.take(opened)
      // All later processes of the mover inherit our descriptor, with its number.
      mover.close()
      if (mem >= 0) kept[1] = mem
      return mem
    },
    move: (write, ...what) => within(patience => mover.move(write, -1, mem, ...what, patience)),
    askMaps: (request, room) => callOnMaps(MoverCall.IOCTL, request, room),
    readMaps: (offset, room) => callOnMaps(MoverCall.READ, offset, room),
    descriptor(number, socket) {
      const fd = within(patience => mover.call(MoverCall.GETFD, pidfd, number, undefined, patience))
      if (fd < 0) return fd
      const taken = isAccepted(fd, socket) ? mover.take(fd) : -EINVAL
      // The mover's copy is closed when the mover ends, which may have to wait.
      mover.close(taken === -EINVAL)
      return taken
    },
    file(fd) {
      /** The mover's copy, and the incarnation of the mover that has it. */
      let copy = -1
      let copyIn = -1
      const renew = (): number => {
        if (copyIn === mover.incarnation) return copy
        copy = within(patience => mover.call(MoverCall.COPY, -1, fd, undefined, patience))
        copyIn = copy < 0 ? -1 : mover.incarnation
        return copy
      }
      const batch = (write: boolean, length: number, position: number): number => {
        const moverFd = renew()
        const [high, low] = [Math.floor(position / TWO_32), position % TWO_32]
        if (moverFd < 0) return moverFd
        return within(patience =>
          mover.move(write, -1, moverFd, high, low, workArena(), 0, length, length, length, patience),
        )
      }
      return {
        read(bytes, at, length, position) {
          for (let done = 0; done < length; ) {
            const moved = batch(false, Math.min(BATCH, length - done), position + done)
            if (moved <= 0) return done || moved
            bytes.set(workArena().bytes.subarray(0, moved), at + done)
            done += moved
          }
          return length
        },
        write(bytes, at, length, position) {
          for (let done = 0; done < length; ) {
            const size = Math.min(BATCH, length - done)
            workArena().bytes.set(bytes.subarray(at + done, at + done + size))
            const moved = batch(true, size, position + done)
            if (moved <= 0) return done || moved
            done += moved
          }
          return length
        },
        close() {
          if (copyIn >= 0 && copyIn === mover.incarnation)
            within(patience => mover.call(MoverCall.CLOSE, copy, 0, undefined, patience))
          copyIn = -1
        },
      }
    },
    close: () => mover.close(),
  }
}
