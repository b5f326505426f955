/*
 * Congestion of RoCEv2 networks (InfiniBand Architecture Specification, annex A17.9.3): a connected queue pair answers
 * packets that a switch has marked (ECN "congestion experienced") with a congestion notification packet, CNP, and with
 * rate control (dcqcn.ts) slows down when a CNP arrives. Without rate control, CNPs are counted and ignored, as in
 * Linux's rxe. Messages to local queue pairs meet no switch and are not slowed.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { CNP_INTERVAL } from '../../../spec/congestion.ts'
import { QpState } from '../../../spec/enums.ts'
import { CNP_RESERVED_BYTES, ICRC_BYTES } from '../../../spec/wire/headers.ts'
import { CNP } from '../../../spec/wire/opcodes.ts'
import { Service } from '../../../spec/wire/services.ts'
import type { Arena } from '../../wire/arena.ts'
import { BTH_BYTES, bthOpcode, putBth, setBthBecn } from '../../wire/bth.ts'
import { QP, RespFlag } from '../fields.ts'
import { acceptRun, openRun } from '../run.ts'
import { type EngineState, pkeyOf } from '../state.ts'
import { setTimer } from '../timers.ts'
import { schedule } from '../transmit-queue.ts'
import { allowance, cutRate, nextSend, spend } from './dcqcn.ts'

const { RTR, ERR } = QpState.values

const CNP_BYTES = BTH_BYTES + CNP_RESERVED_BYTES + ICRC_BYTES

export const isConnected = (service: number): boolean => service !== Service.UD && service !== Service.RAW

/** `count` packets from `peer`, the first at `at` of `arena`, arrived marked; the engine has handled them. */
export const onMarked = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  count: number,
  peer: number,
  now: number,
): void => {
  s.counters.ecnMarked += count
  const w = s.rows
  const base = row * QP.WORDS
  const state = w[base + QP.STATE]
  if (state < RTR || state === ERR || !isConnected(w[base + QP.SERVICE])) return
  if (peer < 0 || peer !== w[base + QP.PEER] || bthOpcode(arena.view, at) === CNP) return
  if (row >= s.lastCnp.length) growLastCnp(s, row)
  if (now - s.lastCnp[row] < CNP_INTERVAL) return
  s.lastCnp[row] = now
  w[base + QP.RESP_FLAGS] |= RespFlag.CNP_DUE
  schedule(s, row)
}

const growLastCnp = (s: EngineState, row: number): void => {
  const larger = new Float64Array(row + Math.max(16, row >> 3)).fill(Number.NEGATIVE_INFINITY)
  larger.set(s.lastCnp)
  s.lastCnp = larger
}

/** Sends the CNP that is due; false if the port is full. */
export const sendCnp = (s: EngineState, base: number): boolean => {
  const w = s.rows
  if (openRun(s, CNP_BYTES, w[base + QP.FLOW], 1) === 0) return false
  const at = s.result.runAt
  const { bytes, view } = s.sink!.arena
  putBth(view, at, CNP, 0, pkeyOf(s, base), w[base + QP.DEST_QPN], 0)
  setBthBecn(view, at)
  bytes.fill(0, at + BTH_BYTES, at + BTH_BYTES + CNP_RESERVED_BYTES)
  acceptRun(s, 1, CNP_BYTES, CNP_BYTES)
  w[base + QP.RESP_FLAGS] &= ~RespFlag.CNP_DUE
  s.counters.cnpSent++
  return true
}

/** A CNP for a connected queue pair has arrived from its peer. */
export const onCnp = (s: EngineState, row: number, now: number): void => {
  if (s.rates === undefined) {
    s.counters.cnpIgnored++
    return
  }
  s.counters.cnpHandled++
  cutRate(s.rates, row, now)
}

/** Before a row is polled: sets `s.paceLeft`, the bytes that its rate allows. Only with rate control. */
export const openRate = (s: EngineState, row: number, now: number): void => {
  s.paceOpened = allowance(s.rates!, row, now)
  s.paceLeft = s.paceOpened
}

/** After a row was polled: counts what it has sent. If its rate allows no more now, it is polled again in time. */
export const closeRate = (s: EngineState, row: number, now: number): void => {
  const opened = s.paceOpened
  if (opened === Number.POSITIVE_INFINITY) return
  if (s.paceLeft < opened) spend(s.rates!, row, opened - s.paceLeft, now)
  if (s.paceLeft <= 0) setTimer(s.paceTimers, row, nextSend(s.rates!, row))
  s.paceLeft = Number.POSITIVE_INFINITY
}

/** Of `packets` packets of `size` bytes: those that the polled row's rate allows, at least one. */
export const withinRate = (s: EngineState, packets: number, size: number): number =>
  s.paceLeft >= packets * size ? packets : Math.max(1, Math.ceil(s.paceLeft / size))
