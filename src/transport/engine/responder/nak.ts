/*
 * NAKs (InfiniBand Architecture Specification, volume 1, clauses 9.7.5.2 and 9.9.3): for a missing packet, for a
 * missing receive WQE (RNR, send-write.ts), or for a fatal error, which moves the queue pair to ERR. A fatal error is
 * reported to the responder's program by the completion of the current receive WQE, or by an asynchronous event. An
 * unreliable service sends no NAKs and drops the message (9.8.2.2, error class D).
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import type { Cause } from '../../../spec/check/causes.ts'
import { AsyncEventType, QpState } from '../../../spec/enums.ts'
import { nakCode, syndromeKind } from '../../../spec/wire/headers.ts'
import { reliableService } from '../../../spec/wire/services.ts'
import { SendKind, WcStatus } from '../../../spec/work.ts'
import { takeCause } from '../causes.ts'
import { enterError, failReceive } from '../completer/completion.ts'
import { DmaKind, DmaResult, flushDma } from '../dma.ts'
import { QP, RES, RespFlag } from '../fields.ts'
import { psnDifference } from '../psn.ts'
import type { EngineState } from '../state.ts'
import { schedule } from '../transmit-queue.ts'

const { RTR, ERR } = QpState.values
const { LOC_PROT_ERR, LOC_ACCESS_ERR, REM_INV_REQ_ERR } = WcStatus.values
const { QP_FATAL, QP_REQ_ERR, QP_ACCESS_ERR } = AsyncEventType.values

export const NakSyndrome = {
  SEQUENCE_ERROR: syndromeKind.NAK | nakCode.PSN_SEQUENCE,
  INVALID_REQUEST: syndromeKind.NAK | nakCode.INVALID_REQUEST,
  REMOTE_ACCESS: syndromeKind.NAK | nakCode.REMOTE_ACCESS,
  REMOTE_OPERATION: syndromeKind.NAK | nakCode.REMOTE_OPERATION,
} as const
const { SEQUENCE_ERROR, INVALID_REQUEST, REMOTE_ACCESS, REMOTE_OPERATION } = NakSyndrome

/** Handles a packet whose PSN is ahead of the expected PSN. Only one NAK is sent until the expected PSN arrives. */
export const onGap = (s: EngineState, row: number): void => {
  s.counters.outOfSequence++
  if ((s.rows[row * QP.WORDS + QP.RESP_FLAGS] & RespFlag.NAK_SENT) === 0) scheduleNak(s, row, SEQUENCE_ERROR)
}

/**
 * Schedules a NAK or RNR NAK for the expected PSN. If a memory access failed because the process has ended, nothing is
 * sent, and a NAK that is due is dropped: the queue pair will be destroyed.
 */
export const scheduleNak = (s: EngineState, row: number, syndrome: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  if (syndrome === REMOTE_OPERATION && s.env.memory.hasProcessEnded()) {
    w[base + QP.RESP_FLAGS] &= ~RespFlag.NAK_DUE
    return
  }
  w[base + QP.RESP_FLAGS] |= RespFlag.NAK_DUE | RespFlag.NAK_SENT
  w[base + QP.RESP_NAK_SYNDROME] = syndrome
  w[base + QP.RESP_NAK_PSN] = w[base + QP.RESP_EPSN]
  w[base + QP.RESP_NAK_MSN] = w[base + QP.RESP_MSN]
  schedule(s, row)
}

/** The asynchronous event for a fatal error. */
const eventFor = (syndrome: number): number => {
  if (syndrome === INVALID_REQUEST) return QP_REQ_ERR
  return syndrome === REMOTE_ACCESS ? QP_ACCESS_ERR : QP_FATAL
}

/** Schedules a NAK for a fatal error, and reports the cause. */
const scheduleFatalNak = (s: EngineState, row: number, syndrome: number, cause: Cause): void => {
  s.env.causes?.nak(row, s.rows[row * QP.WORDS + QP.RESP_EPSN], cause)
  scheduleNak(s, row, syndrome)
}

/** UC: drops the current message and all packets until the next message. The next message uses the same receive WQE. */
export const dropMessage = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.RESP_MESSAGE] = SendKind.NONE
  w[base + QP.RESP_FLAGS] |= RespFlag.DROPPING
  s.counters.dropped++
}

/**
 * Handles a fatal error of a request: schedules a NAK and moves the queue pair to ERR. The current receive WQE
 * completes with `status`; if there is none, an event is raised. An unreliable service drops the message instead,
 * except for LOC_PROT_ERR.
 */
