/*
 * The same program on two machines that differ in nothing but the way messages pass, as packets or without (issue 4,
 * transport/loopback/slices.ts): steps that a property test makes up, and all that can be seen afterwards.
 */
import { invokeNow } from '../../../src/core/index.ts'
import type { Path } from '../../../src/phy/memory.ts'
import { Mw } from '../../../src/spec/classes/mw.ts'
import { RcQp } from '../../../src/spec/classes/rc_qp.ts'
import { UcQp } from '../../../src/spec/classes/uc_qp.ts'
import { RingHeader, SendWqe } from '../../../src/spec/drivers/rxe-rings.ts'
import { MwType } from '../../../src/spec/enums.ts'
import { WcOpcode, WrOpcode } from '../../../src/spec/work.ts'
import {
  cap,
  type Machine,
  machine,
  makeCq,
  type Program,
  program,
  type Region,
  register,
  type TestCq,
  toInit,
  toRtr,
  toRts,
} from './machine.ts'
import { pattern } from './pair.ts'
import { Flag, type Mapped, mapRing, pollAll, postReceive, postSend, type SendRequest, writeSend } from './provider.ts'
import { joinXrc, makeInitiator, makeSharedQp, makeSrq, makeTarget, makeXrcSrq, openDomain } from './shared.ts'

const wr = WrOpcode.values
const { RECV } = WcOpcode.values
export type Kind = 'RC' | 'UC' | 'XRC' | 'SRQ'

/**
 * From its memory: what is sent and read from, where others write, where answers and messages come, words. Which of an
 * answer and a peer's message comes first nobody says, so they do not meet.
 */
export const AREA = 0x3_0000
const SOURCE = 0
const TARGET = AREA
const ANSWERS = 2 * AREA
const MESSAGES = 3 * AREA
const WORDS = 4 * AREA
const BYTES = 4 * AREA + 0x1000

/** One request, in numbers that any value makes sense of. */
export interface Request {
  readonly opcode: number
  readonly length: number
  readonly from: number
  readonly to: number
  /** Data in two pieces, the first with this share of 16. */
  readonly split: number
  readonly inline: boolean
  readonly flags: number
  readonly value: number
  /** What is wrong with it: 0 nothing, 1 the remote key, 2 the range, 3 the local key, 4 an odd address. */
  readonly wrong: number
}

export type Step =
  | { readonly do: 'send'; readonly side: number; readonly requests: readonly Request[] }
  | {
      readonly do: 'receive'
      readonly side: number
      readonly count: number
      readonly length: number
      readonly split: number
      readonly wrong: boolean
    }
  | { readonly do: 'wait'; readonly microseconds: number }

export interface World {
  readonly kind: Kind
  /** Devices of the two sides. */
  readonly devices: readonly [number, number]
  readonly mtu: number
  readonly rnrRetry: number
  readonly reads: number
  readonly answers: number
  readonly steps: readonly Step[]
}

interface Side {
  readonly p: Program
  readonly sendCq: TestCq
  readonly receiveCq: TestCq
  readonly mr: Region
  readonly cls: typeof RcQp | undefined
  readonly handle: number
  readonly qpn: number
  readonly send: Mapped | undefined
  readonly receive: Mapped | undefined
  /** XRC: the number of the receiver's queue. */
  readonly srqn: number
  readonly window: number
  posted: number
}

/** Requests that a queue holds, and so what is done together at most. */
const DEPTH = 63

const connectedQp = (p: Program, cls: typeof RcQp, sendCq: TestCq, recvCq: TestCq) => {
  const wanted = {
    pd: p.pd,
    sendCq: sendCq.handle,
    recvCq: recvCq.handle,
    cap: cap({ maxSendWr: DEPTH, maxRecvWr: DEPTH }),
    userHandle: 1n,
  }
  const { object, out } = invokeNow(p.context, cls, 'create', 0, wanted, p.caller)
  const queues = out as unknown as Record<'sendQueue' | 'recvQueue', { offset: bigint; size: number }>
  return {
    handle: object!,
    qpn: out.qpNum,
    send: mapRing(p.rings.at(queues.sendQueue.offset)),
    receive: mapRing(p.rings.at(queues.recvQueue.offset)),
  }
}

