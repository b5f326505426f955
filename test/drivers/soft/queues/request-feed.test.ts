/*
 * A soft device reports requests to a RequestWatcher (for `userdma check --races`).
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { invokeNow } from '../../../../src/core/index.ts'
import { findHandle } from '../../../../src/core/objects/handles.ts'
import { parseFaults } from '../../../../src/faults/rules.ts'
import { requestName } from '../../../../src/spec/check/causes.ts'
import type { RequestWatcher, WorkRequest } from '../../../../src/spec/check/requests.ts'
import { Ah } from '../../../../src/spec/classes/ah.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../../src/spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../../../src/spec/classes/qp/ud_qp.ts'
import { Srq } from '../../../../src/spec/classes/srq.ts'
import { AccessFlags, Mtu, nameIn, QpFlags } from '../../../../src/spec/enums.ts'
import { PostQueue } from '../../../../src/spec/session.ts'
import { MULTICAST_QPN } from '../../../../src/spec/wire/headers.ts'
import { SRQN_SHIFT, WcStatus } from '../../../../src/spec/work.ts'
import { watchRequests } from '../../../../src/tools/clients/requests/watch.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import {
  cap,
  connectQps,
  ipv4,
  type Machine,
  machine,
  makeCq,
  makeQp,
  modify,
  path,
  program,
  Qps,
  register,
} from '../../rxe/machine.ts'
import { makeEnd, pair, sgeOf } from '../../rxe/pair.ts'
import { Flag, mapRing, pollAll, postReceive, postSend, Wr } from '../../rxe/provider.ts'
import {
  connectXrc,
  destroyTarget,
  makeInitiator,
  makeQpWithSrq,
  makeSrq,
  makeTarget,
  makeXrcSrq,
  openDomain,
} from '../../rxe/srq-and-xrc.ts'

/** A key that no region has. */
const UNKNOWN_KEY = 1

const nameOf = ({ opcode, wrId }: WorkRequest): string => `${opcode < 0 ? 'receive' : requestName(opcode)} ${wrId}`

/**
 * Watches all devices. `take` returns the reports since the last call; `posted` has all posted requests,
 * `completingQps` the ids of the queue pairs of all completions.
 */
const watch = (m: Machine) => {
  const lines: string[] = []
  const posted: WorkRequest[] = []
  const completingQps: number[] = []
  const watcher: RequestWatcher = {
    posted(request) {
      posted.push(request)
      lines.push(`posted ${nameOf(request)}`)
    },
    ended: request => lines.push(`ended ${nameOf(request)}`),
    completed(request, { status, cqPosition, message, qp }) {
      completingQps.push(qp)
      const consumer = message ? ` < ${nameOf(message)}` : ''
      lines.push(`completed ${nameOf(request)} ${nameIn(WcStatus.values, status)} #${cqPosition}${consumer}`)
    },
    receiveLost: request => lines.push(`lost ${nameOf(request)}`),
    receiverNotReady: () => lines.push('receiver not ready'),
    polled: (_cq, count) => lines.push(`polled ${count}`),
    queueReset: () => lines.push('queue reset'),
  }
  const polls = m.devices.map(({ device }) => watchRequests(device, watcher, plainArena(4096)))
  return { polls, posted, completingQps, take: () => lines.splice(0) }
}

it('reports sends and receives of a connection, and which message consumed which receive', () => {
  const { m, a, b } = pair()
  const { posted, take } = watch(m)
  const remote = b.mr.address + 4096
  postReceive(b.qp.receive, 7n, [sgeOf(b.mr, 0, 100)])
  postReceive(b.qp.receive, 8n, [sgeOf(b.mr, 100, 100)])
  postSend(a.qp.send, { opcode: Wr.WRITE, id: 1n, flags: 0, sges: [sgeOf(a.mr, 16, 64)], remote, rkey: b.mr.rkey })
  postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 10), sgeOf(a.mr, 50, 5)], flags: Flag.SIGNALED })
  m.settle()
  const lines = take()
  assert.deepEqual(
    lines.filter(line => !line.startsWith('posted')),
    ['completed receive 7 SUCCESS #1 < SEND 2', 'ended WRITE 1', 'ended SEND 2', 'completed SEND 2 SUCCESS #1'],
  )
  assert.deepEqual(lines.filter(line => line.startsWith('posted')).sort(), [
    'posted SEND 2',
    'posted WRITE 1',
    'posted receive 7',
    'posted receive 8',
  ])
  const write = posted.find(({ wrId }) => wrId === 1n)!
  assert.deepEqual(
    [write.queue, write.number, write.index, write.isSignaled, write.elements, write.remote],
    [
      PostQueue.SEND,
      a.qp.qpn,
      0,
      false,
      [{ address: a.mr.address + 16, length: 64, lkey: a.mr.lkey }],
      { address: remote, length: 64, rkey: b.mr.rkey },
    ],
  )
  const receive = posted.find(({ wrId }) => wrId === 8n)!
  assert.deepEqual(
    [receive.queue, receive.number, receive.index, receive.length],
    [PostQueue.RECEIVE, b.qp.qpn, 1, 100],
  )
})

