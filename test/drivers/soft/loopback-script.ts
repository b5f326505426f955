/*
 * Scripts for loopback-equivalence.test.ts: posts of two connected sides. `play` runs a script with packets or without,
 * and returns all results that a program can see.
 */
import { invokeNow } from '../../../src/core/index.ts'
import { Mw } from '../../../src/spec/classes/mw.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../src/spec/classes/qp/uc_qp.ts'
import { RingHeader, SendWqe } from '../../../src/spec/drivers/mapped-rings.ts'
import { AccessFlags, MwType, QpState } from '../../../src/spec/enums.ts'
import { SRQN_SHIFT, WcOpcode, WrOpcode } from '../../../src/spec/work.ts'
import type { Path } from '../../../src/transport/phy/memory/port.ts'
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
} from '../rxe/machine.ts'
import { pattern } from '../rxe/pair.ts'
import {
  Flag,
  type MappedRing,
  mapRing,
  pollAll,
  postReceive,
  postSend,
  type SendRequest,
  writeSend,
} from '../rxe/provider.ts'
import {
  connectXrc,
  makeInitiator,
  makeQpWithSrq,
  makeSrq,
  makeTarget,
  makeXrcSrq,
  openDomain,
} from '../rxe/srq-and-xrc.ts'

const wr = WrOpcode.values
const { RECV } = WcOpcode.values
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, MW_BIND, FLUSH_GLOBAL } = AccessFlags.values
const ACCESS = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | FLUSH_GLOBAL
export type Kind = 'RC' | 'UC' | 'XRC' | 'SRQ'

// Offsets in a side's memory. The order of responses and the peer's messages is unspecified, so no areas overlap.
const AREA_BYTES = 0x3_0000
/** Data that the side sends or the peer reads. */
const SOURCE = 0
/** Data that the peer writes. */
const TARGET = AREA_BYTES
/** Results of READs and atomics. */
const RESULTS = 2 * AREA_BYTES
/** Receive buffers. */
const MESSAGES = 3 * AREA_BYTES
/** Target of the peer's atomics. */
const WORDS = 4 * AREA_BYTES
const MEMORY_BYTES = 4 * AREA_BYTES + 0x1000

/** What is wrong with a request. ADDRESS: the address is not a multiple of 8. */
export const Mistake = { NONE: 0, RKEY: 1, RANGE: 2, LKEY: 3, ADDRESS: 4 } as const

/** Offsets wrap, so that the data stays within its area. */
export interface Request {
  readonly opcode: number
  readonly length: number
  readonly localOffset: number
  readonly remoteOffset: number
  /** How many sixteenths of the data are in the first of two SGEs; 0 for one SGE. */
  readonly split: number
  /** Inline data, if the operation allows it and the data has at most 64 bytes. */
  readonly inline: boolean
  /** Only FENCE, SIGNALED and SOLICITED have an effect. */
  readonly flags: number
  /** Immediate data, and the operands of atomics. */
  readonly value: number
  /** A value of `Mistake`. */
  readonly mistake: number
}

export type Step =
  | { readonly do: 'send'; readonly side: number; readonly requests: readonly Request[] }
  | {
      readonly do: 'receive'
      readonly side: number
      readonly count: number
      readonly length: number
      readonly split: number
      readonly hasWrongLkey: boolean
    }
  | { readonly do: 'wait'; readonly microseconds: number }

export interface Script {
  readonly kind: Kind
  readonly devices: readonly [number, number]
  /** A value of enum ibv_mtu. */
  readonly mtu: number
  readonly rnrRetry: number
  readonly maxRdAtomic: number
  readonly maxDestRdAtomic: number
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
  readonly send: MappedRing | undefined
  readonly receive: MappedRing | undefined
  /** Number of the side's XRC SRQ; 0 if it has none. */
  readonly srqn: number
  /** R_Key of a type 2 window. */
  readonly window: number
  /** wr_id of the next request or receive. */
  nextId: number
}

/** A descriptor of an open file (machine.ts). */
const XRCD_FILE = 0x100
/** Capacity of the queues of `rcOrUcQp`, and of the SRQ of kind 'SRQ'. */
const DEPTH = 63

