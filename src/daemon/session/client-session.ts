/*
 * The session of a connected process: its socket, memory and messages (spec/session.ts, R41, R42). The kernel
 * identifies the process (peer credentials, a pidfd), not the process's messages. A client that sends an invalid
 * message is disconnected; its contexts exist until no program holds them (daemon/context/contexts.ts).
 */

import type { Account, Caller, FdObject } from '../../core/model.ts'
import { hasShare, orRelease, take } from '../../core/objects/limits.ts'
import { EAGAIN, EBUSY, ENOPROTOOPT, SystemError } from '../../host/errno.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { hasReadyEvents, type Watch, watch } from '../../host/event-loop/poll.ts'
import { oneSlice, type Slices } from '../../host/event-loop/slices.ts'
import { yieldOnce } from '../../host/event-loop/yield.ts'
import { chargedRequest, isUsedUp, MAX_WAIT, untilRequests } from '../../host/memory/budget.ts'
import { closeElsewhere, type PassedFd } from '../../host/memory/mover.ts'
import {
  closeProcess,
  fdFile,
  fdTarget,
  isStillOwned,
  mayAccess,
  openProcess,
  type ProcessHandle,
} from '../../host/memory/process.ts'
import {
  close,
  type PeerCredentials,
  peerCredentials,
  peerPidfd,
  type Received,
  recv,
  recvGuarded,
  send,
} from '../../host/net/sockets.ts'
import { networkNamespaceOf } from '../../host/network-namespaces.ts'
import { needsOwner } from '../../host/owner.ts'
import { commandName, confinementOf, hasCapability, processorsOf } from '../../host/process-status.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import { because, type Reason } from '../../spec/reason.ts'
import { HelloWants, MessageType, SESSION_VERSION, SessionLimits } from '../../spec/session.ts'
import {
  type Header,
  headerOf,
  messageBuffer,
  newRequest,
  type Request,
  readRequest,
  writeCallReply,
  writeFaultReply,
  writeHelloReply,
  writeWrittenReply,
} from '../../uapi/session-codec.ts'
import { accountOf, confinedUser, payerOf, type SharedLimits } from '../accounts.ts'
import { createCheckMessages } from '../check/messages.ts'
import type { DestroyWaits } from '../check/waits/destroys.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { HotPlug } from '../devices/hot-plug.ts'
import type { Loop } from '../loop.ts'
import { FileMemories } from '../memory/file-space.ts'
import { type PassedMemory, takePassedMemory } from '../memory/passed-memory.ts'
import { ProcessSpace } from '../memory/process-space.ts'
import { openSignal } from '../memory/signal-fd.ts'
import { type OwnFaultParts, OwnFaults } from '../own-faults.ts'
import type { ToolShare, ToolTime } from '../tool-time.ts'
import { Adoptions } from './adoptions.ts'
import { CallSlot } from './call-slot.ts'
import { type CallParts, SessionCalls } from './calls.ts'
import type { Client, ClientStanding } from './client.ts'
import { type DoorbellParts, DoorbellRanges } from './doorbell-ranges.ts'
import { NodeOpening, type OpenParts } from './open-nodes.ts'
import { PeerAccesses } from './peer-accesses.ts'
import type { PolledSlots, SlotClient } from './polled-slots.ts'
import { type PostFaultParts, PostFaults } from './post-faults.ts'
import type { ProcessPlaces } from './process-places.ts'
import type { RefuseConnection } from './refuse-connection.ts'
import type { Session, Sessions } from './sessions.ts'
import { type ToolParts, ToolRequests } from './tool-requests.ts'

/** Messages of a session that are handled in one callback of the event loop. */
const BURST = 16
/** Microseconds for which a session polls for its next message. */
const LINGER = 20
/** Milliseconds for which a session waits for HELLO, which the shim sends right after its connect. */
const HELLO_TIMEOUT = 10_000
/** Of one process. The shim needs one session; the library and userdma's commands open others. */
const MAX_SESSIONS = 16
/** Socket, pidfd, userfaultfd, and of /proc/PID: ns, mem, pagemap, and maps twice. */
const SESSION_DESCRIPTORS = 8

/** Linux's number. */
const CAP_NET_RAW = 13

