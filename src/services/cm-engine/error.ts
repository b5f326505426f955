/*
 * The error of the connection manager: the connection's state does not allow a command, or another connection has the
 * queue pair.
 */
import type { Reason } from '../../spec/reason.ts'

export class CmError extends Error {
  readonly code = 'EINVAL'
  readonly reason: Reason

  constructor(reason: Reason) {
    super(reason.text())
    this.reason = reason
    this.name = 'CmError'
  }
}