it('reports a send without a receive; reports polled completions at the next post, or on request', () => {
  const { m, a, b } = pair()
  const { polls, take } = watch(m)
  postSend(a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(a.mr, 0, 10)], flags: Flag.SIGNALED })
  m.settle()
  assert.deepEqual(take(), ['posted SEND 1', 'receiver not ready'])
  postReceive(b.qp.receive, 5n, [sgeOf(b.mr, 0, 10)])
  m.tick()
  assert.deepEqual(take(), [
    'posted receive 5',
    'completed receive 5 SUCCESS #1 < SEND 1',
    'ended SEND 1',
    'completed SEND 1 SUCCESS #1',
  ])
  pollAll(a.cq.ring)
  postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 10)] })
  m.settle()
  assert.deepEqual(take().slice(0, 2), ['polled 1', 'posted SEND 2'])
  pollAll(b.cq.ring)
  polls[1]!.reportContext(b.p.context)
  assert.deepEqual(take(), ['polled 1'])
})

it('reports receives and polls of one queue pair or CQ on request, and of another object nothing', () => {
  const { m, a, b } = pair()
  const other = makeQp(a.p, a.cq)
  const { polls, take } = watch(m)
  const report = (handle: number): string[] => {
    polls[0]!.reportQueue(findHandle(a.p.context.handles, handle)!)
    return take()
  }
  postReceive(other.receive, 2n, [sgeOf(a.mr, 0, 10)])
  postReceive(a.qp.receive, 3n, [sgeOf(a.mr, 0, 10)])
  assert.deepEqual(report(a.p.pd), [])
  assert.deepEqual(report(a.qp.handle), ['posted receive 3'])
  assert.deepEqual(report(other.handle), ['posted receive 2'])
  postSend(b.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(b.mr, 0, 10)] })
  m.settle()
  take()
  pollAll(a.cq.ring)
  assert.deepEqual(report(a.cq.handle), ['polled 1'])
})

it('counts completions of a batch as polled before the consumer index includes them', () => {
  const { m, a, b } = pair()
  const { polls, take } = watch(m)
  // The preload library counts the completions that polls have returned to the program; an earlier CQ had 7.
  let taken = 7
  Object.assign(b.p.context, {
    mapped: { takenCompletions: (handle: number) => (handle === b.cq.handle ? taken : 99) },
  })
  const deliver = (count: number): void => {
    for (let i = 0; i < count; i++) {
      postReceive(b.qp.receive, 5n, [sgeOf(b.mr, 0, 10)])
      postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 10)] })
    }
    m.settle()
    take()
  }
  const reported = (): string[] => {
    polls[1]!.reportContext(b.p.context)
    return take()
  }
  deliver(4)
  assert.deepEqual(reported(), [], 'the count of an earlier CQ')
  taken += 2
  assert.deepEqual(reported(), ['polled 2'], 'a batch')
  b.cq.ring.consumer += 2
  assert.deepEqual(reported(), [], 'the end of the batch')
  b.cq.ring.consumer += 1
  assert.deepEqual(reported(), ['polled 3'], 'ibv_poll_cq')
  // the preload library counts an ibv_poll_cq after it
  taken += 2
  assert.deepEqual(reported(), ['polled 4'], 'another batch')
  taken += 2 ** 30
  assert.deepEqual(reported(), [], 'a false count')
  pollAll(b.cq.ring)
  deliver(2)
  assert.deepEqual(reported(), [], 'completions after a false count')
  taken += 1
  assert.deepEqual(reported(), ['polled 5'])
})

