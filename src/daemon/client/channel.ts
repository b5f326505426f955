/*
 * A socket connected to a daemon: requests with serial numbers go out, replies come in. How to wait for a reply is the
 * caller's: tools do not block (tool-session.ts), the library blocks the thread
 * (library/verbs/remote/daemon-session.ts).
 */
import { setTimeout } from 'node:timers/promises'
import { EAGAIN, SystemError } from '../../host/errno.ts'
import { userText } from '../../host/exposure.ts'
import { close, connect, peerCredentials, recv } from '../../host/net/sockets.ts'
import { Errno, errnoName, knownErrno } from '../../spec/errno.ts'
import { CONNECT_SECONDS, OWN_SUFFIX, SESSION_VERSION } from '../../spec/session.ts'
import { type Header, type MessageBuffer, messageBuffer, type Reply, readReply } from '../../uapi/session-codec.ts'
import { NoDaemonError, SessionError, VersionError } from './errors.ts'
import { daemonCommand, notServed } from './user-socket.ts'

/** Encodes a request into the buffer, and returns its length; 0 if it does not fit. `header`: of every request. */
export type WriteRequest = (buffer: MessageBuffer, header: Partial<Header>) => number

/** `length`: see `recv`; `fault`: why a message of this length is invalid. */
interface Received {
  readonly length: number
  /** The caller must close them. */
  readonly fds: readonly number[]
  readonly fault: string | undefined
}

export class Channel {
  /** Path of the daemon's socket. */
  readonly socket: string
  readonly fd: number
  /** Process id of the daemon. */
  readonly pid: number
  /** The serial of the last request. */
  serial = 0
  readonly #buffer = messageBuffer()

  constructor(socket: string, fd: number, pid: number) {
    this.socket = socket
    this.fd = fd
    this.pid = pid
  }

  /** The subject of sentences about the daemon. */
  get daemon(): string {
    return `the daemon at ${this.socket} (process ${this.pid})`
  }

  /** The request as bytes, which are valid until the next call of a method; empty if it does not fit in a message. */
  encode(write: WriteRequest): Uint8Array {
    this.serial = (this.serial + 1) >>> 0
    // The tid of the main thread is the pid.
    const length = write(this.#buffer, { serial: this.serial, pid: process.pid, tid: process.pid })
    return this.#buffer.bytes.subarray(0, length)
  }

  /** Receives a message into `reply`, if there is one. */
  receive(reply: Reply): Received {
    const { length, fds } = recv(this.fd, this.#buffer.bytes)
    return { length, fds, fault: length > 0 ? readReply(this.#buffer, length, reply) : undefined }
  }
}

const connectError = (socket: string, error: unknown): unknown => {
  if (error instanceof RangeError) return new SessionError('EINVAL', error.message, '', { cause: error })
  if (!(error instanceof SystemError)) return error
  const options = { cause: error }
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new NoDaemonError(
        'ECONNREFUSED',
        `no daemon at ${socket}`,
        `start one with \`${daemonCommand(socket)}\``,
        options,
      )
    case 'EACCES':
      return new SessionError('EACCES', notServed(socket), '', options)
    case 'EPROTOTYPE':
      return new SessionError(
        'EPROTO',
        `${socket} is a socket of another program, not of a userdma daemon`,
        '',
        options,
      )
    case 'EAGAIN':
      return new SessionError(
        'EAGAIN',
        `${socket}: the daemon does not answer (its backlog has been full for ${CONNECT_SECONDS} s)`,
        '',
        options,
      )
    default:
      return new SessionError(knownErrno(error.code, 'EIO'), error.message, '', options)
  }
}

/** A socket connected to the one of a shared daemon for its own user, if there is one; undefined: there is none. */
const connectOwn = (socket: string): number | undefined => {
  if (process.geteuid?.() !== 0) return undefined
  try {
    return connect(`${socket}${OWN_SUFFIX}`)
  } catch (error) {
    // Any other error, of a path that is too long too: the daemon's socket decides.
    if (isFull(error)) throw error
    return undefined
  }
}

const isFull = (error: unknown): boolean => error instanceof SystemError && error.errno === EAGAIN

/** Milliseconds between two attempts to connect. */
const PAUSE = 5

/** Attempts to connect, until one succeeds; between two the caller waits as many milliseconds as it gets. */
const attempts = function* (socket: string): Generator<number, number> {
  const deadline = performance.now() + 1000 * CONNECT_SECONDS
  for (;;) {
    try {
      return connectOwn(socket) ?? connect(socket)
    } catch (error) {
      if (!isFull(error) || performance.now() > deadline) throw connectError(socket, error)
    }
    yield PAUSE
  }
}

/**
 * Connects to the daemon at `socket`. A daemon of another user, except root, is not trusted: it could read and change
 * our memory. Throws SessionError, NoDaemonError if no daemon is there.
 */
export const openChannel = async (socket: string): Promise<Channel> => {
  const tries = attempts(socket)
  for (;;) {
    const { done, value } = tries.next()
    if (done) return trusted(socket, value)
    await setTimeout(value)
  }
}

/** The same, which blocks the thread. */
export const openChannelBlocking = (socket: string): Channel => {
  const tries = attempts(socket)
  for (;;) {
    const { done, value } = tries.next()
    if (done) return trusted(socket, value)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, value)
  }
}

const trusted = (socket: string, fd: number): Channel => {
  const { uid, pid } = peerCredentials(fd)
  const user = process.geteuid?.() ?? 0
  if (uid === 0 || uid === user) return new Channel(socket, fd, pid)
  close(fd)
  throw new SessionError(
    'EACCES',
    `${socket} is served by ${userText(uid)} (process ${pid}), who could read and change the memory of your programs; only daemons of root and your own (user ${user}) are used`,
  )
}

/**
 * Why the daemon refuses the session, by its answer to HELLO; undefined: it does not. EACCES in an answer of this
 * version is no refusal: the daemon cannot read the memory of this process, which a tool does not need, and a program
 * can pass.
 */
export const helloRefusal = ({ version, error }: Reply, { daemon, socket }: Channel): SessionError | undefined => {
  if (version === SESSION_VERSION && (error === 0 || error === Errno.EACCES)) return undefined
  if (error === Errno.EPERM) return new SessionError('EIO', notServed(socket))
  if (version !== SESSION_VERSION)
    return new VersionError(
      'EIO',
      `${daemon} has version ${version} of the session protocol, this program ${SESSION_VERSION}`,
      'use the same userdma for both',
    )
  if (error === Errno.EMFILE || error === Errno.ENFILE)
    return new SessionError('EMFILE', `${daemon} has no sessions or descriptors left for this process or user`)
  return new SessionError('EIO', `${daemon} refused the session: ${errnoName(error)}`)
}
