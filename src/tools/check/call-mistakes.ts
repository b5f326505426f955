/*
 * Mistakes in the order of a program's calls, which the preload library tells by `batchMistaken` and `misordered`
 * (spec/preload-events.ts). shim/protocol.h is generated from this file too.
 */

/**
 * `batch.called`: the call that shows a mistake in a batch of ibv_wr_*. ADD: the function that adds a request of
 * `batch.opcode`. EXIT: the program ends.
 */
export const BatchCall = {
  START: 1,
  COMPLETE: 2,
  ABORT: 3,
  ADD: 4,
  SET_SGE: 5,
  SET_SGE_LIST: 6,
  SET_INLINE_DATA: 7,
  SET_INLINE_DATA_LIST: 8,
  SET_UD_ADDR: 9,
  SET_XRC_SRQN: 10,
  POST_SEND: 11,
  DESTROY_QP: 12,
  EXIT: 13,
} as const

/**
 * `batch.mistake`. STARTED_AGAIN: the thread has a batch open, and waits for itself. OWNER_ENDED: the thread that has
 * started the batch has ended. LEFT_OPEN: the batch never ends. NOT_STARTED: there is no batch. OTHER_THREAD: another
 * thread has started it. NO_REQUEST: a setter before the first request. SET_AGAIN: a second setter of one kind for a
 * request. WRONG_SETTER: one that operation or queue pair do not allow. NO_DATA, NO_ADDRESS: a setter is missing.
 * FIELDS_LATE: wr_id or wr_flags was changed after the request was added, before its setter. NO_FUNCTION: the queue
 * pair lacks the function. NOT_REQUESTED: it has the function, although send_ops_flags lacked it.
 */
export const BatchMistake = {
  STARTED_AGAIN: 1,
  OWNER_ENDED: 2,
  LEFT_OPEN: 3,
  NOT_STARTED: 4,
  OTHER_THREAD: 5,
  NO_REQUEST: 6,
  SET_AGAIN: 7,
  WRONG_SETTER: 8,
  NO_DATA: 9,
  NO_ADDRESS: 10,
  FIELDS_LATE: 11,
  NO_FUNCTION: 12,
  NOT_REQUESTED: 13,
} as const

/** `order.called`. READ: the function that reads `order.field` of a completion. EXIT: the program ends. */
export const OrderCall = {
  START_POLL: 1,
  NEXT_POLL: 2,
  END_POLL: 3,
  READ: 4,
  POLL_CQ: 5,
  RESIZE_CQ: 6,
  DESTROY_CQ: 7,
  DESTROY_QP: 8,
  POST_SEND: 9,
  POST_RECV: 10,
  WR_START: 11,
  EXIT: 12,
} as const

/**
 * `order.mistake`, of an extended CQ's poll from ibv_start_poll to ibv_end_poll. STARTED_AGAIN: the thread has a poll
 * of the CQ open. OWNER_ENDED: the thread that has started the poll has ended. LEFT_OPEN: the poll never ends.
 * NOT_STARTED: there is no poll; EMPTY: and the last ibv_start_poll has found no completion. OTHER_THREAD: another
 * thread has started it. NO_COMPLETION: a read after the last completion. NOT_REQUESTED: wc_flags lacked the field.
 * HELD: the call needs the lock of a CQ whose poll the thread has open.
 *
 * Of objects that the program has promised to use by one thread at a time. AT_ONCE: by another thread, in a call now.
 * IN_TURNS: two threads use the object in turns. `field` is then 1 for the promise of a thread domain, 0 for that of
 * SINGLE_THREADED.
 *
 * WAITS: the call has waited for a second for the lock of a CQ whose poll another thread has open. FURTHER_POLLER,
 * which is no mistake: a thread polls a CQ that another thread has polled before; `field` is how many threads that are
 * now.
 */
export const OrderMistake = {
  STARTED_AGAIN: 1,
  OWNER_ENDED: 2,
  LEFT_OPEN: 3,
  NOT_STARTED: 4,
  EMPTY: 5,
  OTHER_THREAD: 6,
  NO_COMPLETION: 7,
  NOT_REQUESTED: 8,
  HELD: 9,
  AT_ONCE: 10,
  IN_TURNS: 11,
  WAITS: 12,
  FURTHER_POLLER: 13,
} as const

/** `order.field`, in the order of struct ibv_cq_ex. */
export const CompletionField = {
  OPCODE: 1,
  VENDOR_ERR: 2,
  BYTE_LEN: 3,
  IMM_DATA: 4,
  QP_NUM: 5,
  SRC_QP: 6,
  WC_FLAGS: 7,
  SLID: 8,
  SL: 9,
  DLID_PATH_BITS: 10,
  COMPLETION_TS: 11,
  CVLAN: 12,
  FLOW_TAG: 13,
  TM_INFO: 14,
  COMPLETION_WALLCLOCK_NS: 15,
} as const
