/*
 * A daemon without RDMA for tests of the preload library (the shim): a small device tree, and contexts with real memory
 * files and doorbell sockets. A program under the shim controls it by ioctls (`Order`).
 */
import { constants, existsSync, mkdirSync, openSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Watch, watch } from '../../src/host/event-loop/poll.ts'
import { mapArena } from '../../src/host/memory/mapping.ts'
import { addSeals, createMemfd, fileIdentity, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK } from '../../src/host/memory/memfd.ts'
import { libcFunctions } from '../../src/host/native.ts'
import {
  accept,
  close,
  listen,
  peerCredentials,
  recv,
  recvBytes,
  send,
  setBlocking,
  setSendTimeout,
  socketPair,
} from '../../src/host/net/sockets.ts'
import {
  CM_NODE,
  ContextFile,
  DescriptorMark,
  InstallKind,
  ISSM_NODES,
  MessageType,
  NetlinkOperation,
  OpenWants,
  ParkedPage,
  SessionLimits,
  SYSTEM_NODE,
} from '../../src/spec/session.ts'
import {
  messageBuffer,
  newRequest,
  readRequest,
  writeCallReply,
  writeHelloReply,
  writeOpenReply,
} from '../../src/uapi/session-codec.ts'

/** Numbers of ioctls with the object dialect's magic; `enum order` of scenarios.h says what each does. */
const Order = {
  ECHO: 1,
  FAIL: 2,
  EVENT_4: 3,
  EVENT_8: 4,
  PARK: 5,
  RECORD: 6,
  HANG_UP_EVENT: 7,
  DIE: 8,
  CONTEXTS: 9,
  DOORBELLS: 10,
  LAST_HANDLE: 11,
  SESSIONS: 12,
  HOLD: 13,
  EVENT_BEHIND: 14,
  DRIVER_8: 15,
  WRONG_SERIAL: 16,
  DELAY: 17,
  DELAY_ATTACH: 18,
  END_SESSION: 19,
  DELAY_STACK: 20,
} as const

/**
 * EVENT_BEHIND, and a write of WRITE_BEHIND bytes, create an event descriptor. The reply asks the shim to store its
 * number BEHIND bytes after the argument of the ioctl or the start of the written buffer.
 */
const BEHIND = 64n
const WRITE_BEHIND = 40n

/** The answer to a write of so many bytes is larger. */
const WRITE_TOO_LONG = 48n

const EBADF = 9
const EAGAIN = 11
const ENOENT = 2
const ENODEV = 19
const ENOTTY = 25
/** The upper 24 bits of _IOWR(0xdb, NUMBER, uint64_t). */
const OBJECT_REQUEST = 0xc008db

interface Context {
  readonly id: number
  /** Descriptor of the memory file. */
  readonly file: number
  readonly inode: number
  /** The daemon's ends of doorbell sockets, with their watches. */
  readonly doorbells: Map<number, Watch>
  /** The daemon's ends of event sockets. */
  readonly events: number[]
  doorbellCount: number
  /** The queue pair's handle in the last doorbell. */
  lastHandle: number
}

export interface FakeDaemon {
  readonly socket: string
  /**
   * What happened, in order: "hello TAG", "open", "attach", "refresh", "write BYTES", "netlink OPERATION EXTRA
   * ARGUMENT" (SEND without ARGUMENT), "fault TEXT" (an invalid message), "close" (a context ended).
   */
  readonly log: string[]
  /** Closes all its descriptors, as when a daemon crashes. */
  crash(): void
}

/** /dev/infiniband/uverbs0, as on Linux: major 231, minor 192. */
const RDEV = (231 << 8) | 192

/** For `refusal`: the reply to the first HELLO has more descriptors than a client can receive. */
export const TOO_MANY_DESCRIPTORS = -1
/**
 * For `refusal`: the first two HELLOs create the files `hello1` and `hello2` beside the socket. The first one is
 * answered when the program has created `answer` there, the second before the next request.
 */
export const LATE = -2

const PROT_READ_WRITE = 3
/** MAP_SHARED | MAP_FIXED */
const MAP_SHARED_FIXED = 0x11
/** New mappings cannot be writable; existing ones stay writable. */
const F_SEAL_FUTURE_WRITE = 16

const sys = libcFunctions({
  mmap: 'int64_t mmap(int64_t address, uint64_t length, int prot, int flags, int fd, int64_t offset)',
})