it('reports failed requests, flushed requests and a reset', () => {
  const { m, a, b } = pair()
  const { take } = watch(m)
  postReceive(a.qp.receive, 4n, [sgeOf(a.mr, 0, 10)])
  postSend(a.qp.send, { opcode: Wr.WRITE, id: 1n, sges: [sgeOf(a.mr, 0, 10)], remote: 0, rkey: UNKNOWN_KEY })
  postSend(a.qp.send, { opcode: Wr.WRITE, id: 2n, sges: [sgeOf(a.mr, 0, 10)], remote: 0, rkey: UNKNOWN_KEY })
  m.settle()
  assert.deepEqual(
    take().filter(line => !line.startsWith('posted')),
    [
      'ended WRITE 1',
      'completed WRITE 1 REM_ACCESS_ERR #1',
      'ended WRITE 2',
      'completed WRITE 2 WR_FLUSH_ERR #2',
      'completed receive 4 WR_FLUSH_ERR #3',
    ],
  )
  modify(a.qp, { state: Qps.RESET })
  assert.deepEqual(take(), ['queue reset'])
  modify(b.qp, { state: Qps.RESET })
  connectQps(a.qp, b.qp)
  take()
  postSend(a.qp.send, {
    opcode: Wr.WRITE,
    id: 3n,
    flags: 0,
    sges: [sgeOf(a.mr, 0, 10)],
    remote: b.mr.address,
    rkey: b.mr.rkey,
  })
  m.settle()
  assert.deepEqual(take(), ['posted WRITE 3', 'ended WRITE 3'])
})

it('reports an unsignaled request that fails, and the requests that are flushed after it', () => {
  const { m, a, b } = pair()
  const { take } = watch(m)
  const write = (id: bigint, rkey: number, flags: number): void => {
    const request = { opcode: Wr.WRITE, id, sges: [sgeOf(a.mr, 0, 10)], remote: b.mr.address, rkey, flags }
    assert.ok(postSend(a.qp.send, request))
  }
  write(1n, b.mr.rkey, Flag.SIGNALED)
  write(2n, b.mr.rkey, 0)
  write(3n, UNKNOWN_KEY, 0)
  write(4n, b.mr.rkey, 0)
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed WRITE 1 SUCCESS #1', 'completed WRITE 3 REM_ACCESS_ERR #2', 'completed WRITE 4 WR_FLUSH_ERR #3'],
  )
})

it('reports a lost completion with position 0', () => {
  const m = machine()
  const cqe = 1
  const [a, b] = [makeEnd(m, 0, cqe), makeEnd(m, 1)]
  connectQps(a.qp, b.qp)
  const { take } = watch(m)
  const target = { sges: [sgeOf(a.mr, 0, 10)], remote: b.mr.address, rkey: b.mr.rkey }
  for (const id of [1n, 2n]) postSend(a.qp.send, { opcode: Wr.WRITE, id, ...target })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed WRITE 1 SUCCESS #1', 'completed WRITE 2 SUCCESS #0'],
  )
})

it('reports all requests of a queue pair that signals all as signaled, and no memory of a refused request', () => {
  const { m, a, b } = pair()
  const sender = makeQp(a.p, a.cq, { flags: QpFlags.values.SQ_SIG_ALL })
  connectQps(sender, makeQp(b.p, b.cq))
  const { posted } = watch(m)
  const target = { sges: [sgeOf(a.mr, 0, 10)], remote: b.mr.address, rkey: b.mr.rkey }
  postSend(sender.send, { opcode: Wr.WRITE, flags: 0, ...target })
  const aboveMaxSge = 99
  postSend(sender.send, { opcode: Wr.WRITE, flags: 0, ...target, numSge: aboveMaxSge })
  m.settle()
  assert.deepEqual(
    posted.map(({ isSignaled, elements, remote }) => [isSignaled, elements.length, remote?.length]),
    [
      [true, 1, 10],
      [true, 0, undefined],
    ],
  )
})

it('reports receives that are posted after a reset, and the destruction of an SRQ', () => {
  const { m, a } = pair()
  const srq = makeSrq(a.p)
  const { polls, take } = watch(m)
  for (const id of [1n, 2n]) {
    postReceive(a.qp.receive, id, [sgeOf(a.mr, 0, 10)])
    polls[0]!.reportContext(a.p.context)
    modify(a.qp, { state: Qps.RESET })
    assert.deepEqual(take(), [`posted receive ${id}`, 'queue reset'])
  }
  invokeNow(a.p.context, Srq, 'destroy', srq.handle, {}, a.p.caller)
  assert.deepEqual(take(), ['queue reset'])
})