/** One buffer per direction for all sessions: a message is handled before the next one is read. */
const incoming = messageBuffer()
const NOTHING_YET: Received = Object.freeze({ length: -EAGAIN, fds: [] })

const takeFrom = (slot: CallSlot): Received => {
  const length = slot.take(incoming.bytes)
  return length < 0 ? NOTHING_YET : { length, fds: NOTHING_YET.fds }
}
const outgoing = messageBuffer()

/** What sessions use of the daemon. */
export interface SessionParts extends CallParts, OpenParts, PostFaultParts, ToolParts, DoorbellParts, OwnFaultParts {
  readonly sessions: Sessions
  /** Whether the client at the other end of a session's socket may use this daemon. */
  serves(fd: number, peer: PeerCredentials): boolean
  /** Refuses and closes a connection, with the reason. */
  readonly refuseConnection: RefuseConnection
  /** As `refuseConnection`, for users who are not served: they do not use up the waiting places of the others. */
  readonly refuseStranger: RefuseConnection
  /** What all clients share, besides devices. */
  readonly limits: SharedLimits
  /** For long work of calls. */
  readonly slices: Slices
  /** The time for requests of tools. */
  readonly toolTime: ToolTime
  readonly loop: Loop
  readonly polledSlots: PolledSlots
  readonly destroyWaits: DestroyWaits
  readonly places: ProcessPlaces
  readonly hotPlug: HotPlug
  /** Folder of the sysfs and device tree. */
  readonly root: string
  /** Memory file of the parked page (`ParkedPage` in spec/session.ts). */
  readonly parkedFd: number
  readonly log: (line: string) => void
}

/**
 * Starts the session of an accepted connection. Refuses the connection and returns undefined if the daemon does not
 * serve the user, the process has ended, its share of descriptors or sessions is used up, or the process is a guest
 * whose user's waiting time is used up (`Guest.isLate`). `ended` is called at the end of the session.
 */
export const createSession = (daemon: SessionParts, fd: number, ended: () => void): Session | undefined => {
  const peer = peerCredentials(fd)
  if (!daemon.serves(fd, peer)) {
    daemon.refuseStranger(fd, Errno.EPERM)
    return undefined
  }
  const { pid, uid, gid } = peer
  const pidfd = peerPidfd(fd)
  const isOwnUser = uid === process.geteuid?.()
  // The pid is that of the peer: below, the peer still runs.
  const confinement = isOwnUser ? confinementOf(pid) : undefined
  const isOwner = isOwnUser && confinement === undefined
  const user = confinement === undefined ? uid : confinedUser(confinement)
  const payer = payerOf(user)
  const account = accountOf(daemon.limits, pid, user, payer)
  const { descriptors, sessions } = account
  const mayHave = hasShare(descriptors, account, SESSION_DESCRIPTORS) && hasShare(sessions, account, 1)
  if (daemon.sessions.countOf(pid) >= MAX_SESSIONS || !mayHave) {
    if (pidfd >= 0) close(pidfd)
    daemon.refuseConnection(fd, Errno.EMFILE)
    return undefined
  }
  const releaseSession = take(sessions, account, 'a session')
  const releaseDescriptors = take(descriptors, account, 'a session', SESSION_DESCRIPTORS)
  const release = (): void => {
    releaseSession()
    releaseDescriptors()
  }
  return orRelease(release, () => {
    const owner = needsOwner(uid) ? { uid, gid } : undefined
    const guestUid = isOwner ? undefined : payer
    // ENOPROTOOPT: this kernel has no pidfds of peers, so the process is opened by its pid. Other errors refuse the
    // connection: before Linux 6.16 there is no pidfd of a peer that has ended, and its pid may be another process's.
    const handle = openProcess(pid, { pidfd: pidfd === -ENOPROTOOPT ? undefined : pidfd, owner, guestUid })
    if (handle instanceof SystemError) {
      daemon.refuseConnection(fd, handle.errno)
      release()
      return undefined
    }
    const standing = isOwner ? 'owner' : 'guest'
    const end = (): void => {
      releaseSession()
      ended()
    }
    return new ClientSession(daemon, fd, handle, account, standing, end, releaseDescriptors)
  })
}

