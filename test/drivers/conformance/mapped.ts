/*
 * Ends on the rings of libibverbs' provider `rxe`: of the driver rxe, and of every driver that takes its layout, such as
 * those of examples/drivers.
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
import { RingHeader } from '../../../src/spec/drivers/mapped-rings.ts'
import { AccessFlags, QpState } from '../../../src/spec/enums.ts'
import type { ObjectClass } from '../../../src/spec/schema/schema.ts'
import { WcOpcode, WcStatus } from '../../../src/spec/work.ts'
import { callerOn } from '../machine.ts'
import { path, toInit, toRtr, toRts } from '../rxe/machine.ts'
import { mapRing, pollCq, postReceive, postSend, Wr } from '../rxe/provider.ts'
import type { Completion, End } from './end.ts'

const BYTES = 1 << 16
export const DEPTH = 15
const { SUCCESS, WR_FLUSH_ERR, REM_ACCESS_ERR } = WcStatus.values

export const statusOf = (status: number): Completion['status'] => {
  if (status === SUCCESS) return 'ok'
  if (status === WR_FLUSH_ERR) return 'flushed'
  return status === REM_ACCESS_ERR ? 'access' : 'failed'
}

/** An end that is not connected. */
export interface MappedEnd extends End {
  readonly qpn: number
  readonly memory: { readonly address: number; readonly rkey: number }
  readonly modify: (args: object) => void
  connect(peer: MappedEnd, gid: Uint8Array): void
  /** The peer of WRITEs. */
  target: MappedEnd | undefined
}

export const mappedEnd = (core: Core, { device }: NetworkDevice, entries: number): MappedEnd => {
  const mapped = findableMemory()
  const context = openContext(device, { isOpened: true, mapped })
  const space = createLocalSpace()
  const caller = callerOn(space)
  const call = <T = Record<string, never>>(cls: ObjectClass, method: string, object: number, args: object) => {
    const done = invokeNow(context, cls as never, method as never, object, args as never, caller)
    return { ...done, object: done.object as number, out: done.out as T }
  }
  type Place = { offset: bigint }
  const asyncFd = call(AsyncFd, 'create', 0, {}).descriptors![0]!.object
  const channel = call(CompChannel, 'create', 0, {}).descriptors![0]!.object
  const events = createEventQueue()
  attachSink(core.descriptors.get(channel)!, events)
  const pd = call(Pd, 'create', 0, {}).object
  const bytes = new Uint8Array(BYTES)
  const address = space.add(bytes)
  const start = BigInt(address)
  const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
  const access = LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE
  const { out: region } = call<{ lkey: number; rkey: number }>(Mr, 'create', 0, {
    ...{ pd, start, length: BigInt(BYTES), iova: start, access },
  })
  const cq = call<{ cqe: number; queue: Place }>(Cq, 'create', 0, {
    ...{ cqe: entries - 1, userHandle: 0n, compVector: 0, channel, asyncFd },
  })
  let completions = mapRing(mapped.at(cq.out.queue.offset))
  let capacity = cq.out.cqe
  const qp = call<{ qpNum: number; sendQueue: Place; recvQueue: Place }>(RcQp, 'create', 0, {
    ...{ pd, sendCq: cq.object, recvCq: cq.object, userHandle: 0n, asyncFd },
    cap: { maxSendWr: DEPTH, maxRecvWr: DEPTH, maxSendSge: 2, maxRecvSge: 2, maxInlineData: 64 },
  })
  const [sends, receives] = [qp.out.sendQueue, qp.out.recvQueue].map(place => mapRing(mapped.at(place.offset)))
  const modify = (args: object): void => void call(RcQp, 'modify', qp.object, args)
  const sgesOf = (offset: number, length: number) => [{ address: address + offset, length, lkey: region.lkey }]
  const posted = (isPosted: boolean): void => {
    if (!isPosted) throw new Error('the queue is full')
  }
  const end: MappedEnd = {
    qpn: qp.out.qpNum,
    bytes,
    memory: { address, rkey: region.rkey },
    depth: DEPTH,
    entries: capacity,
    target: undefined,
    modify,
    connect(peer, gid) {
      end.target = peer
      modify(toInit({ accessFlags: access }))
      modify(toRtr(peer.qpn, gid, { address: path(gid), minRnrTimer: 1 }))
      modify(toRts())
    },
    send: (id, offset, length) =>
      posted(postSend(sends!, { opcode: Wr.SEND, id: BigInt(id), sges: sgesOf(offset, length) })),
    write(id, offset, length, to, isRefused = false) {
      const { memory } = end.target!
      const rkey = isRefused ? (memory.rkey ^ 0x5500) >>> 0 : memory.rkey
      const remote = memory.address + to
      posted(postSend(sends!, { opcode: Wr.WRITE, id: BigInt(id), sges: sgesOf(offset, length), remote, rkey }))
    },
    receive: (id, offset, length) => posted(postReceive(receives!, BigInt(id), sgesOf(offset, length))),
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
    fail: () => modify({ state: QpState.values.ERR }),
    arm: () => void call(Cq, 'reqNotify', cq.object, { solicitedOnly: 0 }),
    takeEvent: () => events.take(1).length > 0,
    resize(count) {
      const { out } = call<{ cqe: number; queue: Place }>(Cq, 'modify', cq.object, { cqe: count - 1 })
      completions = mapRing(mapped.at(out.queue.offset))
      capacity = out.cqe
    },
    scribble(random) {
      for (const { view } of [sends!, receives!, completions])
        for (let at = RingHeader.PRODUCER; at + 4 <= view.byteLength; at += 4)
          if (random() < 0.3) view.setUint32(at, Math.floor(random() * 2 ** 32), true)
    },
  }
  return end
}
