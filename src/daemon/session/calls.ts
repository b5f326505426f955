/*
 * Runs the calls of a session: on contexts, event and driver descriptors, rdma_cm channels, umad files and netlink
 * sockets.
 */

import type { Dialect, dispatch } from '../../core/dispatch/dispatch.ts'
import type { Context, Core, FdObject } from '../../core/model.ts'
import { closeDescriptor, findDescriptor } from '../../core/objects/descriptors.ts'
import { SystemError } from '../../host/errno.ts'
import { fdTarget, searchFd } from '../../host/memory/process.ts'
import { namespaceOfFd, networkNamespaceOf } from '../../host/network-namespaces.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { MadChannel } from '../../spec/classes/mad/mad_channel.ts'
import { CallError, callError, Errno } from '../../spec/errno.ts'
import { asReason, because, type Reason } from '../../spec/reason.ts'
import { CHANNEL_NUMBERS, MessageType, SessionLimits } from '../../spec/session.ts'
import type { Answer } from '../../uapi/call.ts'
import { decodeWrite } from '../../uapi/linux/write.ts'
import { callOfRequest } from '../../uapi/object/format.ts'
import { type Header, headerOf, type InstallAt, type Request, writeCallReply } from '../../uapi/session-codec.ts'
import type { DaemonChecker } from '../check/checker.ts'
import type { Contexts } from '../context/contexts.ts'
import type { EventSocket } from '../context/event-socket.ts'
import { type EventSockets, installKindOf } from '../context/event-sockets.ts'
import { type NetlinkAnswer, type NetlinkCaller, netlinkCall } from '../netlink/calls.ts'
import type { Netlink } from '../netlink/netlink.ts'
import type { CallerFacts, TraceHub } from '../trace/trace-hub.ts'
import { recordingCaller } from '../trace/trace-messages.ts'
import type { Turn } from '../turn.ts'
import { type Client, MAX_DESCRIPTORS } from './client.ts'
import { ioctlDialect, ucmaDialect, umadDialects } from './dialects.ts'
import { driverDialect } from './driver-calls.ts'

const reasonIn = (error: CallError | SystemError): Reason =>
  error instanceof CallError ? error.reason : asReason(error.message)

/** Maximum slices of a search (`searchFd`) for a descriptor's number in the program. */
const TRACE_SLICES = 8

/** What calls use. */
export interface CallParts {
  readonly core: Core
  /** Core's `dispatch`, or a test's. */
  readonly dispatch: typeof dispatch
  readonly contexts: Contexts
  readonly events: EventSockets
  readonly netlink: Netlink
  readonly trace: TraceHub
  readonly turn: Turn
  /** Undefined without `userdma check`. */
  readonly check: DaemonChecker | undefined
}

