/*
 * A client of a daemon in this process, without the preload library: session messages, and Linux's write commands.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { type Daemon, startDaemon } from '../../src/daemon/daemon.ts'
import { EAGAIN } from '../../src/host/errno.ts'
import { watch } from '../../src/host/event-loop/poll.ts'
import { type Arena, mapArena } from '../../src/host/memory/mapping.ts'
import { close, connect, recv, send } from '../../src/host/net/sockets.ts'
import type { PreloadMessageName } from '../../src/spec/preload-events.ts'
import {
  messageBuffer,
  newReply,
  type Reply,
  readReply,
  writeHello,
  writeRequest,
  writeTool,
} from '../../src/uapi/session-codec.ts'
import type { DaemonConfig, Stat, ToolReply } from '../../src/uapi/tool.ts'

let daemons = 0

/** A daemon in this process with soft devices rxe0, rxe1 … at the addresses. The daemon ends with the test. */
export const daemonOf = async (
  t: TestContext,
  folder: string,
  devices = ['127.0.0.1'],
  config: Partial<DaemonConfig> = {},
): Promise<Daemon> => {
  const daemon = await startDaemon({
    socket: join(folder, `sock${daemons++}`),
    config: {
      devices: devices.map((address, i) => ({ name: `rxe${i}`, address })),
      fault: '',
      link: 'memory',
      ...config,
    },
    endWithLastClient: false,
  })
  t.after(() => daemon.close())
  return daemon
}

export interface ReceivedReply extends Reply {
  readonly descriptors: readonly number[]
}

export interface Client {
  /** Sends a message with descriptors; returns its length or -errno. */
  send(bytes: Uint8Array, fds?: readonly number[]): number
  /** The next message; undefined if the session has ended or is closed. */
  next(): Promise<ReceivedReply | undefined>
  /** Sends HELLO; returns the reply. The client closes the descriptors of the reply. */
  hello(): Promise<ReceivedReply>
  /** Sends OPEN; returns the reply. For a device's node the reply has two descriptors: memory file and doorbell. */
  open(node?: number, wants?: number): Promise<ReceivedReply>
  /** Sends ATTACH of a context's memory file; returns the reply with one descriptor, a doorbell. */
  attach(fd: number): Promise<ReceivedReply>
  /** Opens a node and calls GET_CONTEXT; returns the context's number. The client closes the descriptors. */
  context(node?: number): Promise<number>
  /** Calls on a context; they return the return value. */
  ioctl(context: number, request: number, argument: bigint): Promise<number>
  write(context: number, buffer: bigint, length: bigint): Promise<number>
  /**
   * Makes a write command without an extended header. `body`: u32 words after the pointer to the response.
   * `responseWords`: length of the response in u32 words, 0 for no response. `ret`: length of the command in bytes, or
   * -errno. `fds`: descriptors of the reply.
   */
  command(
    context: number,
    number: number,
    body?: readonly number[],
    responseWords?: number,
  ): Promise<{ ret: number; response: number[]; fds: readonly number[] }>
  /** Calls on an event descriptor or a driver's descriptor of this process; they return the return value. */
  ioctlOn(fd: number, request: number, argument: bigint): Promise<number>
  writeOn(fd: number, buffer: bigint, length: bigint): Promise<number>
  /** Sends MAP with PROT_READ | PROT_WRITE; returns the reply with a descriptor. */
  mapOn(fd: number, offset: bigint, length: bigint, context?: number): Promise<ReceivedReply>
  /** Sends NETLINK about a descriptor of this process; returns the reply with the program's end of a new socket. */
  netlink(fd: number, operation: number, extra: number, argument: bigint): Promise<ReceivedReply>
  /** Sends REFRESH, which announces that counter files are about to be read. */
  refresh(): Promise<ReceivedReply>
  /** Tells an event of a preload library. `body`: the fields of its message; absent ones are 0. */
  event(
    name: PreloadMessageName,
    context: number,
    stack: number,
    body: Readonly<Record<string, unknown>>,
  ): Promise<number>
  /** Sends STACK; returns the return value. */
  stack(id: number, frames: string): Promise<number>
  tool(request: unknown, fds?: readonly number[]): Promise<ToolReply>
  stat(): Promise<Stat>
  /** `close` will also close these descriptors. */
  keep(fds: readonly number[]): void
  close(): void
  readonly memory: Arena
}

