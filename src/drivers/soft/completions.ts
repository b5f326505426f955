/*
 * The engine's `Completions` on the soft device's CQs, and queue pairs that fail because of a CQ or a fault rule.
 */
import { completed, raiseObjectEvent } from '../../core/events/events.ts'
import type { Affiliation } from '../../core/model.ts'
import { createCause } from '../../spec/check/causes.ts'
import { DciQp, DctQp } from '../../spec/classes/qp/dc_qp.ts'
import { RcQp } from '../../spec/classes/qp/rc_qp.ts'
import { XrcIniQp, XrcTgtQp } from '../../spec/classes/qp/xrc_qp.ts'
import { AsyncEventType, QpState } from '../../spec/enums.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'
import { Completion, type Completions } from '../../transport/engine/types.ts'
import { pushCompletion } from './completion-queue.ts'
import { type CqObject, openersOf, type SoftState } from './state.ts'
import { tapCompletion } from './taps.ts'

const { CQ_ERR, QP_FATAL } = AsyncEventType.values
const { SQE, ERR } = QpState.values

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
  device: SoftState,
  notify: Notify = completed,
  programWords?: ProgramWords,
): Completions => ({
  push(number, words, solicited) {
    const cq = device.cqs.get(number)
    const { requests } = device.taps
    const seen = cq.state.showsAllFields ? programWords?.(words) : undefined
    const isWritten = writeCompletion(device, cq, seen ?? words, solicited, notify)
    if (requests !== undefined) tapCompletion(device, requests, cq, words, solicited, isWritten)
  },
})

/** Writes a completion to a CQ, with its event; false if it is lost. */
export const writeCompletion = (
  device: SoftState,
  cq: CqObject,
  words: Uint32Array,
  solicited: boolean,
  notify: Notify = completed,
): boolean => {
  const hadOverrun = cq.state.hasOverrun
  const isWritten = !hadOverrun && pushCompletion(cq.state, words, device.now)
  if (isWritten && cq.events) notify(cq.events, solicited, cq)
  else if (!isWritten && !cq.state.ignoresOverrun) loseCompletion(device, cq, words, hadOverrun)
  return isWritten
}

const loseCompletion = (device: SoftState, cq: CqObject, words: Uint32Array, hadOverrun: boolean): void => {
  const params = { cq: cq.handle, entries: cq.state.capacity }
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
export const failQps = (device: SoftState): void => {
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
export const forgetFailing = ({ failingQps }: SoftState, qpn: number): void => {
  for (let i = failingQps.length - 1; i >= 0; i--) if (failingQps[i]!.qpn === qpn) failingQps.splice(i, 1)
}
