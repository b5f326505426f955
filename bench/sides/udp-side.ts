/*
 * One end of a UDP measurement, a process with a soft device on a UDP port. The parent sends orders (`Order`), and gets
 * answers (`Answer`).
 *
 * All slots of a ring have the same request, written once. Posting only advances an index: the measurement is that of
 * the device, the engine and the port. The daemon's loop or constant polling (`spin`) drives the device.
 */

import { identify } from '../../src/core/devices/identity.ts'
import { createCore, openContext } from '../../src/core/devices/registry.ts'
import { invokeNow } from '../../src/core/dispatch/invoke.ts'
import { ScanScope } from '../../src/core/driver-contract.ts'
import { createLocalSpace } from '../../src/core/memory/local-space.ts'
import { findableMemory, type MappedChunk } from '../../src/core/memory/mappable-memory.ts'
import { mappedRings } from '../../src/core/memory/rings.ts'
import type { Caller } from '../../src/core/model.ts'
import { Loop } from '../../src/daemon/loop.ts'
import type { RingsContext } from '../../src/drivers/rings/context.ts'
import { createRxeDevice } from '../../src/drivers/rxe/device.ts'
import { loadNativeCrc } from '../../src/host/crc.ts'
import { nowMicroseconds } from '../../src/host/event-loop/clock.ts'
import { yieldProcessor } from '../../src/host/event-loop/yield.ts'
import { loadNativeCopier } from '../../src/host/memory/copy.ts'
import { mapArena } from '../../src/host/memory/mapping.ts'
import { Cq } from '../../src/spec/classes/cq.ts'
import { Mr } from '../../src/spec/classes/mr.ts'
import { Pd } from '../../src/spec/classes/pd.ts'
import { RcQp } from '../../src/spec/classes/qp/rc_qp.ts'
import { RecvWqe, RingHeader, RingSge, SendWqe, Wc } from '../../src/spec/drivers/mapped-rings.ts'
import { AccessFlags, QpState } from '../../src/spec/enums.ts'
import { mtuEnum } from '../../src/spec/mtu.ts'
import { SendFlags, WrOpcode } from '../../src/spec/work.ts'
import { createUdpPort } from '../../src/transport/phy/udp/port.ts'
import { parseAddress } from '../../src/transport/wire/address.ts'
import { useCrcEngine } from '../../src/transport/wire/crc.ts'

export type Operation = 'write' | 'read' | 'send'

const { RDMA_WRITE, RDMA_READ, SEND } = WrOpcode.values
const OPCODES: Readonly<Record<Operation, number>> = { write: RDMA_WRITE, read: RDMA_READ, send: SEND }

export interface SideOptions {
  readonly address: string
  /** Path MTU in bytes. */
  readonly mtu: number
  /** `auto`: the kernel segments runs into datagrams (UDP_SEGMENT); `never`: the port sends packet by packet. */
  readonly segmentation: 'auto' | 'never'
  readonly qps: number
  readonly operation: Operation
  /** Bytes of a message. */
  readonly size: number
  /** Maximum outstanding requests of a queue pair. */
  readonly depth: number
  /** The daemon's loop, or constant polling. */
  readonly drive: 'loop' | 'spin'
}

/** Facts that the other end needs for a connection. */
export interface SideFacts {
  readonly address: string
  readonly qpns: readonly number[]
  /** Address of the memory for messages. */
  readonly buffer: number
  readonly rkey: number
}

export type Order =
  | { readonly kind: 'make'; readonly options: SideOptions }
  | { readonly kind: 'connect'; readonly peer: SideFacts }
  /** Drives the device until the next order. `receives`: SENDs to receive. */
  | { readonly kind: 'serve'; readonly receives: number }
  /** Sends messages: fills the send queues one after the other, repeatedly. Answers seconds. */
  | { readonly kind: 'stream'; readonly messages: number }
  /** SEND ping-pong. Answers microseconds per round trip. */
  | { readonly kind: 'ping' | 'pong'; readonly rounds: number; readonly spin: boolean }
  | { readonly kind: 'usage' }

