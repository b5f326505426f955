/*
 * Objects are destroyed and queue pairs modified while posted requests wait for buffers of the link, or for the window
 * of a port to a network (`windowBytes`). No poll throws, and nothing is left.
 */

import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { invokeNow, unregister } from '../../../../src/core/index.ts'
import { Ah } from '../../../../src/spec/classes/ah.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { Mw } from '../../../../src/spec/classes/mw.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { UdQp } from '../../../../src/spec/classes/qp/ud_qp.ts'
import { XrcIniQp, XrcTgtQp } from '../../../../src/spec/classes/qp/xrc_qp.ts'
import { Srq, XrcSrq } from '../../../../src/spec/classes/srq.ts'
import { Xrcd } from '../../../../src/spec/classes/xrcd.ts'
import { MwType } from '../../../../src/spec/enums.ts'
import type { ObjectClass } from '../../../../src/spec/schema/schema.ts'
import type { Path } from '../../../../src/transport/phy/memory/port.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { inLongRun } from '../../../long-run.ts'
import {
  path as addressOf,
  assertNothingLeft,
  cap,
  connectQps,
  machine,
  makeCq,
  makeQp,
  type Program,
  program,
  Qps,
  type Region,
  register,
} from '../../rxe/machine.ts'
import { sgeOf } from '../../rxe/pair.ts'
import { type MappedRing, mapRing, postReceive, postSend, Wr } from '../../rxe/provider.ts'
import {
  connectXrc,
  makeInitiator,
  makeQpWithSrq,
  makeSrq,
  makeTarget,
  makeXrcSrq,
  openDomain,
} from '../../rxe/srq-and-xrc.ts'

const QKEY = 0x77
/** More than the buffers of the link of `machine` (8 large, 64 small). */
const FLOOD_POSTS = 90

interface TestObject {
  readonly p: Program
  readonly cls: ObjectClass
  readonly handle: number
}

interface Sender {
  /** Posts one more request of at most `length` bytes, if the queue is not full. */
  post(length: number): void
}

/** Two programs on two devices, with RC, XRC and UD queue pairs and other objects. */
const setUp = (m: ReturnType<typeof machine>) => {
  const objects: TestObject[] = []
  const senders: Sender[] = []
  const receivers: { readonly ring: MappedRing; readonly mr: Region }[] = []
  const programs = [program(m, 0), program(m, 1)]
  const add = (p: Program, cls: ObjectClass, handle: number): number => {
    objects.push({ p, cls, handle })
    return handle
  }
  const sides = programs.map(p => {
    const cq = makeCq(p, 1023)
    const mr = register(p, 65536)
    const srq = makeSrq(p)
    const xrcd = openDomain(p)
    const mw = invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values.TYPE_1 }, p.caller)
    for (const [cls, handle] of [
      [Pd, p.pd],
      [Cq, cq.handle],
      [Mr, mr.handle],
      [Srq, srq.handle],
      [Xrcd, xrcd],
      [Mw, mw.object as number],
      [XrcSrq, makeXrcSrq(p, xrcd, cq).handle],
    ] as const)
      add(p, cls, handle)
    receivers.push({ ring: srq.ring, mr })
    return { p, cq, mr, srq, xrcd }
  })
  const [a, b] = sides
  for (const hasSrq of [false, true]) {
    const [sender, receiver] = sides.map(({ p, cq, srq }) => (hasSrq ? makeQpWithSrq(p, cq, srq) : makeQp(p, cq)))
    connectQps(sender, receiver)
    add(a.p, RcQp, sender.handle)
    add(b.p, RcQp, receiver.handle)
    if (!hasSrq) receivers.push({ ring: receiver.receive, mr: b.mr })
    senders.push({
      post: length =>
        void postSend(sender.send, {
          opcode: [Wr.WRITE, Wr.READ, Wr.SEND][length % 3],
          id: 1n,
          sges: [sgeOf(a.mr, 0, length)],
          remote: b.mr.address,
          rkey: b.mr.rkey,
        }),
    })
  }
  const initiator = makeInitiator(a.p, a.cq)
  const target = makeTarget(b.p, b.xrcd)
  connectXrc(initiator, target)
  add(a.p, XrcIniQp, initiator.handle)
  add(b.p, XrcTgtQp, target.handle)
  senders.push({
    post: length =>
      void postSend(initiator.send, {
        opcode: Wr.WRITE,
        id: 2n,
        sges: [sgeOf(a.mr, 0, length)],
        remote: b.mr.address,
        rkey: b.mr.rkey,
      }),
  })
  for (const { p, cq, mr } of sides) {
    const args = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap({ maxSendWr: 127 }), userHandle: 0n }
    const { object, out } = invokeNow(p.context, UdQp, 'create', 0, args, p.caller)
    const handle = add(p, UdQp, object as number)
    for (const change of [
      { state: Qps.INIT, pkeyIndex: 0, qkey: QKEY, port: 1 },
      { state: Qps.RTR },
      { state: Qps.RTS, sqPsn: 0 },
    ])
      invokeNow(p.context, UdQp, 'modify', handle, change, p.caller)
    const { sendQueue } = out as unknown as { sendQueue: { offset: bigint } }
    const ring = mapRing(p.rings.at(sendQueue.offset))
    const dgid = (p === a.p ? b : a).p.rxe.device.state.identity.gids[1]
    const ah = invokeNow(p.context, Ah, 'create', 0, { pd: p.pd, address: addressOf(dgid), userHandle: 0n }, p.caller)
    add(p, Ah, ah.object as number)
    const { number } = ah.out as unknown as { number: number }
    senders.push({
      post: length =>
        void postSend(ring, {
          opcode: Wr.SEND,
          id: 3n,
          sges: [sgeOf(mr, 0, length % 1024)],
          to: { qpn: out.qpNum, qkey: QKEY, ah: number },
        }),
    })
  }
  return { objects, senders, receivers, programs }
}

