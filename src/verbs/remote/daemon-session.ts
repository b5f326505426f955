/*
 * A program's session with a daemon (spec/session.ts): each request blocks until its reply, without the event loop,
 * since the caller needs the result synchronously. Contexts of one program share a session. Where the kernel restricts
 * access to memory, the daemon gets permission for ours (prctl); where it still refuses, calls are in a file that the
 * session passes.
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
  writeRequest,
  writeTool,
} from '../../uapi/session-codec.ts'
import type { ToolReply, ToolRequest } from '../../uapi/tool.ts'
import { type RdmaError, refusal, refused } from '../error.ts'
import { type CallMemory, passedMemory } from './call-memory.ts'
import { areEventsWanted, areStacksWanted, createStackNumbers } from './stack-numbers.ts'
import { connectToDaemon, daemonCommand, notServed, UntrustedDaemonError } from './user-socket.ts'

/** A reply and its descriptors, which the caller must close. */
export interface Answer {
  readonly reply: Reply
  readonly fds: readonly number[]
}

export interface Session {
  readonly socket: string
  /** Nonzero while the daemon sleeps: it then needs a doorbell. */
  readonly parked: Int32Array
  readonly alive: boolean
  /** Memory for calls, if the daemon may not access this program's memory; it then cannot register memory either. */
  readonly memory?: CallMemory | undefined
  /** Sends what `write` puts into the buffer and waits for the reply. Throws RdmaError EIO if the daemon has ended. */
  ask(call: string, write: (buffer: ReturnType<typeof messageBuffer>, from: Partial<Header>) => number): Answer
  /** The number of the caller's stack, which the daemon knows; 0: none, or stacks are not recorded. */
  stackNumber(): number
  tool(request: ToolRequest): ToolReply
  /** Checks whether the daemon's end is still open. */
  check(): boolean
  /** Releases one user; the last one closes it. */
  leave(): void
}

/** Milliseconds after which a call without an answer fails; a live daemon answers in microseconds. */
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
  let stackNumber = (): number => 0

  const end = (): void => {
    if (!alive) return
    alive = false
    close(fd)
    if (sessions.get(socket) === session) sessions.delete(socket)
  }
  const ended = (call: string, why = `the daemon at ${socket} (process ${pid}) has ended`): RdmaError => {
    end()
    return refused('EIO', call, why)
  }
  const exchange = (call: string, write: Parameters<Session['ask']>[1], passing: readonly number[] = []): Answer => {
    if (!alive) throw ended(call)
    serial = (serial + 1) >>> 0
    const length = write(buffer, { serial, pid: process.pid, tid: process.pid })
    if (send(fd, buffer.bytes.subarray(0, length), passing) < 0) throw ended(call)
    const reply = newReply()
    for (;;) {
      const { length: got, fds } = recv(fd, buffer.bytes)
      if (got === -EAGAIN) {
        if (!waitReadable(fd, PATIENCE)) throw ended(call, `the daemon at ${socket} does not answer`)
        continue
      }
      if (got <= 0) throw ended(call)
      const fault = readReply(buffer, got, reply)
      if (fault !== undefined) throw ended(call, `the daemon at ${socket} sent an invalid message: ${fault}`)
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
    ask(call, write) {
      const stack = stackNumber()
      return exchange(call, (to, from) => write(to, { ...from, stack }))
    },
    stackNumber: () => stackNumber(),
    tool(request) {
      const { reply } = exchange('device', (to, from) => writeTool(to, from, JSON.stringify(request)))
      return JSON.parse(reply.text) as ToolReply
    },
    check() {
      // There are no unsolicited messages: readable means closed.
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
  const defineStack = (id: number, frames: string): boolean => {
    const { reply } = exchange('check', (to, from) => writeRequest(to, 'STACK', from, { id, frames }))
    return reply.ret === 0n
  }
  const tag = process.env[SessionEnv.tag] ?? ''
  const wants = HelloWants.REASONS | (areEventsWanted() ? HelloWants.EVENTS : 0)
  const sendHello = (passing?: readonly number[]): Answer =>
    exchange('open', (to, from) => writeHello(to, from, tag, wants), passing)
  let { reply, fds } = sendHello()
  if (reply.version === SESSION_VERSION && reply.error === Errno.EACCES) {
    const { fd: file, memory: bytes } = passedMemory()
    memory = bytes
    const again = sendHello([file])
    reply = again.reply
    fds = again.fds
  }
  try {
    if (reply.version !== SESSION_VERSION)
      throw ended(
        'open',
        `the daemon at ${socket} speaks version ${reply.version} of the session protocol, not ${SESSION_VERSION}`,
      )
    if (reply.error === Errno.EPERM) throw ended('open', notServed(socket))
    if (reply.error !== 0)
      throw ended('open', `the daemon at ${socket} refused the session (${errnoName(reply.error)})`)
    page = mapReadOnly(fds[0]!, ParkedPage.bytes)
  } finally {
    for (const one of fds) close(one)
  }
  if (areStacksWanted()) stackNumber = createStackNumbers(defineStack)
  return session
}

/** This process's session with the daemon at `socket`, opened on first use. Throws RdmaError. */
export const joinDaemon = (socket: string): Session => {
  if (!hasNative())
    throw refused('EOPNOTSUPP', 'open', 'connecting to a daemon needs native calls', 'install the package koffi')
  let session = sessions.get(socket)
  if (session === undefined || !session.check()) {
    session = newSession(socket)
    sessions.set(socket, session)
  }
  return session.join()
}