export const nakFatal = (s: EngineState, row: number, syndrome: number, status: number, cause: Cause): void => {
  const base = row * QP.WORDS
  flushDma(s) // the NAK acknowledges earlier requests, so their data must be written
  // The DMA has failed: the NAK for its earlier PSN is due.
  if (s.rows[base + QP.STATE] === ERR) return
  if (reliableService[s.rows[base + QP.SERVICE]] === 0) {
    // An error in the receive buffer moves a queue pair of any service to ERR.
    if (status === LOC_PROT_ERR) failReceive(s, row, status, cause)
    else {
      s.env.causes?.dropped(row, cause)
      dropMessage(s, row)
    }
    return
  }
  scheduleFatalNak(s, row, syndrome, cause)
  if (failReceive(s, row, status, cause)) return
  s.env.events.raise(row, eventFor(syndrome), cause)
}

export const nakInvalidRequest = (s: EngineState, row: number, cause: Cause): void =>
  nakFatal(s, row, INVALID_REQUEST, REM_INV_REQ_ERR, cause)

/** Drops the unsent responses to requests from `psn` on: they would acknowledge the request with `psn`. */
const dropResponsesFrom = (s: EngineState, base: number, psn: number): void => {
  const w = s.rows
  const p = s.pool
  let resource = w[base + QP.RESP_RESOURCES]
  if (w[base + QP.RESP_PENDING] === 0) return
  for (let left = w[base + QP.RESP_RESOURCE_COUNT]; left > 0; left--, resource += RES.WORDS) {
    if (p[resource + RES.KIND] === SendKind.NONE || p[resource + RES.NEXT] >= p[resource + RES.END]) continue
    if (psnDifference(p[resource + RES.FIRST_PSN], psn) < 0) continue
    p[resource + RES.KIND] = SendKind.NONE
    w[base + QP.RESP_PENDING]--
  }
}

/**
 * Handles a failed pending DMA of a SEND or WRITE. The NAK is for the first packet of the DMA, so later packets are not
 * acknowledged, also not by the response to a later READ. Arguments: see `DmaFailed`.
 */
export const onRequestDmaFailed = (
  s: EngineState,
  row: number,
  kind: number,
  result: number,
  psn: number,
  msn: number,
): void => {
  const cause = takeCause(s)
  const w = s.rows
  const base = row * QP.WORDS
  if (w[base + QP.STATE] < RTR) return
  if (reliableService[w[base + QP.SERVICE]] === 0) {
    if (kind === DmaKind.RECEIVE) failReceive(s, row, LOC_PROT_ERR, cause)
    else if (w[base + QP.RESP_MESSAGE] === SendKind.WRITE) {
      s.env.causes?.dropped(row, cause)
      dropMessage(s, row)
    }
    return
  }
  const isOfCurrentMessage = w[base + QP.RESP_MSN] === msn
  dropResponsesFrom(s, base, psn)
  w[base + QP.RESP_FLAGS] &= ~RespFlag.ACK_DUE
  w[base + QP.RESP_EPSN] = psn
  w[base + QP.RESP_MSN] = msn
  const isRkeyRefused = kind === DmaKind.WRITE && result === DmaResult.NO_REGION
  const syndrome = isRkeyRefused ? REMOTE_ACCESS : REMOTE_OPERATION
  scheduleFatalNak(s, row, syndrome, cause)
  // The receive WQE of a later message is flushed.
  if (!isOfCurrentMessage) enterError(s, row, cause)
  else if (failReceive(s, row, kind === DmaKind.RECEIVE ? LOC_PROT_ERR : LOC_ACCESS_ERR, cause)) return
  s.env.events.raise(row, eventFor(syndrome), cause)
}

/**
 * Handles a fatal error that is found while responses are sent: schedules a NAK with `psn` and `msn`, moves the QP to
 * ERR. A QP in ERR still sends responses: the NAK replaces that of a later request.
 */
export const nakAt = (s: EngineState, row: number, psn: number, msn: number, syndrome: number, cause: Cause): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.RESP_EPSN] = psn
  w[base + QP.RESP_MSN] = msn
  w[base + QP.RESP_FLAGS] &= ~RespFlag.ACK_DUE
  scheduleFatalNak(s, row, syndrome, cause)
  if (w[base + QP.STATE] === ERR) return
  enterError(s, row, cause)
  s.env.events.raise(row, eventFor(syndrome), cause)
}

/**
 * Schedules a NAK for a duplicate whose memory can no longer be accessed, unless an ACK or NAK is due. The queue pair
 * stays as it is: a duplicate that was late in the network is of a request that the peer has completed, so it ignores
 * the NAK.
 */
export const nakDuplicate = (s: EngineState, row: number, psn: number, msn: number, syndrome: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  if ((w[base + QP.RESP_FLAGS] & (RespFlag.NAK_DUE | RespFlag.ACK_DUE)) !== 0 || s.env.memory.hasProcessEnded()) return
  w[base + QP.RESP_FLAGS] |= RespFlag.NAK_DUE
  w[base + QP.RESP_NAK_SYNDROME] = syndrome
  w[base + QP.RESP_NAK_PSN] = psn
  w[base + QP.RESP_NAK_MSN] = msn
  schedule(s, row)
}
