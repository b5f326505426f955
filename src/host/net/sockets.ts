/*
 * Unix sockets of type SOCK_SEQPACKET: reliable, ordered, with message boundaries and file descriptors. See unix(7),
 * sendmsg(2), recvmsg(2).
 *
 * New sockets are non-blocking and close-on-exec. `listen`, `connect` and `socketPair` throw SystemError. Sending and
 * receiving return a length or -errno (-EAGAIN if the peer is slow or silent), and allocate little: headers and control
 * data are in one arena, built once. A received length of 0 is the end of the stream, so an empty message cannot be
 * sent.
 */
import { chmodSync, lstatSync } from 'node:fs'
import {
  EADDRINUSE,
  EAGAIN,
  EBUSY,
  ECONNREFUSED,
  EEXIST,
  EINTR,
  EMFILE,
  EMSGSIZE,
  ENOBUFS,
  ENOENT,
  EPROTOTYPE,
  SystemError,
} from '../errno.ts'
import { isWatched } from '../event-loop/poll.ts'
import { holdFile, removeHeld } from '../held-file.ts'
import { MAX_WAIT } from '../memory/budget.ts'
import { type Arena, mapArena } from '../memory/mapping.ts'
import { createMover, MoverCall, type OwnFd, type PassedFd } from '../memory/mover.ts'
import { check, lastErrno, libcFunctions, orErrno } from '../native.ts'
import { MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET } from './socket-constants.ts'

const sys = libcFunctions({
  socket: 'int socket(int family, int type, int protocol)',
  socketpair: 'int socketpair(int family, int type, int protocol, int64_t fds)',
  bind: 'int bind(int fd, int64_t address, int length)',
  listen: 'int listen(int fd, int backlog)',
  accept4: 'int accept4(int fd, int64_t address, int64_t length, int flags)',
  connect: 'int connect(int fd, int64_t address, int length)',
  sendmsg: 'int64_t sendmsg(int fd, int64_t message, int flags)',
  recvmsg: 'int64_t recvmsg(int fd, int64_t message, int flags)',
  send: 'int64_t send(int fd, int64_t bytes, uint64_t length, int flags)',
  recv: 'int64_t recv(int fd, int64_t bytes, uint64_t length, int flags)',
  getsockopt: 'int getsockopt(int fd, int level, int option, int64_t value, int64_t length)',
  setsockopt: 'int setsockopt(int fd, int level, int option, int64_t value, int length)',
  ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)',
  shutdown: 'int shutdown(int fd, int how)',
  close: 'int close(int fd)',
})

const AF_UNIX = 1
const SOCK_SEQPACKET_NONBLOCK_CLOEXEC = 5 | 0o4000 | 0o2000000
const SOCK_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
const SCM_RIGHTS = 1
const SO_PEERCRED = 17
const SO_SNDTIMEO = 21
const SO_PEERGROUPS = 59
const SO_PEERPIDFD = 77
const SO_PASSRIGHTS = 83
const FIONBIO = 0x5421
const SIOCOUTQ = 0x5411
const SIOCINQ = 0x541b
const MSG_PEEK = 0x2
const MSG_CTRUNC = 0x8
const MSG_CMSG_CLOEXEC = 0x40000000
const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL

/** Maximum bytes of a message. The kernel's own limit is the socket's send buffer. */
export const MAX_MESSAGE = 256 * 1024
/** Maximum bytes of a message that a mover receives. The message and its headers must fit the mover's buffer. */
const MAX_MOVER_MESSAGE = 128 * 1024
/** Maximum descriptors in one message (SCM_MAX_FD). */
export const MAX_FDS = 253