const rcOrUcQp = (p: Program, cls: typeof RcQp, sendCq: TestCq, recvCq: TestCq) => {
  const args = {
    pd: p.pd,
    sendCq: sendCq.handle,
    recvCq: recvCq.handle,
    cap: cap({ maxSendWr: DEPTH, maxRecvWr: DEPTH }),
    userHandle: 1n,
  }
  const { object, out } = invokeNow(p.context, cls, 'create', 0, args, p.caller)
  const queues = out as unknown as Record<'sendQueue' | 'recvQueue', { offset: bigint; size: number }>
  return {
    handle: object!,
    qpn: out.qpNum,
    send: mapRing(p.rings.at(queues.sendQueue.offset)),
    receive: mapRing(p.rings.at(queues.recvQueue.offset)),
  }
}

/** With XRC the first side only sends, the second only receives. Only the second side may have an SRQ. */
const makeSide = (m: Machine, kind: Kind, device: number, isFirst: boolean): Side => {
  const p = program(m, device)
  const sendCq = makeCq(p, 255)
  const receiveCq = makeCq(p, 255)
  const mr = register(p, MEMORY_BYTES, ACCESS | MW_BIND)
  pattern(mr.bytes.subarray(SOURCE, AREA_BYTES), isFirst ? 3 : 5)
  const window = invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values.TYPE_2 }, p.caller).out.rkey
  const base = { p, sendCq, receiveCq, mr, window, nextId: 0, srqn: 0 }
  if (kind === 'XRC') {
    if (isFirst) return { ...base, cls: undefined, ...makeInitiator(p, sendCq), receive: undefined }
    const domain = openDomain(p, XRCD_FILE)
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
  if (kind !== 'SRQ' || isFirst) return { ...base, cls, ...rcOrUcQp(p, cls, sendCq, receiveCq) }
  const srq = makeSrq(p, { maxWr: DEPTH })
  const qp = makeQpWithSrq(p, sendCq, srq)
  return { ...base, cls, handle: qp.handle, qpn: qp.qpn, send: qp.send, receive: srq.ring }
}

const connect = (script: Script, sides: readonly [Side, Side]): void => {
  const { kind, mtu, rnrRetry, maxRdAtomic, maxDestRdAtomic } = script
  if (kind === 'XRC') {
    const qpOf = ({ p, handle, qpn }: Side) => ({ program: p, handle, qpn })
    const [{ send }] = sides
    connectXrc({ ...qpOf(sides[0]), cap: cap(), send: send!, receive: send! }, qpOf(sides[1]), ACCESS)
    return
  }
  const gid = (p: Program): Uint8Array => p.rxe.device.state.identity.gids[1]
  for (const [i, side] of sides.entries()) {
    const peer = sides[1 - i]
    const { maxDestRdAtomic: _, minRnrTimer: _timer, ...ucRtr } = toRtr(peer.qpn, gid(peer.p), { pathMtu: mtu })
    const rtr = kind === 'UC' ? ucRtr : { ...ucRtr, maxDestRdAtomic, minRnrTimer: 2 + i }
    const rts = kind === 'UC' ? { state: QpState.values.RTS, sqPsn: 100 } : toRts({ rnrRetry, maxRdAtomic })
    const access = kind === 'UC' ? LOCAL_WRITE | REMOTE_WRITE : ACCESS
    for (const change of [toInit({ accessFlags: access }), rtr, rts])
      invokeNow(side.p.context, side.cls!, 'modify', side.handle, change, side.p.caller)
  }
}

/** One or two SGEs; a wrong lkey is in the last SGE. */
const sgesOf = (side: Side, offset: number, length: number, split: number, hasWrongLkey: boolean) => {
  const lkey = hasWrongLkey ? side.mr.lkey ^ 0x5500 : side.mr.lkey
  const first = split === 0 ? length : Math.floor((length * split) / 16)
  const address = side.mr.address + offset
  return split === 0
    ? [{ address, length, lkey }]
    : [
        { address, length: first, lkey: side.mr.lkey },
        { address: address + first, length: length - first, lkey },
      ]
}

