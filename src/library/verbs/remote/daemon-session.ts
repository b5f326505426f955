/*
 * A program's session with a daemon (spec/session.ts). Each request blocks the thread until the reply, because library
 * calls are synchronous; only waits for the end of a context do not. All contexts of a program on one daemon share a
 * session.
 *
 * The daemon reads and writes the program's memory, which the session permits (PR_SET_PTRACER). If the kernel still
 * refuses, call messages are in a memory file that the session passes to the daemon (call-memory.ts).
 */

import { type Channel, helloRefusal, openChannelBlocking, type WriteRequest } from '../../../daemon/client/channel.ts'
import { SessionError } from '../../../daemon/client/errors.ts'
import { daemonCommand } from '../../../daemon/client/user-socket.ts'
import { EAGAIN, EMFILE } from '../../../host/errno.ts'
import { type Watch, watch } from '../../../host/event-loop/poll.ts'
import { waitReadable } from '../../../host/event-loop/wait.ts'
import type { Mapping } from '../../../host/memory/mapping.ts'
import { allowPtraceBy } from '../../../host/memory/process.ts'
import { hasNative } from '../../../host/native.ts'
import { close, send } from '../../../host/net/sockets.ts'
import { Errno } from '../../../spec/errno.ts'
import { HelloWants, MessageType, ParkedPage, SESSION_VERSION, SessionEnv } from '../../../spec/session.ts'
import { newReply, type Reply, writeHello, writeRequest, writeTool } from '../../../uapi/session-codec.ts'
import type { ToolReply, ToolRequest } from '../../../uapi/tool.ts'
import { type RdmaError, refused } from '../error.ts'
import { type CallMemory, passedMemory } from './call-memory.ts'
import { ringPool } from './file-rings.ts'
import { areStacksWanted, createStackNumbers, isEventLogWanted } from './stack-numbers.ts'

/** A reply and its descriptors, which the caller must close. */
export interface Answer {
  readonly reply: Reply
  readonly fds: readonly number[]
}

/** The remedy after a daemon has ended. */
export const restartHint = (socket: string): string =>
  `start it with \`${daemonCommand(socket)}\`, then open the device again`

export interface Session {
  /** Path of the daemon's socket. */
  readonly socket: string
  /** The page of `ParkedPage`: its word PARKED is nonzero while the daemon sleeps and needs a doorbell. */
  readonly parked: Int32Array
  /** Memory for call messages, if the daemon may not access this program's memory; otherwise undefined. */
  readonly memory?: CallMemory | undefined
  /**
   * Sends a request and waits for the reply. `write` encodes the request into the buffer and returns the length;
   * `header`: the fields of every request. `call`: the call's name in errors. Throws RdmaError EMFILE if this
   * process has too few free descriptors for those of the reply, EIO if the daemon has ended, does not answer, or sends
   * an invalid message.
   */
  ask(call: string, write: WriteRequest): Answer
  /** The daemon's number of the caller's stack; 0 without a number. */
  stackNumber(): number
  /** Sends a request as userdma's tools do (uapi/tool.ts). */
  tool(request: ToolRequest): ToolReply
  /** Calls `onDestroyed` when the daemon has destroyed the objects of a closed context, or when the session ends. */
  whenDestroyed(context: number, onDestroyed: () => void): void
  /** Blocks the thread until `whenDestroyed` has made all its calls. */
  waitDestroyed(): void
  /** Whether the daemon's end of the socket is still open; if not, the session ends. */
  checkAlive(): boolean
  /** Undoes one `joinDaemon`; the last call closes the session. */
  leave(): void
}

type JoinableSession = Session & { join(): Session }

/** Milliseconds until a call without an answer fails. */
export const ANSWER_TIMEOUT = 30_000
/** Maximum number of outstanding requests of `whenDestroyed`; the daemon ends a session with 16 unanswered ones. */
const MAX_WAITS = 8

const sessionsByPath = new Map<string, JoinableSession>()