type Answer =
  | { readonly facts: SideFacts }
  | { readonly value: number }
  | { readonly cpu: number; readonly resent: number }
  | { readonly done: true }
  | { readonly failed: string }

const LARGEST_PACKET = 65_535
/** max_cqe of the soft device. */
const MAX_CQE = 32_767
/** max_qp_rd_atom of the soft device, which perftest asks for too. */
const MAX_READS = 128
/** Indexes of 4-byte words in a ring's header. */
const PRODUCER = RingHeader.PRODUCER >> 2
const CONSUMER = RingHeader.CONSUMER >> 2

/** The program's side of a ring. `index` is the program's index, masked. */
interface ProgramRing {
  readonly chunk: MappedChunk
  readonly mask: number
  index: number
}

const makeSide = (options: SideOptions) => {
  const { address, mtu, segmentation, qps, operation, size, depth } = options
  const crc = loadNativeCrc()
  // The engine needs an arena for its self-test.
  if (crc) useCrcEngine(crc, mapArena(1024))
  const bytes = parseAddress(address)
  if (bytes === undefined) throw new Error(`${address} is not an IP address`)
  const port = createUdpPort({ mtu: LARGEST_PACKET, interfaceIndex: 0, segmentation })
  const identity = identify(bytes, { name: 'bench', index: 0 })
  // The address must be of this network namespace, and not link-local.
  port.addAddress(bytes)
  const deviceIdentity = { ...identity, gids: [bytes] }
  const rxe = createRxeDevice(createCore(), { name: 'rxe0', identity: deviceIdentity, port, now: nowMicroseconds })
  const context = openContext(rxe.device, { isOpened: true })

  const rings = findableMemory()
  context.state = { rings: mappedRings(rings) } satisfies RingsContext
  const ringAt = (info: unknown): ProgramRing => {
    const chunk = rings.at((info as { offset: bigint }).offset)
    return { chunk, mask: chunk.view.getUint32(RingHeader.INDEX_MASK, true), index: 0 }
  }

  const memory = createLocalSpace(loadNativeCopier())
  const unexpected = (): never => {
    throw new Error('calls of this process point to no memory')
  }
  const caller: Caller = { memory, copyIn: unexpected, copyOut: unexpected, descriptor: () => undefined }
  const data = new Uint8Array(size)
  const buffer = memory.add(data)
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object as number
  const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ } = AccessFlags.values
  const access = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ
  const region = { pd, start: BigInt(buffer), iova: BigInt(buffer), length: BigInt(data.length), access }
  const { lkey, rkey } = invokeNow(context, Mr, 'create', 0, region, caller).out
  const cqe = Math.min(MAX_CQE, 2 * depth * qps + 64)
  const newCq = () => invokeNow(context, Cq, 'create', 0, { cqe, userHandle: 0n, compVector: 0 }, caller)
  const [sent, received] = [newCq(), newCq()]
  const cqs = [sent, received].map(cq => ringAt(cq.out.queue))
  const cap = { maxSendWr: depth, maxRecvWr: depth, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
  const pairs = Array.from({ length: qps }, () => {
    const queues = { sendCq: sent.object as number, recvCq: received.object as number }
    const { object, out } = invokeNow(context, RcQp, 'create', 0, { pd, ...queues, cap, userHandle: 0n }, caller)
    return {
      handle: object as number,
      qpn: out.qpNum,
      send: ringAt(out.sendQueue),
      receive: ringAt(out.recvQueue),
    }
  })

  const writeAllSlots = (ring: ProgramRing, write: (view: DataView, at: number) => void): void => {
    const { view } = ring.chunk
    const log2 = view.getUint32(RingHeader.LOG2_ELEMENT, true)
    for (let i = 0; i <= ring.mask; i++) write(view, RingHeader.DATA + (i << log2))
  }
  const putSge = (view: DataView, at: number): void => {
    view.setBigUint64(at + RingSge.ADDRESS, BigInt(buffer), true)
    view.setUint32(at + RingSge.LENGTH, size, true)
    view.setUint32(at + RingSge.LKEY, lkey, true)
  }

  const connect = (peer: SideFacts): void => {
    const modify = (handle: number, args: Parameters<typeof invokeNow<typeof RcQp, 'modify'>>[4]): void => {
      invokeNow(context, RcQp, 'modify', handle, args, caller)
    }
    const dgid = parseAddress(peer.address) as Uint8Array
    const route = { flowLabel: 0, hopLimit: 64, trafficClass: 0, sl: 0, staticRate: 0, isGlobal: 1 }
    const { INIT, RTR, RTS } = QpState.values
    pairs.forEach(({ handle, send, receive }, i) => {
      modify(handle, { state: INIT, pkeyIndex: 0, port: 1, accessFlags: access })
      modify(handle, {
        state: RTR,
        address: { dgid, sgidIndex: 0, port: 1, ...route },
        pathMtu: mtuEnum(mtu),
        destQpn: peer.qpns[i],
        rqPsn: 0,
        maxDestRdAtomic: MAX_READS,
        minRnrTimer: 1,
      })
      modify(handle, { state: RTS, timeout: 14, retryCnt: 7, rnrRetry: 7, sqPsn: 0, maxRdAtomic: MAX_READS })
      writeAllSlots(send, (view, at) => {
        view.setUint32(at + SendWqe.OPCODE, OPCODES[operation], true)
        view.setUint32(at + SendWqe.FLAGS, SendFlags.values.SIGNALED, true)
        view.setBigUint64(at + SendWqe.REMOTE, BigInt(peer.buffer), true)
        view.setUint32(at + SendWqe.RKEY, peer.rkey, true)
        view.setUint32(at + SendWqe.DMA_LENGTH, size, true)
        view.setUint32(at + SendWqe.DMA_NUM_SGE, 1, true)
        putSge(view, at + SendWqe.SGE)
      })
      writeAllSlots(receive, (view, at) => {
        view.setUint32(at + RecvWqe.DMA_NUM_SGE, 1, true)
        putSge(view, at + RecvWqe.SGE)
      })
    })
  }

  /** Posts at most `count` requests to a ring; returns the number of posted requests. */
  const post = (ring: ProgramRing, count: number): number => {
    const { words } = ring.chunk
    const used = (ring.index - Atomics.load(words, CONSUMER)) & ring.mask
    const n = Math.min(count, depth - used)
    if (n <= 0) return 0
    ring.index = (ring.index + n) & ring.mask
    Atomics.store(words, PRODUCER, ring.index)
    return n
  }
  /** Polls all completions of a CQ; returns their number. Throws for a failed completion. */
  const pollCompletions = (cq: ProgramRing): number => {
    const { words, view } = cq.chunk
    const producer = Atomics.load(words, PRODUCER)
    const n = (producer - cq.index) & cq.mask
    for (let i = 0; i < n; i++) {
      const status = view.getUint32(
        RingHeader.DATA + (((cq.index + i) & cq.mask) << Wc.ELEMENT_SHIFT) + Wc.STATUS,
        true,
      )
      if (status !== 0) throw new Error(`a completion has status ${status}`)
    }
    cq.index = producer
    if (n > 0) Atomics.store(words, CONSUMER, producer)
    return n
  }
  return {
    options,
    rxe,
    port,
    pairs,
    cqs,
    facts: { address, qpns: pairs.map(qp => qp.qpn), buffer, rkey },
    connect,
    post,
    pollCompletions,
  }
}
type Side = ReturnType<typeof makeSide>

