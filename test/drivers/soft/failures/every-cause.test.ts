/*
 * Every cause of spec/check/causes.ts is raised.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { addFailureHandler } from '../../../../src/core/failures.ts'
import { type Caller, invokeNow, raiseDevice, raisePort, unregister } from '../../../../src/core/index.ts'
import { createDestroyWaits } from '../../../../src/daemon/check/waits/destroys.ts'
import { createContainment } from '../../../../src/daemon/containment.ts'
import type { CauseName } from '../../../../src/spec/check/causes.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { Mw } from '../../../../src/spec/classes/mw.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { UdQp } from '../../../../src/spec/classes/qp/ud_qp.ts'
import { AccessFlags, AsyncEventType, MwType } from '../../../../src/spec/enums.ts'
import { Service } from '../../../../src/spec/wire/services.ts'
import { WcStatus, WrOpcode } from '../../../../src/spec/work.ts'
import { requester, responder, UNKNOWN_KEY } from '../../../transport/engine/cause-scripts.ts'
import { NAK, READ, SEND, sge, T14 } from '../../../transport/engine/requests.ts'
import { packet, RQ_PSN, startScript } from '../../../transport/engine/script.ts'
import { fabric } from '../../mlx5/machine.ts'
import {
  cap,
  connectQps,
  makeChannel,
  makeCq,
  makeQp,
  modify,
  Qps,
  register,
  toInit,
  toRtr,
} from '../../rxe/machine.ts'
import { makeEnd, pair, sgeOf } from '../../rxe/pair.ts'
import { mapRing, postReceive, postSend, type SendRequest, Wr } from '../../rxe/provider.ts'
import { makeQpWithSrq, makeSrq, modifySrq } from '../../rxe/srq-and-xrc.ts'

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, MW_BIND, FLUSH_GLOBAL } = AccessFlags.values
const REMOTE_AND_FLUSH = REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | FLUSH_GLOBAL
const REMOTE_AND_BIND = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | MW_BIND
const { BIND_MW } = WrOpcode.values

type Raise = () => readonly CauseName[]

/** The causes that script `id` of cause-scripts.ts raises. */
const inCauseScript = (id: CauseName): Raise => {
  const playRequester = requester.find(([name]) => name === id)?.[2]
  const [, , playResponder, access = REMOTE_AND_FLUSH] = responder.find(([name]) => name === id) ?? []
  return () => {
    const t = startScript(playRequester ? {} : { access })
    if (playResponder) t.postReceives(1, 8)
    const play = playRequester ?? playResponder
    play?.(t)
    t.sent()
    return t.node.reported.map(cause => cause.id)
  }
}

/** The causes that `play` raises in a packet script. */
const inScript =
  (play: (t: ReturnType<typeof startScript>) => void, ...options: Parameters<typeof startScript>): Raise =>
  () => {
    const t = startScript(...options)
    play(t)
    t.sent()
    return t.node.reported.map(cause => cause.id)
  }

type Pair = ReturnType<typeof pair>

/** The causes that `play` raises on two devices. After `play`, time passes until a cause is reported. */
const onDevices =
  (play: (p: Pair) => void): Raise =>
  () => {
    const p = pair()
    const reported: CauseName[] = []
    addFailureHandler(p.m.core, ({ cause }) => reported.push(cause.id))
    play(p)
    p.m.settle()
    for (let ticks = 0; ticks < 100 && reported.length === 0 && p.m.tick(); ticks++);
    return reported
  }

/** `a` posts a request, by default a SEND of 8 bytes. `b` has a receive. */
const sends = (requestOf: (p: Pair) => Partial<SendRequest>): Raise =>
  onDevices(p => {
    const request = requestOf(p)
    postReceive(p.b.qp.receive, 7n, [sgeOf(p.b.mr, 0, 64)])
    postSend(p.a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(p.a.mr, 0, 8)], ...request })
  })