// Offsets in the arena: a struct msghdr, its struct iovec, scratch memory for options, a struct sockaddr_un, control
// data, and the bytes of a message.
const MSG = 0
const IOV = 64
const SCRATCH = 128
const ADDRESS = 256
const CONTROL = 512
const BODY = 4096
const CONTROL_BYTES = 2048
/** Offsets in the arena of fields of the msghdr, and of iov_len. */
const MsgField = { IOV: MSG + 16, IOVLEN: MSG + 24, CONTROL: MSG + 32, CONTROLLEN: MSG + 40, FLAGS: MSG + 48 } as const
const BODY_LENGTH = IOV + 8
/** Offset in the arena of the socklen_t for an option at SCRATCH. */
const OPTION_LENGTH = SCRATCH + 16
/** Offsets in struct cmsghdr {len u64, level i32, type i32}. Data follows, padded to 8 bytes. */
const Cmsg = { LEVEL: 8, TYPE: 12, DATA: 16 } as const
/** Maximum path in a sockaddr_un, without the terminating NUL. */
const SUN_PATH_MAX = 107
/** Up to this many bytes a loop copies faster than `set`, and allocates no subarray. */
const MAX_LOOP_COPY = 64

let arena: Arena | undefined

const workArena = (): Arena => {
  if (arena) return arena
  arena = mapArena(BODY + MAX_MESSAGE)
  const { view, address } = arena
  const putPointer = (at: number, target: number): void => view.setBigUint64(at, BigInt(address + target), true)
  putPointer(MsgField.IOV, IOV)
  view.setUint32(MsgField.IOVLEN, 1, true)
  putPointer(MsgField.CONTROL, CONTROL)
  putPointer(IOV, BODY)
  return arena
}

const copyIn = (bytes: Uint8Array, memory: Arena): void => {
  const length = bytes.length
  if (length > MAX_LOOP_COPY) {
    memory.bytes.set(bytes, BODY)
    return
  }
  const body = memory.bytes
  for (let i = 0; i < length; i++) body[BODY + i] = bytes[i]!
}

const copyOut = (memory: Arena, length: number, into: Uint8Array): void => {
  const body = memory.bytes
  if (length > MAX_LOOP_COPY) into.set(body.subarray(BODY, BODY + length))
  else for (let i = 0; i < length; i++) into[i] = body[BODY + i]!
}

const requireMessage = (bytes: Uint8Array): void => {
  if (bytes.length === 0)
    throw new RangeError('an empty message cannot be told from the end of the stream; send at least one byte')
}

const newSocket = (): number => check('socket', sys().socket(AF_UNIX, SOCK_SEQPACKET_NONBLOCK_CLOEXEC, 0))

/** Writes a sockaddr_un into the arena; returns its length. */
const putAddress = (path: string): number => {
  const { bytes, view } = workArena()
  const encoded = Buffer.from(path)
  if (encoded.length === 0 || encoded.length > SUN_PATH_MAX || encoded.includes(0)) {
    throw new RangeError(
      `socket path "${path}" has ${encoded.length} bytes; 1 to ${SUN_PATH_MAX} without NUL are allowed`,
    )
  }
  view.setUint16(ADDRESS, AF_UNIX, true)
  bytes.set(encoded, ADDRESS + 2)
  bytes[ADDRESS + 2 + encoded.length] = 0
  return 2 + encoded.length + 1
}

/** A new socket connected to `path`, or -errno. */
const tryConnect = (path: string): number => {
  const length = putAddress(path)
  const fd = newSocket()
  const result = orErrno(sys().connect(fd, workArena().address + ADDRESS, length))
  if (result === 0) return fd
  sys().close(fd)
  return result
}

/**
 * Removes the socket file at `path`, if any. Throws SystemError: EADDRINUSE if a process serves it, EEXIST if the file
 * is not a socket, or the errno of connect(2).
 */
const removeStale = (path: string): void => {
  const found = lstatSync(path, { throwIfNoEntry: false })
  const held = found === undefined ? -1 : holdFile(path)
  try {
    refuseServed(path)
    // For other files connect(2) fails with the same error as for a socket without a server.
    if (found?.isSocket() === false) throw new SystemError('bind', EEXIST, `${path} exists, but is not a socket`)
    if (held >= 0) removeHeld(path, held)
  } finally {
    if (held >= 0) sys().close(held)
  }
}

