/*
 * The session of a connected process: its socket, its memory and its messages (spec/session.ts, R41, R42).
 * open-nodes.ts opens contexts and channels, calls.ts runs calls, check-messages.ts and tool-requests.ts serve
 * `userdma check` and other tools.
 *
 * A process is identified by the kernel (peer credentials, a pidfd), not by its own messages. A context may be used by
 * the session that opened it, and by sessions that have shown its memory file (ATTACH). A client that sends anything
 * invalid is at worst disconnected; its contexts end when their doorbell sockets are closed.
 */

import type { Caller, MemoryAccount } from '../../core/model.ts'
import { EAGAIN, SystemError } from '../../host/errno.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { hasReadyEvents, watch } from '../../host/event-loop/poll.ts'
import { yieldOnce } from '../../host/event-loop/yield.ts'
import { MAX_WAIT } from '../../host/memory/budget.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import {
  closeProcess,
  fdFile,
  fdTarget,
  isStillOwned,
  mayAccess,
  openProcess,
  type ProcessHandle,
} from '../../host/memory/process.ts'
import { close, peerCredentials, peerPidfd, type Received, recv, recvGuarded, send } from '../../host/net/sockets.ts'
import { needsOwner } from '../../host/owner.ts'
import { commandName, hasCapability } from '../../host/process-status.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import { HelloWants, MessageType, SESSION_VERSION, SessionLimits } from '../../spec/session.ts'
import {
  messageBuffer,
  newRequest,
  readRequest,
  writeCallReply,
  writeHelloReply,
  writeWrittenReply,
} from '../../uapi/session-codec.ts'
import type { FdQuota } from '../fd-quota.ts'
import { openFileMemory } from '../memory/file-space.ts'
import { type PassedMemory, takePassedMemory } from '../memory/passed-memory.ts'
import { createProcessSpace, type ProcessSpace } from '../memory/process-space.ts'
import type { DaemonState } from '../state.ts'
import { createSessionCalls } from './calls.ts'
import { createCheckMessages } from './check-messages.ts'
import type { Client, ClientStanding } from './client.ts'
import { createNodeOpening } from './open-nodes.ts'
import { createToolRequests } from './tool-requests.ts'

export interface Session {
  /** The process that connected. */
  readonly process: ProcessHandle
  close(): void
}

/**
 * Maximum number of messages of one session handled in one callback of the event loop: a client that never stops
 * sending must not block others.
 */
const BURST = 16
/** Microseconds for which a session polls for its next message. */
const LINGER = 20
/** Maximum number of sessions of one process: the shim needs one, the library and userdma's commands open others. */
const MAX_SESSIONS = 16
/**
 * Descriptors charged for a session: socket, pidfd, owner, memory, map of pages, userfaultfd, a memory file, a capture.
 */
const SESSION_DESCRIPTORS = 8

/** Linux's capability numbers. */
const capabilities = { NET_RAW: 13 } as const

/** One buffer per direction for all sessions: a message is handled before the next one is read. */
const incoming = messageBuffer()
const outgoing = messageBuffer()

/**
 * Starts the session of an accepted connection. Returns undefined, and refuses the connection, if the process has ended
 * or blocks the daemon, or its quotas are exhausted. `ended` is called at the end of the session.
 */
export const createSession = (daemon: DaemonState, fd: number, ended: () => void): Session | undefined => {
  const pidfd = peerPidfd(fd)
  const peer = peerCredentials(fd)
  const { pid, uid, gid } = peer
  const quota = daemon.fdQuotas.of(pid, uid)
  const account = daemon.memory.of(pid, uid)
  const releaseQuota = daemon.sessionsOf(pid) < MAX_SESSIONS ? tryTake(quota) : undefined
  if (releaseQuota === undefined) {
    if (pidfd >= 0) close(pidfd)
    daemon.refuseConnection(fd, Errno.EMFILE)
    return undefined
  }
  const owner = needsOwner(uid) ? { uid, gid } : undefined
  const guestUid = uid === process.geteuid?.() ? undefined : uid
  const handle = openProcess(pid, { pidfd: pidfd < 0 ? undefined : pidfd, owner, guestUid })
  if (handle instanceof SystemError) {
    daemon.refuseConnection(fd, handle.errno)
    releaseQuota()
    return undefined
  }
  const standing: ClientStanding = !daemon.serves(fd, peer) ? 'refused' : guestUid === undefined ? 'owner' : 'guest'
  return serve(daemon, fd, handle, quota, account, standing, () => {
    releaseQuota()
    ended()
  })
}

