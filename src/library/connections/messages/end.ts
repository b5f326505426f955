/*
 * Why there are no more messages, and the errors that say so.
 */
import { Errno } from '../../../spec/errno.ts'
import { formatValue, hideFields, RdmaError, refused } from '../../verbs/error.ts'

export interface End {
  /** Undefined: the program or the peer has closed in order. */
  readonly failure: RdmaError | undefined
  readonly text: string
}

/** ERR_CLOSED for a method of ended messages; `cause` is the failure. */
export const endedError = (call: string, { failure, text }: End): RdmaError => {
  const error = new RdmaError('ERR_CLOSED', Errno.EINVAL, call, text)
  if (failure !== undefined) {
    Object.assign(error, { cause: failure })
    hideFields(error, 'cause')
  }
  return error
}

/** The end by `abort`, of this side or the peer. */
export const abortedEnd = (who: string, reason: string): End => ({
  failure: refused('ECONNABORTED', 'messages.abort', reason, ''),
  text: reason === '' ? `${who} has aborted` : `${who} has aborted: ${reason}`,
})

export const brokenRule = (problem: string): End => {
  const text = `the peer has broken the rules of messages: ${problem}`
  return { failure: refused('EPROTO', 'messages', text), text }
}

/** The text of a reason as programs give it. */
export const reasonText = (reason: unknown): string => {
  if (reason === undefined || typeof reason === 'string') return reason ?? ''
  const message = (reason as { readonly message?: unknown } | null)?.message
  return typeof message === 'string' ? message : formatValue(reason)
}
