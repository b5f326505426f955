/*
 * One connected process: its session socket, its memory, the contexts that it may use, and its calls (spec/session.ts, R41, R42).
 *
 * Who it is comes from the kernel (peer credentials, a pidfd), never from what it says. A context may be used by the session that opened
 * it and by those that have shown its memory file (ATTACH). Whatever a client sends, the worst that happens is that it is
 * disconnected; what it had opened goes with its doorbell sockets.
 */
import { statSync } from 'node:fs'
import { findDescriptor } from '../core/descriptors.ts'
import { type Dialect, dispatch } from '../core/dispatch.ts'
import type { Caller } from '../core/model.ts'
import { EAGAIN, SystemError } from '../host/errno.ts'
import { watch } from '../host/poll.ts'
import { closeProcess, commandName, fdTarget, openProcess, type ProcessHandle } from '../host/process.ts'
import { close, peerCredentials, peerPidfd, recv, send } from '../host/sockets.ts'
import { CallError, Errno } from '../spec/errno.ts'
import { MessageType, SESSION_VERSION, SessionLimits } from '../spec/session.ts'
import type { Answer } from '../uapi/call.ts'
import { decodeWrite } from '../uapi/linux-write.ts'
import {
  type Header,
  messageBuffer,
  newRequest,
  readRequest,
  writeCallReply,
  writeHelloReply,
  writeOpenReply,
} from '../uapi/session.ts'
import type { OpenContext } from './contexts.ts'
import { ioctlDialect } from './dialects.ts'
import type { EventSocket } from './event-socket.ts'
import { createProcessSpace } from './process-space.ts'
import type { DaemonState } from './state.ts'
import { createToolDesk } from './tool-desk.ts'
import type { CallerFacts } from './trace-hub.ts'
import { nodeRdev } from './tree.ts'

export interface Session {
  close(): void
}

/** One buffer for all sessions in each direction: a message is handled before the next one is read. */
const incoming = messageBuffer()
const outgoing = messageBuffer()

/** Accepts a connection. Undefined, and the socket closed, if the process is gone already. `ended`: it disconnected. */
export const createSession = (daemon: DaemonState, fd: number, ended: () => void): Session | undefined => {
  const pidfd = peerPidfd(fd)
  const { pid } = peerCredentials(fd)
  const process = pidfd < 0 ? openProcess(pid) : openProcess(pid, pidfd)
  if (process instanceof SystemError) {
    close(fd)
    return undefined
  }
  return serve(daemon, fd, process, ended)
}

/** Inode behind a descriptor of a process; undefined if it is not open. */
const inodeOf = (pid: number, fd: number): number | undefined => {
  try {
    return statSync(`/proc/${pid}/fd/${fd}`).ino
  } catch {
    return undefined
  }
}

