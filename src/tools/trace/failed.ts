/*
 * Which calls have failed: for traces, exports and the page.
 */
import { Errno } from '../../spec/errno.ts'
import { reasonText } from '../../spec/reason.ts'
import type { TraceRecord } from '../../spec/records.ts'

/** What of a call tells whether it has failed. */
type Outcome = Pick<TraceRecord, 'dialect' | 'attempt' | 'ret'>

/**
 * Whether a call is libibverbs' probe for write commands by ioctl, which every program makes: a QUERY_DEVICE without a
 * request. ENOSPC says that there are such commands, so the probe has not failed.
 */
const isProbe = ({ dialect, attempt, ret }: Outcome): boolean =>
  dialect === 'ioctl' && attempt === 'QUERY_DEVICE' && ret === -Errno.ENOSPC

/** Why a call was refused, if the record says so; of the probe also that it is one. */
export const reasonOf = (call: Outcome & Pick<TraceRecord, 'reason'>): string | undefined => {
  const reason = call.reason && reasonText(call.reason)
  return isProbe(call) ? `libibverbs' probe${reason === undefined ? '' : `: ${reason}`}` : reason
}

/** Whether a call has failed; without a look at the entries of its chain. */
export const isFailed = (call: Outcome): boolean => call.ret < 0 && !isProbe(call)