/** Throws SystemError: EADDRINUSE if a process serves the socket at `path`, or the errno of connect(2). */
const refuseServed = (path: string): void => {
  const fd = tryConnect(path)
  if (fd >= 0) sys().close(fd)
  // EAGAIN: the server's backlog is full. EPROTOTYPE: the server's socket has another type.
  if (fd >= 0 || fd === -EAGAIN || fd === -EPROTOTYPE)
    throw new SystemError('bind', EADDRINUSE, `another process serves ${path}`)
  if (fd !== -ECONNREFUSED && fd !== -ENOENT) throw new SystemError('connect', fd, path)
}

interface ListenOptions {
  /** Maximum connections that wait for `accept`. Default: 128. */
  readonly backlog?: number
  /** Sets the permissions of the socket file, before anybody can connect. Default: 0o600, its owner only. */
  readonly setAccess?: (path: string) => void
}

const ownerOnly = (path: string): void => chmodSync(path, 0o600)

/**
 * Returns a listening socket at `path`. Replaces a socket file of a dead process. Servers that may start at the same
 * time need a lock (lock-file.ts). Throws SystemError, EADDRINUSE if another server listens at `path`, and RangeError
 * for a path that is too long. The caller must remove the socket file before it closes the descriptor, and only if the
 * file is still that of this server (held-file.ts): it might be the next server's.
 */
export const listen = (path: string, { backlog = 128, setAccess = ownerOnly }: ListenOptions = {}): number => {
  const address = workArena().address + ADDRESS
  removeStale(path)
  const fd = newSocket()
  try {
    check('bind', sys().bind(fd, address, putAddress(path)), path)
    setAccess(path)
    check('listen', sys().listen(fd, backlog), path)
    return fd
  } catch (error) {
    sys().close(fd)
    throw error
  }
}

/** The next waiting connection, or -errno (-EAGAIN: none waits). */
export const accept = (fd: number): number => {
  for (;;) {
    const result = sys().accept4(fd, 0, 0, SOCK_NONBLOCK_CLOEXEC)
    if (result >= 0) return result
    const errno = lastErrno()
    if (errno !== EINTR) return -errno
  }
}

/**
 * A socket connected to the server at `path`. Throws SystemError: ENOENT, ECONNREFUSED (no server), EAGAIN (backlog
 * full).
 */
export const connect = (path: string): number => {
  const fd = tryConnect(path)
  if (fd < 0) throw new SystemError('connect', fd, path)
  return fd
}

/**
 * Two connected sockets. Since Linux 6.16 no process can send a descriptor to the first (SO_PASSRIGHTS): an unreceived
 * descriptor would be closed here, and closing the last copy of a descriptor can block.
 */
export const socketPair = (): [number, number] => {
  const { address, i32 } = workArena()
  check('socketpair', sys().socketpair(AF_UNIX, SOCK_SEQPACKET_NONBLOCK_CLOEXEC, 0, address + SCRATCH))
  const pair: [number, number] = [i32[SCRATCH >> 2]!, i32[(SCRATCH >> 2) + 1]!]
  i32[SCRATCH >> 2] = 0
  sys().setsockopt(pair[0], SOL_SOCKET, SO_PASSRIGHTS, address + SCRATCH, 4)
  return pair
}

/** Makes a socket blocking, in every process that shares it. Throws SystemError. */
export const setBlocking = (fd: number): void => {
  const { address, i32 } = workArena()
  i32[SCRATCH >> 2] = 0
  check('ioctl(FIONBIO)', sys().ioctl(fd, FIONBIO, address + SCRATCH), `fd ${fd}`)
}

/**
 * Sends one message with descriptors; the receiver gets duplicates. Returns its length or -errno: -EAGAIN (full),
 * -EPIPE or -ECONNRESET (peer closed), -EMSGSIZE, -EBADF, -ETOOMANYREFS. Throws RangeError for an empty message or too
 * many fds.
 */
