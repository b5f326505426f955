/*
 * The call slot of a session. shim/protocol.h is generated from this file too.
 */

/**
 * The call slot of a session: shared memory in which a request and its reply pass without a system call
 * (docs/decisions/call-slot.md). Offsets and sizes in bytes. The client writes `request` with a message, and copies of
 * the memory that the message's pointers name (`range` structs in `ranges`, as many as the word `rangeCount` says, with
 * their bytes one after the other from `input` on); sets `answer` to AnswerState.NONE, and then `asked` to the
 * message's serial, never 0. If then `polled` is 0, the client sends CALL. The daemon writes the reply into `reply`;
 * what the call has written to addresses from `stackLow` to `stackHigh`, which are u64, it returns like the input, with
 * `outputCount`, `outputs` and `output`: the client copies it there.
 */
export const CallSlot = {
  asked: 0,
  answer: 4,
  polled: 8,
  rangeCount: 12,
  stackLow: 16,
  stackHigh: 24,
  outputCount: 32,
  ranges: 64,
  outputs: 320,
  /** Maximum number of `range` structs of each kind. */
  maxRanges: 16,
  request: 576,
  requestBytes: 192,
  reply: 768,
  replyBytes: 1280,
  input: 2048,
  inputBytes: 6144,
  output: 8192,
  outputBytes: 8192,
  bytes: 16384,
} as const

/**
 * The word `answer` of a call slot. NONE: there is none yet. AWAITED: the client no longer looks, and sleeps: the
 * answer comes by the socket, and the outputs are in the slot. SLOT, SOCKET: where the answer is. Both sides replace
 * NONE, each by one atomic operation.
 */
export const AnswerState = { NONE: 0, AWAITED: 1, SLOT: 2, SOCKET: 3 } as const