const side = (m: Machine, kind: Kind, device: number, first: boolean): Side => {
  const p = program(m, device)
  const sendCq = makeCq(p, 255)
  const receiveCq = makeCq(p, 255)
  const mr = register(p, BYTES, 0x11f)
  pattern(mr.bytes.subarray(SOURCE, AREA), first ? 3 : 5)
  const window = invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values.TYPE_2 }, p.caller).out.rkey
  const base = { p, sendCq, receiveCq, mr, window, posted: 0, srqn: 0 }
  if (kind === 'XRC') {
    if (first) return { ...base, cls: undefined, ...makeInitiator(p, sendCq), receive: undefined }
    const domain = openDomain(p, 0x100)
    const srq = makeXrcSrq(p, domain, receiveCq)
    const target = makeTarget(p, domain)
    return {
      ...base,
      cls: undefined,
      handle: target.handle,
      qpn: target.qpn,
      send: undefined,
      receive: srq.ring,
      srqn: srq.number,
    }
  }
  const cls = (kind === 'UC' ? UcQp : RcQp) as typeof RcQp
  if (kind !== 'SRQ' || first) return { ...base, cls, ...connectedQp(p, cls, sendCq, receiveCq) }
  const srq = makeSrq(p, { maxWr: DEPTH })
  const qp = makeSharedQp(p, sendCq, srq)
  return { ...base, cls, handle: qp.handle, qpn: qp.qpn, send: qp.send, receive: srq.ring }
}

const connect = (world: World, sides: readonly [Side, Side]): void => {
  const { kind, mtu, rnrRetry, reads, answers } = world
  if (kind === 'XRC') {
    const as = (one: Side) => ({ program: one.p, handle: one.handle, qpn: one.qpn })
    joinXrc({ ...as(sides[0]), cap: cap(), send: sides[0].send!, receive: sides[0].send! }, as(sides[1]), 0x10f)
    return
  }
  const gid = (p: Program): Uint8Array => p.rxe.state.identity.gids[1]
  for (const [i, one] of sides.entries()) {
    const peer = sides[1 - i]
    const { maxDestRdAtomic, minRnrTimer, ...bare } = toRtr(peer.qpn, gid(peer.p), { pathMtu: mtu })
    const rtr = kind === 'UC' ? bare : { ...bare, maxDestRdAtomic: answers, minRnrTimer: 2 + i }
    const rts = kind === 'UC' ? { state: 3, sqPsn: 100 } : toRts({ rnrRetry, maxRdAtomic: reads })
    const access = kind === 'UC' ? 3 : 0x10f
    for (const change of [toInit({ accessFlags: access }), rtr, rts])
      invokeNow(one.p.context, one.cls!, 'modify', one.handle, change, one.p.caller)
  }
}

const pieces = (one: Side, at: number, length: number, split: number, wrong: boolean) => {
  const lkey = wrong ? one.mr.lkey ^ 0x5500 : one.mr.lkey
  const first = split === 0 ? length : Math.floor((length * split) / 16)
  const address = one.mr.address + at
  return split === 0
    ? [{ address, length, lkey }]
    : [
        { address, length: first, lkey: one.mr.lkey },
        { address: address + first, length: length - first, lkey },
      ]
}

const REACHING: readonly number[] = [wr.RDMA_READ, wr.ATOMIC_CMP_AND_SWP, wr.ATOMIC_FETCH_AND_ADD]

/** What a step asks for, in a ring. */
const requestOf = (one: Side, peer: Side, r: Request): SendRequest => {
  const atomic = r.opcode === wr.ATOMIC_CMP_AND_SWP || r.opcode === wr.ATOMIC_FETCH_AND_ADD
  const word = atomic || r.opcode === wr.ATOMIC_WRITE
  const length = word ? 8 : r.length
  const from = r.from % (AREA - length)
  const offset = word
    ? WORDS + (r.to % 64) * 8
    : (r.opcode === wr.RDMA_READ ? SOURCE : TARGET) + (r.to % (AREA - length))
  const outside = r.wrong === 2 ? BYTES - offset : 0
  const odd = r.wrong === 4 ? 4 : 0
  const key = r.opcode === wr.SEND_WITH_INV ? peer.window : r.value
  const inline = r.opcode === wr.ATOMIC_WRITE || (r.inline && length <= 64 && !REACHING.includes(r.opcode))
  return {
    opcode: r.opcode,
    id: BigInt(one.posted++),
    flags: (r.flags & (Flag.FENCE | Flag.SIGNALED | Flag.SOLICITED)) | (peer.srqn << 8),
    imm: key,
    remote: peer.mr.address + offset + outside + odd,
    rkey: r.wrong === 1 ? peer.mr.rkey ^ 0x300 : peer.mr.rkey,
    compareAdd: BigInt(r.value & 3),
    swap: BigInt(r.value >>> 8),
    ...(inline
      ? { inline: one.mr.bytes.slice(from, from + length) }
      : { sges: pieces(one, (REACHING.includes(r.opcode) ? ANSWERS : SOURCE) + from, length, r.split, r.wrong === 3) }),
  }
}