export const send = (fd: number, bytes: Uint8Array, fds: readonly number[] = []): number => {
  requireMessage(bytes)
  if (fds.length > MAX_FDS)
    throw new RangeError(`${fds.length} descriptors in one message; at most ${MAX_FDS} are allowed`)
  if (bytes.length > MAX_MESSAGE) return -EMSGSIZE
  const memory = workArena()
  const { u32, i32 } = memory
  copyIn(bytes, memory)
  u32[BODY_LENGTH >> 2] = bytes.length
  u32[MsgField.CONTROLLEN >> 2] = 0
  if (fds.length > 0) {
    u32[CONTROL >> 2] = Cmsg.DATA + 4 * fds.length
    u32[(CONTROL + 4) >> 2] = 0
    u32[(CONTROL + Cmsg.LEVEL) >> 2] = SOL_SOCKET
    u32[(CONTROL + Cmsg.TYPE) >> 2] = SCM_RIGHTS
    for (let i = 0; i < fds.length; i++) i32[((CONTROL + Cmsg.DATA) >> 2) + i] = fds[i]!
    u32[MsgField.CONTROLLEN >> 2] = Cmsg.DATA + 8 * Math.ceil(fds.length / 2)
  }
  return orErrno(sys().sendmsg(fd, memory.address + MSG, SEND_FLAGS))
}

export interface Received {
  /** Bytes in the caller's buffer; 0: end of the stream; or -errno. */
  readonly length: number
  /** Descriptors of the message, close-on-exec. The caller closes them (`closeElsewhere`). */
  readonly fds: readonly PassedFd[]
}

const NO_FDS: readonly PassedFd[] = Object.freeze([])
const NOTHING_YET: Received = Object.freeze({ length: -EAGAIN, fds: NO_FDS })

/** The descriptors in the control data of the last recvmsg. */
const passedFds = (memory: Arena): readonly PassedFd[] => {
  const { u32, i32 } = memory
  const end = CONTROL + u32[MsgField.CONTROLLEN >> 2]!
  const fds: PassedFd[] = []
  for (let at = CONTROL; at + Cmsg.DATA <= end; ) {
    const length = u32[at >> 2]!
    if (length < Cmsg.DATA) break
    if (u32[(at + Cmsg.LEVEL) >> 2] === SOL_SOCKET && u32[(at + Cmsg.TYPE) >> 2] === SCM_RIGHTS) {
      for (let from = at + Cmsg.DATA; from + 4 <= at + length; from += 4) fds.push(i32[from >> 2]! as PassedFd)
    }
    at += (length + 7) & ~7
  }
  return fds
}

/**
 * Receives one message. Errors in `length`: -EMSGSIZE if the message is longer than `buffer`, -EMFILE if its
 * descriptors do not fit our table, -EAGAIN, -ECONNRESET, …. After -EMSGSIZE and -EMFILE the message is dropped and its
 * descriptors are closed.
 */
export const recv = (fd: number, buffer: Uint8Array): Received => {
  const memory = workArena()
  const { u32 } = memory
  u32[BODY_LENGTH >> 2] = Math.min(buffer.length, MAX_MESSAGE)
  u32[MsgField.CONTROLLEN >> 2] = CONTROL_BYTES
  const length = orErrno(sys().recvmsg(fd, memory.address + MSG, MSG_DONTWAIT | MSG_CMSG_CLOEXEC))
  if (length === -EAGAIN) return NOTHING_YET
  if (length < 0) return { length, fds: NO_FDS }
  const fds = u32[MsgField.CONTROLLEN >> 2] === 0 ? NO_FDS : passedFds(memory)
  const flags = u32[MsgField.FLAGS >> 2]!
  if (flags & (MSG_TRUNC | MSG_CTRUNC)) {
    for (const passed of fds) sys().close(passed)
    return { length: flags & MSG_TRUNC ? -EMSGSIZE : -EMFILE, fds: NO_FDS }
  }
  copyOut(memory, length, buffer)
  return { length, fds }
}

interface GuardedOptions {
  /** Id of the user whose movers are counted; default: the peer. */
  readonly user?: number
  /**
   * Who pays for messages with descriptors, each of which costs a process. While there is no time, such a message stays
   * in the socket, and the length is -EBUSY. Default: nobody.
   */
  readonly time?: { readonly hasTime: boolean; charge<T>(work: () => T): T } | undefined
}

