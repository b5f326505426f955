/*
 * The calls of recorded programs (test/fixtures/abi), with the kernel's answers, as trace records of a daemon.
 */

import { recordingView } from '../../../src/daemon/trace/trace-messages.ts'
import { CallError, type ErrnoName, errnoName } from '../../../src/spec/errno.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import { messagesOf } from '../../../src/tools/trace/call-messages.ts'
import { isAnswer } from '../../../src/uapi/call.ts'
import { decodeLogged, recordedResult, replay } from '../../uapi/recorded.ts'

export const recordsOf = (log: string): TraceRecord[] => {
  const records: TraceRecord[] = []
  for (const { logged, view } of replay(log)) {
    const { line, fd, kind: dialect, errno } = logged
    const base = { time: line, duration: 10, pid: 1, tid: 1, fd, command: 'recorded', device: 'rxe0', dialect }
    const recording = recordingView(view)
    const decoded = decodeLogged(recording.view, logged)
    if (isAnswer(decoded)) {
      const { ret, reason, attempt } = decoded
      records.push({
        ...base,
        ret,
        raw: recording.raw(),
        ...(reason !== undefined && { reason: reason.toJSON() }),
        ...(attempt !== undefined && { attempt }),
      })
      continue
    }
    const outcome =
      errno === 0
        ? recordedResult(decoded.call, logged).result
        : new CallError(errnoName(errno) as ErrnoName, 'as recorded')
    const { ret } = decoded.answer(outcome)
    records.push({ ...base, ret, call: messagesOf(view, decoded.call, outcome), raw: recording.raw() })
  }
  return records
}