/** Linux's numbers of write commands (IB_USER_VERBS_CMD_…). */
export const Command = {
  GET_CONTEXT: 0,
  ALLOC_PD: 3,
  DEALLOC_PD: 4,
  CREATE_COMP_CHANNEL: 17,
  CREATE_CQ: 18,
  CREATE_QP: 24,
} as const
/** Lengths of write commands, which they return. */
export const CommandBytes = { GET_CONTEXT: 16, ALLOC_PD: 16, DEALLOC_PD: 12, CREATE_COMP_CHANNEL: 16 } as const

/** Offset of responses in `memory`. */
const RESPONSE = 2048

export const dial = (t: TestContext, daemon: Pick<Daemon, 'socket'>): Client => {
  const session = connect(daemon.socket)
  const incoming = messageBuffer()
  const outgoing = messageBuffer()
  const memory = mapArena(65536)
  const received: ReceivedReply[] = []
  const waiters: ((message: ReceivedReply | undefined) => void)[] = []
  const kept: number[] = []
  let isOpen = true
  let hasEnded = false

  const deliver = (message: ReceivedReply): void => {
    const waiter = waiters.shift()
    if (waiter) waiter(message)
    else received.push(message)
  }
  const end = (): void => {
    hasEnded = true
    for (const waiter of waiters.splice(0)) waiter(undefined)
  }
  const watcher = watch(session, { readable: true }, () => {
    while (!hasEnded) {
      const { length, fds } = recv(session, incoming.bytes)
      if (length === -EAGAIN) return
      if (length <= 0) {
        watcher.update({})
        end()
        return
      }
      const reply = newReply()
      assert.equal(readReply(incoming, length, reply), undefined)
      deliver({ ...reply, descriptors: fds })
    }
  })

  const self: Client = {
    memory,
    send: (bytes, fds = []) => send(session, bytes, fds),
    next: () => {
      if (received.length > 0) return Promise.resolve(received.shift())
      if (hasEnded) return Promise.resolve(undefined)
      return new Promise(done => waiters.push(done))
    },
    async hello() {
      const reply = await exchange(writeHello(outgoing, {}))
      self.keep(reply.descriptors)
      return reply
    },
    open: (node = 0, wants = 0) => exchange(writeRequest(outgoing, 'OPEN', {}, { node, wants })),
    attach: fd => exchange(writeRequest(outgoing, 'ATTACH', { fd })),
    async context(node = 0) {
      const { error, context, descriptors } = await self.open(node)
      assert.equal(error, 0)
      self.keep(descriptors)
      const { ret, fds } = await self.command(context, Command.GET_CONTEXT, [], 2)
      assert.equal(ret, CommandBytes.GET_CONTEXT)
      self.keep(fds)
      return context
    },
    ioctl: async (context, request, argument) => {
      const { ret, descriptors } = await exchange(writeRequest(outgoing, 'IOCTL', { context }, { request, argument }))
      self.keep(descriptors)
      return Number(ret)
    },
    write: async (context, buffer, length) => {
      const { ret, descriptors } = await exchange(writeRequest(outgoing, 'WRITE', { context }, { buffer, length }))
      self.keep(descriptors)
      return Number(ret)
    },
    async command(context, number, body = [], responseWords = 0) {
      const bodyAt = 8 + (responseWords > 0 ? 8 : 0)
      const length = bodyAt + 4 * body.length
      memory.view.setUint32(0, number, true)
      memory.view.setUint16(4, length / 4, true)
      memory.view.setUint16(6, responseWords, true)
      if (responseWords > 0) memory.view.setBigUint64(8, BigInt(memory.address + RESPONSE), true)
      body.forEach((word, i) => {
        memory.view.setUint32(bodyAt + 4 * i, word, true)
      })
      const { ret, descriptors } = await exchange(
        writeRequest(outgoing, 'WRITE', { context }, { buffer: BigInt(memory.address), length: BigInt(length) }),
      )
      const response = Array.from({ length: responseWords }, (_, i) => memory.u32[RESPONSE / 4 + i])
      return { ret: Number(ret), response, fds: descriptors }
    },
    ioctlOn: async (fd, request, argument) =>
      Number((await exchange(writeRequest(outgoing, 'IOCTL', { fd }, { request, argument }))).ret),
    writeOn: async (fd, buffer, length) =>
      Number((await exchange(writeRequest(outgoing, 'WRITE', { fd }, { buffer, length }))).ret),
    mapOn: (fd, offset, length, context = 0) =>
      exchange(writeRequest(outgoing, 'MAP', { fd, context }, { offset, length, protection: 3 })),
    netlink: (fd, operation, extra, argument) =>
      exchange(writeRequest(outgoing, 'NETLINK', { fd, pid: process.pid }, { operation, extra, argument })),
    refresh: () => exchange(writeRequest(outgoing, 'REFRESH', {})),
    event: async (name, context, stack, body) =>
      Number((await exchange(writeRequest(outgoing, name, { context, stack }, body as never))).ret),
    stack: async (id, frames) =>
      Number((await exchange(writeRequest(outgoing, 'STACK', { pid: process.pid }, { id, frames }))).ret),
    async tool(request, fds = []) {
      const text = typeof request === 'string' ? request : JSON.stringify(request)
      return JSON.parse((await exchange(writeTool(outgoing, {}, text), fds)).text) as ToolReply
    },
    async stat() {
      const reply = await self.tool({ kind: 'stat' })
      assert.ok('stat' in reply)
      return reply.stat
    },
    keep: fds => kept.push(...fds),
    close() {
      if (!isOpen) return
      isOpen = false
      watcher.stop()
      end()
      close(session)
      for (const fd of kept.splice(0)) close(fd)
    },
  }
  const exchange = async (length: number, fds: readonly number[] = []): Promise<ReceivedReply> => {
    assert.ok(self.send(outgoing.bytes.slice(0, length), fds) > 0)
    const message = await self.next()
    assert.ok(message, 'the session ended before the answer')
    return message
  }
  t.after(() => self.close())
  return self
}

