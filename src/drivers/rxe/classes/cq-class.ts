/*
 * Class `cq` of the soft device: completion queues as rings that the program maps (R19, R22). Core arms them and counts
 * completion events.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import { requireOpen } from '../../../core/dispatch/invoke.ts'
import { affiliate, completed, raiseObjectEvent, shareArming } from '../../../core/events/events.ts'
import { mmapInfo } from '../../../core/memory/rings.ts'
import type { Affiliation, CallContext } from '../../../core/model.ts'
import { createCause } from '../../../spec/check/causes.ts'
import { Cq } from '../../../spec/classes/cq.ts'
import { DciQp, DctQp } from '../../../spec/classes/qp/dc_qp.ts'
import { RcQp } from '../../../spec/classes/qp/rc_qp.ts'
import { XrcIniQp, XrcTgtQp } from '../../../spec/classes/qp/xrc_qp.ts'
import { RxeAttributes } from '../../../spec/drivers/rxe.ts'
import { AsyncEventType, CqFlags, CqKind, QpState } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import type { ObjectClass } from '../../../spec/schema/schema.ts'
import { Completion, type Completions } from '../../../transport/engine/types.ts'
import { Limits } from '../attributes.ts'
import { isInProcess, ringMemoryOf } from '../context.ts'
import { type CqRing, createCqRing, pushCompletion, resizeCqRing } from '../rings/completion-ring.ts'
import { type CqObject, openersOf, type RxeState, stateOf } from '../state.ts'
import { tapCompletion } from '../taps.ts'

const { CQ_ERR, QP_FATAL } = AsyncEventType.values
const { SQE, ERR } = QpState.values

const { ENTRIES, COUNTING } = CqKind.values
const { IGNORE_OVERRUN } = CqFlags.values
const noThreshold = { count: 0, period: 0 }

const requireCqe = (call: CallContext, method: string, cqe: number): void => {
  const { maxCqe } = stateOf(call).limits
  if (cqe > maxCqe)
    throw new CallError('EINVAL', `cq.${method}: attribute cqe: ${cqe} is above ${maxCqe}, the device's max_cqe`)
}

/** `--torment` may limit a CQ to the requested entries, although its ring has more slots. */
const limitEntries = (call: CallContext, cq: CqObject, cqe: number): void => {
  const { torment } = stateOf(call)
  const { state } = cq
  if (torment !== undefined && state.kind !== COUNTING)
    state.ring = { ...state.ring, capacity: torment.entriesOf(cq, cqe, state.ring.capacity) }
}

/**
 * Calls `answer` once the engine has all requests that were posted before the call. The promise rejects with CallError
 * EIO if the context was closed or the device removed meanwhile.
 */
const afterCatchUp = <T>(call: CallContext, answer: () => T): T | Promise<T> => {
  const caughtUp = stateOf(call).catchUpAll(isInProcess(call.context))
  if (caughtUp === undefined) return answer()
  return caughtUp.then(() => {
    requireOpen(call)
    return answer()
  })
}

export const cqClass = driverClass<typeof Cq, CqRing, typeof RxeAttributes.cq>(
  Cq,
  {
    create(call, object, { cqe, userHandle, channel, compVector, flags = 0, asyncFd, kind = ENTRIES }) {
      if ((flags & ~IGNORE_OVERRUN) !== 0)
        throw new CallError(
          'EOPNOTSUPP',
          `cq.create: attribute flags: 0x${flags.toString(16)}: the device knows only IGNORE_OVERRUN (0x${IGNORE_OVERRUN})`,
        )
      requireCqe(call, 'create', cqe)
      if (compVector >= Limits.compVectors)
        throw new CallError(
          'EINVAL',
          `cq.create: attribute compVector: ${compVector}: the device has vectors 0 to ${Limits.compVectors - 1}`,
        )
      const state = createCqRing(ringMemoryOf(call.context), kind === COUNTING ? 0 : cqe, kind, compVector, flags !== 0)
      object.state = state
      limitEntries(call, object, cqe)
      state.number = stateOf(call).cqs.add(object)
      affiliate(object, userHandle, { channel, asyncFd })
      if (channel !== undefined) shareArming(object)
      return { cqe: state.ring.capacity, queue: mmapInfo(state.ring) }
    },

    query(call, { state, events }) {
      return afterCatchUp(call, () => {
        const { ring, kind, completions, errors, compVector } = state
        const { count, period } = events?.state?.threshold ?? noThreshold
        const counts = { completions: BigInt(completions), errors: BigInt(errors) }
        return { cqe: ring.capacity, kind, ...counts, compVector, count, period }
      })
    },

    modify(call, object, args, core) {
      const { cqe, ...moderation } = args
      const { state } = object
      if (cqe === undefined && moderation.count === undefined && moderation.period === undefined)
        throw new CallError('EINVAL', 'cq.modify: there is nothing to change: give cqe, count or period')
      if (cqe === undefined) {
        core(call, object, args)
        return { cqe: state.ring.capacity }
      }
      requireCqe(call, 'modify', cqe)
      if (state.kind === COUNTING)
        throw new CallError('EINVAL', 'cq.modify: attribute cqe: a queue that counts has no entries')
      return afterCatchUp(call, () => {
        const rings = ringMemoryOf(call.context)
        const old = resizeCqRing(rings, state, cqe)
        if (!old)
          throw new CallError(
            'EINVAL',
            `cq.modify: attribute cqe: ${cqe} is less than the completions that wait to be polled`,
          )
        rings.free(old)
        limitEntries(call, object, cqe)
        core(call, object, moderation)
        return { cqe: state.ring.capacity, queue: mmapInfo(state.ring) }
      })
    },

    destroy(call, object, args, core) {
      stateOf(call).cqs.remove(object.state.number)
      ringMemoryOf(call.context).free(object.state.ring)
      return core(call, object, args)
    },
  },
  RxeAttributes.cq,
)