/** Microseconds of polling before the event loop turns. */
const SLICE_US = 1000

/** After this number of polls without work every queue is polled, as in the daemon's loop before it parks. */
const POLLS_BEFORE_ALL = 32

/** Polls without a pause until `step` reports the end. The event loop turns between slices. */
const runPolling = (side: Side, step: () => boolean): Promise<void> =>
  new Promise((resolve, reject) => {
    let idlePolls = 0
    const turn = (): void => {
      try {
        const end = nowMicroseconds() + SLICE_US
        for (let now = nowMicroseconds(); now < end; now = nowMicroseconds()) {
          if (side.rxe.poll(now, ScanScope.USED)) idlePolls = 0
          else if (++idlePolls % POLLS_BEFORE_ALL === 0) side.rxe.poll(now, ScanScope.ALL)
          else yieldProcessor()
          if (step()) {
            while (side.rxe.poll(nowMicroseconds(), ScanScope.USED)) {
              // Polls until pending packets are sent.
            }
            resolve()
            return
          }
        }
        setImmediate(turn)
      } catch (error) {
        reject(error)
      }
    }
    side.rxe.poll(nowMicroseconds(), ScanScope.ALL)
    turn()
  })

/** Runs the daemon's loop, which packets wake, and calls `step` after each poll until `step` reports the end. */
const runLoop = (side: Side, step: () => boolean): Promise<void> =>
  new Promise((resolve, reject) => {
    let isOver = false
    let isStopping = false
    const poll = (now: number, scope: ScanScope): boolean => {
      const hasProgress = side.rxe.poll(now, scope)
      try {
        isOver ||= step()
        // The last acknowledgement must be sent before the end.
        if (isOver && !hasProgress && !isStopping) {
          isStopping = true
          queueMicrotask(() => {
            loop.stop()
            side.port.wake = null
            resolve()
          })
        }
      } catch (error) {
        isOver = true
        reject(error)
      }
      return hasProgress
    }
    const loop = new Loop(new Int32Array(1), [{ poll, nextTimeout: () => side.rxe.nextTimeout() }])
    side.port.wake = () => loop.kick()
    loop.kick()
  })