it('reports the reset and the destruction of a queue pair with posts that were not reported', () => {
  const { m, a, b } = pair()
  const { take } = watch(m)
  postReceive(a.qp.receive, 1n, [sgeOf(a.mr, 0, 10)])
  modify(a.qp, { state: Qps.RESET })
  assert.deepEqual(take(), ['queue reset'])
  postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 10)])
  const { context, caller } = b.p
  invokeNow(context, RcQp, 'destroy', b.qp.handle, {}, caller)
  assert.deepEqual(take(), ['queue reset'])
})

it('reports which message consumed which receive of an SRQ, also with XRC', () => {
  const m = machine(2)
  const a = makeEnd(m, 0)
  const p = program(m, 1)
  const cq = makeCq(p)
  const mr = register(p, 4096)
  const srq = makeSrq(p)
  const qp = makeQpWithSrq(p, cq, srq)
  connectQps(a.qp, qp)
  const { posted, take } = watch(m)
  postReceive(srq.ring, 9n, [sgeOf(mr, 0, 100)])
  postSend(a.qp.send, { opcode: Wr.SEND, id: 1n, flags: 0, sges: [sgeOf(a.mr, 0, 10)] })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 9 SUCCESS #1 < SEND 1'],
  )
  assert.deepEqual(
    posted.filter(({ queue }) => queue === PostQueue.SHARED).map(({ number }) => number),
    [srq.handle],
  )
  const q = program(m, 0)
  const initiator = makeInitiator(q, makeCq(q))
  const source = register(q, 4096)
  const xrcd = openDomain(p)
  const target = makeTarget(p, xrcd)
  const xrcSrq = makeXrcSrq(p, xrcd, cq)
  connectXrc(initiator, target)
  postReceive(xrcSrq.ring, 3n, [sgeOf(mr, 0, 100)])
  postSend(initiator.send, {
    opcode: Wr.SEND,
    id: 6n,
    sges: [sgeOf(source, 0, 10)],
    flags: xrcSrq.number << SRQN_SHIFT,
  })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 3 SUCCESS #2 < SEND 6'],
  )
})

/** A connected XRC initiator and target with an XRC SRQ. `send` sends 10 bytes to the SRQ. */
const xrcPair = () => {
  const m = machine()
  const p = program(m, 0)
  const cq = makeCq(p)
  const mr = register(p, 4096)
  const initiator = makeInitiator(p, makeCq(p))
  const xrcd = openDomain(p)
  const target = makeTarget(p, xrcd)
  const srq = makeXrcSrq(p, xrcd, cq)
  connectXrc(initiator, target)
  const send = (id: bigint) => {
    const sges = [sgeOf(mr, 0, 10)]
    postSend(initiator.send, { opcode: Wr.SEND, id, sges, flags: srq.number << SRQN_SHIFT })
    m.settle()
  }
  return { m, p, cq, mr, xrcd, target, srq, send }
}

it('reports polled completions of a CQ that only an XRC SRQ has, at the next receive or on request', () => {
  const { m, p, cq, mr, srq, send } = xrcPair()
  const { polls, take } = watch(m)
  postReceive(srq.ring, 3n, [sgeOf(mr, 100, 10)])
  send(1n)
  pollAll(cq.ring)
  take()
  postReceive(srq.ring, 4n, [sgeOf(mr, 100, 10)])
  send(2n)
  assert.deepEqual(
    take().filter(line => /^polled|receive/.test(line)),
    ['polled 1', 'posted receive 4', 'completed receive 4 SUCCESS #2 < SEND 2'],
  )
  pollAll(cq.ring)
  polls[0]!.reportContext(p.context)
  assert.deepEqual(take(), ['polled 2'])
})

it('names an XRC target that is still open after its first opener has closed it', () => {
  const { m, p, mr, xrcd, target, srq, send } = xrcPair()
  const reopened = makeTarget(p, xrcd, target.qpn)
  const { completingQps } = watch(m)
  const idOf = ({ handle }: { handle: number }) => p.context.handles.slots[handle]!.id
  const ids = [target, reopened].map(idOf)
  for (const id of [1n, 2n]) {
    postReceive(srq.ring, id, [sgeOf(mr, 100, 10)])
    send(id)
    if (id === 1n) destroyTarget(target)
  }
  assert.deepEqual(completingQps, ids)
})

it('reports the end of an XRC target when its last opener has closed it', () => {
  const { m, p, mr, xrcd, target, srq, send } = xrcPair()
  const reopened = makeTarget(p, xrcd, target.qpn)
  const { take } = watch(m)
  postReceive(srq.ring, 3n, [sgeOf(mr, 100, 10)])
  send(1n)
  take()
  destroyTarget(target)
  assert.deepEqual(take(), [])
  destroyTarget(reopened)
  assert.deepEqual(take(), ['queue reset'])
})

