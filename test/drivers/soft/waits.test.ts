/*
 * What programs wait for, read from the queues of a device.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { closeContext, invokeNow } from '../../../src/core/index.ts'
import { waitsOfDevice } from '../../../src/drivers/soft/waits.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { XrcIniQp } from '../../../src/spec/classes/qp/xrc_qp.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { SendFlags } from '../../../src/spec/work.ts'
import {
  connectQps,
  machine,
  makeChannel,
  makeCq,
  makeQp,
  modify,
  type Program,
  program,
  register,
  type TestQp,
  toInit,
  toRtr,
  toRts,
} from '../rxe/machine.ts'
import { makeEnd, pair, sgeOf } from '../rxe/pair.ts'
import { pollAll, postReceive, postSend, Wr } from '../rxe/provider.ts'
import {
  connectXrc,
  makeInitiator,
  makeQpWithSrq,
  makeSrq,
  makeTarget,
  makeXrcSrq,
  openDomain,
} from '../rxe/srq-and-xrc.ts'

/** The waits of both devices: id and text, with numbers as #. */
const waitsOf = ({ m }: Pick<ReturnType<typeof pair>, 'm'>): string[] =>
  m.devices.flatMap(({ device: { state } }) =>
    Array.from(waitsOfDevice(state))
      .flatMap(found => found?.wait ?? [])
      .map(({ id, text, request }) => {
        if (request?.around) assert.match(text.slice(request.around[0].length), /^wr_id 5/)
        return `${id}: ${text.replace(/0x[0-9a-f]+/g, '#')}`
      }),
  )

const send = ({ a }: ReturnType<typeof pair>, flags?: number): void =>
  void postSend(a.qp.send, {
    opcode: Wr.SEND,
    id: 5n,
    sges: [sgeOf(a.mr, 0, 8)],
    ...(flags !== undefined && { flags }),
  })

/** A pair with these attributes at the move to RTS. */
const pairWith = (rts: Parameters<typeof connectQps>[3]): ReturnType<typeof pair> => {
  const m = machine(2)
  const [a, b] = [makeEnd(m, 0), makeEnd(m, 1)]
  connectQps(a.qp, b.qp, {}, rts)
  return { m, a, b }
}

it('a message that waits for a receive without limit, with the receives and messages of the peer', () => {
  const p = pairWith({ rnrRetry: 7 })
  postReceive(p.b.qp.receive, 1n, [sgeOf(p.b.mr, 0, 64)])
  send(p)
  p.m.settle()
  pollAll(p.a.cq.ring)
  pollAll(p.b.cq.ring)
  assert.deepEqual(waitsOf(p), [])
  send(p)
  p.m.settle()
  for (let i = 0; i < 4; i++) p.m.tick()
  assert.match(
    waitsOf(p).join(),
    /^endless-rnr: QP #: SEND wr_id 5 waits without limit .* QP #, has posted 1 receive, and 1 message came for them$/,
  )
  postReceive(p.b.qp.receive, 1n, [sgeOf(p.b.mr, 0, 64)])
  for (let i = 0; i < 4; i++) p.m.tick()
  assert.deepEqual(waitsOf(p), [])
})