/**
 * Receives like `recv`, from a peer who may pass descriptors whose close blocks, for example of a file on a server that
 * does not answer. So a mover (host/memory/mover.ts) receives a message with descriptors. Longer than 128 KiB, it is
 * -EMSGSIZE; after other errors of the mover it may be lost. This process gets a descriptor only if the message has
 * exactly one, of a memory file; otherwise, also after errors of the mover, `fds` is [-1]. If the native library is
 * absent, the kernel closes all descriptors, and `fds` is empty.
 */
export const recvGuarded = (
  fd: number,
  buffer: Uint8Array,
  { user = peerCredentials(fd).uid, time }: GuardedOptions = {},
): Received => {
  const memory = workArena()
  const { u32 } = memory
  u32[BODY_LENGTH >> 2] = 0
  u32[MsgField.CONTROLLEN >> 2] = 0
  const peeked = orErrno(sys().recvmsg(fd, memory.address + MSG, MSG_DONTWAIT | MSG_PEEK))
  if (peeked === -EAGAIN) return NOTHING_YET
  if (peeked < 0) return { length: peeked, fds: NO_FDS }
  // Without room for control data the kernel reports MSG_CTRUNC if the message has descriptors.
  const hasDescriptors = (u32[MsgField.FLAGS >> 2]! & MSG_CTRUNC) !== 0
  if (!hasDescriptors) return { length: recvBytes(fd, buffer), fds: NO_FDS }
  if (time === undefined) return recvByMover(fd, buffer, user)
  return time.hasTime ? time.charge(() => recvByMover(fd, buffer, user)) : { length: -EBUSY, fds: NO_FDS }
}

/** Receives a message with descriptors (`recvGuarded`). */
const recvByMover = (fd: number, buffer: Uint8Array, user: number): Received => {
  const mover = createMover({ inheritedFds: [fd], user })
  if (mover === undefined) return { length: recvBytes(fd, buffer), fds: NO_FDS }
  const memory = workArena()
  const body = { arena: memory, at: BODY, length: Math.min(buffer.length, MAX_MOVER_MESSAGE) }
  const passed = { arena: memory, at: CONTROL, length: 4 * (1 + MAX_FDS) }
  const received = mover.receive(fd, body, passed, MAX_WAIT)
  // EAGAIN of clone(2): there is a message, but no process can be started.
  const length = received === -EAGAIN ? -ENOBUFS : received
  if (length > 0) copyOut(memory, length, buffer)
  const count = memory.i32[CONTROL >> 2]!
  const first = memory.i32[(CONTROL >> 2) + 1]!
  const isMemory = length >= 0 && count === 1 && mover.call(MoverCall.SEALS, first, 0, undefined, MAX_WAIT) >= 0
  const taken = isMemory ? mover.take(first) : -1
  mover.close(taken < 0)
  return { length, fds: [(taken < 0 ? -1 : taken) as PassedFd] }
}

/** Sends one message without descriptors. Returns as `send`. Allocates nothing. */
export const sendBytes = (fd: number, bytes: Uint8Array): number => {
  requireMessage(bytes)
  if (bytes.length > MAX_MESSAGE) return -EMSGSIZE
  const memory = workArena()
  copyIn(bytes, memory)
  return orErrno(sys().send(fd, memory.address + BODY, bytes.length, SEND_FLAGS))
}

/**
 * Receives one message; the kernel closes its descriptors. Returns its length, 0 at the end of the stream, or -errno
 * (-EMSGSIZE: it was longer than `buffer` and is dropped). Allocates nothing up to 64 bytes.
 */
export const recvBytes = (fd: number, buffer: Uint8Array): number => {
  const memory = workArena()
  const maxLength = Math.min(buffer.length, MAX_MESSAGE)
  const length = orErrno(sys().recv(fd, memory.address + BODY, maxLength, MSG_DONTWAIT | MSG_TRUNC))
  if (length <= 0) return length
  if (length > maxLength) return -EMSGSIZE
  copyOut(memory, length, buffer)
  return length
}