it('a watcher that throws disturbs neither the device nor other watchers; the error is reported', () => {
  const { m, a, b } = pair()
  const fails = (): never => {
    throw new Error('a bug of the watcher')
  }
  const polls = m.devices.map(({ device }) =>
    watchRequests(
      device,
      {
        posted: fails,
        ended: fails,
        completed: fails,
        receiveLost: fails,
        receiverNotReady: fails,
        polled: fails,
        queueReset: fails,
      },
      plainArena(4096),
    ),
  )
  const { take } = watch(m)
  postReceive(b.qp.receive, 7n, [sgeOf(b.mr, 0, 100)])
  postSend(a.qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(a.mr, 0, 10)], flags: Flag.SIGNALED })
  m.settle()
  assert.equal(take().filter(line => line.startsWith('completed')).length, 2)
  assert.ok(m.core.faults > 0)
  for (const poll of polls) poll.end()
})

it('hashes a short send whole and a long send by samples, any send whole on request, and no deregistered memory', () => {
  const { m, a } = pair()
  const { polls, posted } = watch(m)
  for (const length of [100, 40000])
    postSend(a.qp.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 50), sgeOf(a.mr, 50, length - 50)] })
  m.settle()
  const hash = (request: WorkRequest, extent: 'default' | 'whole') => polls[0]!.digest(request, extent === 'whole')
  /** Whether a changed byte at this offset of the message changes the hash. */
  const isNoticed = (request: WorkRequest, offset: number, extent: 'default' | 'whole'): boolean => {
    const before = hash(request, extent)
    a.mr.bytes[offset]! ^= 1
    const after = hash(request, extent)
    a.mr.bytes[offset]! ^= 1
    return before !== after
  }
  const [short, long] = posted
  for (const request of [short!, long!]) assert.equal(hash(request, 'default'), hash(request, 'default'))
  for (let offset = 0; offset < short!.length; offset++) assert.ok(isNoticed(short!, offset, 'default'))
  for (const offset of [0, long!.length - 1]) assert.ok(isNoticed(long!, offset, 'default'))
  const offsetsBetweenEnds = Array.from({ length: 39 }, (_, i) => 500 + i * 1000)
  assert.ok(!offsetsBetweenEnds.every(offset => isNoticed(long!, offset, 'default')))
  assert.ok(offsetsBetweenEnds.every(offset => isNoticed(long!, offset, 'whole')))
  invokeNow(a.p.context, Mr, 'destroy', a.mr.handle, {}, a.p.caller)
  assert.equal(hash(short!, 'default'), undefined)
})

it('reports receives of SRQs that no queue pair uses yet, for the context that is requested', () => {
  const m = machine()
  const p = program(m, 0)
  const mr = register(p, 4096)
  const xrcSrq = makeXrcSrq(p, openDomain(p), makeCq(p))
  const srq = makeSrq(p)
  const srqOfOther = makeSrq(program(m, 0))
  const { polls, take } = watch(m)
  postReceive(xrcSrq.ring, 3n, [sgeOf(mr, 0, 10)])
  postReceive(srq.ring, 4n, [sgeOf(mr, 0, 10)])
  postReceive(srqOfOther.ring, 5n, [sgeOf(mr, 0, 10)])
  polls[0]!.reportContext(p.context)
  assert.deepEqual(take(), ['posted receive 3', 'posted receive 4'])
  polls[0]!.reportContext(p.context)
  assert.deepEqual(take(), [])
})

const GROUP = ipv4(239, 77, 0, 9)
const QKEY = 5
const OTHER_QKEY = 6

interface Datagram {
  readonly bytes?: number
  readonly qkey?: number
}

/**
 * A UD queue pair of device 0 that sends to two of device 1, `one` and `two`. With 'SRQ' these have one SRQ. `send`
 * sends an unsignaled datagram.
 */
