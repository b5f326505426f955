/*
 * Class rc_qp of the soft device.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { invokeNow } from '../../../../src/core/index.ts'
import { Limits } from '../../../../src/drivers/soft/attributes.ts'
import { setLink } from '../../../../src/drivers/soft/interface.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { AccessFlags } from '../../../../src/spec/enums.ts'
import { declare } from '../../../../src/uapi/object/description.ts'
import { errnoOf } from '../../../core/fixture.ts'
import {
  assertNothingLeft,
  type Cap,
  ipv4,
  ipv6,
  type Modify,
  machine,
  makeCq,
  makeQp,
  modify,
  type Program,
  path,
  program,
  Qps,
  query,
  type TestQp,
  toInit,
  toRtr,
  toRts,
} from '../../rxe/machine.ts'

const { REMOTE_WRITE } = AccessFlags.values

const setUp = () => {
  const m = machine()
  const p = program(m)
  const cq = makeCq(p)
  return { m, p, cq, qp: () => makeQp(p, cq) }
}

const peer = ipv4(127, 0, 0, 2)

/** Moves a QP from RESET to a state (not SQE), by the legal transitions. */
const inState = (qp: TestQp, state: number): TestQp => {
  if (state === Qps.ERR) {
    modify(qp, { state })
    return qp
  }
  if (state >= Qps.INIT) modify(qp, toInit())
  if (state >= Qps.RTR) modify(qp, toRtr(42, peer))
  if (state >= Qps.RTS) modify(qp, toRts())
  if (state === Qps.SQD) modify(qp, { state: Qps.SQD })
  return qp
}