/**
 * The process as core's caller. `passedMemory`: the memory file that the client passed with HELLO. `slot`: its call
 * slot. The daemon's own user may use raw packets without CAP_NET_RAW.
 */
const createCaller = (
  daemon: Pick<SessionParts, 'events' | 'destroyWaits' | 'places'>,
  process: ProcessHandle,
  account: Account,
  space: ProcessSpace,
  name: () => string,
  passedMemory: () => PassedMemory | undefined,
  slot: () => CallSlot | undefined,
  standing: ClientStanding,
): Caller => {
  const files = new FileMemories(process, account)
  const caller: Caller = {
    memory: space,
    process: { pid: process.pid, name, place: () => daemon.places.of(process.pid) },
    copyIn: (address, length) => slot()?.copyIn(address, length) ?? (passedMemory() ?? space).copyIn(address, length),
    copyOut(address, bytes) {
      if (slot()?.copyOut(address, bytes) !== true) (passedMemory() ?? space).copyOut(address, bytes)
    },
    descriptor(number) {
      const target = fdTarget(process.pid, number)
      const isFound = typeof target === 'string' && isStillOwned(process)
      return isFound ? daemon.events.find(target, process, number) : undefined
    },
    file: number => fdFile(process, number),
    openFile: number => files.open(number),
    openSignal: number => openSignal(process, account, number),
    processors: () => processorsOf(process.pid),
    eventsRead: (object, read) => daemon.destroyWaits.add(object, read, caller),
    allows: capability =>
      ((capability === 'RAW_PACKETS' && standing === 'owner') || hasCapability(process.pid, CAP_NET_RAW)) &&
      isStillOwned(process),
  }
  return caller
}

class ClientSession implements Session, Client, SlotClient {
  readonly #daemon: SessionParts
  readonly process: ProcessHandle
  readonly account: Account
  readonly standing: ClientStanding
  readonly guest: number | undefined
  readonly caller: Caller
  readonly request = newRequest()
  readonly outgoing = outgoing
  readonly adoptions: Adoptions
  readonly contexts = new WeakSet<OpenContext>()
  readonly channels = new WeakSet<FdObject>()
  tag = ''
  wantsReasons = false
  isReachable = false
  isClosed = false
  readonly life = { hasEnded: false }
  readonly #fd: number
  readonly #ended: () => void
  readonly #memoryEnded: () => void
  /** After the session's end: closes what is left of it. */
  #closeMemory: (() => void) | undefined
  readonly #space: ProcessSpace
  #peers: PeerAccesses | undefined
  readonly #watcher: Watch
  readonly #doorbells: DoorbellRanges
  readonly #opening: NodeOpening
  readonly #calls: SessionCalls
  readonly #postFaults: PostFaults
  readonly #checkMessages: Readonly<Record<number, () => void>>
  readonly time: ToolShare
  readonly #toolRequests: ToolRequests
  readonly #ownFaults: OwnFaults
  /** The process's last known name, for log lines after its end. */
  #command: string
  /** Whether the client has sent HELLO with the right protocol version. */
  #hasGreeted = false
  /** From HELLO. */
  #wantsAdoption = false
  readonly #helloTimer: NodeJS.Timeout
  /** `#take` for calls outside the callback of the socket. */
  readonly #guardedTake: (received: Received) => void
  /** The memory file that the client passed with HELLO. */
  #passedMemory: PassedMemory | undefined
  #slot: CallSlot | undefined
  #isCutOff = false
  /** Number of messages with a pending answer. Unless it is 0, no message of the client is read. */
  #callsInProgress = 0
  /** Whether a message has arrived. The first one may bring descriptors without waiting for the user's time. */
  #hasReceived = false
  /** Whether messages for a tool wait for space in the socket. */
  #wantsWritable = false