const datagramQps = (receives: 'receive queues' | 'SRQ' = 'receive queues') => {
  const m = machine(2)
  const end = (device: number, p = program(m, device), shared?: ReturnType<typeof makeSrq>) => {
    const cq = makeCq(p)
    const srq = shared && { srq: shared.handle }
    const args = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap(), userHandle: 0n, ...srq }
    const { object, out } = invokeNow(p.context, UdQp, 'create', 0, args, p.caller)
    const queues = out as unknown as Record<'sendQueue' | 'recvQueue', { offset: bigint } | undefined>
    const modify = (change: Parameters<typeof invokeNow<typeof UdQp, 'modify'>>[4]): void => {
      invokeNow(p.context, UdQp, 'modify', object!, change, p.caller)
    }
    modify({ state: Qps.INIT, pkeyIndex: 0, port: 1, qkey: QKEY })
    modify({ state: Qps.RTR })
    modify({ state: Qps.RTS, sqPsn: 0 })
    const send = mapRing(p.rings.at(queues.sendQueue!.offset))
    const receive = shared?.ring ?? mapRing(p.rings.at(queues.recvQueue!.offset))
    const destroy = () => invokeNow(p.context, UdQp, 'destroy', object!, {}, p.caller)
    return { p, handle: object!, qpn: out.qpNum, send, receive, mr: register(p, 4096), modify, destroy }
  }
  const a = end(0)
  const receiver = program(m, 1)
  const srq = receives === 'SRQ' ? makeSrq(receiver) : undefined
  const [one, two] = [end(1, receiver, srq), end(1, receiver, srq)]
  const address = path(receiver.rxe.device.state.identity.gids[1]!)
  const ahTo = (to: typeof address): number => {
    const { out } = invokeNow(a.p.context, Ah, 'create', 0, { pd: a.p.pd, address: to, userHandle: 0n }, a.p.caller)
    return (out as unknown as { number: number }).number
  }
  const [ah, groupAh] = [ahTo(address), ahTo(path(GROUP))]
  /** As `send`, but the devices are not polled. `qpn`: MULTICAST_QPN for GROUP. */
  const post = (id: bigint, qpn: number, { bytes = 10, qkey = QKEY }: Datagram = {}): void => {
    const to = { qpn, qkey, ah: qpn === MULTICAST_QPN ? groupAh : ah }
    assert.ok(postSend(a.send, { opcode: Wr.SEND, id, sges: [sgeOf(a.mr, 0, bytes)], flags: 0, to }))
  }
  const send = (id: bigint, { qpn }: { qpn: number }, datagram?: Datagram): void => {
    post(id, qpn, datagram)
    m.settle()
  }
  return { m, sender: a.p, one, two, address, post, send }
}

it('reports which datagram consumed which receive', () => {
  const { m, one, two, address, send } = datagramQps()
  const { posted, take } = watch(m)
  postReceive(two.receive, 7n, [sgeOf(two.mr, 0, 100)])
  send(2n, two)
  postReceive(one.receive, 8n, [sgeOf(one.mr, 0, 100)])
  send(3n, one)
  const completed = take().filter(line => line.startsWith('completed'))
  assert.deepEqual(completed, ['completed receive 7 SUCCESS #1 < SEND 2', 'completed receive 8 SUCCESS #1 < SEND 3'])
  const sent = posted.find(({ wrId }) => wrId === 2n)!
  assert.deepEqual([sent.destQpn, sent.destination?.qkey, sent.remote], [two.qpn, QKEY, undefined])
  assert.deepEqual(sent.destination?.gid, address.dgid)
})

it('a datagram is not taken for an earlier one of the same length that the receiver dropped', () => {
  const { m, one, two, send } = datagramQps()
  const { take } = watch(m)
  send(1n, one) // no receive
  postReceive(one.receive, 7n, [sgeOf(one.mr, 0, 49)])
  send(2n, one) // too long for the receive: 40 bytes of GRH and 10 of payload
  send(3n, one, { bytes: 9 })
  postReceive(one.receive, 8n, [sgeOf(one.mr, 0, 100)])
  send(4n, one, { qkey: OTHER_QKEY })
  send(5n, two)
  send(6n, one)
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 7 SUCCESS #1 < SEND 3', 'completed receive 8 SUCCESS #2 < SEND 6'],
  )
})

it('a datagram that a receiver drops is not taken for one to another receiver', () => {
  const { m, one, two, send } = datagramQps()
  const { take } = watch(m)
  two.modify({ state: Qps.RESET })
  send(1n, two) // is in the list of datagrams in flight until `two` is in RTR
  send(2n, one) // no receive
  postReceive(one.receive, 7n, [sgeOf(one.mr, 0, 100)])
  send(3n, one)
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 7 SUCCESS #1 < SEND 3'],
  )
})

