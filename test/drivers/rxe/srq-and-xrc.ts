/*
 * SRQs and XRC objects for tests of the soft device.
 */
import { invokeNow } from '../../../src/core/index.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { XrcIniQp, XrcTgtQp } from '../../../src/spec/classes/qp/xrc_qp.ts'
import { Srq, XrcSrq } from '../../../src/spec/classes/srq.ts'
import { Xrcd } from '../../../src/spec/classes/xrcd.ts'
import { XrcdFlags } from '../../../src/spec/enums.ts'
import { cap, type Program, type TestCq, type TestQp, toInit, toRtr, toRts } from './machine.ts'
import { type MappedRing, mapRing } from './provider.ts'

interface Queue {
  readonly offset: bigint
  readonly size: number
}

export interface TestSrq {
  readonly program: Program
  readonly handle: number
  /** The SRQ number, which only an XRC SRQ has. */
  readonly number: number
  ring: MappedRing
}

const defaults = { maxWr: 7, maxSge: 2, limit: 0, userHandle: 0n }
const mapQueue = (p: Program, queue: Queue): MappedRing => mapRing(p.rings.at(queue.offset))

const testSrq = (p: Program, object: number | undefined, out: unknown): TestSrq => {
  const { queue, number } = out as { queue: Queue; number: number }
  return { program: p, handle: object!, number, ring: mapQueue(p, queue) }
}

export const makeSrq = (p: Program, overrides: Partial<typeof defaults> = {}): TestSrq => {
  const { object, out } = invokeNow(p.context, Srq, 'create', 0, { pd: p.pd, ...defaults, ...overrides }, p.caller)
  return testSrq(p, object, out)
}

export const makeXrcSrq = (p: Program, xrcd: number, cq: TestCq, pd = p.pd): TestSrq => {
  const { object, out } = invokeNow(p.context, XrcSrq, 'create', 0, { pd, xrcd, cq: cq.handle, ...defaults }, p.caller)
  return testSrq(p, object, out)
}

/** A resize replaces the ring. */
export const modifySrq = (srq: TestSrq, change: { maxWr?: number; limit?: number }): void => {
  const { context, caller } = srq.program
  const { out } = invokeNow(context, Srq, 'modify', srq.handle, change, caller)
  const { queue } = out as { queue?: Queue }
  if (queue !== undefined) srq.ring = mapQueue(srq.program, queue)
}
export const querySrq = ({ program: { context, caller }, handle }: TestSrq) =>
  invokeNow(context, Srq, 'query', handle, {}, caller).out

/** An RC queue pair whose receives come from `srq`. */
export const makeQpWithSrq = (p: Program, cq: TestCq, srq: TestSrq, limits = cap()): TestQp => {
  const args = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: limits, userHandle: 1n, srq: srq.handle }
  const { object, out } = invokeNow(p.context, RcQp, 'create', 0, args, p.caller)
  const { sendQueue } = out as unknown as { sendQueue: Queue }
  return {
    program: p,
    handle: object!,
    qpn: out.qpNum,
    cap: out.cap,
    send: mapQueue(p, sendQueue),
    // a resize of the SRQ replaces the ring
    get receive() {
      return srq.ring
    },
  }
}

/** Opens the XRC domain of file descriptor `file`, or a new domain without a file. Returns the handle. */
export const openDomain = (p: Program, file?: number, flags: number = XrcdFlags.values.CREAT): number =>
  invokeNow(p.context, Xrcd, 'create', 0, { flags, ...(file !== undefined && { file }) }, p.caller).object!
export const closeDomain = (p: Program, xrcd: number): void => {
  invokeNow(p.context, Xrcd, 'destroy', xrcd, {}, p.caller)
}

/** An XRC initiator queue pair. Its receive ring is unused: rxe's user library maps one unless there is an SRQ. */
export const makeInitiator = (p: Program, cq: TestCq): TestQp => {
  const args = { pd: p.pd, sendCq: cq.handle, cap: cap(), userHandle: 2n }
  const { object, out } = invokeNow(p.context, XrcIniQp, 'create', 0, args, p.caller)
  const { sendQueue, recvQueue } = out as unknown as Record<'sendQueue' | 'recvQueue', Queue>
  const [send, receive] = [mapQueue(p, sendQueue), mapQueue(p, recvQueue)]
  return { program: p, handle: object!, qpn: out.qpNum, cap: out.cap, send, receive }
}

/** An XRC target queue pair, which has no rings. */
interface Target {
  readonly program: Program
  readonly handle: number
  readonly qpn: number
}

/** Creates a target, or opens the target with number `qpNum`. */
export const makeTarget = (p: Program, xrcd: number, qpNum?: number, userHandle = 3n): Target => {
  const args = { xrcd, userHandle, ...(qpNum !== undefined && { qpNum }) }
  const { object, out } = invokeNow(p.context, XrcTgtQp, 'create', 0, args, p.caller)
  return { program: p, handle: object!, qpn: out.qpNum }
}
export const destroyTarget = ({ program: { context, caller }, handle }: Target) =>
  invokeNow(context, XrcTgtQp, 'destroy', handle, {}, caller).out
export const queryTarget = ({ program: { context, caller }, handle }: Target) =>
  invokeNow(context, XrcTgtQp, 'query', handle, {}, caller).out

/** A copy of `value` without the attributes `names`. */
const without = <T extends object, K extends keyof T>(value: T, ...names: K[]): Omit<T, K> =>
  Object.fromEntries(Object.entries(value).filter(([name]) => !names.includes(name as K))) as Omit<T, K>

const gid = (p: Program) => p.rxe.device.state.identity.gids[1]

/** Connects one end alone: it is in RESET. */
export const connectInitiator = (ini: TestQp, tgt: Target): void => {
  const rtr = without(toRtr(tgt.qpn, gid(tgt.program)), 'maxDestRdAtomic', 'minRnrTimer')
  for (const change of [toInit(), rtr, toRts()])
    invokeNow(ini.program.context, XrcIniQp, 'modify', ini.handle, change, ini.program.caller)
}

export const connectXrc = (ini: TestQp, tgt: Target, accessFlags?: number): void => {
  connectInitiator(ini, tgt)
  const targetRts = without(toRts(), 'retryCnt', 'rnrRetry', 'maxRdAtomic')
  const targetInit = toInit(accessFlags === undefined ? {} : { accessFlags })
  for (const change of [targetInit, toRtr(ini.qpn, gid(ini.program)), targetRts])
    invokeNow(tgt.program.context, XrcTgtQp, 'modify', tgt.handle, change, tgt.program.caller)
}
