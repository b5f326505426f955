/*
 * Ends on the rings of libibverbs' provider `rxe`: of the driver rxe, and of every driver that takes its layout, such
 * as those of examples/drivers.
 */

import type { NetworkDevice } from '../../../src/core/driver-contract.ts'
import {
  attachSink,
  type Core,
  createEventQueue,
  createLocalSpace,
  invokeNow,
  openContext,
} from '../../../src/core/index.ts'
import { findableMemory } from '../../../src/core/memory/mappable-memory.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { AsyncFd } from '../../../src/spec/classes/events/async_fd.ts'
import { CompChannel } from '../../../src/spec/classes/events/comp_channel.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { Srq } from '../../../src/spec/classes/srq.ts'
import { RingHeader } from '../../../src/spec/drivers/mapped-rings.ts'
import { AccessFlags, QpState } from '../../../src/spec/enums.ts'
import type { ObjectClass } from '../../../src/spec/schema/schema.ts'
import { WcOpcode, WcStatus } from '../../../src/spec/work.ts'
import { callerOn } from '../machine.ts'
import { path, toInit, toRtr, toRts } from '../rxe/machine.ts'
import { mapRing, pollCq, postReceive, postSend, Wr } from '../rxe/provider.ts'
import type { Completion, End, Options, Second } from './end.ts'

const BYTES = 1 << 16
const DEPTH = 15
const SPARED = 5
const { SUCCESS, WR_FLUSH_ERR, REM_ACCESS_ERR } = WcStatus.values

export const statusOf = (status: number): Completion['status'] => {
  if (status === SUCCESS) return 'ok'
  if (status === WR_FLUSH_ERR) return 'flushed'
  return status === REM_ACCESS_ERR ? 'access' : 'failed'
}

/**
 * An end that is not connected. `connect` connects it, and its second queue pair, if the driver has no protocol for
 * that.
 */
interface MappedEnd extends End {
  readonly memory: { readonly address: number; readonly rkey: number }
  /** Moves its queue pairs to INIT. */
  initialize(): void
  connect(peer: MappedEnd, gid: Uint8Array): void
  /** The peer of WRITEs and READs. */
  target: MappedEnd | undefined
  readonly second?: MappedEnd['first']
  readonly first: Second & { readonly qpn: number; readonly modify: (args: object) => void }
}

