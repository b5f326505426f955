/*
 * Runs the calls of a session: on contexts, on event and driver descriptors, rdma_cm channels and umad files, and on
 * netlink sockets. Some are answered later.
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

/** Maximum slices of the search for the number of a new descriptor in a program, for a trace. */
const TRACE_SLICES = 8

export interface SessionCalls {
  /** Handles a message of type IOCTL, WRITE, READ or MAP. */
  call(): void
  /** Handles a message of type NETLINK. */
  netlink(): void
  /**
   * Completes the trace record of the last call with the numbers of its new descriptors: at the client's next message,
   * by which it has received them, or at the end of the session.
   */
  settleTrace(): void
}

export const createSessionCalls = (client: Client): SessionCalls => {
  const { daemon, process, quota, standing, caller, request, outgoing, reply, refuse, failureHandler, answerLater } =
    client

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

  /**
   * /proc/PID/fd targets of the descriptors that the last call with new ones created; its trace record needs their
   * numbers.
   */
  let createdTargets: readonly string[] = []
  /** The numbers of these descriptors in the program; undefined for one that was not found in TRACE_SLICES. */
  const createdNumbers = (): (number | undefined)[] =>
    createdTargets.map(target => {
      const search = searchFd(process.pid, target)
      for (let slice = 0; slice < TRACE_SLICES; slice++) {
        const { done, value } = search.next()
        if (done) return value
      }
      search.return(undefined)
      return undefined
    })

  const sendAnswer = (header: Header, { ret, installs, reason }: Answer): void => {
    if (installs.length === 0) {
      reply(writeCallReply(outgoing, header, ret, installs, client.wantsReasons && ret < 0 ? reason : undefined))
      return
    }
    // If the call is refused below, its trace record must not get the numbers of an earlier one.
    createdTargets = []
    const sockets: EventSocket[] = []
    const installPoints: InstallAt[] = []
    try {
      for (const { descriptor, address, width } of installs) {
        const created = findDescriptor(daemon.core, descriptor.object)
        if (created.context.descriptors.size > MAX_DESCRIPTORS)
          throw new CallError('EMFILE', `a context has at most ${MAX_DESCRIPTORS} event descriptors`)
        sockets.push(daemon.events.create(created, quota))
        installPoints.push({ address, width, kind: installKindOf(created) })
      }
      createdTargets = sockets.map(({ target }) => target)
      reply(
        writeCallReply(outgoing, header, ret, installPoints),
        sockets.map(({ peerEnd }) => peerEnd),
      )
    } catch (error) {
      if (!(error instanceof CallError || error instanceof SystemError)) throw error
      // The program did not get a descriptor of the new object, so it could not close it.
      for (const { descriptor } of installs) closeDescriptor(daemon.core, descriptor.object)
      refuse(header, error.errno, error.message)
    } finally {
      for (const socket of sockets) socket.closePeerEnd()
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
    const tracedDialect = daemon.trace.watch(
      dialect,
      client.tag,
      () => factsOf(context, name),
      createdNumbers,
      accesses,
    )
    const tracedCaller = accesses === undefined ? caller : recordingCaller(caller, accesses)
    const header = { ...request }
    daemon.callingProcess = process
    if (daemon.check !== undefined) daemon.check.currentStack = daemon.check.stackOf(process.pid, header.stack)
    try {
      const answer = daemon.dispatch(context, tracedDialect, message, tracedCaller, descriptor)
      if (daemon.check !== undefined && !(answer instanceof Promise) && answer.attempt !== undefined && answer.ret < 0)
        daemon.check.refusedAttempt(context, {
          attempt: answer.attempt,
          errno: -answer.ret,
          reason: answer.reason ?? '',
          stack: daemon.check.currentStack ?? [],
        })
      const send = (result: Answer): void =>
        header.type === MessageType.MAP ? sendMap(header, context, result) : sendAnswer(header, result)
      if (answer instanceof Promise) answerLater(header, answer.then(send))
      else send(answer)
    } catch (error) {
      failureHandler(header)(error)
    } finally {
      daemon.callingProcess = undefined
      if (daemon.check !== undefined) daemon.check.currentStack = undefined
    }
  }

  /** Answers MAP with the context's memory file, which contains the driver's memory. */
  const sendMap = (header: Header, context: Context, { ret, reason }: Answer): void => {
    const open = daemon.contexts.of(context)
    const refused = client.wantsReasons ? reason : undefined
    if (ret < 0 || open === undefined)
      reply(writeCallReply(outgoing, header, Math.min(ret, 0) || -Errno.EIO, [], refused))
    else reply(writeCallReply(outgoing, header, ret), [open.memory.fd])
  }

  /** Handles a call on an event or driver descriptor, an rdma_cm channel or a umad file. */
  const callOnDescriptor = (): void => {
    const number = caller.descriptor(request.fd)
    const fd = number === undefined ? undefined : daemon.core.descriptors.get(number)
    const { type } = request
    if (number === undefined) refuse(request, Errno.EBADF)
    // The descriptor's context was closed, or its device removed.
    else if (fd === undefined) refuse(request, Errno.EIO)
    else if (type === MessageType.IOCTL && callOfRequest(request.request) !== undefined) {
      const { name, dialect } = ioctlDialect(request.request)
      runCall(fd.context, name, dialect, [request.request, request.argument], fd.handle)
    } else if (fd.class.name === MadChannel.name && type !== MessageType.MAP) callOnUmad(fd)
    else if (type === MessageType.READ) refuse(request, Errno.EINVAL)
    else if (type === MessageType.WRITE && fd.class.name === CmChannel.name)
      runCall(fd.context, 'write', ucmaDialect(fd, request.fd, caller), [request.buffer, Number(request.length)])
    else runCall(fd.context, 'driver', driverDialect(fd, caller), [{ ...request }])
  }

  const callOnUmad = (fd: FdObject): void => {
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
    isAdmin: standing === 'owner',
    quota,
    target: number => {
      const target = fdTarget(process.pid, number)
      return typeof target === 'string' ? target : undefined
    },
    copyIn: caller.copyIn,
  }
  const netlink = (): void => {
    const header = { ...request }
    const send = ({ ret, socket }: NetlinkAnswer): void => {
      reply(writeCallReply(outgoing, header, ret), socket && [socket.peerEnd])
      socket?.closePeerEnd()
    }
    try {
      const answer = netlinkCall(daemon.netlink, netlinkCaller, header)
      if (answer instanceof Promise) answerLater(header, answer.then(send))
      else send(answer)
    } catch (error) {
      if (error instanceof CallError || error instanceof SystemError) refuse(header, error.errno, error.message)
      else failureHandler(header)(error)
    }
  }

  return { call, netlink, settleTrace: () => daemon.trace.settle(createdNumbers) }
}