const READING_OPCODES: readonly number[] = [wr.RDMA_READ, wr.ATOMIC_CMP_AND_SWP, wr.ATOMIC_FETCH_AND_ADD]

const sendRequestOf = (side: Side, peer: Side, request: Request): SendRequest => {
  const { opcode, value, mistake } = request
  const isAtomic = opcode === wr.ATOMIC_CMP_AND_SWP || opcode === wr.ATOMIC_FETCH_AND_ADD
  const isWord = isAtomic || opcode === wr.ATOMIC_WRITE
  const length = isWord ? 8 : request.length
  const local = request.localOffset % (AREA_BYTES - length)
  const remote = isWord
    ? WORDS + (request.remoteOffset % 64) * 8
    : (opcode === wr.RDMA_READ ? SOURCE : TARGET) + (request.remoteOffset % (AREA_BYTES - length))
  const outside = mistake === Mistake.RANGE ? MEMORY_BYTES - remote : 0
  const misalignment = mistake === Mistake.ADDRESS ? 4 : 0
  const isReading = READING_OPCODES.includes(opcode)
  const isInline = opcode === wr.ATOMIC_WRITE || (request.inline && length <= 64 && !isReading)
  const area = isReading ? RESULTS : SOURCE
  return {
    opcode,
    id: BigInt(side.nextId++),
    flags: (request.flags & (Flag.FENCE | Flag.SIGNALED | Flag.SOLICITED)) | (peer.srqn << SRQN_SHIFT),
    imm: opcode === wr.SEND_WITH_INV ? peer.window : value,
    remote: peer.mr.address + remote + outside + misalignment,
    rkey: mistake === Mistake.RKEY ? peer.mr.rkey ^ 0x300 : peer.mr.rkey,
    compareAdd: BigInt(value & 3),
    swap: BigInt(value >>> 8),
    ...(isInline
      ? { inline: side.mr.bytes.slice(local, local + length) }
      : { sges: sgesOf(side, area + local, length, request.split, mistake === Mistake.LKEY) }),
  }
}

/** Posts a FLUSH of the request's range, or a BIND_MW or LOCAL_INV of the side's window. */
const postWithoutData = (side: Side, peer: Side, request: Request): void => {
  const ring = side.send!
  const { opcode } = request
  // LOCAL_INV has its R_Key in the field of immediate data
  writeSend(ring, { ...sendRequestOf(side, peer, { ...request, inline: false }), imm: side.window })
  const at = RingHeader.DATA + ((ring.producer & ring.mask) << ring.log2)
  const { view } = ring
  view.setUint32(at + SendWqe.DMA_NUM_SGE, 0, true)
  if (opcode === wr.FLUSH) {
    view.setUint32(at + SendWqe.FLUSH_RKEY, peer.mr.rkey, true)
    view.setUint8(at + SendWqe.FLUSH_PLACEMENT, 1) // global visibility
    view.setUint8(at + SendWqe.FLUSH_SELECTIVITY, 0) // the range
  } else if (opcode === wr.BIND_MW) {
    view.setBigUint64(at + SendWqe.REMOTE, BigInt(side.mr.address), true)
    view.setBigUint64(at + SendWqe.MW_LENGTH, 64n, true)
    view.setUint32(at + SendWqe.MW_LKEY, side.mr.lkey, true)
    view.setUint32(at + SendWqe.MW_KEY, side.window, true)
    view.setUint32(at + SendWqe.MW_NEW_KEY, side.window, true)
    view.setUint32(at + SendWqe.MW_ACCESS, REMOTE_WRITE, true)
  }
  ring.producer = (ring.producer + 1) & ring.mask
}

const WITHOUT_DATA: readonly number[] = [wr.FLUSH, wr.BIND_MW, wr.LOCAL_INV]

const wait = (m: Machine, microseconds: number): void => {
  const until = m.now + microseconds
  while (Math.min(...m.devices.map(device => device.nextTimeout())) <= until) m.tick()
  m.now = until
}

/** RNR timers are multiples of this number of microseconds (IBA table 45). */
const RNR_STEP = 10

/**
 * Waits until the time is a multiple of RNR_STEP, plus half a step for side 1. So timers of the two sides never expire
 * at the same time.
 */