export interface PeerCredentials {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/** Reads an option of up to 16 bytes into the scratch memory. Returns 0 or -errno. */
const getOption = (fd: number, option: number, length: number): number => {
  const { address, u32 } = workArena()
  u32[OPTION_LENGTH >> 2] = length
  return orErrno(sys().getsockopt(fd, SOL_SOCKET, option, address + SCRATCH, address + OPTION_LENGTH))
}

/** Size of struct ucred: pid, uid and gid, an int each. */
const UCRED_BYTES = 12

/** Credentials of the peer when it connected or listened, in our pid and user namespaces. Throws SystemError. */
export const peerCredentials = (fd: number): PeerCredentials => {
  const result = getOption(fd, SO_PEERCRED, UCRED_BYTES)
  if (result < 0) throw new SystemError('getsockopt(SO_PEERCRED)', result)
  const { i32, u32 } = workArena()
  return { pid: i32[SCRATCH >> 2]!, uid: u32[(SCRATCH + 4) >> 2]!, gid: u32[(SCRATCH + 8) >> 2]! }
}

/** Supplementary groups of the peer when it connected; none before Linux 4.13. */
export const peerGroups = (fd: number): readonly number[] => {
  const { address, u32 } = workArena()
  u32[SCRATCH >> 2] = MAX_MESSAGE
  const result = sys().getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, address + BODY, address + SCRATCH)
  return result < 0 ? [] : [...u32.subarray(BODY >> 2, (BODY + u32[SCRATCH >> 2]!) >> 2)]
}

/**
 * A pidfd of the peer's process, safe against reuse of the pid, which the caller closes; or -errno (-ENOPROTOOPT before
 * Linux 6.5).
 */
export const peerPidfd = (fd: number): number => {
  const result = getOption(fd, SO_PEERPIDFD, 4)
  return result < 0 ? result : workArena().i32[SCRATCH >> 2]!
}

/**
 * Sets the send and receive buffers in bytes. The kernel caps them at net.core.[rw]mem_max, then doubles them. Throws
 * SystemError.
 */
export const setBuffers = (fd: number, sizes: { send?: number; receive?: number }): void => {
  const { address, i32 } = workArena()
  for (const [option, size] of [[SO_SNDBUF, sizes.send] as const, [SO_RCVBUF, sizes.receive] as const]) {
    if (size === undefined) continue
    i32[SCRATCH >> 2] = size
    check('setsockopt', sys().setsockopt(fd, SOL_SOCKET, option, address + SCRATCH, 4), `buffer of ${size} bytes`)
  }
}

/** Sets how long sends block, in every process that shares the socket. Throws SystemError. */
export const setSendTimeout = (fd: number, seconds: number, microseconds: number): void => {
  const { address, view } = workArena()
  // struct timeval
  view.setBigInt64(SCRATCH, BigInt(seconds), true)
  view.setBigInt64(SCRATCH + 8, BigInt(microseconds), true)
  check(
    'setsockopt',
    sys().setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, address + SCRATCH, 16),
    `timeout of ${seconds} s and ${microseconds} µs`,
  )
}

/** Bytes of sent messages that the peer has not read, as the kernel counts memory; or -errno. */
export const outstandingBytes = (fd: number): number => {
  const { address, i32 } = workArena()
  const result = orErrno(sys().ioctl(fd, SIOCOUTQ, address + SCRATCH))
  return result < 0 ? result : i32[SCRATCH >> 2]!
}

/** Bytes of all messages not received yet, or -errno. */
export const unreadBytes = (fd: number): number => {
  const { address, i32 } = workArena()
  const result = orErrno(sys().ioctl(fd, SIOCINQ, address + SCRATCH))
  return result < 0 ? result : i32[SCRATCH >> 2]!
}

const directions = { read: 0, write: 1, both: 2 }

/** Ends one or both directions. After the end of writing the peer reads the end of the stream. Returns 0 or -errno. */
export const shutdown = (fd: number, how: keyof typeof directions = 'both'): number =>
  orErrno(sys().shutdown(fd, directions[how]))

/**
 * Closes a descriptor; 0 or -errno. Throws an Error if it is watched: its number could be reused
 * under the watch.
 */
export const close = (fd: OwnFd): number => {
  if (isWatched(fd)) throw new Error(`close of fd ${fd} while it is watched: stop the watch first`)
  return orErrno(sys().close(fd))
}