test('create returns sizes as in recordings: SGEs and inline data share space, other sizes are as requested', () => {
  const { p, cq } = setUp()
  const createdCap = (requested: Partial<Cap>) => makeQp(p, cq, { cap: requested }).cap
  const oneSge = { maxSendWr: 1, maxRecvWr: 500, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
  assert.deepEqual(createdCap(oneSge), { ...oneSge, maxInlineData: 16 })
  assert.deepEqual(createdCap({ ...oneSge, maxInlineData: 100 }), { ...oneSge, maxSendSge: 6, maxInlineData: 100 })
  const zeros = { maxSendWr: 0, maxRecvWr: 0, maxSendSge: 0, maxRecvSge: 0, maxInlineData: 0 }
  assert.deepEqual(createdCap(zeros), zeros)
})

test('create refuses values above the limits, and leaves nothing behind', () => {
  const { m, p, cq } = setUp()
  const { maxQpWr, maxSge, maxInline } = Limits
  for (const [field, max] of [
    ['maxSendWr', maxQpWr],
    ['maxRecvWr', maxQpWr],
    ['maxSendSge', maxSge],
    ['maxRecvSge', maxSge],
    ['maxInlineData', maxInline],
  ] as const) {
    assert.throws(() => makeQp(p, cq, { cap: { [field]: max + 1 } }), {
      code: 'EINVAL',
      message: new RegExp(`cap.${field}: ${max + 1} is not in 0 to ${max}`),
    })
    assert.equal(
      errnoOf(() => makeQp(p, cq, { cap: { [field]: 0xffffffff } })),
      'EINVAL',
    )
  }
  makeQp(p, cq, { cap: { maxSendSge: maxSge, maxRecvSge: maxSge, maxInlineData: maxInline } })
  p.close()
  assertNothingLeft(m, [p])
})

test('a create without memory for the rings leaves nothing behind', () => {
  const { m, p, cq } = setUp()
  const before = p.rings.live.size
  for (const allocations of [0, 1]) {
    p.rings.allocationsLeft = allocations
    assert.equal(
      errnoOf(() => makeQp(p, cq)),
      'ENOMEM',
    )
    assert.equal(p.rings.live.size, before)
    assert.equal(m.devices[0].device.state.qpns.count(), 0)
  }
  p.rings.allocationsLeft = 0
  assert.equal(
    errnoOf(() => makeCq(p)),
    'ENOMEM',
  )
  assert.equal(m.devices[0].device.state.cqs.size(), 1)
  p.rings.allocationsLeft = Number.POSITIVE_INFINITY
  // refused creates take no handles
  assert.equal(makeQp(p, cq).handle, 2)
  p.close()
  assertNothingLeft(m, [p])
})

test('create refuses wrong and unknown CQ handles; a CQ in use cannot be destroyed', () => {
  const { p, cq, qp } = setUp()
  assert.equal(
    errnoOf(() => makeQp(p, { ...cq, handle: 99 })),
    'ENOENT',
  )
  assert.equal(
    errnoOf(() => makeQp(p, { ...cq, handle: p.pd })),
    'EINVAL',
  )
  const user = qp()
  assert.equal(
    errnoOf(() => invokeNow(p.context, Cq, 'destroy', cq.handle, {}, p.caller)),
    'EBUSY',
  )
  invokeNow(p.context, RcQp, 'destroy', user.handle, {}, p.caller)
  assert.equal(
    errnoOf(() => invokeNow(p.context, Cq, 'destroy', cq.handle, {}, p.caller)),
    'ok',
  )
})

test('completion queues: sizes and vectors out of range and a resize without memory are refused', () => {
  const { p, cq } = setUp()
  const create = (cqe: number, compVector = 0) =>
    errnoOf(() => invokeNow(p.context, Cq, 'create', 0, { cqe, userHandle: 0n, compVector }, p.caller))
  assert.equal(create(0), 'EINVAL')
  assert.equal(create(Limits.maxCqe), 'ok')
  assert.equal(create(Limits.maxCqe + 1), 'EINVAL')
  assert.equal(create(1, Limits.compVectors - 1), 'ok')
  assert.equal(create(1, Limits.compVectors), 'EINVAL')
  const resize = (cqe: number) => errnoOf(() => invokeNow(p.context, Cq, 'modify', cq.handle, { cqe }, p.caller))
  assert.equal(resize(0), 'EINVAL')
  assert.equal(resize(Limits.maxCqe + 1), 'EINVAL')
  const before = p.rings.live.size
  p.rings.allocationsLeft = 0
  assert.equal(resize(100), 'ENOMEM')
  p.rings.allocationsLeft = Number.POSITIVE_INFINITY
  assert.equal(resize(100), 'ok')
  assert.equal(p.rings.live.size, before, 'the old ring is freed')
})

test('query returns recorded values in RESET, and the attributes that were set in other states', () => {
  const { qp } = setUp()
  const q = qp()
  const reset = query(q)
  assert.equal(reset.state, Qps.RESET)
  assert.deepEqual(reset.cap, { ...q.cap, maxSendWr: 15, maxRecvWr: 15 })
  assert.equal(reset.pathMtu, 1)
  assert.equal(reset.address.isGlobal, 1)
  assert.equal(reset.destQpn, 0)

  modify(q, toInit({ accessFlags: REMOTE_WRITE }))
  const init = query(q)
  assert.deepEqual([init.state, init.accessFlags, init.port, init.pkeyIndex], [Qps.INIT, REMOTE_WRITE, 1, 0])

  modify(q, toRtr(42, peer, { pathMtu: 5, rqPsn: 7, maxDestRdAtomic: 2 }))
  const rtr = query(q)
  assert.deepEqual(
    [rtr.state, rtr.pathMtu, rtr.destQpn, rtr.rqPsn, rtr.maxDestRdAtomic, rtr.minRnrTimer],
    [Qps.RTR, 5, 42, 7, 2, 12],
  )
  // hop limit 64, as in recordings of Linux's driver, not the requested one
  assert.deepEqual(rtr.address, path(peer, { hopLimit: 64 }))

  modify(q, toRts({ sqPsn: 9, maxRdAtomic: 2 }))
  const rts = query(q)
  assert.deepEqual(
    [rts.state, rts.curState, rts.sqPsn, rts.timeout, rts.retryCnt, rts.rnrRetry, rts.maxRdAtomic],
    [Qps.RTS, Qps.RTS, 9, 14, 7, 7, 2],
  )
  modify(q, { state: Qps.SQD })
  assert.deepEqual([query(q).state, query(q).sqDraining], [Qps.SQD, 0], 'nothing to drain')
  modify(q, { state: Qps.RTS })
  modify(q, { state: Qps.ERR })
  const err = query(q)
  assert.deepEqual([err.state, err.destQpn], [Qps.ERR, 42])
  modify(q, { state: Qps.RESET })
  assert.deepEqual(query(q), reset, 'RESET discards the attributes')
})

test('the device copies the address of a modify', () => {
  const { qp } = setUp()
  const q = inState(qp(), Qps.INIT)
  const dgid = peer.slice()
  modify(q, toRtr(42, dgid))
  dgid.fill(0)
  assert.deepEqual(query(q).address.dgid, peer)
})

test('legal transitions are accepted with their required attributes, and all others are refused', () => {
  const needed: Readonly<Record<number, Modify>> = {
    [Qps.INIT]: toInit(),
    [Qps.RTR]: toRtr(42, peer),
    [Qps.RTS]: toRts(),
  }
  const legal: Readonly<Record<number, readonly number[]>> = {
    [Qps.RESET]: [Qps.RESET, Qps.INIT, Qps.ERR],
    [Qps.INIT]: [Qps.RESET, Qps.INIT, Qps.RTR, Qps.ERR],
    [Qps.RTR]: [Qps.RESET, Qps.RTS, Qps.ERR],
    [Qps.RTS]: [Qps.RESET, Qps.RTS, Qps.SQD, Qps.ERR],
    [Qps.SQD]: [Qps.RESET, Qps.RTS, Qps.SQD, Qps.ERR],
    [Qps.ERR]: [Qps.RESET, Qps.ERR],
  }
  const { m, p, qp } = setUp()
  for (const from of Object.keys(legal).map(Number))
    for (const to of Object.values(Qps)) {
      const q = inState(qp(), from)
      const needsOnlyState = (from === Qps.INIT && to === Qps.INIT) || (from >= Qps.RTS && to === Qps.RTS)
      const args = needsOnlyState ? { state: to } : { state: to, ...needed[to] }
      assert.equal(
        errnoOf(() => modify(q, args)),
        legal[from].includes(to) ? 'ok' : 'EINVAL',
        `${from} to ${to}`,
      )
      assert.equal(query(q).state, legal[from].includes(to) ? to : from)
    }
  p.close()
  assertNothingLeft(m, [p])
})

test('transitions with missing or superfluous attributes or a wrong current state are refused, and change nothing', () => {
  const { qp } = setUp()
  const steps = [
    [Qps.RESET, toInit()],
    [Qps.INIT, toRtr(42, peer)],
    [Qps.RTR, toRts()],
  ] as const
  for (const [from, full] of steps) {
    const q = inState(qp(), from)
    const before = query(q)
    for (const name of Object.keys(full)) {
      if (name === 'state') continue
      const { [name as keyof Modify]: _left, ...rest } = full as Modify
      assert.throws(() => modify(q, rest as Modify), { code: 'EINVAL', message: new RegExp(name) }, name)
    }
    assert.throws(() => modify(q, { ...full, enSqdAsyncNotify: 1 }), { code: 'EINVAL', message: /enSqdAsyncNotify/ })
    assert.deepEqual(query(q), before)
    modify(q, full)
  }
  const q = inState(qp(), Qps.RTS)
  assert.equal(
    errnoOf(() => modify(q, { state: Qps.RTS, curState: Qps.SQD })),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => modify(q, { state: Qps.RTS, curState: Qps.RTS })),
    'ok',
  )
})

