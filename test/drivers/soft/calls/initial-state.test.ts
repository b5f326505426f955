/*
 * Queue pairs created directly in a state (R7), with an address of the device's link (R10).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { callerView, invokeNow, stat } from '../../../../src/core/index.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../../src/spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../../../src/spec/classes/qp/ud_qp.ts'
import { XrcTgtQp } from '../../../../src/spec/classes/qp/xrc_qp.ts'
import { Xrcd } from '../../../../src/spec/classes/xrcd.ts'
import { Mtu, XrcdFlags } from '../../../../src/spec/enums.ts'
import type { In } from '../../../../src/spec/schema/schema.ts'
import { encodeCall } from '../../../../src/uapi/object/client.ts'
import { decodeMessage } from '../../../../src/uapi/object/dialect.ts'
import {
  assertNothingLeft,
  cap,
  ipv4,
  machine,
  makeCq,
  makeQp,
  modify,
  path,
  program,
  Qps,
  register,
  toInit,
  toRtr,
  toRts,
} from '../../rxe/machine.ts'
import { completions, sgeOf } from '../../rxe/pair.ts'
import { Flag, mapRing, postReceive, postSend, Wr } from '../../rxe/provider.ts'

type Create = In<typeof RcQp.methods.create>

const peer = ipv4(127, 0, 0, 2)

const setUp = () => {
  const m = machine()
  const p = program(m)
  const cq = makeCq(p)
  const base = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap(), userHandle: 0n }
  const create = (attributes: Partial<Create>) =>
    invokeNow(p.context, RcQp, 'create', 0, { ...base, ...attributes }, p.caller)
  const queryOf = (handle: number) => invokeNow(p.context, RcQp, 'query', handle, {}, p.caller).out
  return { m, p, cq, base, create, queryOf }
}

const allAttributes = (): Partial<Create> => {
  const { state: _init, ...init } = toInit()
  const { state: _rtr, ...rtr } = toRtr(42, peer)
  return { ...init, ...rtr, ...toRts() }
}

test('one call creates a queue pair in RTS, with all attributes of three transitions', () => {
  const { p, base, create, queryOf } = setUp()
  const created = create(allAttributes())
  const modified = invokeNow(p.context, RcQp, 'create', 0, base, p.caller)
  for (const args of [toInit(), toRtr(42, peer), toRts()])
    invokeNow(p.context, RcQp, 'modify', modified.object!, args, p.caller)
  assert.deepEqual(queryOf(created.object!), queryOf(modified.object!))
  assert.equal(queryOf(created.object!).state, Qps.RTS)
  assert.notEqual(created.out.qpNum, modified.out.qpNum)
  assert.equal(queryOf(create(toInit()).object!).state, Qps.INIT)
  assert.equal(queryOf(create({ state: Qps.RESET }).object!).state, Qps.RESET)
  assert.equal(queryOf(create({ ...allAttributes(), state: Qps.SQD }).object!).state, Qps.SQD)
})

test('a queue pair created in RTS sends like one that was modified step by step', () => {
  const { m, p, cq, create } = setUp()
  const receiver = program(m, 1)
  const receiverCq = makeCq(receiver)
  const receiverQp = makeQp(receiver, receiverCq)
  const [source, target] = [register(p, 64), register(receiver, 64)]
  source.bytes.fill(7)
  const created = create({ ...allAttributes(), destQpn: receiverQp.qpn })
  for (const args of [toInit(), toRtr(created.out.qpNum, ipv4(127, 0, 0, 1)), toRts()]) modify(receiverQp, args)
  postReceive(receiverQp.receive, 1n, [sgeOf(target, 0, 64)])
  const { sendQueue } = created.out as unknown as { sendQueue: { offset: bigint } }
  const send = mapRing(p.rings.at(sendQueue.offset))
  postSend(send, { id: 2n, opcode: Wr.SEND, flags: Flag.SIGNALED, sges: [sgeOf(source, 0, 64)] })
  m.settle()
  assert.deepEqual(
    completions(cq).map(({ id, status }) => [id, status]),
    [[2, 0]],
  )
  assert.deepEqual(
    completions(receiverCq).map(({ id, status }) => [id, status]),
    [[1, 0]],
  )
  assert.deepEqual(target.bytes, source.bytes)
})

test('an impossible path of states, value or route is refused with a message and leaves nothing', () => {
  const { m, p, create } = setUp()
  const before = stat(m.core).objects
  const qpns = m.devices[0].device.state.qpns.count()
  const refused = (args: Partial<Create>, message: RegExp, code = 'EINVAL') => {
    assert.throws(() => create(args), { code, message })
    assert.equal(stat(m.core).objects, before)
    assert.equal(m.devices[0].device.state.qpns.count(), qpns)
    assert.equal(m.link.stat().flows, 0)
  }
  const { destQpn: _, ...noPeer } = allAttributes()
  refused(noPeer, /^rc_qp.create: INIT to RTR of RC queue pairs needs destQpn as well$/)
  refused({ ...toInit(), sqPsn: 5 }, /no transition of a RC queue pair on the way to INIT takes sqPsn/)
  refused({ port: 1 }, /attribute state is missing; attributes port require it/)
  // An attribute whose value is undefined counts as absent.
  const created = create({ accessFlags: undefined } as object)
  invokeNow(p.context, RcQp, 'destroy', created.object!, {}, p.caller)
  refused({ accessFlags: 1 }, /attribute state is missing/)
  refused({ ...allAttributes(), state: Qps.ERR }, /a new queue pair cannot be in ERR; it can be in INIT, RTR, RTS, SQD/)
  refused(
    { ...allAttributes(), state: Qps.RESET },
    /a new queue pair cannot be in RESET with attributes; it can be in /,
  )
  // The device refuses the following.
  refused({ ...allAttributes(), maxRdAtomic: 200 }, /^rc_qp.create: attribute maxRdAtomic: 200 is not in 0 to 128$/)
  const ABSENT_GID = 9
  refused({ ...allAttributes(), address: path(peer, { sgidIndex: ABSENT_GID }) }, /./, 'ENODATA')
  p.close()
  assertNothingLeft(m, [p])
})

test('each type of queue pair has its own transitions', () => {
  const { p, base } = setUp()
  const ud = { ...base, state: Qps.RTS, pkeyIndex: 0, port: 1, qkey: 0x1111, sqPsn: 7 }
  const { object } = invokeNow(p.context, UdQp, 'create', 0, ud, p.caller)
  const { state, qkey, sqPsn } = invokeNow(p.context, UdQp, 'query', object!, {}, p.caller).out
  assert.deepEqual({ state, qkey, sqPsn }, { state: Qps.RTS, qkey: 0x1111, sqPsn: 7 })
  const pathMtu = Mtu.values.MTU_1024
  const uc = { ...base, state: Qps.RTR, pkeyIndex: 0, port: 1, accessFlags: 0, pathMtu, destQpn: 5, rqPsn: 9 }
  const ucQp = invokeNow(p.context, UcQp, 'create', 0, { ...uc, address: path(peer) }, p.caller).object!
  assert.equal(invokeNow(p.context, UcQp, 'query', ucQp, {}, p.caller).out.state, Qps.RTR)
  const xrcd = invokeNow(p.context, Xrcd, 'create', 0, { flags: XrcdFlags.values.CREAT }, p.caller).object!
  // An XRC target sends no requests.
  const { retryCnt: _a, rnrRetry: _b, maxRdAtomic: _c, ...target } = allAttributes()
  const tgt = invokeNow(p.context, XrcTgtQp, 'create', 0, { ...target, xrcd, userHandle: 0n }, p.caller)
  assert.equal(invokeNow(p.context, XrcTgtQp, 'query', tgt.object!, {}, p.caller).out.state, Qps.RTS)
})

test('a LID on a RoCE queue pair is refused with a message, in a typed call and in an encoded one', () => {
  const { p, create } = setUp()
  const ibAddress = { ...path(peer), srcPathBits: 0, dlid: 17 }
  const { address: _, ...others } = allAttributes()
  const message =
    /^rc_qp.create: attribute ibAddress does not belong to this device's link, RoCE: .*there are no LIDs; use address$/
  assert.throws(() => create({ ...others, ibAddress }), { code: 'EINVAL', message })
  const { rxe } = p
  assert.equal(rxe.device.schema.classByName('rc_qp')!.methods.create.in.ibAddress, undefined)
  // A client compiled for every link has `ibAddress`.
  const args = { ...toInit(), ibAddress }
  const call = { class: RcQp, methodName: 'modify', method: RcQp.methods.modify, object: 0, args }
  // The method lists the attribute in `refused`. So the attribute is not ignored as unknown, even if marked as
  // ignorable.
  for (const ignorable of [[], ['ibAddress']]) {
    const bytes = encodeCall(call, { ignorable })
    assert.throws(() => decodeMessage(callerView(p.context, p.caller), call.method.call, bytes), {
      code: 'EINVAL',
      message: /^rc_qp.modify: attribute ibAddress does not belong to this device's link/,
    })
  }
})