export const mappedEnd = (
  core: Core,
  { device }: NetworkDevice,
  { entries = 64, shared, torment }: Options,
): MappedEnd => {
  const mapped = findableMemory()
  const context = openContext(device, { isOpened: true, mapped })
  const space = createLocalSpace()
  const caller = callerOn(space)
  const call = <T = Record<string, never>>(cls: ObjectClass, method: string, object: number, args: object) => {
    const done = invokeNow(context, cls as never, method as never, object, args as never, caller)
    return { ...done, object: done.object as number, out: done.out as T }
  }
  type Place = { offset: bigint }
  const ringAt = ({ offset }: Place) => mapRing(mapped.at(offset))
  const watch = (fd: number) => {
    const queue = createEventQueue()
    attachSink(core.descriptors.get(fd)!, queue)
    return queue
  }
  const asyncFd = call(AsyncFd, 'create', 0, {}).descriptors![0]!.object
  const channel = call(CompChannel, 'create', 0, {}).descriptors![0]!.object
  const [asyncEvents, events] = [watch(asyncFd), watch(channel)]
  // torment takes away slots that were not asked for
  const spared = torment === undefined ? 0 : SPARED
  const pd = call(Pd, 'create', 0, {}).object
  const bytes = new Uint8Array(BYTES)
  const address = space.add(bytes)
  const start = BigInt(address)
  const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, RELAXED_ORDERING } = AccessFlags.values
  const access = LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE
  const { out: region } = call<{ lkey: number; rkey: number }>(Mr, 'create', 0, {
    ...{ pd, start, length: BigInt(BYTES), iova: start, access: access | RELAXED_ORDERING },
  })
  const cq = call<{ cqe: number; queue: Place }>(Cq, 'create', 0, {
    ...{ cqe: entries - 1 - spared, userHandle: 0n, compVector: 0, channel, asyncFd },
  })
  let completions = ringAt(cq.out.queue)
  const srq =
    shared && call<{ queue: Place }>(Srq, 'create', 0, { pd, maxWr: DEPTH, maxSge: 2, limit: 0, userHandle: 0n })
  const sgesOf = (offset: number, length: number) => [{ address: address + offset, length, lkey: region.lkey }]
  const posted = (isPosted: boolean): void => {
    if (!isPosted) throw new Error('the queue is full')
  }
  const queuePair = () => {
    const { object, out } = call<{ qpNum: number; sendQueue: Place; recvQueue: Place }>(RcQp, 'create', 0, {
      ...{ pd, sendCq: cq.object, recvCq: cq.object, userHandle: 0n, asyncFd },
      cap: { maxSendWr: DEPTH - spared, maxRecvWr: DEPTH - spared, maxSendSge: 2, maxRecvSge: 2, maxInlineData: 64 },
      ...(srq !== undefined && { srq: srq.object }),
    })
    const sends = ringAt(out.sendQueue)
    const modify = (args: object): void => void call(RcQp, 'modify', object, args)
    const send = (id: number, offset: number, length: number): void =>
      posted(postSend(sends, { opcode: Wr.SEND, id: BigInt(id), sges: sgesOf(offset, length) }))
    const receives = ringAt(srq?.out.queue ?? out.recvQueue)
    return { qpn: out.qpNum, sends, receives, modify, send, fail: () => modify({ state: QpState.values.ERR }) }
  }
  const first = queuePair()
  const second = shared && queuePair()
  const both = second === undefined ? [first] : [first, second]
  const remoteOf = (offset: number) => {
    const { memory } = end.target!
    return { remote: memory.address + offset, rkey: memory.rkey }
  }
  const end: MappedEnd = {
    ...{ qpn: first.qpn, send: first.send, fail: first.fail, first },
    ...(second !== undefined && { second }),
    bytes,
    memory: { address, rkey: region.rkey },
    depth: DEPTH - spared,
    receives: DEPTH - spared,
    entries: cq.out.cqe,
    target: undefined,
    initialize() {
      for (const { modify } of both) modify(toInit({ accessFlags: access }))
    },
    connect(peer, gid) {
      end.target = peer
      end.initialize()
      const peers = [peer.first, peer.second]
      for (const [i, { modify }] of both.entries()) {
        modify(toRtr(peers[i]!.qpn, gid, { address: path(gid), minRnrTimer: 1 }))
        modify(toRts())
      }
    },
    write(id, offset, length, to, isRefused = false) {
      const { remote, rkey } = remoteOf(to)
      const key = isRefused ? (rkey ^ 0x5500) >>> 0 : rkey
      posted(
        postSend(first.sends, { opcode: Wr.WRITE, id: BigInt(id), sges: sgesOf(offset, length), remote, rkey: key }),
      )
    },
    read: (id, offset, length, from) =>
      posted(
        postSend(first.sends, { opcode: Wr.READ, id: BigInt(id), sges: sgesOf(offset, length), ...remoteOf(from) }),
      ),
    receive: (id, offset, length) => posted(postReceive(first.receives, BigInt(id), sgesOf(offset, length))),
    poll(max = Number.POSITIVE_INFINITY) {
      const all: Completion[] = []
      while (all.length < max) {
        const next = pollCq(completions)
        if (next === undefined) break
        const isReceive = next.opcode === WcOpcode.values.RECV
        all.push({ id: Number(next.id), status: statusOf(next.status), isReceive })
      }
      return all
    },
    arm: () => void call(Cq, 'reqNotify', cq.object, { solicitedOnly: 0 }),
    takeEvent: () => events.take(1).length > 0,
    asyncEvents: () => asyncEvents.queue.map(({ type }) => type),
    resize(count) {
      completions = ringAt(call<{ queue: Place }>(Cq, 'modify', cq.object, { cqe: count - 1 }).out.queue)
    },
    scribble(random) {
      for (const { view } of [first.sends, first.receives, completions])
        for (let at = RingHeader.PRODUCER; at + 4 <= view.byteLength; at += 4)
          if (random() < 0.3) view.setUint32(at, Math.floor(random() * 2 ** 32), true)
    },
  }
  return end
}
