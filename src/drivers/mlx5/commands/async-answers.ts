/*
 * Class `devx_async_cmd_fd`: answers of asynchronous queries. Each read(2) returns one record: {u64 wrId}, and the
 * output of the command, with its status if the firmware refuses. The output has at most as many bytes as the longest
 * answer of a query (`LARGEST_RECORD_BYTES`); what a program asks for beyond it would be zeros. As on Linux, the unread
 * answers of a channel have at most MAX_UNREAD_BYTES; then a query fails with EAGAIN.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import { postRecord } from '../../../core/events/events.ts'
import type { CoreObject, FdObject } from '../../../core/model.ts'
import { DevxAsyncCmdFd } from '../../../spec/drivers/mlx5-devx.ts'
import { AnsweredError, callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import { LARGEST_RECORD_BYTES } from '../../../spec/session.ts'
import { contextOf } from '../context.ts'
import type { Executed } from './execute.ts'

/** MAX_ASYNC_BYTES_IN_USE of Linux. */
const MAX_UNREAD_BYTES = 1 << 20
const WR_ID_BYTES = 8
const LARGEST_OUTPUT = 0xffff

interface Answers {
  /** Bytes asked for of the latest answers, oldest first; at least of all unread ones. */
  asked: number[]
}

export const asyncAnswersClass = driverClass<typeof DevxAsyncCmdFd, Answers>(DevxAsyncCmdFd, {
  create(call, object) {
    if (contextOf(call.context).uid === undefined)
      throw callError.EINVAL`${the.method('devx_async_cmd_fd.create')}: the context was opened without MLX5DV_CONTEXT_FLAGS_DEVX`
    object.state = { asked: [] }
    return {}
  },
})

/** Bytes of an output that the channel takes. Throws CallError EINVAL, EAGAIN. */
export const reserveAnswer = (channel: CoreObject, asked: bigint): number => {
  if (asked < 16n || asked > BigInt(LARGEST_OUTPUT))
    throw callError.EINVAL`${the.method('devx.queryAsync')}: ${asked} bytes of output are not in 16 to ${LARGEST_OUTPUT}`
  const { state, sink } = channel as FdObject<Answers>
  const unread = sink.unread()
  state.asked = unread === 0 ? [] : state.asked.slice(-unread)
  const used = state.asked.reduce((sum, bytes) => sum + bytes, 0)
  if (used + Number(asked) > MAX_UNREAD_BYTES)
    throw callError.EAGAIN`${the.method('devx.queryAsync')}: ${unread} answers with ${used} bytes are unread; at most ${MAX_UNREAD_BYTES}: read them`
  return Number(asked)
}

/** Posts the answer of a command, or of its refusal by the firmware. Throws other errors. */
export const postAnswer = (
  channel: CoreObject,
  wrId: bigint,
  answer: { readonly executed: Executed } | { readonly error: unknown },
): void => {
  const fd = channel as FdObject<Answers>
  let output: Uint8Array
  if ('executed' in answer) output = answer.executed.output
  else if (answer.error instanceof AnsweredError) output = answer.error.out.output as Uint8Array
  else throw answer.error
  const record = new Uint8Array(Math.min(WR_ID_BYTES + output.length, LARGEST_RECORD_BYTES))
  new DataView(record.buffer).setBigUint64(0, wrId, true)
  record.set(output.subarray(0, record.length - WR_ID_BYTES), WR_ID_BYTES)
  fd.state.asked.push(output.length)
  postRecord(fd, record, LARGEST_RECORD_BYTES)
}