test('values out of range are refused', () => {
  const { qp } = setUp()
  const init = qp()
  assert.equal(
    errnoOf(() => modify(init, toInit({ port: 2 }))),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => modify(init, toInit({ port: 0 }))),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => modify(init, toInit({ pkeyIndex: 1 }))),
    'EINVAL',
  )
  const rtr = inState(qp(), Qps.INIT)
  for (const more of [
    { pathMtu: 0 },
    { pathMtu: 6 },
    { maxDestRdAtomic: 129 },
    { destQpn: 1 << 24 },
    { rqPsn: 1 << 24 },
  ])
    assert.equal(
      errnoOf(() => modify(rtr, toRtr(42, peer, more))),
      'EINVAL',
      JSON.stringify(more),
    )
  assert.equal(
    errnoOf(() => modify(rtr, toRtr(42, peer, { maxDestRdAtomic: 128 }))),
    'ok',
  )
  for (const more of [{ timeout: 32 }, { retryCnt: 8 }, { rnrRetry: 8 }, { maxRdAtomic: 129 }, { sqPsn: 1 << 24 }])
    assert.equal(
      errnoOf(() => modify(rtr, toRts(more))),
      'EINVAL',
      JSON.stringify(more),
    )
  assert.equal(query(rtr).state, Qps.RTR)
})

test('a path MTU above that of the interface is refused in bytes', () => {
  const { m, qp } = setUp()
  const rtr = inState(qp(), Qps.INIT)
  setLink(m.devices[0].device, { isUp: true, hasCarrier: true, pathMtu: 1024 })
  assert.throws(() => modify(rtr, toRtr(42, peer, { pathMtu: 5 })), {
    message:
      "rc_qp.modify: attribute pathMtu: 5 (4096 bytes) is not in 1 to 3 (256 to 1024 bytes): the MTU of the port's interface allows no more",
  })
})