/** The page with the parked word; clients cannot map its descriptor writable. */
const parkedPage = () => {
  const fd = createMemfd('fake-parked', ParkedPage.bytes)
  const arena = mapArena(ParkedPage.bytes)
  if (sys().mmap(arena.address, ParkedPage.bytes, PROT_READ_WRITE, MAP_SHARED_FIXED, fd, 0) !== arena.address)
    throw new Error('mmap failed')
  addSeals(fd, F_SEAL_FUTURE_WRITE)
  return { fd, words: arena.u32 }
}

/** The device tree: texts of files by path. Nobody reads the files of device nodes. */
const TREE: Readonly<Record<string, string>> = {
  '/sys/class/infiniband_verbs/abi_version': '6\n',
  '/sys/devices/virtual/infiniband_verbs/uverbs0/ibdev': 'rxe0\n',
  '/sys/devices/virtual/infiniband_verbs/uverbs0/dev': '231:192\n',
  '/sys/devices/virtual/infiniband_verbs/uverbs0/abi_version': '2\n',
  '/sys/class/infiniband/rxe0/node_type': '1: CA\n',
  '/sys/class/infiniband/rxe0/node_desc': 'rxe\n',
  '/sys/class/infiniband/rxe0/node_guid': '5054:00ff:fe77:0002\n',
  '/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts': '7\n',
  '/sys/class/infiniband/rxe0/ports/1/counters/port_xmit_data': '8\n',
  '/sys/class/misc/rdma_cm/dev': '10:120\n',
  '/dev/infiniband/uverbs0': 'unread\n',
  '/dev/infiniband/userdma': 'unread\n',
  '/dev/infiniband/rdma_cm': 'unread\n',
}

/** The tree's links: targets by path. */
const LINKS: Readonly<Record<string, string>> = {
  '/sys/class/infiniband_verbs/uverbs0': '../../devices/virtual/infiniband_verbs/uverbs0',
  '/sys/dev/char/231:192': '../../class/infiniband_verbs/uverbs0',
  '/dev/char/231:192': '../infiniband/uverbs0',
}

/** The flag of open(2) for the `wants` of an OPEN. */
const accessModeOf = (wants: number): number => {
  const { O_RDONLY, O_WRONLY, O_RDWR } = constants
  if (wants & OpenWants.READ_ONLY) return O_RDONLY
  return wants & OpenWants.WRITE_ONLY ? O_WRONLY : O_RDWR
}

/**
 * Starts the daemon: its socket is `sock` in the folder. `refusal`: the errno that answers every HELLO, 0 for success;
 * or TOO_MANY_DESCRIPTORS; or LATE.
 */