const drive = (side: Side, step: () => boolean): Promise<void> =>
  (side.options.drive === 'loop' ? runLoop : runPolling)(side, step)

/** The running order `serve`. The next order ends it. */
let server: { stop(): Promise<void> } | undefined

const execute = async (side: Side, order: Order): Promise<Answer> => {
  const [sent, received] = side.cqs
  switch (order.kind) {
    case 'serve': {
      let expected = order.receives
      let isStopping = false
      const running = drive(side, () => {
        if (expected > 0) {
          expected -= side.pollCompletions(received)
          for (const { receive } of side.pairs) side.post(receive, side.options.depth)
        }
        return isStopping
      })
      server = {
        stop: () => {
          isStopping = true
          side.port.wake?.()
          return running
        },
      }
      return { done: true }
    }
    case 'stream': {
      const { pairs } = side
      let posted = 0
      let done = 0
      const start = nowMicroseconds()
      await drive(side, () => {
        done += side.pollCompletions(sent)
        for (let i = 0; i < pairs.length && posted < order.messages; i++)
          posted += side.post(pairs[i].send, order.messages - posted)
        return done === order.messages
      })
      return { value: (nowMicroseconds() - start) / 1e6 }
    }
    case 'ping':
    case 'pong': {
      const [{ send, receive }] = side.pairs
      let rounds = 0
      const isPing = order.kind === 'ping'
      side.post(receive, side.options.depth)
      if (isPing) side.post(send, 1)
      const start = nowMicroseconds()
      await (order.spin ? runPolling : runLoop)(side, () => {
        side.pollCompletions(sent)
        const n = side.pollCompletions(received)
        if (n === 0) return false
        rounds += n
        side.post(receive, n)
        if (!isPing || rounds < order.rounds) side.post(send, 1)
        return rounds >= order.rounds
      })
      return { value: (nowMicroseconds() - start) / order.rounds }
    }
    case 'usage': {
      const { user, system } = process.cpuUsage()
      return { cpu: (user + system) / 1e6, resent: side.rxe.device.state.engine().counters.retransmissions }
    }
    default:
      throw new Error(`unknown order ${order.kind}`)
  }
}

let side: Side | undefined
const answer = async (order: Order): Promise<Answer> => {
  await server?.stop()
  server = undefined
  if (order.kind === 'make') {
    side = makeSide(order.options)
    return { facts: side.facts }
  }
  if (side === undefined) throw new Error('the first order must create the side')
  if (order.kind === 'connect') {
    side.connect(order.peer)
    return { done: true }
  }
  return execute(side, order)
}

process.on('message', (order: Order) => {
  answer(order)
    .catch((error: unknown): Answer => ({ failed: String(error) }))
    .then(reply => process.send?.(reply))
})
process.on('disconnect', () => process.exit(0))
