/*
 * One connected process: its session socket, its memory, the contexts that it may use, and its calls (spec/session.ts,
 * R41, R42).
 *
 * The kernel identifies it (peer credentials, a pidfd), never its own messages. A context may be used by the session
 * that opened it and by those that have shown its memory file (ATTACH). Whatever a client sends, the worst result is
 * that it is disconnected; its contexts end with their doorbell sockets.
 */

import { closeContext, openContext } from '../../core/devices/registry.ts'
import { systemDevice } from '../../core/devices/system.ts'
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import { invokeNow } from '../../core/dispatch/invoke.ts'
import type { Caller, Context, FdObject, MemoryAccount } from '../../core/model.ts'
import { closeDescriptor, findDescriptor } from '../../core/objects/descriptors.ts'
import { EAGAIN, SystemError } from '../../host/errno.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { eventsWait, watch } from '../../host/event-loop/poll.ts'
import { yieldOnce } from '../../host/event-loop/yield.ts'
import { PATIENCE } from '../../host/memory/moves.ts'
import {
  closeProcess,
  fdFile,
  fdTarget,
  isStillOwned,
  mayAccess,
  openProcess,
  type ProcessHandle,
  pidfdGetfd,
  searchFd,
} from '../../host/memory/process.ts'
import { close, peerCredentials, peerPidfd, type Received, recv, send } from '../../host/net/sockets.ts'
import { needsOwner } from '../../host/owner.ts'
import { commandName, hasCapability } from '../../host/process-status.ts'
import { CmChannel } from '../../spec/classes/cm_channel.ts'
import { MadChannel } from '../../spec/classes/mad_channel.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import {
  CM_NODE,
  HelloWants,
  MessageType,
  OpenWants,
  SESSION_VERSION,
  SessionLimits,
  SYSTEM_NODE,
  UMAD_NAME,
  UMAD_NODES,
} from '../../spec/session.ts'
import type { Answer, Result } from '../../uapi/call.ts'
import { decodeWrite } from '../../uapi/linux/write.ts'
import { callOfRequest } from '../../uapi/object/format.ts'
import {
  type Header,
  type InstallAt,
  messageBuffer,
  newRequest,
  readRequest,
  writeCallReply,
  writeHelloReply,
  writeOpenReply,
  writeWrittenReply,
} from '../../uapi/session-codec.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { EventSocket } from '../context/event-socket.ts'
import { installKindOf } from '../context/event-sockets.ts'
import type { FdQuota } from '../fd-quota.ts'
import { nodeRdev } from '../files/tree.ts'
import { openFileMemory } from '../memory/file-space.ts'
import { type PassedMemory, takePassedMemory } from '../memory/passed-memory.ts'
import { createProcessSpace } from '../memory/process-space.ts'
import { type NetlinkAnswer, type NetlinkCaller, netlinkCall } from '../netlink/calls.ts'
import type { DaemonState } from '../state.ts'
import type { CallerFacts } from '../trace/trace-hub.ts'
import { recordingCaller } from '../trace/trace-messages.ts'
import { ioctlDialect, ucmaDialect, umadDialects } from './dialects.ts'
import { driverDialect } from './driver-calls.ts'
import { createToolDesk } from './tool-desk.ts'

export interface Session {
  /** The process that connected. */
  readonly process: ProcessHandle
  close(): void
}

/** Maximum messages of one session handled at once: a client that never stops sending must not block others. */
const BURST = 16
/** Microseconds of polling for the next call after a call. */
const LINGER = 20
/**
 * Maximum open contexts of a session, and event descriptors of a context: more than programs need, fewer than the
 * daemon has.
 */
const MOST_CONTEXTS = 256
const MOST_DESCRIPTORS = 8192
/** Sessions of one process: a shim needs one, a tool in a traced program another. */
const MOST_SESSIONS = 16
/**
 * Descriptors of a session itself: socket, pidfd, owner, memory, map of pages, userfaultfd, a memory file, a capture.
 */
const DESCRIPTORS = 8

/** Slices of a program's descriptors that a trace searches for the number of a new one. */
const TRACE_SLICES = 8

/** Linux's numbers of capabilities. */
const capabilities = { NET_RAW: 13 } as const