/** `a` sends 8 bytes at `offset` of its region with lkey `key`. */
const sendsWithLkey = (keyOf: (p: Pair) => { key: number; offset?: number }): Raise =>
  sends(p => {
    const { key, offset = 0 } = keyOf(p)
    return { sges: [{ address: p.a.mr.address + offset, length: 8, lkey: key }] }
  })

/** `a` writes 8 bytes to `offset` of the region of `b` with rkey `key`. */
const writesWithRkey = (keyOf: (p: Pair) => { key: number; offset?: number }): Raise =>
  sends(p => {
    const { key, offset = 0 } = keyOf(p)
    return { opcode: Wr.WRITE, remote: p.b.mr.address + offset, rkey: key }
  })

const makeWindow = ({ p }: Pick<Pair['a'], 'p'>, type: 'TYPE_1' | 'TYPE_2'): { handle: number; key: number } => {
  const { object, out } = invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values[type] }, p.caller)
  return { handle: object ?? 0, key: out.rkey }
}

/**
 * `post` binds a new window to a new region. `wrong` replaces valid fields. `oldKey` and `key` are the window's keys
 * before and after the bind.
 */
const bind = (
  { p, qp }: Pick<Pair['a'], 'p' | 'qp'>,
  wrong: Partial<NonNullable<SendRequest['bind']>> & { type?: 'TYPE_1' | 'TYPE_2'; regionAccess?: number } = {},
): { handle: number; key: number; oldKey: number; post: () => void } => {
  const { type = 'TYPE_2', regionAccess = REMOTE_AND_BIND, ...bindFields } = wrong
  const region = register(p, 4096, regionAccess)
  const { handle, key: oldKey } = makeWindow({ p }, type)
  const key = oldKey + 1
  const operands = {
    window: oldKey,
    newKey: key,
    lkey: region.lkey,
    length: 64,
    access: REMOTE_WRITE,
    ...bindFields,
  }
  const post = (): void => void postSend(qp.send, { opcode: BIND_MW, id: 2n, remote: region.address, bind: operands })
  return { handle, key, oldKey, post }
}

const binds = (wrong: Parameters<typeof bind>[1]): Raise => onDevices(p => bind(p.a, wrong).post())

/** A window of `b` that is bound to `qp`. */
const boundWindow = (p: Pair, qp = p.b.qp) => {
  const window = bind({ ...p.b, qp })
  window.post()
  p.m.settle()
  return window
}

/** Deregisters a side's region. Returns its lkey, which is equal to its rkey. */
const destroyRegion = ({ p, mr }: Pair['a']): number => {
  invokeNow(p.context, Mr, 'destroy', mr.handle, {}, p.caller)
  return mr.lkey
}

/** A CQ of `a` with one entry gets several completions. */
const overflow = onDevices(({ m }) => {
  const [a, b] = [makeEnd(m, 0, 1), makeEnd(m, 1)]
  connectQps(a.qp, b.qp)
  const [remote, key] = [b.mr.address, b.mr.rkey]
  for (let i = 0; i < 4; i++) postSend(a.qp.send, { opcode: Wr.WRITE, sges: [sgeOf(a.mr, 0, 8)], remote, rkey: key })
})

/** A datagram names an address handle that does not exist. */
const noAddressHandle = onDevices(({ m, a: { p, cq, mr } }) => {
  const inputs = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap(), userHandle: 0n }
  const { object, out } = invokeNow(p.context, UdQp, 'create', 0, inputs, p.caller)
  const modifyUd = (args: object): unknown => invokeNow(p.context, UdQp, 'modify', object ?? 0, args, p.caller)
  modifyUd({ state: Qps.INIT, pkeyIndex: 0, qkey: 1, port: 1 })
  modifyUd({ state: Qps.RTR })
  modifyUd({ state: Qps.RTS, sqPsn: 1 })
  const { sendQueue } = out as unknown as { sendQueue: { offset: bigint } }
  const send = mapRing(p.rings.at(sendQueue.offset))
  postSend(send, { opcode: Wr.SEND, sges: [sgeOf(mr, 0, 8)], to: { qpn: 1, qkey: 1, ah: 0xffff } })
  m.settle()
})

