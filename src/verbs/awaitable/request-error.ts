/*
 * The error with which a request's promise rejects: the failed completion.
 */
import { type CauseName, causes } from '../../spec/check/causes.ts'
import { Errno, type ErrnoName } from '../../spec/errno.ts'
import type { Completion, OpcodeName, StatusName } from '../cq/completion.ts'
import { RdmaError, recognizeCopies } from '../error.ts'

/** The errno of a status, where it is not EIO. */
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

/** The sentence of a cause, without arguments. */
const generalText = (cause: CauseName | undefined): string =>
  cause === undefined ? 'no cause is known' : causes[cause].text.replace(/\{[^}]*\}/g, '…')

const HINT = 'the queue pair is in ERR: modify({ state: "RESET" }) and connect() start again'

/** A request was posted and completed in error. */
export class RequestError extends RdmaError {
  /** 'RequestError'. */
  override readonly name: string = 'RequestError'
  /**
   * ibv_wc_status by name: 'REM_ACCESS_ERR', 'RETRY_EXC_ERR' … 'WR_FLUSH_ERR' after the failure of an earlier request.
   */
  readonly status: StatusName
  /** ibv_wc_opcode by name: 'RDMA_WRITE' … */
  readonly opcode: OpcodeName
  /**
   * Name of the cause (docs/reference/vendor-errors.md); for a request that the peer refused, the peer's cause if
   * known.
   */
  override readonly cause: CauseName | undefined
  /** Number of the cause, as `Completion.vendorError`. */
  readonly vendorError: number
  /** The queue pair's number, 24 bits. */
  readonly qpn: number
  /** The failure that moved the queue pair to ERR, if that was the failure of another request. */
  readonly earlier: RequestError | undefined

  /** `peerCause`: the text of the peer's cause, if it is known. */
  constructor(call: string, wc: Completion, peerCause: string | undefined, earlier: RequestError | undefined) {
    const { statusName: status, opcodeName: opcode, cause, vendorError, qpn } = wc
    const code = errnos[status] ?? 'EIO'
    const why =
      earlier === undefined ? (peerCause ?? generalText(cause)) : `${earlier.call} failed before: ${earlier.reason}`
    super(code, Errno[code], call, `${status}: ${why}`, HINT)
    this.status = status
    this.opcode = opcode
    this.cause = cause
    this.vendorError = vendorError
    this.qpn = qpn
    this.earlier = earlier
  }
}
recognizeCopies(RequestError, 'userdma.RequestError')