it('a datagram to a group that a receiver drops is not taken for one to the receiver', () => {
  const { m, one, post } = datagramQps()
  const { take } = watch(m)
  invokeNow(one.p.context, UdQp, 'attachMcast', one.handle, { gid: GROUP, mlid: 0 }, one.p.caller)
  postReceive(one.receive, 7n, [sgeOf(one.mr, 0, 100)])
  post(1n, MULTICAST_QPN, { qkey: OTHER_QKEY })
  post(2n, one.qpn)
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 7 SUCCESS #1 < SEND 2'],
  )
})

it('a datagram that is in flight to one queue pair is not dropped when another moves to RTR', () => {
  const { m, one, two, post, sender } = datagramQps()
  const { take } = watch(m)
  two.modify({ state: Qps.RESET })
  postReceive(one.receive, 7n, [sgeOf(one.mr, 0, 100)])
  post(1n, one.qpn)
  sender.rxe.poll(m.now) // sends the datagram; the receiver is not polled
  two.modify({ state: Qps.INIT, pkeyIndex: 0, port: 1, qkey: QKEY })
  two.modify({ state: Qps.RTR })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 7 SUCCESS #1 < SEND 1'],
  )
})

it('a datagram is not taken for an earlier one of the same length that arrived before RTR', () => {
  const { m, one, send } = datagramQps()
  const { take } = watch(m)
  send(1n, one)
  one.modify({ state: Qps.RESET })
  send(2n, one)
  one.modify({ state: Qps.INIT, pkeyIndex: 0, port: 1, qkey: QKEY })
  send(3n, one)
  one.modify({ state: Qps.RTR })
  postReceive(one.receive, 7n, [sgeOf(one.mr, 0, 100)])
  send(4n, one)
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 7 SUCCESS #1 < SEND 4'],
  )
})

it('reports a taken receive of an SRQ as lost if the queue pair is destroyed', () => {
  const { m, one, two, send } = datagramQps('SRQ')
  const { take } = watch(m)
  for (const id of [7n, 8n]) postReceive(one.receive, id, [sgeOf(one.mr, 0, 49)])
  send(1n, one) // too long: the queue pair keeps receive 7 for the next datagram
  take()
  one.destroy()
  assert.deepEqual(take(), ['lost receive 7', 'queue reset'])
  send(2n, two, { bytes: 9 })
  assert.deepEqual(
    take().filter(line => !line.startsWith('posted')),
    ['ended SEND 2', 'completed receive 8 SUCCESS #1 < SEND 2'],
  )
})

/** Two connected UC queue pairs. */
const ucPair = () => {
  const m = machine(2)
  const ends = [0, 1].map(device => {
    const p = program(m, device)
    const cq = makeCq(p)
    const args = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap(), userHandle: 0n }
    const { object, out } = invokeNow(p.context, UcQp, 'create', 0, args, p.caller)
    const queues = out as unknown as Record<'sendQueue' | 'recvQueue', { offset: bigint }>
    const change = (changes: Parameters<typeof invokeNow<typeof UcQp, 'modify'>>[4]): void => {
      invokeNow(p.context, UcQp, 'modify', object!, changes, p.caller)
    }
    const send = mapRing(p.rings.at(queues.sendQueue.offset))
    const receive = mapRing(p.rings.at(queues.recvQueue.offset))
    return { p, qpn: out.qpNum, send, receive, mr: register(p, 4096), change }
  })
  const [a, b] = [ends[0]!, ends[1]!]
  for (const [end, peer] of [
    [a, b],
    [b, a],
  ] as const) {
    end.change({ state: Qps.INIT, pkeyIndex: 0, port: 1, accessFlags: 0 })
    const address = path(peer.p.rxe.device.state.identity.gids[1]!)
    end.change({ state: Qps.RTR, address, pathMtu: Mtu.values.MTU_1024, destQpn: peer.qpn, rqPsn: 0 })
    end.change({ state: Qps.RTS, sqPsn: 0 })
  }
  return { m, a, b }
}

it('after SQE, a receive is not consumed by an earlier send that failed or was flushed', () => {
  const { m, a, b } = ucPair()
  const { take } = watch(m)
  const sges = [sgeOf(a.mr, 0, 10)]
  postSend(a.send, { opcode: Wr.SEND, id: 1n, sges: [{ ...sges[0]!, lkey: UNKNOWN_KEY }] })
  postSend(a.send, { opcode: Wr.SEND, id: 2n, sges })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed SEND 1 LOC_PROT_ERR #1', 'completed SEND 2 WR_FLUSH_ERR #2'],
  )
  a.change({ state: Qps.RTS })
  postReceive(b.receive, 5n, [sgeOf(b.mr, 0, 10)])
  postSend(a.send, { opcode: Wr.SEND, id: 3n, sges, flags: 0 })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 5 SUCCESS #1 < SEND 3'],
  )
})