const serve = (daemon: DaemonState, fd: number, process: ProcessHandle, ended: () => void): Session => {
  const space = createProcessSpace(process, () => daemon.turn)
  const request = newRequest()
  const mine = new Set<OpenContext>()
  const caller: Caller = {
    memory: space,
    copyIn: space.copyIn,
    copyOut: space.copyOut,
    descriptor(number) {
      const target = fdTarget(process.pid, number)
      return typeof target === 'string' ? daemon.events.find(target) : undefined
    },
  }
  let tag = ''
  let greeted = false
  let closed = false

  const reply = (length: number, fds: readonly number[] = []): void => {
    // A client has at most one call under way, so its socket has room for the answer unless it stopped reading altogether.
    if (!closed && send(fd, outgoing.bytes.subarray(0, length), fds) < 0) session.close()
  }

  const desk = createToolDesk(daemon, {
    buffer: outgoing,
    reply,
    send: length => send(fd, outgoing.bytes.subarray(0, length)) > 0,
    wantWritable: wanted => watcher.update({ readable: true, writable: wanted }),
  })

  const hello = (): void => {
    const error = request.version === SESSION_VERSION ? 0 : Errno.EPROTO
    tag = request.tag
    greeted = error === 0
    reply(writeHelloReply(outgoing, request, { error, root: daemon.root }), error === 0 ? [daemon.parkedFd] : [])
  }

  const refuseOpen = (errno: number): void =>
    reply(writeOpenReply(outgoing, request, { error: errno, context: 0, rdev: 0, inode: 0 }))

  const grantOpen = (open: OpenContext, fds: readonly number[]): void => {
    const doorbell = daemon.contexts.addDoorbell(open)
    mine.add(open)
    const { number: context, node, memory } = open
    reply(writeOpenReply(outgoing, request, { error: 0, context, rdev: nodeRdev(node), inode: memory.inode }), [
      ...fds,
      doorbell,
    ])
    close(doorbell)
  }

  const openNode = (): void => {
    const spec = daemon.config.devices[request.node]
    const device = spec && daemon.core.devices.get(spec.name)
    try {
      if (!device) throw new CallError('ENXIO', `there is no device node uverbs${request.node}`)
      const open = daemon.contexts.open(device, request.node)
      grantOpen(open, [open.memory.fd])
    } catch (error) {
      if (!(error instanceof CallError || error instanceof SystemError)) throw error
      refuseOpen(error.errno)
    }
  }

  /** The caller shows a descriptor; if it is the memory file of a context of ours, the session may use that. */
  const attach = (): void => {
    const inode = inodeOf(process.pid, request.fd)
    const open = inode === undefined ? undefined : daemon.contexts.byInode(inode)
    if (open) grantOpen(open, [])
    else refuseOpen(inode === undefined ? Errno.EBADF : Errno.ENODEV)
  }

  const factsOf = (open: OpenContext, dialect: CallerFacts['dialect']): CallerFacts => ({
    pid: request.pid,
    tid: request.tid,
    fd: request.fd,
    command: commandName(process.pid) ?? '?',
    device: open.context.device.name,
    dialect,
  })

  const sendAnswer = (to: Header, answer: Answer): void => {
    const sockets: EventSocket[] = []
    try {
      for (const { descriptor } of answer.installs)
        sockets.push(daemon.events.create(findDescriptor(daemon.core, descriptor.object)))
      reply(
        writeCallReply(outgoing, to, answer.ret, answer.installs),
        sockets.map(({ theirs }) => theirs),
      )
    } finally {
      for (const socket of sockets) socket.passed()
    }
  }

  const runCall = <M extends readonly unknown[]>(
    open: OpenContext,
    name: CallerFacts['dialect'],
    dialect: Dialect<M>,
    message: M,
  ): void => {
    const watched = daemon.trace.watch(dialect, tag, () => factsOf(open, name))
    daemon.calling = process
    const answer = dispatch(open.context, watched, message, caller)
    daemon.calling = undefined
    if (answer instanceof Promise) {
      const to = { ...request }
      void answer.then(later => sendAnswer(to, later))
    } else sendAnswer(request, answer)
  }

  const call = (): void => {
    const open = daemon.contexts.byNumber(request.context)
    if (!open || !mine.has(open)) sendAnswer(request, { ret: -Errno.EBADF, installs: [] })
    else if (request.type === MessageType.WRITE)
      // A length beyond what a header can describe is refused by the dialect; here it only has to stay one.
      runCall(open, 'write', decodeWrite, [request.buffer, Number(request.length)])
    else {
      const { name, dialect } = ioctlDialect(request.request)
      runCall(open, name, dialect, [request.request, request.argument])
    }
  }

  const handle = (fds: readonly number[]): void => {
    // Only tools pass descriptors on.
    if (request.type !== MessageType.TOOL) for (const extra of fds) close(extra)
    if (request.type === MessageType.HELLO) hello()
    else if (!greeted) session.close()
    else if (request.type === MessageType.OPEN) openNode()
    else if (request.type === MessageType.ATTACH) attach()
    else if (request.type === MessageType.TOOL) desk.handle(request, fds)
    else call()
  }

  const onReadable = (): void => {
    while (!closed) {
      const { length, fds } = recv(fd, incoming.bytes)
      if (length === -EAGAIN) return
      // The end, a broken connection, or a message that is none: the client is not one of ours.
      if (length <= 0 || fds.length > SessionLimits.descriptors || readRequest(incoming, length, request)) {
        for (const extra of fds) close(extra)
        session.close()
        return
      }
      daemon.turn++
      handle(fds)
      daemon.loop.kick()
    }
  }

  const watcher = watch(fd, { readable: true }, (readable, writable) => {
    if (writable) desk.onWritable()
    if (readable) onReadable()
  })

  const session: Session = {
    close() {
      if (closed) return
      closed = true
      watcher.stop()
      close(fd)
      desk.close()
      space.close()
      closeProcess(process)
      ended()
    },
  }
  return session
}
