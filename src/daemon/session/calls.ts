/*
 * Calls of a session: on contexts, on event and driver descriptors, and on netlink sockets. Some are answered later.
 */
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import type { Context, FdObject } from '../../core/model.ts'
import { closeDescriptor, findDescriptor } from '../../core/objects/descriptors.ts'
import { SystemError } from '../../host/errno.ts'
import { fdTarget, searchFd } from '../../host/memory/process.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { MadChannel } from '../../spec/classes/mad/mad_channel.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import { MessageType } from '../../spec/session.ts'
import type { Answer } from '../../uapi/call.ts'
import { decodeWrite } from '../../uapi/linux/write.ts'
import { callOfRequest } from '../../uapi/object/format.ts'
import { type Header, type InstallAt, writeCallReply } from '../../uapi/session-codec.ts'
import type { EventSocket } from '../context/event-socket.ts'
import { installKindOf } from '../context/event-sockets.ts'
import { type NetlinkAnswer, type NetlinkCaller, netlinkCall } from '../netlink/calls.ts'
import type { CallerFacts } from '../trace/trace-hub.ts'
import { recordingCaller } from '../trace/trace-messages.ts'
import { type Client, MAX_DESCRIPTORS } from './client.ts'
import { ioctlDialect, ucmaDialect, umadDialects } from './dialects.ts'
import { driverDialect } from './driver-calls.ts'

/** Slices of the search for the number of a new descriptor in a program, for a trace. */
const TRACE_SLICES = 8

export interface SessionCalls {
  /** Handles a message of type IOCTL, WRITE, READ or MAP. */
  call(): void
  /** Handles a message of type NETLINK. */
  netlink(): void
  /**
   * Completes the trace record of the last call with the numbers of its new descriptors, which the client has received
   * by now.
   */
  settleTrace(): void
}