/**
 * A program reads a CQ event and destroys the CQ without ibv_ack_cq_events, so libibverbs would wait forever.
 * `structure` is the program's struct ibv_cq, with the handle at byte 24.
 */
const unacknowledged: Raise = () => {
  const { a } = pair()
  const { p } = a
  const reported: CauseName[] = []
  const waits = createDestroyWaits(
    ({ failure }) => reported.push(failure.cause.id),
    createContainment(),
    check => check(),
  )
  const structure = new DataView(new ArrayBuffer(256))
  const caller: Caller = {
    ...p.caller,
    copyIn: (_address, length) => new Uint8Array(structure.buffer, 0, length),
    eventsRead: (object, read) => waits.add(object, read, caller),
  }
  const { fd, queue } = makeChannel(p)
  const cq = makeCq(p, 15, fd)
  structure.setUint32(24, cq.handle, true)
  const qp = makeQp(p, cq)
  modify(qp, toInit())
  postReceive(qp.receive, 1n, [])
  invokeNow(p.context, Cq, 'reqNotify', cq.handle, { solicitedOnly: 0 }, p.caller)
  modify(qp, { state: Qps.ERR })
  a.p.machine.settle()
  assert.equal(queue.take(9).length, 1)
  invokeNow(p.context, RcQp, 'destroy', qp.handle, {}, p.caller)
  invokeNow(p.context, Cq, 'destroy', cq.handle, {}, caller)
  return reported
}

/**
 * NOT_OBSERVED is for adapters of the machine (test/tools/observe/causes.test.ts), NO_SHARE for users of a daemon
 * (test/daemon/peer-tables.test.ts), those of LIDs, groups and partitions for mlx5 (drivers/mlx5/infiniband.test.ts),
 * those of routers and classes for links in virtual time (library/network/virtual/) and mlx5
 * (drivers/mlx5/gids.test.ts), LISTENS_ELSEWHERE for rdma_cm (test/services/rdma-cm/), others for mlx5 (drivers/mlx5/).
 */
type OwnCause = Exclude<
  CauseName,
  | 'NOT_OBSERVED'
  | 'NO_SHARE'
  | 'LISTENS_ELSEWHERE'
  | 'LID_UNKNOWN'
  | 'LID_OF_OTHER'
  | 'PORT_NOT_ACTIVE'
  | 'GRH_OF_OTHER'
  | 'NOT_JOINED'
  | 'GROUP_QPN'
  | 'ROCE_VERSION'
  | 'LINK_LOCAL_ROUTED'
  | 'ROCE_V1_ROUTED'
  | 'VLAN_DIFFERS'
  | 'HOP_LIMIT_ENDED'
  | 'LOSSY_CLASS'
  | 'CLASS_PAUSED'
  | 'LONGER_THAN_MTU'
  | 'TTL_ENDED'
  | 'NO_ROUTE'
  | 'PKEY_LIMITED'
  | 'DC_NO_ANSWER'
  | 'DC_BUSY'
  | 'DC_ACCESS_KEY'
  | 'COPY_LENGTH'
  | 'KEY_CONFIGURATION'
  | 'SRD_LENGTH'
  | 'SRD_NO_ANSWER'
  | 'SRD_NO_QUEUE_PAIR'
  | 'SRD_QKEY'
  | 'SRD_UNKNOWN'