test('paths with an empty GID index, without a valid global route, on another port, or between two address families are refused', () => {
  const { m, qp } = setUp()
  const q = inState(qp(), Qps.INIT)
  const rtrWith = (address: NonNullable<Modify['address']>) => errnoOf(() => modify(q, toRtr(42, peer, { address })))
  assert.equal(rtrWith(path(peer, { sgidIndex: 200 })), 'ENODATA')
  assert.equal(rtrWith(path(peer, { isGlobal: 0 })), 'EINVAL')
  assert.equal(rtrWith(path(peer, { port: 2 })), 'EINVAL')
  assert.equal(rtrWith(path(ipv6(2))), 'EINVAL')
  assert.equal(rtrWith(path(peer, { sgidIndex: 2 })), 'EINVAL')
  assert.equal(rtrWith(path(ipv6(2), { sgidIndex: 2, isGlobal: 2 })), 'EINVAL')
  assert.equal(m.link.stat().flows, 0, 'refused calls leave no flow')
  assert.equal(rtrWith(path(ipv6(2), { sgidIndex: 2 })), 'ok')
  assert.equal(m.link.stat().flows, 1)
})

const listedClasses = (p: Program) => declare(invokeNow(p.context, Classes.interface, 'query', 0, {}, p.caller).out)

test('alternate paths are unsupported: the device does not list them, and refuses them with the reason', () => {
  const { p, qp } = setUp()
  const q = inState(qp(), Qps.INIT)
  const alternatePath = { ...path(peer), altPort: 1, pkeyIndex: 0, timeout: 0 }
  assert.throws(() => modify(q, toRtr(42, peer, { alternatePath })), {
    code: 'EOPNOTSUPP',
    message: 'rc_qp.modify: attribute alternatePath: the device has no automatic path migration',
  })
  const listed = listedClasses(p)
  for (const name of ['rc_qp', 'uc_qp', 'xrc_ini_qp', 'xrc_tgt_qp']) {
    const { create, modify } = listed.find(cls => cls.name === name)!.methods
    assert.deepEqual([create.in.alternatePath, modify.in.alternatePath], [undefined, undefined], name)
    assert.ok(modify.in.address)
  }
})

test('attributes for objects of a class that the device lacks are not listed', () => {
  const listed = listedClasses(setUp().p)
  for (const { name, methods } of listed)
    for (const [method, { in: inputs, out: outputs }] of Object.entries(methods))
      for (const [attribute, { type }] of Object.entries({ ...inputs, ...outputs }))
        if (type.kind === 'ref' || type.kind === 'fd')
          assert.ok(
            listed.some(cls => cls.name === type.class),
            `${name}.${method}: ${attribute}`,
          )
})

test('queue pairs of all types count towards maxQp of the device', () => {
  const { p } = setUp()
  const { limits, attributes, sharedTable } = p.rxe.device
  const limit = limits.get('rc_qp')
  assert.equal(limit?.max, attributes.maxQp)
  for (const name of sharedTable.byName.keys()) if (name.endsWith('_qp')) assert.equal(limits.get(name), limit, name)
  assert.equal(limits.get('srq')?.max, attributes.maxSrq)
  assert.equal(limits.get('srq'), limits.get('xrc_srq'))
})

test('the flow to the peer is replaced by a new path in SQD, kept in ERR, and closed in RESET and by destroy', () => {
  const { m, p, qp } = setUp()
  const q = inState(qp(), Qps.SQD)
  modify(q, { address: path(ipv4(127, 0, 0, 3)) })
  assert.equal(m.link.stat().flows, 1)
  assert.deepEqual(query(q).address.dgid, ipv4(127, 0, 0, 3))
  modify(q, { state: Qps.ERR })
  assert.equal(m.link.stat().flows, 1)
  modify(q, { state: Qps.RESET })
  assert.equal(m.link.stat().flows, 0)
  const other = inState(qp(), Qps.RTS)
  invokeNow(p.context, RcQp, 'destroy', other.handle, {}, p.caller)
  assert.equal(m.link.stat().flows, 0)
})

test('the doorbell call refuses requests in its arguments', () => {
  const { p, qp } = setUp()
  const q = inState(qp(), Qps.RTS)
  const ring = (wrCount?: number) =>
    errnoOf(() => invokeNow(p.context, RcQp, 'postSend', q.handle, wrCount === undefined ? {} : { wrCount }, p.caller))
  assert.deepEqual([ring(), ring(0), ring(1)], ['ok', 'ok', 'EINVAL'])
})

test('idle devices do no work, however many queue pairs they have', () => {
  const { m, p, cq } = setUp()
  for (let i = 0; i < 150; i++) makeQp(p, cq, { cap: { maxSendWr: 1, maxRecvWr: 1 } })
  m.settle()
  for (const device of m.devices) assert.equal(device.poll(0), false)
  p.close()
  assertNothingLeft(m, [p])
})
