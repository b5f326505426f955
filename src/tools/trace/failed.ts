/*
 * Which calls have failed: for traces, exports and the page.
 */
import { Errno } from '../../spec/errno.ts'
import type { TraceRecord } from '../../uapi/tool.ts'

/** What of a call tells whether it has failed. */
type Outcome = Pick<TraceRecord, 'dialect' | 'attempt' | 'ret'>

/**
 * Whether a call is libibverbs' probe for write commands by ioctl, which every program makes: a QUERY_DEVICE without a
 * request. ENOSPC says that there are such commands, so the probe has not failed.
 */
const isProbe = ({ dialect, attempt, ret }: Outcome): boolean =>
  dialect === 'ioctl' && attempt === 'QUERY_DEVICE' && ret === -Errno.ENOSPC

/** Whether a call has failed; without a look at the entries of its chain. */
export const isFailed = (call: Outcome): boolean => call.ret < 0 && !isProbe(call)