const waitForPhaseOf = (m: Machine, sideNumber: number): void => {
  const phase = (sideNumber * RNR_STEP) / 2
  wait(m, (RNR_STEP + phase - (m.now % RNR_STEP)) % RNR_STEP)
}

const doStep = (m: Machine, sides: readonly [Side, Side], step: Step): void => {
  if (step.do === 'wait') {
    wait(m, step.microseconds)
    return
  }
  const side = sides[step.side]
  if (step.do === 'receive') {
    if (side.receive === undefined) return
    for (let i = 0; i < step.count; i++) {
      const buffer = MESSAGES + (side.nextId % 8) * 0x1000
      const sges = sgesOf(side, buffer, step.length, step.split, step.hasWrongLkey)
      if (!postReceive(side.receive, BigInt(side.nextId++), sges)) return
    }
    return
  }
  if (side.send === undefined) return
  waitForPhaseOf(m, step.side)
  for (const request of step.requests) {
    if (((side.send.producer + 1) & side.send.mask) === side.send.consumer) break
    // skipped while requests are outstanding, because a local operation may run before their ACKs
    const isLocal = request.opcode === wr.BIND_MW || request.opcode === wr.LOCAL_INV
    if (isLocal && side.send.producer !== side.send.consumer) continue
    const peer = sides[1 - step.side]
    if (WITHOUT_DATA.includes(request.opcode)) postWithoutData(side, peer, request)
    else postSend(side.send, sendRequestOf(side, peer, request))
  }
  m.settle()
}

/** The results of a side since the last call. */
const resultsOf = (side: Side) => {
  // a queue pair with an SRQ completes sends and receives to `sendCq`, in unspecified order
  const [mixed, receives] = [pollAll(side.sendCq.ring), pollAll(side.receiveCq.ring)]
  const sent = mixed.filter(({ opcode }) => (opcode & RECV) === 0)
  return {
    sends: sent.map(({ id, status, opcode, bytes, qpn }) => [id, status, opcode, bytes, qpn]),
    receives: [...receives, ...mixed.filter(({ opcode }) => (opcode & RECV) !== 0)],
    events: side.p.async.queue.splice(0).map(({ type }) => type),
    state: side.cls && invokeNow(side.p.context, side.cls, 'query', side.handle, {}, side.p.caller).out.state,
  }
}

/** Counters that are equal on both paths even if requests are refused. */
const EQUAL_COUNTERS = [
  'sends',
  'receives',
  'sentRnr',
  'receivedRnr',
  'rnrRetryExceeded',
  'retryExceeded',
  'retries',
] as const

/**
 * Runs a script on a new machine. `results` has the results of both sides after each step, `runs` is
 * the number of runs that the ports have sent.
 */
export const play = (script: Script, path: Path) => {
  const m = machine(2, { path })
  const { kind, devices } = script
  const sides = [makeSide(m, kind, devices[0], true), makeSide(m, kind, devices[1], false)] as const
  connect(script, sides)
  let runs = 0
  for (const {
    device: { state },
  } of m.devices) {
    const { commit } = state.port
    state.port.commit = (...run) => {
      runs++
      commit(...run)
    }
  }
  const results = script.steps.map(step => {
    doStep(m, sides, step)
    return sides.map(resultsOf)
  })
  const engines = m.devices.map(({ device: { state } }) => state.engine().counters)
  const equalCounters = engines.map(counters => Object.fromEntries(EQUAL_COUNTERS.map(name => [name, counters[name]])))
  const allCounters = m.devices.map(({ device: { state } }) => ({
    engine: { ...state.engine().counters },
    port: { ...state.port.counters },
  }))
  const queries = sides.map((side, i) => side.cls && m.devices[devices[i]].device.state.engine().query(rowOf(side)))
  const memory = sides.map(({ mr }) => Buffer.from(mr.bytes))
  for (const { p } of sides) p.close()
  m.settle()
  return { results, memory, equalCounters, allCounters, queries, runs }
}

const rowOf = ({ p, qpn }: Side): number => p.rxe.device.state.qpns.rowOf(qpn)