it('a SEND of UC is not taken for an earlier one of the same length that the receiver dropped', () => {
  const { m, a, b } = ucPair()
  const { take } = watch(m)
  const sges = [sgeOf(a.mr, 0, 10)]
  for (const id of [1n, 2n, 3n]) {
    // For SEND 1 there is no receive.
    if (id > 1n) postReceive(b.receive, id, [sgeOf(b.mr, 0, 10)])
    postSend(a.send, { opcode: Wr.SEND, id, sges, flags: 0 })
    m.settle()
  }
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 2 SUCCESS #1 < SEND 2', 'completed receive 3 SUCCESS #2 < SEND 3'],
  )
})

it('does not report which SEND of UC consumed a receive if the network may have lost one of the same length', () => {
  const { m, a, b } = ucPair()
  const { take } = watch(m)
  for (const [id, bytes] of [
    [1n, 10],
    [2n, 10],
    [3n, 20],
  ] as const) {
    if (id > 1n) postReceive(b.receive, id, [sgeOf(b.mr, 0, 100)])
    m.ports[0]!.setFaults(id === 1n ? parseFaults('dir=sent,drop=100%') : [])
    postSend(a.send, { opcode: Wr.SEND, id, sges: [sgeOf(a.mr, 0, bytes)], flags: 0 })
    m.settle()
  }
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 2 SUCCESS #1', 'completed receive 3 SUCCESS #2 < SEND 3'],
  )
})

it('a WRITE with immediate data is not taken for an earlier SEND of the same length that was dropped', () => {
  const { m, a, b } = ucPair()
  const { take } = watch(m)
  const sges = [sgeOf(a.mr, 0, 10)]
  postSend(a.send, { opcode: Wr.SEND, id: 1n, sges, flags: 0 })
  m.settle()
  b.change({ state: Qps.RTS, accessFlags: AccessFlags.values.REMOTE_WRITE })
  postReceive(b.receive, 5n, [])
  postSend(a.send, { opcode: Wr.WRITE_IMM, id: 2n, sges, flags: 0, remote: b.mr.address, rkey: b.mr.rkey })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 5 SUCCESS #1 < WRITE_WITH_IMM 2'],
  )
})

it('a WRITE with immediate data is not taken for an earlier one whose rkey was refused', () => {
  const { m, a, b } = ucPair()
  const { take } = watch(m)
  b.change({ state: Qps.RTS, accessFlags: AccessFlags.values.REMOTE_WRITE })
  const write = (id: bigint, rkey: number) => {
    const sges = [sgeOf(a.mr, 0, 10)]
    postSend(a.send, { opcode: Wr.WRITE_IMM, id, sges, flags: 0, remote: b.mr.address, rkey })
  }
  postReceive(b.receive, 5n, [])
  write(1n, UNKNOWN_KEY)
  write(2n, b.mr.rkey)
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 5 SUCCESS #1 < WRITE_WITH_IMM 2'],
  )
})

it('a SEND of UC is not dropped with an earlier WRITE that the receiver refuses', () => {
  const { m, a, b } = ucPair()
  const { take } = watch(m)
  const sges = [sgeOf(a.mr, 0, 10)]
  postReceive(b.receive, 5n, [sgeOf(b.mr, 0, 10)])
  postSend(a.send, { opcode: Wr.WRITE, id: 1n, sges, flags: 0, remote: b.mr.address, rkey: UNKNOWN_KEY })
  postSend(a.send, { opcode: Wr.SEND, id: 2n, sges, flags: 0 })
  m.settle()
  assert.deepEqual(
    take().filter(line => line.startsWith('completed')),
    ['completed receive 5 SUCCESS #1 < SEND 2'],
  )
})

it('reports a message without a receive in SQE, where a queue pair still receives', () => {
  const { m, a, b } = ucPair()
  const { take } = watch(m)
  postSend(b.send, { opcode: Wr.SEND, sges: [{ ...sgeOf(b.mr, 0, 10), lkey: UNKNOWN_KEY }] })
  m.settle()
  take()
  postSend(a.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(a.mr, 0, 10)], flags: 0 })
  m.settle()
  assert.ok(take().includes('receiver not ready'))
})