  constructor(
    daemon: SessionParts,
    fd: number,
    process: ProcessHandle,
    account: Account,
    standing: ClientStanding,
    ended: () => void,
    memoryEnded: () => void,
  ) {
    this.#daemon = daemon
    this.process = process
    this.account = account
    this.standing = standing
    this.guest = standing === 'guest' ? account.payer : undefined
    this.time = daemon.toolTime.of(account, standing === 'guest')
    this.#fd = fd
    this.#ended = ended
    this.#memoryEnded = memoryEnded
    const { containment } = daemon
    this.#space = new ProcessSpace(process, () => daemon.turn.count, {
      slices: daemon.slices,
      onTooSlow: () => this.#cutOff(),
      ignoreLimit: daemon.config.ignoreMemlock === true,
      guard: containment.guard,
      log: message => daemon.lines.write(this.guest, 'locked memory', message),
    })
    this.adoptions = new Adoptions(process.pid, this.#space, () => this.#adoptionRefusal())
    const name = (): string => this.name()
    this.caller = createCaller(
      daemon,
      process,
      account,
      this.#space,
      name,
      () => this.#passedMemory,
      () => this.#slot,
      standing,
    )
    this.#command = commandName(process.pid) ?? '?'
    process.guest?.whenLate(() => this.#cutOff())
    this.#doorbells = new DoorbellRanges(this, this.#space, daemon)
    this.#opening = new NodeOpening(this, daemon, open => this.#doorbells.find(open))
    this.#calls = new SessionCalls(this, daemon)
    this.#postFaults = new PostFaults(this, daemon)
    this.#checkMessages = createCheckMessages(this, daemon, this.#postFaults)
    this.#toolRequests = this.#createToolRequests()
    this.#ownFaults = new OwnFaults(daemon, this)
    // After an exception outside a call the session's state is unknown, so the session is closed.
    this.#guardedTake = containment.guard(
      'a session',
      (received: Received) => this.#take(received),
      () => this.close(),
    )
    this.#watcher = watch(
      fd,
      { readable: true },
      containment.guard(
        'a session',
        (readable: boolean, writable: boolean) => this.#onReady(readable, writable),
        () => this.close(),
      ),
    )
    this.#helloTimer = setTimeout(
      containment.guard('a session without HELLO', () => this.#onHelloTimeout()),
      HELLO_TIMEOUT,
    )
  }

  #createToolRequests(): ToolRequests {
    return new ToolRequests(this.#daemon, {
      buffer: outgoing,
      send: length => send(this.#fd, outgoing.bytes.subarray(0, length)) > 0,
      wantWritable: wanted => {
        this.#wantsWritable = wanted
        this.#updateWatcher()
      },
      account: this.account,
      time: this.time,
      run: job => {
        void this.time.run(job).catch(error => {
          this.#daemon.containment.report('messages for a tool', error)
          this.close()
        })
      },
      isTrusted: this.standing === 'owner',
      close: () => this.close(),
    })
  }

  name(): string {
    this.#command = commandName(this.process.pid) ?? this.#command
    return this.#command
  }

  reply(length: number, fds: readonly number[] = []): void {
    if (this.isClosed) return
    const message = outgoing.bytes.subarray(0, length)
    const slot = this.#slot?.isCalled ? this.#slot : undefined
    if (fds.length === 0 && slot?.answer(message)) return
    slot?.beforeSocket()
    const sent = send(this.#fd, message, fds)
    if (sent === -EAGAIN) this.#onUnread()
    else if (sent < 0) this.close()
  }

  /** A client has one request at a time, and takes its answer. */
  #onUnread(): void {
    this.#disconnect('unread answers', 'it asks again, and does not take the answers')
  }

  /** Writes a line to the log about the process. */
  #tell(kind: string, text: string): void {
    this.#daemon.lines.write(this.guest, kind, `process ${this.process.pid} (${this.name()}) ${text}`)
  }

  refuse(header: Header, errno: number, reason?: Reason): void {
    this.reply(writeCallReply(outgoing, header, -errno, [], this.wantsReasons ? reason : undefined))
  }

  failureHandler(header: Header): (error: unknown) => void {
    const { containment } = this.#daemon
    return containment.guard('an answer', error => {
      containment.report('a call', error)
      this.refuse(header, Errno.EIO)
    })
  }

  answerLater(header: Header, answered: Promise<void>): void {
    this.#callsInProgress++
    this.#updateWatcher()
    void answered.catch(this.failureHandler(header)).finally(() => {
      this.#callsInProgress--
      this.#updateWatcher()
      // The call may have changed queues after the `touch` that followed its message.
      this.#daemon.loop.touch()
    })
  }

  close(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.life.hasEnded = true
    const { process, caller } = this
    const daemon = this.#daemon
    daemon.containment.runAll('the end of a session', [
      () => clearTimeout(this.#helloTimer),
      () => this.#calls.settleTrace(),
      () => this.adoptions.close(),
      () => this.#watcher.stop(),
      () => (this.standing === 'owner' ? close(this.#fd) : closeElsewhere(this.#fd, this.account.payer)),
      () => this.#toolRequests.close(),
      () => this.#ownFaults.close(),
      () => daemon.polledSlots.delete(this),
      () => this.#slot?.close(),
      () => daemon.destroyWaits.removeCaller(caller),
      () => daemon.failures.onDisconnect(process.pid),
      () => daemon.check?.sessionEnded(this),
      this.#ended,
      () => this.#keepMemory(),
    ])
  }

  #keepMemory(): void {
    const { sessions, containment } = this.#daemon
    const closeMemory = (): void =>
      containment.runAll('the memory of a process', [
        () => this.#space.close(),
        () => this.#peers?.close(),
        () => this.#passedMemory?.close(),
        () => closeProcess(this.process),
        this.#memoryEnded,
      ])
    this.#closeMemory = sessions.keepMemory(this.process, this.#space, containment, closeMemory)
    if (this.#isCutOff) this.#closeMemory()
  }

  /** Access to the process's memory or descriptors has blocked the daemon for too long. */
  #cutOff(): void {
    this.#disconnect(
      'waits',
      `its memory, files or descriptors kept the daemon waiting for ${MAX_WAIT / 1000} ms (a file system that does not answer, userfaultfd?)`,
    )
  }

  filled(surplus: number): void {
    this.#disconnect(
      'fills',
      `the memory file of its context holds ${Math.floor(surplus / 2 ** 20)} MiB more than the ranges that were handed out of it`,
    )
  }

  /** Ends the session, possibly in the middle of a call. `kind`: of the line in the log. */
  #disconnect(kind: string, why: string): void {
    if (this.#isCutOff) return
    this.#isCutOff = true
    this.#tell(kind, `is disconnected: ${why}`)
    const close = (): void => (this.isClosed ? this.#closeMemory?.() : this.close())
    setImmediate(this.#daemon.containment.guard('a session that is disconnected', close))
  }

  /**
   * Timers run before sockets are read: if the daemon itself was stopped or suspended, HELLO may have arrived in time.
   */
  #onHelloTimeout(): void {
    this.#onReadable()
    if (!this.#hasGreeted) this.close()
  }

  #updateWatcher(): void {
    if (!this.isClosed) this.#watcher.update({ readable: this.#callsInProgress === 0, writable: this.#wantsWritable })
  }

  #onReady(readable: boolean, writable: boolean): void {
    if (writable) this.#toolRequests.onWritable()
    if (readable) this.#onReadable()
  }

  #onReadable(): void {
    // First the socket: an unread CALL would count as other work.
    let hasMessages = true
    for (let messages = 0; messages < BURST && this.#mayTake(); messages++) {
      const received: Received = hasMessages ? this.#receiveMessage() : this.#await()
      if (received.length === -EAGAIN && !hasMessages) break
      // A client with a slot calls there. What else it sends wakes us again.
      hasMessages = hasMessages && this.#slot === undefined && received.length !== -EAGAIN
      if (received.length === -EBUSY) this.#later(() => this.isClosed || this.#take(this.#receiveGuarded()))
      else if (received.length !== -EAGAIN) this.#take(received)
    }
    const { loop, polledSlots } = this.#daemon
    const isPolled = loop.isAwake && this.#slot?.isPolled === true && polledSlots.add(this, nowMicroseconds())
    if (!isPolled && this.leaveSlot()) this.#takeSlotSoon()
  }

  /** Whether a request may be handled now. If the user's programs have delayed the daemon, it waits. */
  #mayTake(): boolean {
    if (this.isClosed || this.#isCutOff || this.#callsInProgress > 0) return false
    if (this.guest !== undefined && isUsedUp(this.guest)) {
      this.#cutOff()
      return false
    }
    const wait = this.guest === undefined ? 0 : untilRequests(this.guest)
    if (wait > 0) this.#pause(wait)
    return wait <= 0
  }

  /** Handles no request for so many microseconds. */
  #pause(microseconds: number): void {
    this.#tell(
      'pauses',
      `waits for its answers, as all programs of user ${this.guest} do: while the daemon copied their memory, it had to wait for a processor for longer than a twentieth of the time (more threads than processors?)`,
    )
    this.#callsInProgress++
    this.#updateWatcher()
    setTimeout(
      this.#daemon.containment.guard(
        'a session that has waited',
        () => {
          this.#callsInProgress--
          this.#updateWatcher()
          // What was asked in the slot meanwhile wakes nobody.
          this.#onReadable()
        },
        () => this.close(),
      ),
      microseconds / 1000,
    ).unref()
  }

  takeSlot(): boolean {
    // A pause does not change that the slot is looked at: it is asked again after it.
    if (!this.#mayTake()) return false
    const received = this.#slot && takeFrom(this.#slot)
    if (received === undefined || received.length === -EAGAIN) return false
    this.#guardedTake(received)
    return true
  }

  leaveSlot(): boolean {
    this.#slot?.polls(false)
    return this.#callsInProgress === 0 && this.#slot?.isAsked === true
  }

  /** Not at once: other clients have their turn. */
  #takeSlotSoon(): void {
    setImmediate(
      this.#daemon.containment.guard(
        'a session',
        () => this.#onReadable(),
        () => this.close(),
      ),
    )
  }

  #take({ length, fds }: Received): void {
    // End of the connection, or an invalid message.
    if (length <= 0 || fds.length > SessionLimits.descriptors || readRequest(incoming, length, this.request)) {
      this.#closePassed(fds)
      this.close()
      return
    }
    this.#hasReceived = true
    if (this.request.type === MessageType.CALL && this.#slot !== undefined) {
      this.#closePassed(fds)
      return
    }
    this.#daemon.turn.count++
    this.#calls.settleTrace()
    const undo = this.adoptions.next()
    if (this.guest === undefined) this.#answer(fds, undo)
    else chargedRequest(this.guest, () => this.#answer(fds, undo))
    const { loop } = this.#daemon
    const within = this.#doorbells.findAwaited(nowMicroseconds())
    if (within === 0) loop.kick()
    else loop.touch()
    if (within !== undefined) loop.runWithin(within)
  }

  /**
   * Takes the next message. Programs make several calls in a row, and a wake-up costs more than a call. So this
   * function polls for LINGER, unless there is other work.
   */
  #await(): Received {
    const slot = this.#slot
    slot?.polls(true)
    const begin = nowMicroseconds()
    for (;;) {
      const received = slot === undefined ? this.#receiveMessage() : takeFrom(slot)
      if (received.length !== -EAGAIN || this.#daemon.loop.isAwake || hasReadyEvents()) return received
      const now = nowMicroseconds()
      if (now - begin >= LINGER || !yieldOnce(now)) return received
    }
  }

  #receiveMessage(): Received {
    return this.standing === 'owner'
      ? recv(this.#fd, incoming.bytes)
      : this.#receiveGuarded(this.#hasReceived ? this.time : undefined)
  }

  /** As `recvGuarded`: another user's program could send a descriptor with which even close(2) blocks. */
  #receiveGuarded(time?: ToolShare): Received {
    return recvGuarded(this.#fd, incoming.bytes, { user: this.account.payer, time })
  }

  /** `undo`: see `SessionCalls.notMapped`. */
  #answer(fds: readonly PassedFd[], undo: (() => void) | undefined): void {
    if (this.request.type === MessageType.NOT_MAPPED && this.#hasGreeted) {
      this.#closePassed(fds)
      this.#calls.notMapped(undo)
    } else this.#handle(fds)
  }

  #handle(fds: readonly PassedFd[]): void {
    const { request } = this
    const { type } = request
    // TOOL may pass several descriptors, HELLO, WAITS and PEERS one, all others none. Before HELLO a TOOL message is
    // refused, too.
    const passesFile = (type === MessageType.WAITS || type === MessageType.PEERS) && this.#hasGreeted
    const allowed = type === MessageType.HELLO || passesFile ? 1 : 0
    const isTool = type === MessageType.TOOL && this.#hasGreeted
    if (!isTool) this.#closePassed(fds.slice(allowed))
    if (type === MessageType.HELLO) this.#hello(fds[0])
    else if (!this.#hasGreeted) this.close()
    else if (type === MessageType.OPEN) this.#opening.open()
    else if (type === MessageType.ATTACH) {
      this.#opening.attach()
      this.#daemon.loop.kick()
    } else if (type === MessageType.REFRESH)
      this.#whenTime(refresh => this.reply(writeCallReply(outgoing, refresh, -this.#daemon.hotPlug.refreshCounters())))
    else if (type === MessageType.WRITTEN)
      this.reply(writeWrittenReply(outgoing, request, this.#space.takeWritten(SessionLimits.ranges)))
    else if (this.#checkMessages[type] !== undefined) this.#checkMessages[type]()
    else if (type === MessageType.WAITS) this.#takeWaits(fds[0])
    else if (type === MessageType.PEERS) this.#takePeers(fds[0])
    else if (type === MessageType.POST) this.#postFaults.answer()
    else if (type === MessageType.FAULT) this.#setFaults()
    else if (type === MessageType.FAULT_CLEAR || type === MessageType.FAULT_COUNT) this.#answerFault(request.faultId)
    else if (type === MessageType.DOORBELLS) this.#mappedDoorbells()
    else if (type === MessageType.NETLINK) this.#calls.netlink()
    else if (isTool) this.#whenTime(tool => this.#toolRequests.handle(tool, fds))
    else this.#calls.call()
  }

  #closePassed(fds: readonly PassedFd[]): void {
    for (const fd of fds) closeElsewhere(fd, this.account.payer)
  }

  /** Answers a request now, or when the user has time for it; until then no message of the client is read. */
  #whenTime(answer: (request: Request) => void): void {
    if (this.time.hasTime) {
      this.time.charge(() => answer(this.request))
      return
    }
    const request = { ...this.request }
    this.#later(() => answer(request))
  }

  /** Does `work` when the user has time for it. */
  #later(work: () => void): void {
    this.#callsInProgress++
    this.#updateWatcher()
    void this.time
      .run(oneSlice(work))
      .catch(error => {
        this.#daemon.containment.report('a request of a tool', error)
        this.close()
      })
      .finally(() => {
        this.#callsInProgress--
        this.#updateWatcher()
        // As after each message.
        this.#daemon.loop.touch()
      })
  }

  /**
   * Answers HELLO. If the daemon may not access the client's memory and the client passes no memory file, the answer is
   * EACCES. Then the shim gives up, since all calls would fail. A tool continues, since it needs only replies. Other
   * errors: EINVAL (the memory file is invalid, or the second one), EPROTO (another version of the protocol).
   */
  #hello(passedFd: PassedFd | undefined): void {
    const { request, process } = this
    const daemon = this.#daemon
    const file = this.#takeUserfault(passedFd) ? undefined : passedFd
    const isFileValid = file === undefined || this.#takeMemory(file)
    this.isReachable = this.#passedMemory !== undefined || mayAccess(process)
    let error: number = this.isReachable ? 0 : Errno.EACCES
    if (!isFileValid) error = Errno.EINVAL
    if (request.version !== SESSION_VERSION) error = Errno.EPROTO
    this.tag = request.tag
    this.wantsReasons = (request.wants & HelloWants.REASONS) !== 0
    this.#wantsAdoption = (request.wants & HelloWants.ADOPTION) !== 0
    if ((request.wants & HelloWants.WRITTEN) !== 0) this.#space.recordWritten()
    if ((request.wants & HelloWants.EVENTS) !== 0 && this.standing === 'owner') daemon.check?.door.watchEvents()
    this.#hasGreeted = request.version === SESSION_VERSION
    if (this.#hasGreeted) clearTimeout(this.#helloTimer)
    const root = daemon.hotPlug.rootOf(networkNamespaceOf(process.pid))
    const slot = error === 0 && (request.wants & HelloWants.SLOT) !== 0 ? this.#createSlot() : undefined
    const fds = slot === undefined ? [daemon.parkedFd] : [daemon.parkedFd, slot.fd]
    this.reply(writeHelloReply(outgoing, request, { error, root }), error === 0 ? fds : [])
    slot?.fileSent()
    if (this.isClosed) slot?.close()
    else this.#slot ??= slot
  }

  /** Undefined if the client has one, or there is no memory for it: the client calls by the socket. */
  #createSlot(): CallSlot | undefined {
    if (this.#slot !== undefined) return undefined
    try {
      return new CallSlot(this.account, {
        write: (address, bytes) => this.#space.copyOut(address, bytes),
        leftAnswer: () => this.#onUnread(),
      })
    } catch (error) {
      if (!(error instanceof CallError || error instanceof SystemError)) throw error
      return undefined
    }
  }

  /** Why the client cannot share pages of its program; undefined: it can. */
  #adoptionRefusal(): string | undefined {
    if (this.#passedMemory !== undefined) return 'its calls are on a memory file that it has passed'
    return this.#wantsAdoption ? undefined : 'it has no preload library, or an older one'
  }

  #setFaults(): void {
    const { request } = this
    try {
      const id = this.#ownFaults.set(request.rules)
      const header = headerOf(request)
      const answer = (): void => this.reply(writeFaultReply(outgoing, header, id))
      this.answerLater(header, this.#daemon.faults.untilHappened().then(answer))
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      this.reply(writeFaultReply(outgoing, request, -error.errno, error.message))
    }
  }

  #answerFault(id: number): void {
    const { request } = this
    const isCount = request.type === MessageType.FAULT_COUNT
    const answer = isCount ? this.#ownFaults.count(id) : this.#ownFaults.clear(id) ? 0 : undefined
    this.reply(writeCallReply(outgoing, request, answer ?? -Errno.ENOENT))
  }

  #mappedDoorbells(): void {
    const { request } = this
    const { context, address, length, refusal } = request
    const open = this.#daemon.contexts.byNumber(context)
    if (open === undefined || !this.contexts.has(open)) {
      this.refuse(request, Errno.EINVAL, because`context ${context} is not open in this session`)
      return
    }
    try {
      this.#doorbells.mapped(open, Number(address), Number(length), refusal)
      const { loop } = this.#daemon
      const isProtected = this.#doorbells.tellsAll(open) && loop.protect()
      this.reply(writeCallReply(outgoing, request, 0))
      if (!isProtected) loop.kick()
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      this.refuse(request, error.errno, error.reason)
    }
  }

  /** Takes the descriptor that came with HELLO if it is a userfaultfd (`HelloWants.UNMAPPING`); otherwise false. */
  #takeUserfault(fd: PassedFd | undefined): boolean {
    if (fd === undefined || (this.request.wants & HelloWants.UNMAPPING) === 0) return false
    // Using a userfaultfd can block on the mmap lock of the program's address space. So the daemon accepts it only from
    // its own user.
    if (this.standing === 'owner') this.#space.watchUnmapping(fd)
    else this.#closePassed([fd])
    return true
  }

  /** Stacks of other users' programs are not shown (createCheckMessages), so their tables are not read. */
  #takeWaits(fd: PassedFd | undefined): void {
    const { request, process } = this
    const check = this.standing === 'owner' ? this.#daemon.check : undefined
    if (fd !== undefined && check === undefined) this.#closePassed([fd])
    else if (fd !== undefined) check?.takeWaitTable(this, process.pid, request.pid, fd)
    this.reply(writeCallReply(outgoing, request, 0))
  }

  /** The daemon waits for the program at each access of a peer: only for programs of its own user. */
  #takePeers(fd: PassedFd | undefined): void {
    let ret = -Errno.EOPNOTSUPP
    if (fd !== undefined && this.standing === 'owner' && this.#peers === undefined)
      try {
        this.#peers = new PeerAccesses(this.process.pid, fd)
        this.#space.tellPeers(this.#peers)
        ret = 0
      } catch (error) {
        if (!(error instanceof SystemError)) throw error
        ret = -error.errno
      }
    if (fd !== undefined) this.#closePassed([fd])
    this.reply(writeCallReply(outgoing, this.request, ret))
  }

  /** Takes the client's memory file. False if the file is invalid or the second one. */
  #takeMemory(file: PassedFd): boolean {
    const memory = takePassedMemory(file, this.process.guest)
    if (this.#passedMemory !== undefined) {
      memory?.close()
      return false
    }
    this.#passedMemory = memory
    return memory !== undefined
  }
}