>
const raises: Readonly<Record<OwnCause, Raise>> = {
  BAD_OPCODE: sends(() => ({ opcode: 30 })), // not an ibv_wr_opcode
  TOO_MANY_SGE: sends(() => ({ numSge: 99 })), // above max_send_sge
  NOT_INLINE: inCauseScript('NOT_INLINE'),
  NO_READS: inScript(t => t.post({ id: 1, opcode: READ, ...sge(0, 8) }), { maxRdAtomic: 0 }),
  BAD_FLUSH: inCauseScript('BAD_FLUSH'),
  MESSAGE_TOO_LONG: sends(({ a }) => ({ sges: [{ ...sgeOf(a.mr, 0, 8), length: 0xffff_0000 }] })),
  INLINE_TOO_LONG: sends(() => ({ inline: new Uint8Array(8), dmaLength: 4096 })),
  ATOMIC_LENGTH: inCauseScript('ATOMIC_LENGTH'),
  NO_ADDRESS_HANDLE: noAddressHandle,
  DATAGRAM_TOO_LONG: inScript(t => t.post({ id: 1, opcode: SEND, ...sge(0, 2000) }), {}, { service: Service.UD }),
  FRAME_LENGTH: inScript(t => t.post({ id: 1, opcode: SEND, ...sge(0, 13) }), {}, { service: Service.RAW }),
  REFUSED: inCauseScript('REFUSED'),

  LKEY_UNKNOWN: sendsWithLkey(() => ({ key: UNKNOWN_KEY })),
  LKEY_DEREGISTERED: sendsWithLkey(({ a }) => ({ key: destroyRegion(a) })),
  LKEY_OTHER_PD: sendsWithLkey(({ m }) => ({ key: makeEnd(m, 0).mr.lkey })),
  LKEY_NO_RIGHT: sends(({ a, b }) => {
    const readOnly = register(a.p, 64, 0)
    return { opcode: Wr.READ, sges: [sgeOf(readOnly, 0, 8)], remote: b.mr.address, rkey: b.mr.rkey }
  }),
  LKEY_RANGE: sendsWithLkey(({ a }) => ({ key: a.mr.lkey, offset: -8 })),
  LKEY_WINDOW: sendsWithLkey(({ a }) => ({ key: makeWindow(a, 'TYPE_1').key })),
  LOCAL_FAULT: inCauseScript('LOCAL_FAULT'),
  LOCAL_ENDED: inCauseScript('LOCAL_ENDED'),
  LOCAL_SLOW: inCauseScript('LOCAL_SLOW'),
  LKEY_REFUSED: inCauseScript('LKEY_REFUSED'),

  NAK_INVALID_REQUEST: inCauseScript('NAK_INVALID_REQUEST'),
  NAK_REMOTE_ACCESS: inCauseScript('NAK_REMOTE_ACCESS'),
  NAK_REMOTE_OPERATION: inCauseScript('NAK_REMOTE_OPERATION'),
  NAK_INVALID_RD: inCauseScript('NAK_INVALID_RD'),
  NO_ANSWER: sends(({ b }) => {
    invokeNow(b.p.context, RcQp, 'destroy', b.qp.handle, {}, b.p.caller)
    return {}
  }),
  PACKETS_LOST: inScript(
    t => {
      t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
      t.sent()
      t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
      t.sleep(T14)
    },
    { retryCnt: 0 },
  ),
  RNR_EXCEEDED: onDevices(({ a, b }) => {
    for (const { qp } of [a, b]) modify(qp, { state: Qps.RESET })
    connectQps(a.qp, b.qp, {}, { rnrRetry: 1 })
    postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 8)] })
  }),
  PSN_DIFFERS: onDevices(({ a, b }) => {
    for (const { qp } of [a, b]) modify(qp, { state: Qps.RESET })
    connectQps(a.qp, b.qp, {}, { sqPsn: 200 })
    postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 8)] })
  }),
  BAD_RESPONSE: inCauseScript('BAD_RESPONSE'),

  OUT_OF_PLACE: inCauseScript('OUT_OF_PLACE'),
  PACKET_LENGTH: inCauseScript('PACKET_LENGTH'),
  NO_SRQ: inScript(
    t => t.injectRaw(packet('XRC_SEND_ONLY', RQ_PSN, { payload: 4, srqn: 0x99 })),
    { access: REMOTE_AND_FLUSH },
    { service: Service.XRC_TGT },
  ),
  QP_NO_RIGHT: inCauseScript('QP_NO_RIGHT'),
  REMOTE_TOO_LONG: inCauseScript('REMOTE_TOO_LONG'),
  DMA_LENGTH: inCauseScript('DMA_LENGTH'),
  RECEIVE_TOO_SHORT: sends(({ a }) => ({ sges: [sgeOf(a.mr, 0, 100)] })),
  TOO_MANY_READS: inCauseScript('TOO_MANY_READS'),
  ATOMIC_ADDRESS: sends(({ b }) => ({ opcode: Wr.FAA, remote: b.mr.address + 4, rkey: b.mr.rkey })),
  FLUSH_KIND: inCauseScript('FLUSH_KIND'),
  ATOMIC_WRITE_LENGTH: inCauseScript('ATOMIC_WRITE_LENGTH'),
  NOT_INVALIDATED: sends(() => ({ opcode: Wr.SEND_INV, imm: UNKNOWN_KEY })),
  QKEY_DIFFERS: inScript(
    t => t.injectRaw(packet('UD_SEND_ONLY', RQ_PSN, { payload: 8, qkey: 7 })),
    {},
    { service: Service.UD },
  ),
  PKEY_DIFFERS: inScript(t => t.injectRaw(packet('SEND_ONLY', RQ_PSN, { payload: 8, pkey: 0x8001 }))),
  PKEY_EMPTY: inScript(t => t.injectRaw(packet('SEND_ONLY', RQ_PSN, { payload: 8, pkey: 0 }))),
  NO_RECEIVE: inScript(t => t.injectRaw(packet('UC_SEND_ONLY', RQ_PSN, { payload: 8 })), {}, { service: Service.UC }),

  RKEY_UNKNOWN: writesWithRkey(() => ({ key: UNKNOWN_KEY })),
  RKEY_DEREGISTERED: writesWithRkey(({ b }) => ({ key: destroyRegion(b) })),
  RKEY_OTHER_PD: writesWithRkey(({ m }) => ({ key: makeEnd(m, 1).mr.rkey })),
  RKEY_NO_RIGHT: writesWithRkey(({ b }) => ({ key: register(b.p, 64, LOCAL_WRITE | REMOTE_READ).rkey })),
  RKEY_RANGE: writesWithRkey(({ b }) => ({ key: b.mr.rkey, offset: -8 })),
  WINDOW_UNBOUND: writesWithRkey(({ b }) => ({ key: makeWindow(b, 'TYPE_1').key })),
  WINDOW_INVALIDATED: writesWithRkey(p => {
    const { key } = boundWindow(p)
    postSend(p.b.qp.send, { opcode: WrOpcode.values.LOCAL_INV, imm: key })
    p.m.settle()
    return { key }
  }),
  WINDOW_OTHER_QP: writesWithRkey(p => {
    const [other, peer] = [makeQp(p.b.p, p.b.cq), makeQp(p.a.p, p.a.cq)]
    connectQps(other, peer)
    return { key: boundWindow(p, other).key }
  }),
  RKEY_OLD: writesWithRkey(p => ({ key: boundWindow(p).oldKey })),
  REMOTE_FAULT: inCauseScript('REMOTE_FAULT'),
  REMOTE_ENDED: inCauseScript('REMOTE_ENDED'),
  REMOTE_SLOW: inCauseScript('REMOTE_SLOW'),
  WINDOW_DEALLOCATED: writesWithRkey(p => {
    const { handle, key } = boundWindow(p)
    invokeNow(p.b.p.context, Mw, 'destroy', handle, {}, p.b.p.caller)
    return { key }
  }),
  RKEY_NONE: writesWithRkey(({ b }) => ({ key: 0, offset: register(b.p, 64, LOCAL_WRITE).address - b.mr.address })),
  RKEY_REFUSED: inCauseScript('RKEY_REFUSED'),

  FLUSHED: onDevices(({ a }) => {
    for (const key of [UNKNOWN_KEY, a.mr.lkey])
      postSend(a.qp.send, { opcode: Wr.SEND, sges: [{ ...sgeOf(a.mr, 0, 8), lkey: key }] })
  }),
  MODIFIED: onDevices(({ a }) => {
    postReceive(a.qp.receive, 1n, [])
    modify(a.qp, { state: Qps.ERR })
  }),
  DEVICE_REMOVED: onDevices(({ m }) => unregister(m.devices[0].device)),

  BIND_WINDOW: binds({ window: UNKNOWN_KEY }),
  BIND_RIGHTS: binds({ access: MW_BIND }),
  BIND_BOUND: onDevices(p => {
    const first = bind(p.a)
    first.post()
    bind(p.a, { window: first.key, newKey: first.key + 1 }).post()
  }),
  BIND_LENGTH: binds({ length: 0 }),
  BIND_REGION: binds({ lkey: UNKNOWN_KEY }),
  BIND_NO_RIGHT: binds({ regionAccess: LOCAL_WRITE | REMOTE_WRITE }),
  BIND_RANGE: binds({ length: 8192 }),
  BIND_REFUSED: inCauseScript('BIND_REFUSED'),
  LOCAL_INVALIDATE: sends(() => ({ opcode: WrOpcode.values.LOCAL_INV, imm: UNKNOWN_KEY })),

  CQ_FULL: overflow,
  COMPLETION_LOST: overflow,
  ESTABLISHED: onDevices(({ m, a, b }) => {
    modify(b.qp, { state: Qps.RESET })
    modify(b.qp, toInit())
    modify(b.qp, toRtr(a.qp.qpn, a.p.rxe.device.state.identity.gids[1]))
    postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 64)])
    postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 8)] })
    m.settle()
  }),
  DRAINED: onDevices(({ a }) => modify(a.qp, { state: Qps.SQD, enSqdAsyncNotify: 1 })),
  LAST_WQE: onDevices(({ m, a }) => {
    const qp = makeQpWithSrq(a.p, a.cq, makeSrq(a.p))
    connectQps(qp, makeEnd(m, 1).qp)
    modify(qp, { state: Qps.ERR })
  }),
  SRQ_LIMIT: onDevices(({ m, a, b }) => {
    const srq = makeSrq(b.p)
    const [sender, receiver] = [makeQp(a.p, a.cq), makeQpWithSrq(b.p, b.cq, srq)]
    connectQps(sender, receiver)
    for (const id of [1n, 2n]) postReceive(srq.ring, id, [sgeOf(b.mr, 0, 64)])
    modifySrq(srq, { limit: 2 })
    postSend(sender.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 8)] })
    m.settle()
  }),
  PORT_EVENT: onDevices(({ m }) => raisePort(m.devices[0].device, 1, AsyncEventType.values.PORT_ERR)),
  SUBNET_EVENT: () => {
    const reported: CauseName[] = []
    const m = fabric(1)
    addFailureHandler(m.core, ({ cause }) => reported.push(cause.id))
    m.devices[0]!.subnetPort!.reregister()
    return reported
  },
  UNACKNOWLEDGED: unacknowledged,
  INJECTED: onDevices(({ m, a, b }) => {
    const decide = { number: 1, text: 'completion=SEND,status=RETRY_EXC_ERR', status: WcStatus.values.RETRY_EXC_ERR }
    a.p.rxe.device.taps.decideCompletion = () => decide
    postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 64)])
    postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 8)] })
    m.settle()
  }),
  SPEED_CHANGE: onDevices(({ m }) => raiseDevice(m.devices[0].device, AsyncEventType.values.DEVICE_SPEED_CHANGE)),
  OTHER_EVENT: onDevices(({ m }) => raiseDevice(m.devices[0].device, AsyncEventType.values.CLIENT_REREGISTER)),
}

for (const name of Object.keys(raises) as OwnCause[])
  it(`${name} is raised`, () => {
    const reported = raises[name]()
    assert.ok(reported.includes(name), `reported: ${reported.join(', ') || 'no cause'}`)
  })