/** The error of `call` for a session that cannot be opened; other errors as they are. */
const openError = (call: string, error: unknown): unknown => {
  if (!(error instanceof SessionError)) return error
  const { code, reason } = error
  const hint =
    code === 'EMFILE'
      ? 'close devices in other threads (a thread that was terminated with an open device keeps its session), or start the daemon with a higher limit (`ulimit -n`)'
      : error.hint
  return refused(code, call, reason, hint)
}

const openSocket = (socket: string, call: string): Channel => {
  try {
    return openChannelBlocking(socket)
  } catch (error) {
    throw openError(call, error)
  }
}

const newSession = (socket: string, openCall: string): JoinableSession => {
  const channel = openSocket(socket, openCall)
  const { fd, pid } = channel
  let isAlive = true
  let users = 0
  let parkedPage: Mapping | undefined
  let memory: CallMemory | undefined
  let stackNumber = (): number => 0
  let watcher: Watch | undefined
  /** Callbacks of `whenDestroyed`, by serial of the request. */
  const waits = new Map<number, () => void>()
  /** Arguments of `whenDestroyed` whose requests are not sent yet. */
  const unsentWaits: { readonly context: number; readonly onDestroyed: () => void }[] = []

  /** Closes the session; later requests fail. */
  const end = (): void => {
    if (!isAlive) return
    isAlive = false
    watcher?.stop()
    close(fd)
    if (sessionsByPath.get(socket) === session) sessionsByPath.delete(socket)
    for (const onDestroyed of waits.values()) onDestroyed()
    for (const { onDestroyed } of unsentWaits) onDestroyed()
    waits.clear()
    unsentWaits.length = 0
  }
  /** Ends the session, and returns the error of `call`. */
  const failed = (call: string, reason: string, hint?: string): RdmaError => {
    end()
    return refused('EIO', call, reason, hint)
  }
  const daemonEnded = (call: string): RdmaError => failed(call, `${channel.daemon} has ended`, restartHint(socket))
  /** Sends a request, with descriptors to pass. False if the socket is closed or full. */
  const sendRequest = (write: WriteRequest, passedFds: readonly number[] = []): boolean =>
    send(fd, channel.encode(write), passedFds) >= 0
  const sendWaits = (): void => {
    while (waits.size < MAX_WAITS && unsentWaits.length > 0) {
      const { context, onDestroyed } = unsentWaits.shift()!
      const text = JSON.stringify({ kind: 'closed', context } satisfies ToolRequest)
      const isSent = sendRequest((message, header) => writeTool(message, header, text))
      waits.set(channel.serial, onDestroyed)
      if (!isSent) end()
    }
  }
  /** Handles the reply to a request that `exchange` does not wait for. */
  const onLateReply = (replySerial: number): void => {
    const onDestroyed = waits.get(replySerial)
    waits.delete(replySerial)
    sendWaits()
    onDestroyed?.()
  }
  /** Reads the received replies. `exchange` does not wait. */
  const readReplies = (): void => {
    const reply = newReply()
    while (isAlive) {
      const { length, fds, fault } = channel.receive(reply)
      if (length === -EAGAIN) return
      for (const passed of fds) close(passed)
      if (length > 0 && fault === undefined) onLateReply(reply.serial)
      else end()
    }
  }
  /** Sends a request, with descriptors to pass, and waits for its reply. */
  const exchange = (call: string, write: WriteRequest, passedFds?: readonly number[]): Answer => {
    if (!isAlive) throw daemonEnded(call)
    if (!sendRequest(write, passedFds)) throw daemonEnded(call)
    const requestSerial = channel.serial
    const reply = newReply()
    for (;;) {
      const { length: received, fds, fault } = channel.receive(reply)
      if (received === -EAGAIN) {
        if (!waitReadable(fd, ANSWER_TIMEOUT)) throw failed(call, `the daemon at ${socket} does not answer`)
        continue
      }
      // The reply is lost, but the session continues: without the descriptors the daemon ends what it has created.
      if (received === -EMFILE)
        throw refused('EMFILE', call, 'this process has too many open files', 'close some, or raise `ulimit -n`')
      if (received <= 0) throw daemonEnded(call)
      if (fault === undefined && reply.serial === requestSerial && (reply.type & MessageType.REPLY) !== 0)
        return { reply, fds }
      for (const passed of fds) close(passed)
      if (fault !== undefined) throw failed(call, `the daemon at ${socket} sent an invalid message: ${fault}`)
      onLateReply(reply.serial)
    }
  }

  const session: JoinableSession = {
    socket,
    get parked() {
      return (parkedPage as Mapping).i32
    },
    get memory() {
      return memory
    },
    ask(call, write) {
      const stack = stackNumber()
      return exchange(call, (message, header) => write(message, { ...header, stack }))
    },
    stackNumber: () => stackNumber(),
    tool(request) {
      const { reply } = exchange('device', (message, header) => writeTool(message, header, JSON.stringify(request)))
      return JSON.parse(reply.text) as ToolReply
    },
    whenDestroyed(context, onDestroyed) {
      if (!isAlive) {
        onDestroyed()
        return
      }
      watcher ??= watch(fd, { readable: true }, readReplies)
      watcher.unref()
      unsentWaits.push({ context, onDestroyed })
      sendWaits()
    },
    waitDestroyed() {
      while (waits.size > 0)
        if (waitReadable(fd, ANSWER_TIMEOUT)) readReplies()
        else end()
    },
    checkAlive() {
      // The daemon sends only replies: without requests, a readable socket is closed.
      if (isAlive && waitReadable(fd, 0)) {
        if (waits.size > 0) readReplies()
        else end()
      }
      return isAlive
    },
    leave() {
      if (--users > 0) return
      end()
      ringPool().release(parkedPage as Mapping)
    },
    join() {
      users++
      return session
    },
  }

  allowPtraceBy(pid)
  const defineStack = (id: number, frames: string): boolean => {
    const { reply } = exchange('check', (message, header) => writeRequest(message, 'STACK', header, { id, frames }))
    return reply.ret === 0n
  }
  const tag = process.env[SessionEnv.tag] ?? ''
  const wants = HelloWants.REASONS | (isEventLogWanted() ? HelloWants.EVENTS : 0)
  const sendHello = (passedFds?: readonly number[]): Answer =>
    exchange(openCall, (message, header) => writeHello(message, header, tag, wants), passedFds)
  let reply: Reply
  let fds: readonly number[] = []
  try {
    ;({ reply, fds } = sendHello())
    // The daemon may not access this program's memory.
    if (reply.version === SESSION_VERSION && reply.error === Errno.EACCES) {
      const passed = passedMemory()
      memory = passed.memory
      const answer = sendHello([passed.fd])
      reply = answer.reply
      fds = answer.fds
    }
    const refusal = helloRefusal(reply, channel)
    if (refusal !== undefined) throw openError(openCall, refusal)
    // It refuses the passed memory.
    if (reply.error !== 0) throw refused('EIO', openCall, `${channel.daemon} refused the session: EACCES`)
    parkedPage = ringPool().map(fds[0]!, 0, ParkedPage.bytes, 'read')
  } catch (error) {
    end()
    throw error
  } finally {
    for (const received of fds) close(received)
  }
  if (areStacksWanted()) stackNumber = createStackNumbers(defineStack)
  return session
}

/**
 * This process's session with the daemon at `socket`, opened if there is none. Throws RdmaError; `call`: as for
 * `Session.ask`.
 */
export const joinDaemon = (socket: string, call: string): Session => {
  if (!hasNative())
    throw refused('EOPNOTSUPP', call, 'connecting to a daemon needs native calls', 'install the package koffi')
  let session = sessionsByPath.get(socket)
  if (session === undefined || !session.checkAlive()) {
    session = newSession(socket, call)
    sessionsByPath.set(socket, session)
  }
  return session.join()
}