export const createSessionCalls = (client: Client): SessionCalls => {
  const { daemon, process, quota, standing, caller, request, outgoing, reply, refuse, failed, answerLater } = client

  const factsOf = (context: Context, dialect: CallerFacts['dialect']): CallerFacts => ({
    pid: request.pid,
    tid: request.tid,
    fd: request.fd,
    command: client.name(),
    device: context.device.name,
    dialect,
    ...((dialect === 'object' || dialect === 'driver') &&
      request.type === MessageType.IOCTL && { request: request.request }),
  })

  /** /proc/PID/fd targets of the descriptors that the last call created; its trace record needs their numbers. */
  let made: readonly string[] = []
  const createdNumbers = (): (number | undefined)[] =>
    made.map(target => {
      const search = searchFd(process.pid, target)
      for (let left = TRACE_SLICES; left > 0; left--) {
        const { done, value } = search.next()
        if (done) return value
      }
      search.return(undefined)
      return undefined
    })

  const sendAnswer = (to: Header, { ret, installs, reason }: Answer): void => {
    if (installs.length === 0) {
      reply(writeCallReply(outgoing, to, ret, installs, client.wantsReasons && ret < 0 ? reason : undefined))
      return
    }
    const sockets: EventSocket[] = []
    const places: InstallAt[] = []
    try {
      for (const { descriptor, address, width } of installs) {
        const made = findDescriptor(daemon.core, descriptor.object)
        if (made.context.descriptors.size > MAX_DESCRIPTORS)
          throw new CallError('EMFILE', `a context has at most ${MAX_DESCRIPTORS} event descriptors`)
        sockets.push(daemon.events.create(made, quota))
        places.push({ address, width, kind: installKindOf(made) })
      }
      made = sockets.map(({ target }) => target)
      reply(
        writeCallReply(outgoing, to, ret, places),
        sockets.map(({ peerEnd }) => peerEnd),
      )
    } catch (error) {
      if (!(error instanceof CallError || error instanceof SystemError)) throw error
      // The program did not get a descriptor of the new object, so it could not close it.
      for (const { descriptor } of installs) closeDescriptor(daemon.core, descriptor.object)
      refuse(to, error.errno, error.message)
    } finally {
      for (const socket of sockets) socket.passed()
    }
  }

  const runCall = <M extends readonly unknown[]>(
    context: Context,
    name: CallerFacts['dialect'],
    dialect: Dialect<M>,
    message: M,
    descriptor?: number,
  ): void => {
    const accesses = daemon.trace.isWatched(client.tag) ? [] : undefined
    const watched = daemon.trace.watch(dialect, client.tag, () => factsOf(context, name), createdNumbers, accesses)
    const by = accesses === undefined ? caller : recordingCaller(caller, accesses)
    const to = { ...request }
    daemon.calling = process
    if (daemon.check !== undefined) daemon.check.calling = daemon.check.stackOf(process.pid, to.stack)
    try {
      const answer = daemon.dispatch(context, watched, message, by, descriptor)
      if (daemon.check !== undefined && !(answer instanceof Promise) && answer.attempt !== undefined)
        daemon.check.refusedAttempt(context, {
          attempt: answer.attempt,
          errno: -answer.ret,
          reason: answer.reason ?? '',
          stack: daemon.check.calling ?? [],
        })
      const send = (result: Answer): void =>
        to.type === MessageType.MAP ? sendMap(to, context, result) : sendAnswer(to, result)
      if (answer instanceof Promise) answerLater(to, answer.then(send))
      else send(answer)
    } catch (error) {
      failed(to)(error)
    } finally {
      daemon.calling = undefined
      if (daemon.check !== undefined) daemon.check.calling = undefined
    }
  }

  /** Answers MAP with the file behind a driver's memory: the context's file, which the client has in any case. */
  const sendMap = (to: Header, context: Context, { ret, reason }: Answer): void => {
    const open = daemon.contexts.of(context)
    const refused = client.wantsReasons ? reason : undefined
    if (ret < 0 || open === undefined) reply(writeCallReply(outgoing, to, Math.min(ret, 0) || -Errno.EIO, [], refused))
    else reply(writeCallReply(outgoing, to, ret), [open.memory.fd])
  }

  /** Handles a call on an event or driver descriptor. */
  const callOnDescriptor = (): void => {
    const number = caller.descriptor(request.fd)
    const fd = number === undefined ? undefined : daemon.core.descriptors.get(number)
    const { type } = request
    if (number === undefined) refuse(request, Errno.EBADF)
    // Its context was closed, or its device removed.
    else if (fd === undefined) refuse(request, Errno.EIO)
    else if (type === MessageType.IOCTL && callOfRequest(request.request) !== undefined) {
      const { name, dialect } = ioctlDialect(request.request)
      runCall(fd.context, name, dialect, [request.request, request.argument], fd.handle)
    } else if (fd.class.name === MadChannel.name && type !== MessageType.MAP) callOnMads(fd)
    else if (type === MessageType.READ) refuse(request, Errno.EINVAL)
    else if (type === MessageType.WRITE && fd.class.name === CmChannel.name)
      runCall(fd.context, 'write', ucmaDialect(fd, request.fd, caller), [request.buffer, Number(request.length)])
    else runCall(fd.context, 'driver', driverDialect(fd, caller), [{ ...request }])
  }

  const callOnMads = (fd: FdObject): void => {
    const { type, buffer, length, argument } = request
    const { ioctl, write, read } = umadDialects(fd, request.fd)
    if (type === MessageType.IOCTL) runCall(fd.context, 'umad', ioctl, [request.request, argument])
    else if (type === MessageType.WRITE) runCall(fd.context, 'umad', write, [buffer, Number(length)])
    else runCall(fd.context, 'umad', read, [buffer, Number(length)])
  }

  const call = (): void => {
    const open = daemon.contexts.byNumber(request.context)
    if (request.context === 0) callOnDescriptor()
    else if (
      !open ||
      !client.contexts.has(open) ||
      request.type === MessageType.MAP ||
      request.type === MessageType.READ
    )
      refuse(request, Errno.EBADF)
    else if (request.type === MessageType.WRITE)
      // The dialect refuses lengths that a header cannot describe.
      runCall(open.context, 'write', decodeWrite, [request.buffer, Number(request.length)])
    else {
      const { name, dialect } = ioctlDialect(request.request)
      runCall(open.context, name, dialect, [request.request, request.argument])
    }
  }

  const netlinkCaller: NetlinkCaller = {
    admin: standing === 'owner',
    quota,
    target: number => {
      const target = fdTarget(process.pid, number)
      return typeof target === 'string' ? target : undefined
    },
    copyIn: caller.copyIn,
  }
  const netlink = (): void => {
    const to = { ...request }
    const send = ({ ret, socket }: NetlinkAnswer): void => {
      reply(writeCallReply(outgoing, to, ret), socket && [socket.peerEnd])
      socket?.passed()
    }
    try {
      const answer = netlinkCall(daemon.netlink, netlinkCaller, to)
      if (answer instanceof Promise) answerLater(to, answer.then(send))
      else send(answer)
    } catch (error) {
      if (error instanceof CallError || error instanceof SystemError) refuse(to, error.errno, error.message)
      else failed(to)(error)
    }
  }

  return { call, netlink, settleTrace: () => daemon.trace.settle(createdNumbers) }
}