/** Creates a CQ of 16 entries; returns its handle. */
export const createCq = async (client: Client, context: number): Promise<number> => {
  const noChannel = 0xffff_ffff
  const userHandle = [0, 0]
  const { ret, response } = await client.command(context, Command.CREATE_CQ, [...userHandle, 16, 0, noChannel, 0], 6)
  assert.ok(ret > 0, `CREATE_CQ: ${ret}`)
  return response[0]!
}

/** Creates an RC queue pair with queues of one request, each with one SGE; returns its number. */
export const createRcQp = async (client: Client, context: number, pd: number, cq: number): Promise<number> => {
  const userHandle = [0, 0]
  const [noSrq, noInline] = [0, 0]
  const capabilities = [1, 1, 1, 1, noInline]
  // sq_sig_all, qp_type and is_srq, one byte each: only qp_type, IBV_QPT_RC, is not 0
  const types = 2 << 8
  const body = [...userHandle, pd, cq, cq, noSrq, ...capabilities, types]
  const { ret, response } = await client.command(context, Command.CREATE_QP, body, 16)
  assert.ok(ret > 0, `CREATE_QP: ${ret}`)
  return response[1]!
}

/** Requests `stat` until `isReached` is true; returns the last answer. Fails the test after 200 requests. */
export const eventually = async (client: Client, isReached: (stat: Stat) => boolean): Promise<Stat> => {
  let last: Stat | undefined
  for (let i = 0; i < 200; i++) {
    last = await client.stat()
    if (isReached(last)) return last
  }
  assert.fail(`the condition was not reached: ${JSON.stringify(last)}`)
}