it('a request with timeout 0 whose peer is gone', () => {
  const p = pairWith({ timeout: 0 })
  invokeNow(p.b.p.context, RcQp, 'destroy', p.b.qp.handle, {}, p.b.p.caller)
  send(p)
  p.m.settle()
  assert.match(waitsOf(p).join(), /^infinite-timeout: QP #: SEND wr_id 5 waits without limit .*, which was destroyed$/)
})

it('sends that are complete and not signaled', () => {
  const p = pair()
  for (let i = 0; i < 3; i++) postReceive(p.b.qp.receive, 1n, [sgeOf(p.b.mr, 0, 64)])
  send(p)
  send(p, 0)
  send(p, 0)
  p.m.settle()
  pollAll(p.b.cq.ring)
  assert.deepEqual(waitsOf(p), [], 'a completion can be polled')
  pollAll(p.a.cq.ring)
  assert.match(
    waitsOf(p).join(),
    /^not-signaled: QP #: its last 2 sends are complete and not signaled .* SEND wr_id 5$/,
  )
})

it('both ends wait for a message', () => {
  const p = pair()
  for (const { qp, mr } of [p.a, p.b]) postReceive(qp.receive, 1n, [sgeOf(mr, 0, 64)])
  p.m.settle()
  assert.equal(waitsOf(p).filter(text => text.startsWith('both-receive: ')).length, 2)
  send(p)
  p.m.settle()
  assert.deepEqual(waitsOf(p), [], 'a message can be polled')
})

it('a CQ with completions that raise no event', () => {
  const m = machine(1)
  const one = program(m, 0)
  const { fd } = makeChannel(one)
  const cq = makeCq(one, 15, fd)
  const [a, b] = [makeQp(one, cq), makeQp(one, makeCq(one))]
  connectQps(a, b)
  const mr = register(one, 4096)
  const write = (): void =>
    void postSend(a.send, { opcode: Wr.WRITE, sges: [sgeOf(mr, 0, 8)], remote: mr.address, rkey: mr.rkey })
  const arm = () => invokeNow(one.context, Cq, 'reqNotify', cq.handle, { solicitedOnly: 0 }, one.caller)
  write()
  m.settle()
  assert.deepEqual(waitsOf({ m }), [
    `lost-wakeup: CQ ${cq.handle} has 1 unpolled completion, and is not armed (ibv_req_notify_cq), so its channel has no event`,
  ])
  arm()
  assert.deepEqual(waitsOf({ m }), [
    `lost-wakeup: CQ ${cq.handle} was armed with 1 unpolled completion in it, which raise no event`,
  ])
  write()
  m.settle()
  assert.deepEqual(waitsOf({ m }), [], 'the program has an unread event')
})

it('a CQ that is armed for solicited completions, with a message that is not solicited', () => {
  const m = machine(1)
  const one = program(m, 0)
  const { fd } = makeChannel(one)
  const cq = makeCq(one, 15, fd)
  const [a, b] = [makeQp(one, makeCq(one)), makeQp(one, cq)]
  connectQps(a, b)
  const mr = register(one, 4096)
  const sendWith = (flags: number): void => {
    postReceive(b.receive, 1n, [sgeOf(mr, 64, 64)])
    postSend(a.send, { opcode: Wr.SEND, id: 5n, flags, sges: [sgeOf(mr, 0, 8)] })
    m.settle()
  }
  const arm = () => invokeNow(one.context, Cq, 'reqNotify', cq.handle, { solicitedOnly: 1 }, one.caller)
  const { SIGNALED, SOLICITED } = SendFlags.values
  arm()
  // Completions of the program's own sends need no event.
  postReceive(a.receive, 1n, [sgeOf(mr, 64, 64)])
  postSend(b.send, { opcode: Wr.SEND, id: 6n, flags: SIGNALED, sges: [sgeOf(mr, 0, 8)] })
  m.settle()
  assert.deepEqual(waitsOf({ m }), [])
  sendWith(SIGNALED)
  assert.deepEqual(waitsOf({ m }), [
    `lost-wakeup: CQ ${cq.handle} is armed for solicited completions only (solicited_only of ibv_req_notify_cq), and 2 completions came that are not solicited: the sender, QP #, sets no IBV_SEND_SOLICITED (its last send is SEND wr_id 5)`,
  ])
  // A sender that has set the flag in one message may set it again in the next that matters.
  sendWith(SIGNALED | SOLICITED)
  m.settle()
  pollAll(cq.ring)
  assert.deepEqual(waitsOf({ m }), [])
})

// ---- peers that are gone ----

const destroy = ({ p, qp }: { readonly p: Program; readonly qp: TestQp }): void =>
  void invokeNow(p.context, RcQp, 'destroy', qp.handle, {}, p.caller)

it('a receive whose peer was destroyed', () => {
  const p = pair()
  p.a.p.context.program = { pid: 1, command: 'client' }
  p.b.p.context.program = { pid: 2, command: 'server' }
  postReceive(p.a.qp.receive, 1n, [sgeOf(p.a.mr, 0, 64)])
  p.m.settle()
  assert.deepEqual(waitsOf(p), [])
  destroy(p.b)
  assert.match(
    waitsOf(p).join(),
    /^peer-gone: QP # waits for a message of QP # at .*, which process 2 \(server\) has destroyed$/,
  )
})

it('a send whose peer was destroyed, until it fails', () => {
  const p = pair()
  destroy(p.b)
  send(p)
  p.m.tick()
  assert.match(
    waitsOf(p).join(),
    /^peer-gone: QP #: SEND wr_id 5 waits for an answer of QP # at .*, which was destroyed$/,
  )
})

it('a peer of a queue pair with an SRQ, and of an XRC target', () => {
  const m = machine(2)
  const [a, b] = [program(m, 0), program(m, 1)]
  const cq = makeCq(a)
  const srq = makeSrq(a)
  const mr = register(a, 4096)
  const shared = makeQpWithSrq(a, cq, srq)
  const peer = makeQp(b, makeCq(b))
  connectQps(shared, peer)
  const xrcd = openDomain(a)
  const target = makeTarget(a, xrcd)
  const initiator = makeInitiator(b, makeCq(b))
  connectXrc(initiator, target)
  const waits = () => waitsOf({ m }).join()
  destroy({ p: b, qp: peer })
  assert.match(
    waits(),
    /^peer-gone: QP # has no request outstanding, and nothing comes from QP # .*, which was destroyed$/,
  )
  postReceive(srq.ring, 1n, [sgeOf(mr, 0, 64)])
  assert.match(waits(), /^peer-gone: QP # waits for a message of QP # at .*, which was destroyed$/)
  invokeNow(b.context, XrcIniQp, 'destroy', initiator.handle, {}, b.caller)
  assert.doesNotMatch(waits(), /and 1 more/)
  postReceive(makeXrcSrq(a, xrcd, cq).ring, 1n, [sgeOf(mr, 0, 64)])
  assert.match(waits(), /which was destroyed \(and 1 more of its queue pairs for theirs\)$/)
})

it('a peer whose device was closed, or whose process has ended', () => {
  for (const [hasEnded, text] of [
    [false, 'whose device process 2 (server) has closed'],
    [true, 'whose process 2 (server) has ended'],
  ] as const) {
    const p = pair()
    p.b.p.context.program = { pid: 2, command: 'server', life: { hasEnded } }
    postReceive(p.a.qp.receive, 1n, [sgeOf(p.a.mr, 0, 64)])
    closeContext(p.b.p.context)
    assert.ok(waitsOf(p).join().endsWith(text), waitsOf(p).join())
  }
})

const reconnect = (qp: TestQp, peer: TestQp): void => {
  modify(qp, toInit())
  modify(qp, toRtr(peer.qpn, peer.program.rxe.device.state.identity.gids[1]))
  modify(qp, toRts())
}

it('a peer that was reset or is in ERR, and one that is connected again', () => {
  for (const [state, text] of [
    [QpState.values.ERR, 'which is in ERR'],
    [QpState.values.RESET, 'which process 2 (server) has moved to RESET'],
  ] as const) {
    const p = pair()
    p.b.p.context.program = { pid: 2, command: 'server' }
    postReceive(p.a.qp.receive, 1n, [sgeOf(p.a.mr, 0, 64)])
    modify(p.b.qp, { state })
    assert.ok(waitsOf(p).join().endsWith(text), waitsOf(p).join())
    if (state === QpState.values.ERR) modify(p.b.qp, { state: QpState.values.RESET })
    reconnect(p.b.qp, p.a.qp)
    assert.deepEqual(waitsOf(p), [])
  }
})