/** A FLUSH of the range that a request names; BIND_MW and LOCAL_INV of the side's own window. */
const postOther = (one: Side, peer: Side, r: Request): void => {
  const ring = one.send!
  const { opcode } = r
  writeSend(ring, { ...requestOf(one, peer, { ...r, inline: false }), imm: one.window })
  const at = RingHeader.DATA + ((ring.producer & ring.mask) << ring.log2)
  const { view } = ring
  view.setUint32(at + SendWqe.DMA_NUM_SGE, 0, true)
  if (opcode === wr.FLUSH) {
    view.setUint32(at + SendWqe.FLUSH_RKEY, peer.mr.rkey, true)
    view.setUint8(at + SendWqe.FLUSH_PLACEMENT, 1)
    view.setUint8(at + SendWqe.FLUSH_SELECTIVITY, 0)
  } else if (opcode === wr.BIND_MW) {
    view.setBigUint64(at + SendWqe.REMOTE, BigInt(one.mr.address), true)
    view.setBigUint64(at + SendWqe.MW_LENGTH, 64n, true)
    view.setUint32(at + SendWqe.MW_LKEY, one.mr.lkey, true)
    view.setUint32(at + SendWqe.MW_KEY, one.window, true)
    view.setUint32(at + SendWqe.MW_NEW_KEY, one.window, true)
    view.setUint32(at + SendWqe.MW_ACCESS, 2, true)
  }
  ring.producer = (ring.producer + 1) & ring.mask
}

const OTHERS: readonly number[] = [wr.FLUSH, wr.BIND_MW, wr.LOCAL_INV]

const doStep = (m: Machine, sides: readonly [Side, Side], step: Step): void => {
  if (step.do === 'wait') {
    const until = m.now + step.microseconds
    while (Math.min(...m.devices.map(device => device.nextTimeout())) <= until) m.tick()
    m.now = until
    return
  }
  const one = sides[step.side]
  if (step.do === 'receive') {
    if (one.receive === undefined) return
    for (let i = 0; i < step.count; i++) {
      const at = MESSAGES + (one.posted % 8) * 0x1000
      if (!postReceive(one.receive, BigInt(one.posted++), pieces(one, at, step.length, step.split, step.wrong))) return
    }
    return
  }
  if (one.send === undefined) return
  for (const request of step.requests) {
    if (((one.send.producer + 1) & one.send.mask) === one.send.consumer) break
    // what is done locally may be done before what was posted earlier has been answered: here it has
    const isLocal = request.opcode === wr.BIND_MW || request.opcode === wr.LOCAL_INV
    if (isLocal && one.send.producer !== one.send.consumer) continue
    if (OTHERS.includes(request.opcode)) postOther(one, sides[1 - step.side], request)
    else postSend(one.send, requestOf(one, sides[1 - step.side], request))
  }
  m.settle()
}

/** Keys and numbers of objects are alike on both machines; addresses too. */
const seenOf = (one: Side) => {
  // where a queue has both, it is nobody's business which of the two directions was faster
  const [mixed, receives] = [pollAll(one.sendCq.ring), pollAll(one.receiveCq.ring)]
  const sent = mixed.filter(({ opcode }) => (opcode & RECV) === 0)
  return {
    sends: sent.map(({ id, status, opcode, bytes, qpn }) => [id, status, opcode, bytes, qpn]),
    receives: [...receives, ...mixed.filter(({ opcode }) => (opcode & RECV) !== 0)],
    events: one.p.async.queue.splice(0).map(({ type }) => type),
    state: one.cls && invokeNow(one.p.context, one.cls, 'query', one.handle, {}, one.p.caller).out.state,
  }
}

const ALIKE = ['sends', 'receives', 'sentRnr', 'receivedRnr', 'rnrRetryExceeded', 'retryExceeded', 'retries'] as const

/** Runs a world on a machine of one kind; all that is seen, step by step, and runs of packets that were sent. */
export const play = (world: World, path: Path) => {
  const m = machine(2, '', path)
  const sides = [side(m, world.kind, world.devices[0], true), side(m, world.kind, world.devices[1], false)] as const
  connect(world, sides)
  let runs = 0
  for (const { state } of m.devices) {
    const { commit } = state.port
    state.port.commit = (...run) => {
      runs++
      commit(...run)
    }
  }
  const seen = world.steps.map(step => {
    doStep(m, sides, step)
    return sides.map(seenOf)
  })
  const engines = m.devices.map(({ state }) => state.engine().counters)
  const counters = engines.map(all => Object.fromEntries(ALIKE.map(name => [name, all[name]])))
  const all = m.devices.map(({ state }) => ({ ...state.engine().counters, ...state.port.counters }))
  const psns = sides.map(
    one => one.cls && m.devices[world.devices[sides.indexOf(one)]].state.engine().query(rowOf(one)),
  )
  const memory = sides.map(({ mr }) => Buffer.from(mr.bytes))
  for (const { p } of sides) p.close()
  m.settle()
  return { seen, memory, counters, all, psns, runs }
}

const rowOf = (one: Side): number => one.p.rxe.state.qpns.rowOf(one.qpn)