type Step =
  | { readonly do: 'post'; readonly index: number; readonly count: number; readonly length: number }
  | { readonly do: 'flood'; readonly index: number; readonly length: number }
  | { readonly do: 'receive'; readonly index: number }
  | { readonly do: 'poll'; readonly device: number }
  | { readonly do: 'destroy' | 'error' | 'reset' | 'drain'; readonly index: number }
  | { readonly do: 'tick' }
  | { readonly do: 'remove' }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('post' as const),
      index: fc.nat(),
      count: fc.oneof(fc.integer({ min: 1, max: 15 }), fc.constant(127)),
      length: fc.integer({ min: 1, max: 30_000 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('flood' as const),
      index: fc.nat(),
      length: fc.integer({ min: 1, max: 1000 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('receive' as const), index: fc.nat() }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('poll' as const), device: fc.nat(1) }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('destroy' as const, 'destroy' as const, 'error' as const, 'reset' as const, 'drain' as const),
      index: fc.nat(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('tick' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const) }) },
)

const STATES = { error: Qps.ERR, reset: Qps.RESET, drain: Qps.SQD } as const

const play = (steps: readonly Step[], path: Path, windowBytes: number | undefined): void => {
  const m = machine(2, { path, windowBytes })
  const { objects, senders, receivers, programs } = setUp(m)
  const at = <T>(list: readonly T[], index: number): T => list[index % list.length]
  let isRemoved = false
  for (const step of steps) {
    if (step.do === 'post') for (let i = 0; i < step.count; i++) at(senders, step.index).post(step.length)
    else if (step.do === 'flood') {
      // only one device polls: if it is the sender's, each datagram takes a buffer, and no buffer is returned
      const sender = at(senders, step.index)
      for (let i = 0; i < FLOOD_POSTS; i++) {
        sender.post(step.length)
        m.devices[step.index & 1].poll(m.now)
      }
      for (let i = 0; i < 20; i++) sender.post(step.length)
    } else if (step.do === 'receive') {
      const { ring, mr } = at(receivers, step.index)
      postReceive(ring, 9n, [sgeOf(mr, 32768, 30_000)])
    } else if (step.do === 'poll') m.devices[step.device].poll(m.now)
    else if (step.do === 'tick') m.tick()
    else if (step.do === 'remove') {
      if (!isRemoved) unregister(m.devices[1].device)
      isRemoved = true
    } else if (step.do === 'destroy') {
      const { p, cls, handle } = at(objects, step.index)
      const errno = errnoOf(() => invokeNow(p.context, cls as typeof Pd, 'destroy', handle, {}, p.caller))
      assert.ok(['ok', 'EBUSY', 'ENOENT', 'EINVAL', 'EIO'].includes(errno), `${cls.name}.destroy: ${errno}`)
    } else {
      const { p, cls, handle } = at(objects, step.index)
      if (!cls.name.endsWith('_qp')) continue
      const state = STATES[step.do]
      const errno = errnoOf(() => invokeNow(p.context, cls as typeof RcQp, 'modify', handle, { state }, p.caller))
      assert.ok(['ok', 'EINVAL', 'ENOENT', 'EIO'].includes(errno), `${cls.name}.modify: ${errno}`)
    }
  }
  for (const p of programs) p.close()
  if (isRemoved) return
  m.settle()
  while (m.tick());
  assertNothingLeft(m, programs)
}

for (const [name, path, windowBytes] of [
  ['packets', 'packets', undefined],
  ['without packets', 'direct', undefined],
  ['a network’s window', 'packets', 0x1_0000],
] as const)
  it(`destroy and modify succeed or are refused under back-pressure: ${name}`, () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => play(steps, path, windowBytes)),
      { numRuns: inLongRun(300, 100) },
    )
  })