export const startFakeDaemon = (folder: string, refusal = 0): FakeDaemon => {
  const root = join(folder, 'sock.tree')
  for (const [path, text] of Object.entries(TREE)) {
    mkdirSync(dirname(root + path), { recursive: true })
    writeFileSync(root + path, text)
  }
  for (const [path, target] of Object.entries(LINKS)) {
    mkdirSync(dirname(root + path), { recursive: true })
    symlinkSync(target, root + path)
  }
  const socket = join(folder, 'sock')
  const listener = listen(socket)
  const parked = parkedPage()
  const log: string[] = []
  const contexts = new Map<number, Context>()
  const sessions = new Map<number, Watch>()
  /** The contexts that a session has opened or attached. */
  const known = new Map<number, Set<Context>>()
  const buffer = messageBuffer()
  const request = newRequest()
  let nextContext = 7
  let helloCount = 0

  const closeDoorbell = (context: Context, fd: number): void => {
    context.doorbells.get(fd)?.stop()
    context.doorbells.delete(fd)
    close(fd)
    if (context.doorbells.size > 0) return
    log.push('close')
    contexts.delete(context.id)
    close(context.file)
    for (const event of context.events) close(event)
  }

  /** Returns the program's end of a new doorbell socket. */
  const addDoorbell = (context: Context): number => {
    const [ours, theirs] = socketPair()
    const handle = new Uint8Array(4)
    const onReady = (): void => {
      for (;;) {
        const length = recvBytes(ours, handle)
        if (length === 4) {
          context.doorbellCount++
          context.lastHandle = new DataView(handle.buffer).getUint32(0, true)
          continue
        }
        if (length !== -EAGAIN) closeDoorbell(context, ours)
        return
      }
    }
    context.doorbells.set(ours, watch(ours, { readable: true }, onReady))
    return theirs
  }

  const openContext = (): Context => {
    const file = createMemfd('userdma-context', ContextFile.bytes)
    addSeals(file, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
    const context: Context = {
      id: nextContext++,
      file,
      inode: fileIdentity(file).ino,
      doorbells: new Map(),
      events: [],
      doorbellCount: 0,
      lastHandle: 0,
    }
    contexts.set(context.id, context)
    return context
  }

  /** Sends the first `length` bytes of the buffer; returns the length sent, or minus an errno. */
  const reply = (fd: number, length: number, fds: readonly number[] = []): number =>
    send(fd, buffer.bytes.subarray(0, length), fds)

  /** Answers OPEN or ATTACH with a new doorbell socket; ENODEV without a context. */
  const answerOpen = (fd: number, context: Context | undefined, call = request): number => {
    if (!context) return reply(fd, writeOpenReply(buffer, call, { error: ENODEV, context: 0, rdev: 0, inode: 0 }))
    const doorbell = addDoorbell(context)
    known.get(fd)?.add(context)
    const value = { error: 0, context: context.id, rdev: RDEV, inode: context.inode }
    const file = openSync(`/proc/self/fd/${context.file}`, accessModeOf(call.wants))
    const fds = call.type === MessageType.OPEN ? [file, doorbell] : [doorbell]
    const sent = reply(fd, writeOpenReply(buffer, call, value), fds)
    close(file)
    close(doorbell)
    return sent
  }

  /** Answers OPEN of the rdma_cm node. Records for the channel are sent by the order RECORD. */
  const answerOpenChannel = (fd: number): number => {
    const [ours, theirs] = socketPair()
    setBlocking(theirs)
    setSendTimeout(theirs, DescriptorMark.FIRST + InstallKind.CM, DescriptorMark.MICROSECONDS)
    for (const context of contexts.values()) context.events.push(ours)
    const sent = reply(fd, writeOpenReply(buffer, request, { error: 0, context: 0, rdev: 0, inode: 0 }), [theirs])
    close(theirs)
    return sent
  }

  /** Milliseconds that the next ATTACH waits for its answer. */
  let attachDelay = 0
  const answerAttach = (fd: number): number => {
    const context = contextOfDescriptor(peerCredentials(fd).pid, request.fd)
    if (attachDelay === 0) return answerOpen(fd, context)
    const delayed = { ...request }
    setTimeout(() => sessions.has(fd) && answerOpen(fd, context, delayed), attachDelay)
    attachDelay = 0
    writeFileSync(join(folder, 'delay'), '')
    return 0
  }

  /** Milliseconds that the next STACK waits for its answer. */
  let stackDelay = 0
  /** By session: the numbers of its stacks. */
  const stacks = new Map<number, Set<number>>()
  const answerStack = (fd: number): number => {
    stacks.set(fd, (stacks.get(fd) ?? new Set()).add(request.id))
    const delayed = { ...request }
    const answer = (): number => reply(fd, writeCallReply(buffer, delayed, 0))
    if (stackDelay === 0) return answer()
    setTimeout(() => sessions.has(fd) && answer(), stackDelay)
    stackDelay = 0
    writeFileSync(join(folder, 'delay'), '')
    return 0
  }

  /** The context whose memory file the process has as descriptor `fd`. */
  const contextOfDescriptor = (pid: number, fd: number): Context | undefined => {
    const status = statSync(`/proc/${pid}/fd/${fd}`, { throwIfNoEntry: false })
    return [...contexts.values()].find(context => context.inode === status?.ino)
  }

  /** Answers with a new descriptor. The shim stores its number in `width` bytes at `address`. */
  const answerEvent = (
    fd: number,
    context: Context,
    address: bigint,
    width: 4 | 8,
    kind: number = InstallKind.EVENT,
  ): number => {
    const [ours, theirs] = socketPair()
    setBlocking(theirs)
    setSendTimeout(theirs, DescriptorMark.FIRST + kind, DescriptorMark.MICROSECONDS)
    context.events.push(ours)
    const sent = reply(fd, writeCallReply(buffer, request, 0, [{ address, width, kind }]), [theirs])
    close(theirs)
    return sent
  }

  const answerOrder = (fd: number, context: Context): number => {
    const number = request.request & 0xff
    const argument = Number(request.argument)
    const answer = (ret: number): number => reply(fd, writeCallReply(buffer, request, ret))
    // After a turn of the event loop, earlier messages on other sockets have been counted.
    const answerLater = (count: () => number): number => {
      const delayed = { ...request }
      setImmediate(() => setImmediate(() => sessions.has(fd) && reply(fd, writeCallReply(buffer, delayed, count()))))
      return 0
    }
    if (request.request >>> 8 !== OBJECT_REQUEST) return answer(-ENOTTY)
    switch (number) {
      case Order.ECHO:
        return answer(argument)
      case Order.FAIL:
        return answer(-argument)
      case Order.EVENT_4:
        return answerEvent(fd, context, request.argument, 4)
      case Order.EVENT_8:
        return answerEvent(fd, context, request.argument, 8)
      case Order.DRIVER_8:
        return answerEvent(fd, context, request.argument, 8, InstallKind.DRIVER)
      case Order.EVENT_BEHIND:
        return answerEvent(fd, context, request.argument + BEHIND, 4)
      case Order.PARK:
        Atomics.store(parked.words, ParkedPage.PARKED, argument)
        return answer(0)
      case Order.RECORD:
        send(context.events.at(-1)!, new Uint8Array(argument).fill(argument))
        return answer(0)
      case Order.HANG_UP_EVENT:
        close(context.events.pop()!)
        return answer(0)
      case Order.DIE:
        crash()
        return 0
      case Order.CONTEXTS:
        return answerLater(() => contexts.size)
      case Order.DOORBELLS:
        return answerLater(() => context.doorbellCount)
      case Order.LAST_HANDLE:
        return answerLater(() => context.lastHandle)
      case Order.SESSIONS:
        return answerLater(() => sessions.size)
      case Order.HOLD:
        return 0
      case Order.DELAY: {
        const delayed = { ...request }
        setTimeout(() => sessions.has(fd) && reply(fd, writeCallReply(buffer, delayed, argument)), argument)
        writeFileSync(join(folder, 'delay'), '')
        return 0
      }
      case Order.DELAY_ATTACH:
        attachDelay = argument
        return answer(0)
      case Order.DELAY_STACK:
        stackDelay = argument
        return answer(0)
      case Order.END_SESSION:
        answer(0)
        endSession(fd)
        return 0
      case Order.WRONG_SERIAL:
        return reply(fd, writeCallReply(buffer, { ...request, serial: request.serial + 1 }, 0), [parked.fd])
      default:
        return answer(-ENOTTY)
    }
  }

  /** The daemon's end of the last socket of NETLINK_RDMA. The answer to a datagram is as many bytes of the value 7. */
  let netlink: number | undefined
  const answerNetlink = (fd: number): number => {
    const { operation, extra, argument } = request
    const answer = (ret: number): number => reply(fd, writeCallReply(buffer, request, ret))
    log.push(`netlink ${operation} ${extra}${operation === NetlinkOperation.SEND ? '' : ` ${argument}`}`)
    switch (operation) {
      case NetlinkOperation.OPEN: {
        const [ours, theirs] = socketPair()
        if (netlink !== undefined) close(netlink)
        netlink = ours
        setBlocking(theirs)
        setSendTimeout(theirs, DescriptorMark.FIRST + InstallKind.NETLINK, DescriptorMark.MICROSECONDS)
        const sent = reply(fd, writeCallReply(buffer, request, 0), [theirs])
        close(theirs)
        return sent
      }
      case NetlinkOperation.SEND:
        send(netlink!, new Uint8Array(extra).fill(7))
        return answer(extra)
      case NetlinkOperation.BIND:
        // A bind to an odd port ID is refused.
        return answer(extra === 0 && argument % 2n === 1n ? -EBADF : 0)
      case NetlinkOperation.NAME:
        // nl_pid 12345, nl_groups 8.
        return answer(12345 + 8 * 2 ** 32)
      default:
        return answer(operation === NetlinkOperation.GET ? extra : 0)
    }
  }

  const acceptHello = (fd: number, hello = request): number =>
    reply(fd, writeHelloReply(buffer, hello, { error: 0, root }), [parked.fd])

  /** For LATE: answers the HELLOs that wait, oldest first. */
  const late: (() => number)[] = []
  const answerLate = (): number => late.shift()?.() ?? 0
  let polling: NodeJS.Timeout | undefined
  const holdHello = (fd: number): number => {
    const hello = { ...request }
    late.push(() => acceptHello(fd, hello))
    writeFileSync(join(folder, `hello${late.length}`), '')
    polling ??= setInterval(() => {
      if (!existsSync(join(folder, 'answer'))) return
      clearInterval(polling)
      answerLate()
    }, 10)
    return 0
  }

  const onRequest = (fd: number): number => {
    if (request.type !== MessageType.HELLO) answerLate()
    if (request.stack !== 0 && !stacks.get(fd)?.has(request.stack)) log.push('fault stack of another session')
    switch (request.type) {
      case MessageType.HELLO:
        log.push(`hello ${request.tag}`)
        helloCount++
        if (refusal === LATE && helloCount <= 2) return holdHello(fd)
        if (refusal === TOO_MANY_DESCRIPTORS && helloCount === 1) {
          const fds = Array.from({ length: SessionLimits.descriptors + 1 }, () => parked.fd)
          return reply(fd, writeHelloReply(buffer, request, { error: 0, root }), fds)
        }
        if (refusal > 0) return reply(fd, writeHelloReply(buffer, request, { error: refusal, root: '' }))
        Atomics.store(parked.words, ParkedPage.PARKED, 1)
        return acceptHello(fd)
      case MessageType.OPEN:
        log.push('open')
        if (request.node === CM_NODE) return answerOpenChannel(fd)
        // Its device has no InfiniBand port.
        if (request.node >= ISSM_NODES && request.node !== SYSTEM_NODE)
          return reply(fd, writeOpenReply(buffer, request, { error: ENOENT, context: 0, rdev: 0, inode: 0 }))
        return answerOpen(fd, openContext())
      case MessageType.ATTACH:
        log.push('attach')
        return answerAttach(fd)
      case MessageType.REFRESH:
        log.push('refresh')
        return reply(fd, writeCallReply(buffer, request, 0))
      case MessageType.STACK:
        return answerStack(fd)
      case MessageType.NETLINK:
        return answerNetlink(fd)
      case MessageType.WRITE: {
        log.push(`write ${request.length}`)
        // A write on a driver's descriptor names no context.
        const context = contexts.get(request.context) ?? [...contexts.values()][0]
        if (context && request.length === WRITE_BEHIND) return answerEvent(fd, context, request.buffer + BEHIND, 4)
        const excess = request.length === WRITE_TOO_LONG ? 1 : 0
        return reply(fd, writeCallReply(buffer, request, Number(request.length) + excess))
      }
      default: {
        const context = contexts.get(request.context)
        if (!context || !known.get(fd)?.has(context)) return reply(fd, writeCallReply(buffer, request, -EBADF))
        return answerOrder(fd, context)
      }
    }
  }

  const endSession = (fd: number): void => {
    sessions.get(fd)?.stop()
    sessions.delete(fd)
    stacks.delete(fd)
    known.delete(fd)
    close(fd)
  }

  const onReadable = (fd: number): void => {
    while (sessions.has(fd)) {
      const { length } = recv(fd, buffer.bytes)
      if (length === -EAGAIN) return
      const mistake = length <= 0 ? undefined : readRequest(buffer, length, request)
      if (mistake) log.push(`fault ${mistake}`)
      if (length <= 0 || mistake) endSession(fd)
      else onRequest(fd)
    }
  }

  const listening = watch(listener, { readable: true }, () => {
    for (let fd = accept(listener); fd >= 0; fd = accept(listener)) {
      const connected = fd
      known.set(fd, new Set())
      sessions.set(
        fd,
        watch(fd, { readable: true }, () => onReadable(connected)),
      )
    }
  })

  let isRunning = true
  const crash = (): void => {
    if (!isRunning) return
    isRunning = false
    clearInterval(polling)
    listening.stop()
    close(listener)
    for (const fd of [...sessions.keys()]) endSession(fd)
    for (const context of [...contexts.values()])
      for (const fd of [...context.doorbells.keys()]) closeDoorbell(context, fd)
    close(parked.fd)
    if (netlink !== undefined) close(netlink)
  }

  return { socket, log, crash }
}