export class SessionCalls {
  readonly #client: Client
  readonly #request: Request
  readonly #daemon: CallParts
  /** Targets in /proc/PID/fd of the descriptors that a call created last. */
  #createdTargets: readonly string[] = []
  /**
   * Looks up the numbers of the created descriptors in the program, for the call's trace record; undefined: not found.
   * The trace hub also takes this function as the key of the session's waiting record (`TraceHub.settle`).
   */
  readonly #createdNumbers = (): (number | undefined)[] =>
    this.#createdTargets.map(target => {
      const search = searchFd(this.#client.process.pid, target)
      for (let slice = 0; slice < TRACE_SLICES; slice++) {
        const { done, value } = search.next()
        if (done) return value
      }
      search.return(undefined)
      return undefined
    })
  readonly #netlinkCaller: NetlinkCaller

  constructor(client: Client, daemon: CallParts) {
    this.#client = client
    this.#request = client.request
    const { process, account, standing, caller, time } = client
    this.#daemon = daemon
    this.#netlinkCaller = {
      isAdmin: standing === 'owner',
      account,
      time,
      target: number => {
        const target = fdTarget(process.pid, number)
        return typeof target === 'string' ? target : undefined
      },
      copyIn: caller.copyIn,
      namespaceOfFd: fd => namespaceOfFd(process.pid, fd),
      namespace: () => networkNamespaceOf(process.pid),
    }
  }

  /** Handles a message of type IOCTL, WRITE, READ or MAP. */
  call(): void {
    const { context: number, type, request, argument, buffer, length } = this.#request
    if (number === 0 || number >= CHANNEL_NUMBERS) {
      this.#callOnDescriptor()
      return
    }
    const open = this.#daemon.contexts.byNumber(number)
    const isUnsupported = type === MessageType.MAP || type === MessageType.READ
    if (open === undefined || !this.#client.contexts.has(open) || isUnsupported)
      this.#client.refuse(this.#request, Errno.EBADF)
    else {
      open.memory.adopter = this.#client.adoptions
      if (type === MessageType.WRITE)
        // Number() rounds lengths beyond 2^53; the dialect refuses such lengths.
        this.#runCall(open.context, 'write', decodeWrite, [buffer, Number(length)])
      else {
        const { name, dialect } = ioctlDialect(request)
        this.#runCall(open.context, name, dialect, [request, argument])
      }
      open.memory.adopter = undefined
    }
  }

  /**
   * Handles a message of type NOT_MAPPED. `undo`: undoes the client's last call, if its answer had memory to map;
   * undefined: there is no such call, or it cannot be undone.
   */
  notMapped(undo: (() => void) | undefined): void {
    const header = headerOf(this.#request)
    if (undo === undefined) {
      this.#client.refuse(header, Errno.EINVAL, because`the last call has created nothing with memory to map`)
      return
    }
    try {
      undo()
      this.#client.reply(
        writeCallReply(this.#client.outgoing, header, 0, [], undefined, this.#client.adoptions.take(true)),
      )
    } catch (error) {
      this.#client.failureHandler(header)(error)
    }
  }

  /** Handles a message of type NETLINK. */
  netlink(): void {
    const header = { ...this.#request }
    const send = ({ ret, socket }: NetlinkAnswer): void => {
      this.#client.reply(writeCallReply(this.#client.outgoing, header, ret), socket && [socket.peerEnd])
      socket?.closePeerEnd()
    }
    try {
      const answer = netlinkCall(this.#daemon.netlink, this.#netlinkCaller, header)
      if (answer instanceof Promise) this.#client.answerLater(header, answer.then(send))
      else send(answer)
    } catch (error) {
      if (error instanceof CallError || error instanceof SystemError)
        this.#client.refuse(header, error.errno, reasonIn(error))
      else this.#client.failureHandler(header)(error)
    }
  }

  /**
   * Completes the trace record of the last call with the numbers of its new descriptors. Call at the client's next
   * message: then the client has received the descriptors.
   */
  settleTrace(): void {
    this.#daemon.trace.settle(this.#createdNumbers)
  }

  #factsOf(context: Context, dialect: CallerFacts['dialect']): CallerFacts {
    const hasRequest = this.#request.type === MessageType.IOCTL && (dialect === 'object' || dialect === 'driver')
    return {
      pid: this.#request.pid,
      tid: this.#request.tid,
      fd: this.#request.fd,
      command: this.#client.name(),
      device: context.device.name,
      dialect,
      ...(hasRequest && { request: this.#request.request }),
    }
  }

  #sendAnswer(header: Header, context: Context, { ret, installs, reason, undo }: Answer): void {
    const undoIfOpen = (): void => {
      if (!context.isClosed && context.device.isAlive) undo?.()
    }
    if (installs.length === 0) {
      this.#client.reply(
        writeCallReply(
          this.#client.outgoing,
          header,
          ret,
          installs,
          this.#client.wantsReasons && ret < 0 ? reason : undefined,
          this.#client.adoptions.take(ret >= 0, undo && undoIfOpen),
        ),
      )
      return
    }
    // After an internal error below, the call's trace record must not get an earlier call's numbers.
    this.#createdTargets = []
    const sockets: EventSocket[] = []
    const installPoints: InstallAt[] = []
    try {
      if (installs.length > SessionLimits.descriptors)
        throw callError.EMFILE`the call creates ${installs.length} descriptors; at most ${SessionLimits.descriptors} are allowed`
      for (const { descriptor, address, width } of installs) {
        const created = findDescriptor(this.#daemon.core, descriptor.object)
        if (created.context.descriptors.size > MAX_DESCRIPTORS)
          throw callError.EMFILE`a context has at most ${MAX_DESCRIPTORS} descriptors`
        sockets.push(this.#daemon.events.create(created, this.#client.account))
        installPoints.push({ address, width, kind: installKindOf(created) })
      }
      this.#createdTargets = sockets.map(({ target }) => target)
      this.#client.reply(
        writeCallReply(
          this.#client.outgoing,
          header,
          ret,
          installPoints,
          undefined,
          this.#client.adoptions.take(true, undo && undoIfOpen),
        ),
        sockets.map(({ peerEnd }) => peerEnd),
      )
    } catch (error) {
      if (!(error instanceof CallError || error instanceof SystemError)) throw error
      // The program sees a failed call, so nothing that the call created may remain, such as a chain's other objects.
      undo?.()
      // `undo` leaves fd objects that another call uses. The program got no descriptors, so it cannot close them.
      for (const { descriptor } of installs) closeDescriptor(this.#daemon.core, descriptor.object)
      this.#daemon.trace.refuse(this.#createdNumbers, { ret: -error.errno, reason: reasonIn(error).toJSON() })
      this.#client.refuse(header, error.errno, reasonIn(error))
    } finally {
      for (const socket of sockets) socket.closePeerEnd()
    }
  }

  #runCall<M extends readonly unknown[]>(
    context: Context,
    name: CallerFacts['dialect'],
    dialect: Dialect<M>,
    message: M,
    descriptor?: number,
  ): void {
    const { caller, process, tag } = this.#client
    const { trace, check } = this.#daemon
    const accesses = trace.isWatched(tag) ? [] : undefined
    const tracedDialect = trace.watch(dialect, tag, () => this.#factsOf(context, name), this.#createdNumbers, accesses)
    const tracedCaller = accesses === undefined ? caller : recordingCaller(caller, accesses)
    const header = headerOf(this.#request)
    this.#daemon.turn.callingProcess = process
    check?.call.begin(check.stacks.of(process.pid, header.stack), header.tid)
    try {
      const answer = this.#daemon.dispatch(context, tracedDialect, message, tracedCaller, descriptor)
      if (check !== undefined && !(answer instanceof Promise) && answer.attempt !== undefined && answer.ret < 0)
        check.door.event({
          event: 'refusedAttempt',
          ...check.door.originOf(context),
          attempt: answer.attempt,
          errno: -answer.ret,
          reason: answer.reason ?? because``,
          stack: check.call.stack ?? [],
        })
      const send = (result: Answer): void =>
        header.type === MessageType.MAP
          ? this.#sendMap(header, context, result)
          : this.#sendAnswer(header, context, result)
      if (answer instanceof Promise) this.#client.answerLater(header, answer.then(send))
      else send(answer)
    } catch (error) {
      this.#client.failureHandler(header)(error)
    } finally {
      this.#daemon.turn.callingProcess = undefined
      check?.call.end()
    }
  }

  /** Answers MAP with the context's memory file, which contains the driver's memory. */
  #sendMap(header: Header, context: Context, { ret, reason }: Answer): void {
    const open = this.#daemon.contexts.of(context)
    const refused = this.#client.wantsReasons ? reason : undefined
    if (ret < 0) this.#client.reply(writeCallReply(this.#client.outgoing, header, ret, [], refused))
    else if (open === undefined)
      this.#client.reply(writeCallReply(this.#client.outgoing, header, -Errno.EIO, [], refused))
    else this.#client.reply(writeCallReply(this.#client.outgoing, header, ret), [open.memory.fd])
  }

  /** Handles a call on an event or driver descriptor, an rdma_cm channel or a umad file. */
  #callOnDescriptor(): void {
    const { caller } = this.#client
    const { fd: number, type, request, argument, buffer, length } = this.#request
    const channel = this.#openedChannel(this.#request.context)
    const handle = channel === undefined ? caller.descriptor(number) : channel.handle
    if (handle === undefined) {
      this.#client.refuse(this.#request, Errno.EBADF)
      return
    }
    const fd = channel ?? this.#daemon.core.descriptors.get(handle)
    // The descriptor's context was closed, or its device removed.
    if (fd === undefined) this.#client.refuse(this.#request, Errno.EIO)
    else if (type === MessageType.IOCTL && callOfRequest(request) !== undefined) {
      const { name, dialect } = ioctlDialect(request)
      this.#runCall(fd.context, name, dialect, [request, argument], fd.handle)
    } else if (fd.class.name === MadChannel.name && type !== MessageType.MAP) this.#callOnUmad(fd)
    else if (type === MessageType.READ) this.#client.refuse(this.#request, Errno.EINVAL)
    else if (type === MessageType.WRITE && fd.class.name === CmChannel.name)
      this.#runCall(fd.context, 'rdma_cm', ucmaDialect(fd, number, caller), [buffer, Number(length)])
    else this.#runCall(fd.context, 'driver', driverDialect(fd, caller), [{ ...this.#request }])
  }

  /** The channel with this number, if the session has opened it. */
  #openedChannel(number: number): FdObject | undefined {
    const channel = this.#daemon.core.descriptors.get(number - CHANNEL_NUMBERS)
    return channel !== undefined && this.#client.channels.has(channel) ? channel : undefined
  }

  #callOnUmad(fd: FdObject): void {
    const { type, buffer, length, argument } = this.#request
    const { ioctl, write, read } = umadDialects(fd, this.#request.fd)
    if (type === MessageType.IOCTL) this.#runCall(fd.context, 'umad', ioctl, [this.#request.request, argument])
    else if (type === MessageType.WRITE) this.#runCall(fd.context, 'umad', write, [buffer, Number(length)])
    else this.#runCall(fd.context, 'umad', read, [buffer, Number(length)])
  }
}
