/*
 * A daemon that implements the session protocol and no RDMA, for the shim's tests. It keeps a small device tree, opens
 * contexts with real memory files and doorbell sockets, and answers calls by the request number (see Order and
 * scenarios.c), so that a program under the shim can control it. `log` records everything received.
 */
import { mkdirSync, statSync, writeFileSync } from 'node:fs'
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
  recvSmall,
  send,
  setBlocking,
  setSendTimeout,
  socketPair,
} from '../../src/host/net/sockets.ts'
import {
  ContextFile,
  DescriptorMark,
  InstallKind,
  MessageType,
  NetlinkOperation,
  ParkedPage,
} from '../../src/spec/session.ts'
import {
  messageBuffer,
  newRequest,
  readRequest,
  writeCallReply,
  writeHelloReply,
  writeOpenReply,
} from '../../src/uapi/session-codec.ts'

/**
 * Requests of the object dialect's magic, by which scenarios.c controls the daemon. Keep the numbers equal to those
 * there.
 */
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
  TOKENS: 10,
  LAST_TOKEN: 11,
  SESSIONS: 12,
  HOLD: 13,
  EVENT_BEHIND: 14,
} as const

/**
 * EVENT_BEHIND stores the descriptor number BEHIND bytes after the call's argument. A write of WRITE_BEHIND bytes is
 * answered in the same way, BEHIND bytes after its buffer.
 */
const BEHIND = 64n
const WRITE_BEHIND = 40n

const EBADF = 9
const EAGAIN = 11
const ENODEV = 19
const ENOTTY = 25
/** _IOWR(0xdb, …, 8 bytes), without the number. */
const MAGIC = 0xc008db

interface Context {
  readonly id: number
  readonly file: number
  readonly inode: number
  /** The daemon's ends of the live doorbell sockets. */
  readonly doorbells: Map<number, Watch>
  readonly events: number[]
  tokens: number
  lastToken: number
}

export interface FakeDaemon {
  readonly socket: string
  /** What happened, in order: "hello PID tag", "open", "attach", "call", "close" (a context ended). */
  readonly log: string[]
  readonly contexts: ReadonlyMap<number, Context>
  sessions(): number
  /** Closes all its descriptors, as when a daemon crashes. */
  crash(): void
}

const RDEV = (231 << 8) | 192

const sys = libcFunctions({ mmap: 'int64_t mmap(int64_t a, uint64_t n, int prot, int flags, int fd, int64_t offset)' })

/** The page with the parked word: mapped writable here; clients' copies cannot be mapped writable. */
const parkedPage = () => {
  const fd = createMemfd('fake-parked', ParkedPage.bytes)
  const arena = mapArena(ParkedPage.bytes)
  // Over the arena's own page: MAP_SHARED | MAP_FIXED.
  if (sys().mmap(arena.address, ParkedPage.bytes, 3, 0x11, fd, 0) !== arena.address) throw new Error('mmap failed')
  addSeals(fd, 16)
  return { fd, words: arena.u32 }
}

/** Files of the tree by path; the shim needs no others. */
const TREE: Readonly<Record<string, string>> = {
  '/sys/class/infiniband_verbs/abi_version': '6\n',
  '/sys/class/infiniband_verbs/uverbs0/ibdev': 'rxe0\n',
  '/sys/class/infiniband_verbs/uverbs0/dev': '231:192\n',
  '/sys/class/infiniband_verbs/uverbs0/abi_version': '2\n',
  '/sys/class/infiniband/rxe0/node_type': '1: CA\n',
  '/sys/class/infiniband/rxe0/node_desc': 'rxe\n',
  '/sys/class/infiniband/rxe0/node_guid': '5054:00ff:fe77:0002\n',
  '/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts': '7\n',
  '/sys/class/infiniband/rxe0/ports/1/counters/port_xmit_data': '8\n',
  '/dev/infiniband/uverbs0': '',
}

