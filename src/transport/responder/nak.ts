/*
 * How the responder says no: a NAK for the expected PSN, once per gap, or one that ends the queue pair (InfiniBand
 * Architecture Specification, volume 1, clauses 9.7.5.2 and 9.9.3). A receive request in use tells the program why;
 * without one an asynchronous event does. An unreliable service has no NAKs: it passes the message over (9.8.2.2, error
 * class D). Whether to say no is decided in responder.ts, rd-atomic.ts and responses.ts.
 */
import type { Cause } from '../../spec/causes.ts'
import { AsyncEventType, QpState } from '../../spec/enums.ts'
import { nakCode, syndromeKind } from '../../spec/wire/headers.ts'
import { reliableService } from '../../spec/wire/services.ts'
import { SendKind, WcStatus } from '../../spec/work.ts'
import { takeCause } from '../causes.ts'
import { enterError, failReceive } from '../completer/completion.ts'
import { DmaKind, DmaResult, flushDma } from '../dma.ts'
import { QP, RespFlag } from '../fields.ts'
import { type EngineState, schedule } from '../state.ts'

const { RTR, ERR } = QpState.values
const { LOC_PROT_ERR, LOC_ACCESS_ERR, REM_INV_REQ_ERR } = WcStatus.values
const { QP_FATAL, QP_REQ_ERR, QP_ACCESS_ERR } = AsyncEventType.values

/** Syndromes of the NAKs. */
export const NakSyndrome = {
  SEQUENCE_ERROR: syndromeKind.NAK | nakCode.PSN_SEQUENCE,
  INVALID_REQUEST: syndromeKind.NAK | nakCode.INVALID_REQUEST,
  REMOTE_ACCESS: syndromeKind.NAK | nakCode.REMOTE_ACCESS,
  REMOTE_OPERATION: syndromeKind.NAK | nakCode.REMOTE_OPERATION,
} as const
const { SEQUENCE_ERROR, INVALID_REQUEST, REMOTE_ACCESS, REMOTE_OPERATION } = NakSyndrome

/** A PSN ahead of the expected one: one NAK per gap. */
export const onGap = (s: EngineState, row: number): void => {
  s.counters.outOfSequence++
  if ((s.rows[row * QP.WORDS + QP.RESP_FLAGS] & RespFlag.NAK_SENT) === 0) nak(s, row, SEQUENCE_ERROR)
}

/**
 * A NAK for the expected PSN is to go out; until that comes, gaps are passed over in silence. For a program that has
 * ended nobody speaks: a peer hears as much as of a machine that is gone, whether its request comes before the queue
 * pair goes or after.
 */
export const nak = (s: EngineState, row: number, syndrome: number): void => {
  if (syndrome === REMOTE_OPERATION && s.env.memory.vanished()) return
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.RESP_FLAGS] |= RespFlag.NAK_DUE | RespFlag.NAK_SENT
  w[base + QP.RESP_NAK_SYNDROME] = syndrome
  w[base + QP.RESP_NAK_PSN] = w[base + QP.RESP_EPSN]
  w[base + QP.RESP_NAK_MSN] = w[base + QP.RESP_MSN]
  schedule(s, row)
}

/** A NAK that ends the queue pair. */
const fatalNak = (s: EngineState, row: number, syndrome: number, cause: Cause): void => {
  s.env.causes?.nak(row, s.rows[row * QP.WORDS + QP.RESP_EPSN], cause)
  nak(s, row, syndrome)
}

/**
 * Unreliable: the message under way is passed over, and whatever comes until another one begins. A receive request that
 * it had taken serves the next one.
 */
export const dropMessage = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.RESP_MESSAGE] = SendKind.NONE
  w[base + QP.RESP_FLAGS] |= RespFlag.DROPPING
  s.counters.dropped++
}

/** A fatal NAK. The receive request in use ends with `status`; without one an event tells the program. */
export const nakFatal = (s: EngineState, row: number, syndrome: number, status: number, cause: Cause): void => {
  const base = row * QP.WORDS
  flushDma(s) // the NAK acknowledges what came before
  if (s.rows[base + QP.STATE] === ERR) return
  if (reliableService[s.rows[base + QP.SERVICE]] === 0) {
    // what the program's own buffer is to blame for ends the queue pair of any service
    if (status === LOC_PROT_ERR) failReceive(s, row, status, cause)
    else {
      s.env.causes?.dropped(row, cause)
      dropMessage(s, row)
    }
    return
  }
  fatalNak(s, row, syndrome, cause)
  if (failReceive(s, row, status, cause)) return
  const event = syndrome === INVALID_REQUEST ? QP_REQ_ERR : syndrome === REMOTE_ACCESS ? QP_ACCESS_ERR : QP_FATAL
  s.env.events.qp(row, event, cause)
}

/** The same for a request that makes no sense. */
export const nakInvalidRequest = (s: EngineState, row: number, cause: Cause): void =>
  nakFatal(s, row, INVALID_REQUEST, REM_INV_REQ_ERR, cause)

/** A move that was put off has failed: nothing from its first packet on is acknowledged, whatever came since. */
export const onRequestDmaFailed = (
  s: EngineState,
  row: number,
  kind: number,
  why: number,
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
  w[base + QP.RESP_FLAGS] &= ~RespFlag.ACK_DUE
  w[base + QP.RESP_EPSN] = psn
  w[base + QP.RESP_MSN] = msn
  fatalNak(s, row, kind === DmaKind.WRITE && why === DmaResult.NO_REGION ? REMOTE_ACCESS : REMOTE_OPERATION, cause)
  if (w[base + QP.STATE] === ERR) return
  if (failReceive(s, row, kind === DmaKind.RECEIVE ? LOC_PROT_ERR : LOC_ACCESS_ERR, cause)) return
  s.env.events.qp(row, why === DmaResult.NO_REGION ? QP_ACCESS_ERR : QP_FATAL, cause)
}

/** To error for a reason of the responder's own, found while sending: a NAK for `psn`. */
export const nakAt = (s: EngineState, row: number, psn: number, syndrome: number, cause: Cause): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.RESP_EPSN] = psn
  w[base + QP.RESP_FLAGS] &= ~RespFlag.ACK_DUE
  fatalNak(s, row, syndrome, cause)
  if (w[base + QP.STATE] === ERR) return
  enterError(s, row, cause)
  s.env.events.qp(row, syndrome === REMOTE_ACCESS ? QP_ACCESS_ERR : QP_FATAL, cause)
}