/** Charges a session's descriptors; returns the function that releases them, or undefined if the quota is exhausted. */
const tryTake = (quota: FdQuota): (() => void) | undefined => {
  try {
    return quota.take(SESSION_DESCRIPTORS)
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/** The process as core's caller. `passedMemory`: the memory file that it passed with HELLO, if it has. */
const createCaller = (
  daemon: DaemonState,
  process: ProcessHandle,
  quota: FdQuota,
  space: ProcessSpace,
  passedMemory: () => PassedMemory | undefined,
): Caller => {
  const caller: Caller = {
    memory: space,
    copyIn: (address, length) => (passedMemory() ?? space).copyIn(address, length),
    copyOut: (address, bytes) => (passedMemory() ?? space).copyOut(address, bytes),
    descriptor(number) {
      const target = fdTarget(process.pid, number)
      return typeof target === 'string' ? daemon.events.find(target, process, number) : undefined
    },
    file: number => fdFile(process, number),
    openFile: number => openFileMemory(process, number, quota),
    eventsRead: (object, read) => daemon.destroyWaits.add(object, read, caller),
    allows: capability => hasCapability(process.pid, capabilities[capability]) && isStillOwned(process),
  }
  return caller
}

/** Serves the messages of an accepted connection. */
const serve = (
  daemon: DaemonState,
  fd: number,
  process: ProcessHandle,
  quota: FdQuota,
  account: MemoryAccount,
  standing: ClientStanding,
  ended: () => void,
): Session => {
  const { containment } = daemon
  const space = createProcessSpace(process, () => daemon.turn, {
    slices: daemon.slices,
    onTooSlow: () => cutOff(),
    ignoreLimit: daemon.config.ignoreMemlock === true,
    guard: containment.guard,
    log: message => daemon.log(`userdma daemon: ${message}`),
  })
  const request = newRequest()
  const caller = createCaller(daemon, process, quota, space, () => passedMemory)
  /** The process's last known name: lines about it may be logged after its end. */
  let command = commandName(process.pid) ?? '?'
  /** Whether the client has sent HELLO with this protocol version. */
  let hasGreeted = false
  /** The memory file that the client has passed with HELLO, if it has. */
  let passedMemory: PassedMemory | undefined
  let isCutOff = false
  /** Access to the process's memory or descriptors has blocked the daemon for too long: the session ends. */
  const cutOff = (): void => {
    if (isCutOff) return
    isCutOff = true
    daemon.log(
      `userdma daemon: process ${process.pid} (${commandName(process.pid) ?? '?'}) is disconnected: its memory or descriptors kept the daemon waiting for ${MAX_WAIT / 1000} ms (a file system that does not answer, userfaultfd?)`,
    )
    setImmediate(containment.guard('a session that is disconnected', () => session.close()))
  }
  /** Number of messages that are answered later: until then the client's next message is not read. */
  let callsInProgress = 0
  /** Whether messages for a tool wait until the socket can take them. */
  let wantsWritable = false
  const updateWatcher = (): void => {
    if (!client.isClosed) watcher.update({ readable: callsInProgress === 0, writable: wantsWritable })
  }

  process.guest?.whenLate(cutOff)

  const client: Client = {
    daemon,
    process,
    quota,
    account,
    standing,
    caller,
    request,
    outgoing,
    contexts: new WeakSet(),
    tag: '',
    wantsReasons: false,
    isReachable: false,
    isClosed: false,
    name() {
      command = commandName(process.pid) ?? command
      return command
    },
    reply(length, fds = []) {
      // A client has at most one call in progress, so the answer fits in its socket unless the client has stopped
      // reading.
      if (!client.isClosed && send(fd, outgoing.bytes.subarray(0, length), fds) < 0) session.close()
    },
    refuse(header, errno, reason) {
      reply(writeCallReply(outgoing, header, -errno, [], client.wantsReasons ? reason : undefined))
    },
    // A bug here must not end the daemon for other processes.
    failureHandler: header =>
      containment.guard('an answer', error => {
        containment.report('a call', error)
        client.refuse(header, Errno.EIO)
      }),
    answerLater(header, answered) {
      callsInProgress++
      updateWatcher()
      void answered.catch(client.failureHandler(header)).finally(() => {
        callsInProgress--
        updateWatcher()
      })
    },
  }
  const { reply } = client
  const opening = createNodeOpening(client)
  const calls = createSessionCalls(client)
  const checkMessages = createCheckMessages(client)
  const toolRequests = createToolRequests(daemon, {
    buffer: outgoing,
    send: length => send(fd, outgoing.bytes.subarray(0, length)) > 0,
    wantWritable(wanted) {
      wantsWritable = wanted
      updateWatcher()
    },
    user: account.user,
    isTrusted: standing === 'owner',
    get isClosed() {
      return client.isClosed
    },
  })

  /**
   * Answers HELLO. A client whose memory the daemon may not access, and that passes no memory file, gets EACCES: the
   * shim then gives up, since all calls of its program would fail; a tool continues, since it needs only replies.
   */
  const hello = (passedFd: number | undefined): void => {
    // The descriptor is a userfaultfd, or otherwise a memory file.
    const isUserfaultFd = passedFd !== undefined && (request.wants & HelloWants.UNMAPPING) !== 0
    // Using the userfaultfd can block on the mmap lock of the program's address space, so it is accepted only from
    // programs of the daemon's own user.
    if (isUserfaultFd && standing === 'owner') space.watchUnmapping(passedFd)
    else if (isUserfaultFd) close(passedFd)
    const file = isUserfaultFd ? undefined : passedFd
    if (standing === 'refused') {
      if (file !== undefined) close(file)
      reply(writeHelloReply(outgoing, request, { error: Errno.EPERM, root: '' }))
      session.close()
      return
    }
    const newMemory = file === undefined ? undefined : takePassedMemory(file, process.guest)
    const isFileValid = file === undefined || (newMemory !== undefined && passedMemory === undefined)
    if (passedMemory === undefined) passedMemory = newMemory
    else newMemory?.close()
    client.isReachable = passedMemory !== undefined || mayAccess(process)
    const accessError = !isFileValid ? Errno.EINVAL : client.isReachable ? 0 : Errno.EACCES
    const error = request.version === SESSION_VERSION ? accessError : Errno.EPROTO
    client.tag = request.tag
    client.wantsReasons = (request.wants & HelloWants.REASONS) !== 0
    if ((request.wants & HelloWants.WRITTEN) !== 0) space.recordWritten()
    if ((request.wants & HelloWants.EVENTS) !== 0 && standing === 'owner') daemon.check?.watchEvents()
    hasGreeted = request.version === SESSION_VERSION
    reply(writeHelloReply(outgoing, request, { error, root: daemon.root }), error === 0 ? [daemon.parkedFd] : [])
  }

  const handle = (fds: readonly number[]): void => {
    const checkMessage = checkMessages[request.type]
    // Only TOOL may pass several descriptors, and HELLO one.
    const allowed = request.type === MessageType.HELLO ? 1 : 0
    if (request.type !== MessageType.TOOL) for (const extra of fds.slice(allowed)) close(extra)
    if (request.type === MessageType.HELLO) hello(fds[0])
    else if (!hasGreeted) session.close()
    else if (request.type === MessageType.OPEN) opening.open()
    else if (request.type === MessageType.ATTACH) opening.attach()
    else if (request.type === MessageType.REFRESH) {
      const error = daemon.refreshCounters()
      reply(writeCallReply(outgoing, request, error === 0 ? 0 : -error))
    } else if (request.type === MessageType.WRITTEN)
      reply(writeWrittenReply(outgoing, request, space.takeWritten(SessionLimits.ranges)))
    else if (checkMessage !== undefined) checkMessage()
    else if (request.type === MessageType.NETLINK) calls.netlink()
    else if (request.type === MessageType.TOOL) toolRequests.handle(request, fds)
    else calls.call()
  }

  // A program of another user could send a descriptor whose closing or examination blocks.
  const receive = standing === 'owner' ? recv : recvGuarded
  /**
   * Reads the next message. Programs make several calls in a row, and a wake-up costs more than a call, so this polls
   * for LINGER unless there is other work.
   */
  const receiveMessage = (): Received => {
    const begin = nowMicroseconds()
    for (;;) {
      const received = receive(fd, incoming.bytes)
      if (received.length !== -EAGAIN || daemon.loop.isAwake || hasReadyEvents()) return received
      const now = nowMicroseconds()
      if (now - begin >= LINGER || !yieldOnce(now)) return received
    }
  }

  const onReadable = (): void => {
    for (let messages = 0; messages < BURST && !client.isClosed && callsInProgress === 0; messages++) {
      const { length, fds } = receiveMessage()
      if (length === -EAGAIN) return
      // End of file, a broken connection, or an invalid message.
      if (length <= 0 || fds.length > SessionLimits.descriptors || readRequest(incoming, length, request)) {
        for (const extra of fds) close(extra)
        session.close()
        return
      }
      daemon.turn++
      calls.settleTrace()
      handle(fds)
      daemon.loop.touch()
    }
  }

  const onReady = (readable: boolean, writable: boolean): void => {
    if (writable) toolRequests.onWritable()
    if (readable) onReadable()
  }
  // An exception outside a call leaves the session in an unknown state, so it is closed.
  const watcher = watch(
    fd,
    { readable: true },
    containment.guard('a session', onReady, () => session.close()),
  )

  const session: Session = {
    process,
    close() {
      if (client.isClosed) return
      client.isClosed = true
      containment.runAll('the end of a session', [
        () => calls.settleTrace(),
        () => watcher.stop(),
        () => (standing === 'owner' ? close : closeElsewhere)(fd),
        () => toolRequests.close(),
        () => daemon.destroyWaits.removeCaller(caller),
        () => daemon.failures.onDisconnect(process.pid),
        () => space.close(),
        () => passedMemory?.close(),
        () => closeProcess(process),
        ended,
      ])
    },
  }
  return session
}