/** Called after each completion that is written to a CQ; `events`: where the CQ sends its events. */
export type Notify = (events: Affiliation, solicited: boolean, cq: CqObject) => void

/** The words that a program sees of a completion, instead of the device's. */
export type ProgramWords = (words: Uint32Array) => Uint32Array

/**
 * The engine's `Completions`. If a CQ overruns, its program gets one CQ_ERR event, and later completions are lost. The
 * queue pairs of lost completions are recorded for `failQps`. If the CQ ignores overruns, completions that find no room
 * are lost without an error.
 */
export const cqCompletions = (
  device: RxeState,
  notify: Notify = completed,
  programWords?: ProgramWords,
): Completions => ({
  push(number, words, solicited) {
    const cq = device.cqs.get(number)
    const { requests } = device.taps
    const hadOverrun = cq.state.hasOverrun
    const isWritten = !hadOverrun && pushCompletion(cq.state, programWords?.(words) ?? words, device.now)
    if (isWritten && cq.events) notify(cq.events, solicited, cq)
    else if (!isWritten && !cq.state.ignoresOverrun) loseCompletion(device, cq, words, hadOverrun)
    if (requests !== undefined) tapCompletion(device, requests, cq, words, solicited, isWritten)
  },
})

const loseCompletion = (device: RxeState, cq: CqObject, words: Uint32Array, hadOverrun: boolean): void => {
  const params = { cq: cq.handle, entries: cq.state.ring.capacity }
  const cause = createCause('COMPLETION_LOST', params)
  device.failingQps.push({ qpn: words[Completion.QPN], cause, isLost: true, isSend: false })
  if (hadOverrun) return
  device.failures.report({ kind: 'event', event: CQ_ERR, cause: createCause('CQ_FULL', params) }, cq.context)
  raiseObjectEvent(cq, CQ_ERR)
}

/**
 * Moves queue pairs to an error state. Those whose completions were lost get an event (IBA 9.9.2 class F, 11.6.3: local
 * work queue catastrophic error). Linux's rxe continues and loses completions.
 */
export const failQps = (device: RxeState): void => {
  const { failingQps } = device
  for (let failing = failingQps.pop(); failing !== undefined; failing = failingQps.pop()) {
    const { qpn, cause, isLost, isSend } = failing
    const row = device.qpns.rowOf(qpn)
    const qp = row < 0 ? undefined : device.qps[row]
    if (qp === undefined || device.engine().stateOf(row) === ERR) continue
    if (isLost) device.failures.event(row, QP_FATAL, cause)
    device.engine().modify(row, isSend && !isReliable(qp.class) ? SQE : ERR, {}, cause)
    if (isLost) for (const object of openersOf(qp)) raiseObjectEvent(object, QP_FATAL)
  }
}

const RELIABLE: readonly string[] = [RcQp.name, XrcIniQp.name, XrcTgtQp.name, DciQp.name, DctQp.name]
const isReliable = ({ name }: ObjectClass): boolean => RELIABLE.includes(name)

/**
 * The queue pair was reset or destroyed: its failed completions do not move it to ERR, nor, if it was QP 1, a later
 * queue pair with this number.
 */
export const forgetFailing = ({ failingQps }: RxeState, qpn: number): void => {
  for (let i = failingQps.length - 1; i >= 0; i--) if (failingQps[i]!.qpn === qpn) failingQps.splice(i, 1)
}