/** `refusal`: errno with which HELLO is answered. */
export const startFakeDaemon = (folder: string, refusal = 0): FakeDaemon => {
  const root = join(folder, 'sock.tree')
  for (const [path, text] of Object.entries(TREE)) {
    mkdirSync(dirname(root + path), { recursive: true })
    writeFileSync(root + path, text)
  }
  const socket = join(folder, 'sock')
  const listener = listen(socket)
  const parked = parkedPage()
  const log: string[] = []
  const contexts = new Map<number, Context>()
  const sessions = new Map<number, Watch>()
  const buffer = messageBuffer()
  const request = newRequest()
  let nextContext = 7

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

  const addDoorbell = (context: Context): number => {
    const [ours, theirs] = socketPair()
    const token = new Uint8Array(4)
    const onReady = (): void => {
      for (;;) {
        const length = recvSmall(ours, token)
        if (length === 4) {
          context.tokens++
          context.lastToken = new DataView(token.buffer).getUint32(0, true)
          continue
        }
        if (length !== -EAGAIN) closeDoorbell(context, ours)
        return
      }
    }
    context.doorbells.set(ours, watch(ours, { readable: true }, onReady))
    return theirs
  }

  const open = (): Context => {
    const file = createMemfd('userdma-context', ContextFile.bytes)
    addSeals(file, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
    const context: Context = {
      id: nextContext++,
      file,
      inode: fileIdentity(file).ino,
      doorbells: new Map(),
      events: [],
      tokens: 0,
      lastToken: 0,
    }
    contexts.set(context.id, context)
    return context
  }

  /** Length sent, or -errno. */
  const reply = (fd: number, length: number, fds: readonly number[] = []): number =>
    send(fd, buffer.bytes.subarray(0, length), fds)

  const answerOpen = (fd: number, context: Context | undefined, withFile: boolean): number => {
    if (!context) return reply(fd, writeOpenReply(buffer, request, { error: ENODEV, context: 0, rdev: 0, inode: 0 }))
    const doorbell = addDoorbell(context)
    const value = { error: 0, context: context.id, rdev: RDEV, inode: context.inode }
    const sent = reply(fd, writeOpenReply(buffer, request, value), withFile ? [context.file, doorbell] : [doorbell])
    close(doorbell)
    return sent
  }

  /** The context whose memory file is behind this descriptor number of the process. */
  const shown = (pid: number, fd: number): Context | undefined => {
    const found = statSync(`/proc/${pid}/fd/${fd}`, { throwIfNoEntry: false })
    return [...contexts.values()].find(context => context.inode === found?.ino)
  }

  const answerEvent = (fd: number, context: Context, address: bigint, width: 4 | 8): number => {
    const [ours, theirs] = socketPair()
    setBlocking(theirs)
    setSendTimeout(theirs, DescriptorMark.FIRST, DescriptorMark.MICROSECONDS)
    context.events.push(ours)
    const sent = reply(fd, writeCallReply(buffer, request, 0, [{ address, width }]), [theirs])
    close(theirs)
    return sent
  }

  const answerOrder = (fd: number, context: Context): number => {
    const number = request.request & 0xff
    const argument = Number(request.argument)
    const answer = (ret: number): number => reply(fd, writeCallReply(buffer, request, ret))
    /*
     * Messages that arrived on other sockets before this request are handled first: the event loop gets a full turn.
     */
    const answerLater = (count: () => number): number => {
      const to = { ...request }
      setImmediate(() => setImmediate(() => sessions.has(fd) && reply(fd, writeCallReply(buffer, to, count()))))
      return 0
    }
    if (request.request >>> 8 !== MAGIC) return answer(-ENOTTY)
    switch (number) {
      case Order.ECHO:
        return answer(argument)
      case Order.FAIL:
        return answer(-argument)
      case Order.EVENT_4:
        return answerEvent(fd, context, request.argument, 4)
      case Order.EVENT_8:
        return answerEvent(fd, context, request.argument, 8)
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
      case Order.TOKENS:
        return answerLater(() => context.tokens)
      case Order.LAST_TOKEN:
        return answerLater(() => context.lastToken)
      case Order.SESSIONS:
        return answerLater(() => sessions.size)
      case Order.HOLD:
        return 0
      default:
        return answer(-ENOTTY)
    }
  }

  /** The only socket of NETLINK_RDMA. A sent datagram is answered with the same number of bytes 7. */
  let netlink: number | undefined
  const answerNetlink = (fd: number): number => {
    const { operation, extra, argument } = request
    const answer = (ret: number): number => reply(fd, writeCallReply(buffer, request, ret))
    log.push(`netlink ${operation} ${extra}${operation === NetlinkOperation.SEND ? '' : ` ${argument}`}`)
    switch (operation) {
      case NetlinkOperation.OPEN: {
        const [ours, theirs] = socketPair()
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
        return answer(extra === 0 && argument % 2n === 1n ? -EBADF : 0)
      case NetlinkOperation.NAME:
        return answer(12345 + 8 * 2 ** 32)
      default:
        return answer(operation === NetlinkOperation.GET ? extra : 0)
    }
  }

  const onRequest = (fd: number): number => {
    switch (request.type) {
      case MessageType.HELLO:
        log.push(`hello ${request.tag}`)
        if (refusal !== 0) return reply(fd, writeHelloReply(buffer, request, { error: refusal, root: '' }))
        Atomics.store(parked.words, ParkedPage.PARKED, 1)
        return reply(fd, writeHelloReply(buffer, request, { error: 0, root }), [parked.fd])
      case MessageType.OPEN:
        log.push('open')
        return answerOpen(fd, open(), true)
      case MessageType.ATTACH:
        log.push('attach')
        return answerOpen(fd, shown(peerCredentials(fd).pid, request.fd), false)
      case MessageType.REFRESH:
        log.push('refresh')
        return reply(fd, writeCallReply(buffer, request, 0))
      case MessageType.NETLINK:
        return answerNetlink(fd)
      case MessageType.WRITE: {
        log.push(`write ${request.length}`)
        const context = contexts.get(request.context)
        if (context && request.length === WRITE_BEHIND) return answerEvent(fd, context, request.buffer + BEHIND, 4)
        return reply(fd, writeCallReply(buffer, request, Number(request.length)))
      }
      default: {
        const context = contexts.get(request.context)
        if (!context) return reply(fd, writeCallReply(buffer, request, -EBADF))
        return answerOrder(fd, context)
      }
    }
  }

  const endSession = (fd: number): void => {
    sessions.get(fd)?.stop()
    sessions.delete(fd)
    close(fd)
  }

  const onReadable = (fd: number): void => {
    while (sessions.has(fd)) {
      const { length } = recv(fd, buffer.bytes)
      if (length === -EAGAIN) return
      const fault = length <= 0 ? undefined : readRequest(buffer, length, request)
      if (fault) log.push(`fault ${fault}`)
      if (length <= 0 || fault) endSession(fd)
      else onRequest(fd)
    }
  }

  const listening = watch(listener, { readable: true }, () => {
    for (let fd = accept(listener); fd >= 0; fd = accept(listener)) {
      const connected = fd
      sessions.set(
        fd,
        watch(fd, { readable: true }, () => onReadable(connected)),
      )
    }
  })

  let alive = true
  const crash = (): void => {
    if (!alive) return
    alive = false
    listening.stop()
    close(listener)
    for (const fd of [...sessions.keys()]) endSession(fd)
    for (const context of [...contexts.values()])
      for (const fd of [...context.doorbells.keys()]) closeDoorbell(context, fd)
    close(parked.fd)
    if (netlink !== undefined) close(netlink)
  }

  return { socket, log, contexts, sessions: () => sessions.size, crash: crash }
}
