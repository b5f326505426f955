/*
 * The error with which a request's promise rejects if its completion has failed.
 */
import { type CauseName, causes } from '../../../spec/check/causes.ts'
import { Errno, type ErrnoName } from '../../../spec/errno.ts'
import type { Completion, OpcodeName, StatusName } from '../cq/completion.ts'
import { RdmaError, recognizeCopies } from '../error.ts'

/** The errno of a status; EIO for statuses that are absent here. */
const errnos: { readonly [S in StatusName]?: ErrnoName } = {
  LOC_PROT_ERR: 'EACCES',
  LOC_ACCESS_ERR: 'EACCES',
  REM_ACCESS_ERR: 'EACCES',
  LOC_LEN_ERR: 'EMSGSIZE',
  LOC_QP_OP_ERR: 'EINVAL',
  REM_INV_REQ_ERR: 'EINVAL',
  RETRY_EXC_ERR: 'ETIMEDOUT',
  RNR_RETRY_EXC_ERR: 'ETIMEDOUT',
  WR_FLUSH_ERR: 'ECANCELED',
}

/** The text of a cause, with '…' in place of its arguments. */
const generalText = (cause: CauseName | undefined): string =>
  cause === undefined ? 'no cause is known' : causes[cause].text.replace(/\{[^}]*\}/g, '…')

/**
 * Hints: how to start a queue pair again after a failed request. A failed send of an unreliable service moves the queue
 * pair to SQE, every other failure to ERR (IBA 10.3.1).
 */
export interface Restarts {
  readonly afterSend: string
  readonly afterReceive: string
}

const fromErr = (call: string): string =>
  `the queue pair is in ERR: modify({ state: "RESET" }) and ${call} start it again`
const FROM_SQE = 'the queue pair is in SQE and still receives: modify({ state: "RTS" }) lets it send again'

const RECONNECT = 'the queue pair is in ERR: close the connection and make a new one'
/** Hints for queue pairs of connections by address, which may only be moved to ERR. */
export const connectionRestarts: Restarts = { afterSend: RECONNECT, afterReceive: RECONNECT }

/** Hints by class. */
export const restartsOf = {
  rc_qp: { afterSend: fromErr('connect()'), afterReceive: fromErr('connect()') },
  uc_qp: { afterSend: FROM_SQE, afterReceive: fromErr('connect()') },
  ud_qp: { afterSend: FROM_SQE, afterReceive: fromErr('activate()') },
} as const satisfies Readonly<Record<string, Restarts>>

/** The request completed in error. */
export class RequestError extends RdmaError {
  /** 'RequestError'. */
  override readonly name: string = 'RequestError'
  /**
   * ibv_wc_status by name: 'REM_ACCESS_ERR', 'RETRY_EXC_ERR' …; 'WR_FLUSH_ERR' if the request was flushed, because the
   * queue pair is in ERR or SQE.
   */
  readonly status: StatusName
  /** ibv_wc_opcode by name: 'RDMA_WRITE' … Other drivers than the soft device may not set the opcode. */
  readonly opcode: OpcodeName
  /** With WR_FLUSH_ERR: the error of the first request that failed or was flushed before. Absent without one. */
  declare readonly cause?: RequestError
  /**
   * Name of the cause (docs/reference/vendor-errors.md): the peer's cause if the peer refused the request. Undefined if
   * the cause is unknown.
   */
  readonly causeName: CauseName | undefined
  /** Number of the cause, see `Completion.vendorError`. */
  readonly vendorError: number
  /** Number of the queue pair, 24 bits. */
  readonly qpn: number
  /** `explanation`: see `Carrier.explain`. `hint`: one of `Restarts`. */
  constructor(
    call: string,
    wc: Completion,
    explanation: string | undefined,
    hint: string,
    earlier: RequestError | undefined,
  ) {
    const { statusName: status, opcodeName: opcode, cause, vendorError, qpn } = wc
    const code = errnos[status] ?? 'EIO'
    const reason =
      earlier === undefined ? (explanation ?? generalText(cause)) : `${earlier.call} failed before: ${earlier.status}`
    super(code, Errno[code], call, `${status}: ${reason}`, hint)
    this.status = status
    this.opcode = opcode
    this.causeName = cause
    this.vendorError = vendorError
    this.qpn = qpn
    if (earlier !== undefined) Object.defineProperty(this, 'cause', { value: earlier })
  }
}
recognizeCopies(RequestError, 'userdma.RequestError')