/** One buffer for all sessions in each direction: a message is handled before the next one is read. */
const incoming = messageBuffer()
const outgoing = messageBuffer()

/**
 * Accepts a connection. Undefined, and the socket refused, if the process has ended or descriptors are exhausted.
 * `ended`: it disconnected.
 */
export const createSession = (daemon: DaemonState, fd: number, ended: () => void): Session | undefined => {
  const pidfd = peerPidfd(fd)
  const peer = peerCredentials(fd)
  const { pid, uid, gid } = peer
  const share = daemon.shares.of(pid, uid)
  const account = daemon.memory.of(pid, uid)
  const giveBack = daemon.sessionsOf(pid) < MOST_SESSIONS ? takeOrNone(share) : undefined
  if (giveBack === undefined) {
    if (pidfd >= 0) close(pidfd)
    daemon.turnAway(fd, Errno.EMFILE)
    return undefined
  }
  const owner = needsOwner(uid) ? { uid, gid } : undefined
  const handle = openProcess(pid, { pidfd: pidfd < 0 ? undefined : pidfd, owner })
  if (handle instanceof SystemError) {
    daemon.turnAway(fd, handle.errno)
    giveBack()
    return undefined
  }
  const standing: ClientStanding = !daemon.serves(fd, peer)
    ? 'refused'
    : uid === process.geteuid?.()
      ? 'owner'
      : 'guest'
  return serve(daemon, fd, handle, share, account, standing, () => {
    giveBack()
    ended()
  })
}

