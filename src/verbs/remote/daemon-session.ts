/*
 * A program's session with a daemon (spec/session.ts): each request waits for its reply, without the event loop, since
 * the caller's next line needs it. Contexts of one program share it. Where the kernel restricts access to memory, the
 * daemon is let at ours; where it still refuses that, calls lie in a file that the session passes.
 */
import { EAGAIN, SystemError } from '../../host/errno.ts'
import { waitReadable } from '../../host/event-loop/wait.ts'
import { type Arena, mapReadOnly } from '../../host/memory/mapping.ts'
import { allowPtraceBy } from '../../host/memory/process.ts'
import { hasNative } from '../../host/native.ts'
import { close, recv, send } from '../../host/net/sockets.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import { HelloWants, MessageType, ParkedPage, SESSION_VERSION, SessionEnv } from '../../spec/session.ts'
import {
  type Header,
  messageBuffer,
  newReply,
  type Reply,
  readReply,
  writeHello,
  writeTool,
} from '../../uapi/session-codec.ts'
import type { ToolReply, ToolRequest } from '../../uapi/tool.ts'
import { type RdmaError, refusal, refused } from '../error.ts'
import { type CallMemory, passedMemory } from './call-memory.ts'
import { connectToDaemon, daemonCommand, notServed, UntrustedDaemonError } from './user-socket.ts'

/** A reply and the descriptors that came with it, which are the caller's to close. */
export interface Answer {
  readonly reply: Reply
  readonly fds: readonly number[]
}

export interface Session {
  readonly socket: string
  /** Not zero while the daemon sleeps: then a doorbell must be rung. */
  readonly parked: Int32Array
  readonly alive: boolean
  /** Where calls lie, if the daemon may not access this program's memory: then it registers none either. */
  readonly memory?: CallMemory | undefined
  /** Sends what `write` puts into the buffer and waits for the reply. Throws RdmaError EIO when the daemon is gone. */
  ask(call: string, write: (buffer: ReturnType<typeof messageBuffer>, from: Partial<Header>) => number): Answer
  tool(request: ToolRequest): ToolReply
  /** Looks whether the daemon still holds its end. */
  check(): boolean
  /** One user less; the last one ends it. */
  leave(): void
}

/** Milliseconds without an answer after which a call fails: a daemon that lives answers in microseconds. */
const PATIENCE = 30_000

const sessions = new Map<string, Session & { join(): Session }>()

const dial = (socket: string): ReturnType<typeof connectToDaemon> => {
  try {
    return connectToDaemon(socket)
  } catch (error) {
    const code = error instanceof SystemError ? error.code : ''
    if (code === 'ENOENT' || code === 'ECONNREFUSED')
      throw refused('ECONNREFUSED', 'open', `no daemon at ${socket}`, `start one with \`${daemonCommand(socket)}\``)
    if (error instanceof UntrustedDaemonError) throw refused('EACCES', 'open', error.message)
    if (code === 'EACCES') throw refused('EACCES', 'open', notServed(socket))
    if (error instanceof SystemError) throw refusal(error.code, error.errno, 'open', error.message)
    throw error
  }
}

const newSession = (socket: string): Session & { join(): Session } => {
  const { fd, peer } = dial(socket)
  const { pid } = peer
  const buffer = messageBuffer()
  let serial = 0
  let alive = true
  let users = 0
  let page: Arena | undefined
  let memory: CallMemory | undefined

  const end = (): void => {
    if (!alive) return
    alive = false
    close(fd)
    if (sessions.get(socket) === session) sessions.delete(socket)
  }
  const gone = (call: string, why = `the daemon at ${socket} (process ${pid}) is gone`): RdmaError => {
    end()
    return refused('EIO', call, why)
  }
  const exchange = (call: string, write: Parameters<Session['ask']>[1], passing: readonly number[] = []): Answer => {
    if (!alive) throw gone(call)
    serial = (serial + 1) >>> 0
    const length = write(buffer, { serial, pid: process.pid, tid: process.pid })
    if (send(fd, buffer.bytes.subarray(0, length), passing) < 0) throw gone(call)
    const reply = newReply()
    for (;;) {
      const { length: got, fds } = recv(fd, buffer.bytes)
      if (got === -EAGAIN) {
        if (!waitReadable(fd, PATIENCE)) throw gone(call, `the daemon at ${socket} does not answer`)
        continue
      }
      if (got <= 0) throw gone(call)
      const fault = readReply(buffer, got, reply)
      if (fault !== undefined) throw gone(call, `the daemon at ${socket} sent nonsense: ${fault}`)
      if (reply.serial === serial && (reply.type & MessageType.REPLY) !== 0) return { reply, fds }
      for (const one of fds) close(one)
    }
  }

  const session: Session & { join(): Session } = {
    socket,
    get parked() {
      return (page as Arena).i32
    },
    get alive() {
      return alive
    },
    get memory() {
      return memory
    },
    ask: (call, write) => exchange(call, write),
    tool(request) {
      const { reply } = exchange('device', (to, from) => writeTool(to, from, JSON.stringify(request)))
      return JSON.parse(reply.text) as ToolReply
    },
    check() {
      // Nothing comes unasked: something to read is the end.
      if (alive && waitReadable(fd, 0)) end()
      return alive
    },
    leave() {
      if (--users === 0) end()
    },
    join() {
      users++
      return session
    },
  }

  allowPtraceBy(pid)
  const tag = process.env[SessionEnv.tag] ?? ''
  const greet = (passing?: readonly number[]): Answer =>
    exchange('open', (to, from) => writeHello(to, from, tag, HelloWants.REASONS), passing)
  let { reply, fds } = greet()
  if (reply.version === SESSION_VERSION && reply.error === Errno.EACCES) {
    const { fd: file, memory: bytes } = passedMemory()
    memory = bytes
    const again = greet([file])
    reply = again.reply
    fds = again.fds
  }
  try {
    if (reply.version !== SESSION_VERSION)
      throw gone(
        'open',
        `the daemon at ${socket} speaks version ${reply.version} of the session protocol, not ${SESSION_VERSION}`,
      )
    if (reply.error === Errno.EPERM) throw gone('open', notServed(socket))
    if (reply.error !== 0) throw gone('open', `the daemon at ${socket} refused the session (${errnoName(reply.error)})`)
    page = mapReadOnly(fds[0]!, ParkedPage.bytes)
  } finally {
    for (const one of fds) close(one)
  }
  return session
}

/** The session of this process with the daemon at `socket`, opened when it is the first. Throws RdmaError. */
export const joinDaemon = (socket: string): Session => {
  if (!hasNative())
    throw refused('EOPNOTSUPP', 'open', 'a daemon is reached with native calls', 'install the package koffi')
  let session = sessions.get(socket)
  if (session === undefined || !session.check()) {
    session = newSession(socket)
    sessions.set(socket, session)
  }
  return session.join()
}