const takeOrNone = (share: FdQuota): (() => void) | undefined => {
  try {
    return share.take(DESCRIPTORS)
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/** A client of the daemon's own user, of another user that it serves, or of one that it does not serve. */
type ClientStanding = 'owner' | 'guest' | 'refused'

const serve = (
  daemon: DaemonState,
  fd: number,
  process: ProcessHandle,
  share: FdQuota,
  account: MemoryAccount,
  standing: ClientStanding,
  ended: () => void,
): Session => {
  const { containment } = daemon
  const space = createProcessSpace(process, () => daemon.turn, {
    slices: daemon.slices,
    tooSlow: () => cutOff(),
    ignoreLimit: daemon.config.ignoreMemlock === true,
    guard: containment.guard,
    log: sentence => daemon.log(`userdma daemon: ${sentence}`),
  })
  const request = newRequest()
  /** Contexts that the session may use, including closed ones; counts those that it opened and did not close. */
  const mine = new WeakSet<OpenContext>()
  const opened = new Set<number>()
  let channels: Context | undefined
  const caller: Caller = {
    memory: space,
    copyIn: (address, length) => (passed ?? space).copyIn(address, length),
    copyOut: (address, bytes) => (passed ?? space).copyOut(address, bytes),
    descriptor(number) {
      const target = fdTarget(process.pid, number)
      return typeof target === 'string' ? daemon.events.find(target, process, number) : undefined
    },
    file: number => fdFile(process, number),
    openFile: number => openFileMemory(process, number, share),
    eventsRead: (object, read) => daemon.destroyWaits.add(object, read, caller),
    allows: capability => hasCapability(process.pid, capabilities[capability]) && isStillOwned(process),
  }
  /** Its last known name: a line about it may be logged after its end. */
  let command = commandName(process.pid) ?? '?'
  const nameNow = (): string => {
    command = commandName(process.pid) ?? command
    return command
  }
  let tag = ''
  let greeted = false
  let wantsReasons = false
  /** Its memory, or the file that it passed, is accessible. */
  let reachable = false
  let passed: PassedMemory | undefined
  let closed = false
  /** Its memory has blocked the daemon for too long: pending and later requests fail, and the session ends. */
  const cutOff = (): void => {
    daemon.log(
      `userdma daemon: process ${process.pid} (${commandName(process.pid) ?? '?'}) is cut off: its memory kept the daemon waiting for ${PATIENCE / 1000} ms (a file system that does not answer, userfaultfd?)`,
    )
    setImmediate(containment.guard('a session that is cut off', () => session.close()))
  }
  /** Calls in progress: until they are answered the client's next message waits. */
  let waiting = 0
  let wantsRoom = false
  const listen = (): void => {
    if (!closed) watcher.update({ readable: waiting === 0, writable: wantsRoom })
  }

  const reply = (length: number, fds: readonly number[] = []): void => {
    // A client has at most one call in progress, so its socket has room for the answer unless it stopped reading.
    if (!closed && send(fd, outgoing.bytes.subarray(0, length), fds) < 0) session.close()
  }

  const desk = createToolDesk(daemon, {
    buffer: outgoing,
    reply,
    send: length => send(fd, outgoing.bytes.subarray(0, length)) > 0,
    wantWritable(wanted) {
      wantsRoom = wanted
      listen()
    },
    trusted: standing === 'owner',
  })

  /**
   * A program whose memory we may not access, and that passes no file, is told so at once, since all of its calls would
   * fail. A tool needs only answers.
   */
  const hello = (fd: number | undefined): void => {
    const isUnmapping = fd !== undefined && (request.wants & HelloWants.UNMAPPING) !== 0
    // The kernel may block us on the mmap lock of the program's address space, which only our own user's programs may
    // hold.
    if (isUnmapping && standing === 'owner') space.learnUnmapping(fd)
    else if (isUnmapping) close(fd)
    const file = isUnmapping ? undefined : fd
    if (standing === 'refused') {
      if (file !== undefined) close(file)
      reply(writeHelloReply(outgoing, request, { error: Errno.EPERM, root: '' }))
      session.close()
      return
    }
    const taken = file === undefined ? undefined : takePassedMemory(file)
    const usable = file === undefined || (taken !== undefined && passed === undefined)
    if (passed === undefined) passed = taken
    else taken?.close()
    reachable = passed !== undefined || mayAccess(process)
    const greeting = !usable ? Errno.EINVAL : reachable ? 0 : Errno.EACCES
    const error = request.version === SESSION_VERSION ? greeting : Errno.EPROTO
    tag = request.tag
    wantsReasons = (request.wants & HelloWants.REASONS) !== 0
    if ((request.wants & HelloWants.WRITTEN) !== 0) space.recordWritten()
    greeted = request.version === SESSION_VERSION
    reply(writeHelloReply(outgoing, request, { error, root: daemon.root }), error === 0 ? [daemon.parkedFd] : [])
  }

  const refuseOpen = (errno: number): void =>
    reply(writeOpenReply(outgoing, request, { error: errno, context: 0, rdev: 0, inode: 0 }))

  const grantOpen = (open: OpenContext, doorbell: number, fds: readonly number[]): void => {
    mine.add(open)
    const { number: context, node, memory } = open
    reply(writeOpenReply(outgoing, request, { error: 0, context, rdev: nodeRdev(node), inode: memory.inode }), [
      ...fds,
      doorbell,
    ])
    close(doorbell)
  }

  /** A channel that a file is: its only descriptor is its socket. */
  const grantChannel = (node: number, { descriptors = [] }: Result): void => {
    const { object: number } = descriptors[0]!
    let socket: EventSocket
    try {
      socket = daemon.events.create(findDescriptor(daemon.core, number), share)
    } catch (error) {
      closeDescriptor(daemon.core, number)
      throw error
    }
    reply(writeOpenReply(outgoing, request, { error: 0, context: 0, rdev: nodeRdev(node), inode: 0 }), [socket.theirs])
    socket.passed()
  }

  const openNode = (): void => {
    const device = request.node === SYSTEM_NODE ? systemDevice(daemon.core) : daemon.devices.atNode(request.node)
    if (!device) throw new CallError('ENXIO', `there is no device node uverbs${request.node}`)
    for (const number of opened) if (!daemon.contexts.byNumber(number)) opened.delete(number)
    if (opened.size >= MOST_CONTEXTS)
      throw new CallError('EMFILE', `this process has ${MOST_CONTEXTS} contexts open, which is the limit`)
    const packed = (request.wants & OpenWants.PACKED_RINGS) !== 0
    const { open, doorbell } = daemon.contexts.open(device, request.node, share, packed, account)
    opened.add(open.number)
    daemon.failures.own(open.context, { pid: process.pid, command: nameNow(), tag })
    try {
      const file = open.memory.share()
      grantOpen(open, doorbell, [file])
      close(file)
    } catch (error) {
      close(doorbell)
      throw error
    }
  }

  /**
   * The connection manager: all channels of a process belong to one context, so that identifiers can migrate between
   * them.
   */
  const openChannel = (): void => {
    if (channels === undefined || channels.closed) {
      channels = openContext(systemDevice(daemon.core), { opened: true, account })
      daemon.failures.own(channels, { pid: process.pid, command: nameNow(), tag })
    }
    if (channels.descriptors.size >= MOST_DESCRIPTORS)
      throw new CallError('EMFILE', `this process has ${MOST_DESCRIPTORS} channels of rdma_cm open, which is the limit`)
    grantChannel(CM_NODE, invokeNow(channels, CmChannel, 'create', 0, {}, caller))
  }

  /** Management datagrams of a device: as the modes of Linux's nodes have it, for the system's own user. */
  const openMads = (): void => {
    const { node } = request
    const device = daemon.devices.atNode(node - UMAD_NODES)
    if (!device) throw new CallError('ENXIO', `there is no device node ${UMAD_NAME}${node - UMAD_NODES}`)
    if (standing !== 'owner')
      throw new CallError('EACCES', `${UMAD_NAME}${node - UMAD_NODES} is for the user whose daemon this is`)
    const context = openContext(device, { opened: true, account })
    daemon.failures.own(context, { pid: process.pid, command: nameNow(), tag })
    try {
      grantChannel(node, invokeNow(context, MadChannel, 'create', 0, {}, { ...caller, allows: () => true }))
    } catch (error) {
      closeContext(context)
      throw error
    }
  }

  const openers: Readonly<Record<number, () => void>> = { [CM_NODE]: openChannel, [SYSTEM_NODE]: openNode }
  const openerOf = (node: number): (() => void) => openers[node] ?? (node >= UMAD_NODES ? openMads : openNode)

  /**
   * The caller shows a descriptor; if it is the memory file of one of our contexts, the session may use the context.
   */
  const attach = (): void => {
    const shown = pidfdGetfd(process, request.fd)
    if (shown < 0) throw new SystemError('pidfd_getfd', shown, `descriptor ${request.fd} of process ${process.pid}`)
    try {
      const open = daemon.contexts.byFile(shown)
      if (!open) throw new CallError('ENODEV', `descriptor ${request.fd} is no context's`)
      grantOpen(open, daemon.contexts.addDoorbell(open, share), [])
    } finally {
      close(shown)
    }
  }

  /**
   * On Linux a program that has ended has released everything: opening waits until that is true of the user's programs.
   */
  const openingLater = (how: () => void): void => {
    const ended = daemon.untilEnded(account.user)
    if (ended === undefined) opening(how)
    else
      answerLater(
        { ...request },
        ended.then(() => {
          if (!closed) opening(how)
        }),
      )
  }

  const opening = (how: () => void): void => {
    try {
      if (!reachable) throw new CallError('EACCES', `the memory of process ${process.pid} is out of our reach`)
      how()
    } catch (error) {
      const foreseen = error instanceof CallError || error instanceof SystemError
      if (!foreseen) containment.report('the opening of a device', error)
      refuseOpen(foreseen ? error.errno : Errno.EIO)
    }
  }

  const factsOf = (context: Context, dialect: CallerFacts['dialect']): CallerFacts => ({
    pid: request.pid,
    tid: request.tid,
    fd: request.fd,
    command: nameNow(),
    device: context.device.name,
    dialect,
    ...((dialect === 'object' || dialect === 'driver') &&
      request.type === MessageType.IOCTL && { request: request.request }),
  })

  /** Names in /proc of the descriptors that the last call created; its trace needs their numbers. */
  let made: readonly string[] = []
  const numbersMade = (): (number | undefined)[] =>
    made.map(target => {
      const search = searchFd(process.pid, target)
      for (let left = TRACE_SLICES; left > 0; left--) {
        const { done, value } = search.next()
        if (done) return value
      }
      search.return(undefined)
      return undefined
    })

  const refuseCall = (to: Header, errno: number, reason?: string): void =>
    reply(writeCallReply(outgoing, to, -errno, [], wantsReasons ? reason : undefined))

  const sendAnswer = (to: Header, { ret, installs, reason }: Answer): void => {
    if (installs.length === 0) {
      reply(writeCallReply(outgoing, to, ret, installs, wantsReasons && ret < 0 ? reason : undefined))
      return
    }
    const sockets: EventSocket[] = []
    const places: InstallAt[] = []
    try {
      for (const { descriptor, address, width } of installs) {
        const made = findDescriptor(daemon.core, descriptor.object)
        if (made.context.descriptors.size > MOST_DESCRIPTORS)
          throw new CallError('EMFILE', `a context has at most ${MOST_DESCRIPTORS} event descriptors`)
        sockets.push(daemon.events.create(made, share))
        places.push({ address, width, kind: installKindOf(made) })
      }
      made = sockets.map(({ target }) => target)
      reply(
        writeCallReply(outgoing, to, ret, places),
        sockets.map(({ theirs }) => theirs),
      )
    } catch (error) {
      if (!(error instanceof CallError || error instanceof SystemError)) throw error
      // The new object has no descriptor, so nobody could close it.
      for (const { descriptor } of installs) closeDescriptor(daemon.core, descriptor.object)
      refuseCall(to, error.errno, error.message)
    } finally {
      for (const socket of sockets) socket.passed()
    }
  }

  /** A bug of ours must not end the daemon for other processes: the call fails, and the log has the stack. */
  const failed = (to: Header): ((error: unknown) => void) =>
    containment.guard('an answer', error => {
      containment.report('a call', error)
      refuseCall(to, Errno.EIO)
    })

  const answerLater = (to: Header, sent: Promise<void>): void => {
    waiting++
    listen()
    void sent.catch(failed(to)).finally(() => {
      waiting--
      listen()
    })
  }

  const runCall = <M extends readonly unknown[]>(
    context: Context,
    name: CallerFacts['dialect'],
    dialect: Dialect<M>,
    message: M,
    descriptor?: number,
  ): void => {
    const accesses = daemon.trace.isWatched(tag) ? [] : undefined
    const watched = daemon.trace.watch(dialect, tag, () => factsOf(context, name), numbersMade, accesses)
    const by = accesses === undefined ? caller : recordingCaller(caller, accesses)
    const to = { ...request }
    daemon.calling = process
    try {
      const answer = daemon.dispatch(context, watched, message, by, descriptor)
      const send = (result: Answer): void =>
        to.type === MessageType.MAP ? sendMap(to, context, result) : sendAnswer(to, result)
      if (answer instanceof Promise) answerLater(to, answer.then(send))
      else send(answer)
    } catch (error) {
      failed(to)(error)
    } finally {
      daemon.calling = undefined
    }
  }

  /** The file behind a driver's memory: the context's, which the client has anyway. */
  const sendMap = (to: Header, context: Context, { ret, reason }: Answer): void => {
    const open = daemon.contexts.of(context)
    const refused = wantsReasons ? reason : undefined
    if (ret < 0 || open === undefined) reply(writeCallReply(outgoing, to, Math.min(ret, 0) || -Errno.EIO, [], refused))
    else reply(writeCallReply(outgoing, to, ret), [open.memory.fd])
  }

  /** A call on an event or driver descriptor. */
  const callOnDescriptor = (): void => {
    const number = caller.descriptor(request.fd)
    const fd = number === undefined ? undefined : daemon.core.descriptors.get(number)
    const { type } = request
    if (number === undefined) refuseCall(request, Errno.EBADF)
    // Its context or device is gone.
    else if (fd === undefined) refuseCall(request, Errno.EIO)
    else if (type === MessageType.IOCTL && callOfRequest(request.request) !== undefined) {
      const { name, dialect } = ioctlDialect(request.request)
      runCall(fd.context, name, dialect, [request.request, request.argument], fd.handle)
    } else if (fd.class.name === MadChannel.name && type !== MessageType.MAP) callOnMads(fd)
    else if (type === MessageType.READ) refuseCall(request, Errno.EINVAL)
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
    else if (!open || !mine.has(open) || request.type === MessageType.MAP || request.type === MessageType.READ)
      refuseCall(request, Errno.EBADF)
    else if (request.type === MessageType.WRITE)
      // The dialect refuses lengths beyond what a header can describe.
      runCall(open.context, 'write', decodeWrite, [request.buffer, Number(request.length)])
    else {
      const { name, dialect } = ioctlDialect(request.request)
      runCall(open.context, name, dialect, [request.request, request.argument])
    }
  }

  const netlinkCaller: NetlinkCaller = {
    admin: standing === 'owner',
    share,
    target: number => {
      const target = fdTarget(process.pid, number)
      return typeof target === 'string' ? target : undefined
    },
    copyIn: caller.copyIn,
  }
  const onNetlink = (): void => {
    const to = { ...request }
    const send = ({ ret, socket }: NetlinkAnswer): void => {
      reply(writeCallReply(outgoing, to, ret), socket && [socket.theirs])
      socket?.passed()
    }
    try {
      const answer = netlinkCall(daemon.netlink, netlinkCaller, to)
      if (answer instanceof Promise) answerLater(to, answer.then(send))
      else send(answer)
    } catch (error) {
      if (error instanceof CallError || error instanceof SystemError) refuseCall(to, error.errno, error.message)
      else failed(to)(error)
    }
  }

  const handle = (fds: readonly number[]): void => {
    // Only tools attach several descriptors, and HELLO one.
    const kept = request.type === MessageType.HELLO ? 1 : 0
    if (request.type !== MessageType.TOOL) for (const extra of fds.slice(kept)) close(extra)
    if (request.type === MessageType.HELLO) hello(fds[0])
    else if (!greeted) session.close()
    else if (request.type === MessageType.OPEN) openingLater(openerOf(request.node))
    else if (request.type === MessageType.ATTACH) opening(attach)
    else if (request.type === MessageType.REFRESH) {
      const error = daemon.refreshCounters()
      reply(writeCallReply(outgoing, request, error === 0 ? 0 : -error))
    } else if (request.type === MessageType.WRITTEN)
      reply(writeWrittenReply(outgoing, request, space.takeWritten(SessionLimits.ranges)))
    else if (request.type === MessageType.NETLINK) onNetlink()
    else if (request.type === MessageType.TOOL) desk.handle(request, fds)
    else call()
  }

  /**
   * Reads the next message. Programs make calls in a row, and a wake-up costs more than a call: so poll a moment
   * longer, unless there is other work.
   */
  const next = (): Received => {
    const begin = nowMicroseconds()
    for (;;) {
      const received = recv(fd, incoming.bytes)
      if (received.length !== -EAGAIN || daemon.loop.awake || eventsWait()) return received
      const now = nowMicroseconds()
      if (now - begin >= LINGER || !yieldOnce(now)) return received
    }
  }

  const onReadable = (): void => {
    for (let left = BURST; left > 0 && !closed && waiting === 0; left--) {
      const { length, fds } = next()
      if (length === -EAGAIN) return
      // End of file, a broken connection, or an invalid message: not one of our clients.
      if (length <= 0 || fds.length > SessionLimits.descriptors || readRequest(incoming, length, request)) {
        for (const extra of fds) close(extra)
        session.close()
        return
      }
      daemon.turn++
      daemon.trace.settle(numbersMade)
      handle(fds)
      daemon.loop.touch()
    }
  }

  const onReady = (readable: boolean, writable: boolean): void => {
    if (writable) desk.onWritable()
    if (readable) onReadable()
  }
  // An exception outside a call: the state of the session is unknown.
  const watcher = watch(
    fd,
    { readable: true },
    containment.guard('a session', onReady, () => session.close()),
  )

  const session: Session = {
    process,
    close() {
      if (closed) return
      closed = true
      containment.runAll('the end of a session', [
        () => daemon.trace.settle(numbersMade),
        () => watcher.stop(),
        () => close(fd),
        () => desk.close(),
        () => daemon.destroyWaits.drop(caller),
        () => daemon.failures.leave(process.pid),
        () => space.close(),
        () => passed?.close(),
        () => closeProcess(process),
        ended,
      ])
    },
  }
  return session
}
