/*
 * The rows of findings about send queues.
 */

export const neverSignaled = {
  severity: 'warning',
  needs: ['call', 'post', 'completion', 'unsignaled sends', 'unpolled sends'],
  title: 'more unsignaled sends follow each other than the send queue has slots',
  why: 'An adapter frees the slots of unsignaled requests with the completion of a later signaled request (ibv_post_send(3)). Without a signaled request the queue stays full, and posts are refused with ENOMEM.',
  advice: 'signal at least one request in max_send_wr, and poll its completion',
  libraryAdvice: 'post at least one request in maxSendWr without { signaled: false }, and poll its completion',
} as const

export const sendsUnpolled = {
  severity: 'warning',
  needs: ['device', 'unpolled sends', 'waits'],
  title: 'more sends are posted, without a polled completion, than the send queue has slots',
  why: 'Most adapters free a slot only when the completion of its request, or of a later one, is polled, and refuse further posts with ENOMEM (mlx5, irdma and efa). This device frees the slot when the request is complete, so the program works here and fails there. With `--like` and one of these adapters such posts are refused here too.',
  advice: 'poll completions before more than max_send_wr sends are posted, or request a larger max_send_wr',
  libraryAdvice: 'await earlier requests before more than maxSendWr are posted, or ask for a larger maxSendWr',
} as const

export const undefinedFlags = {
  severity: 'warning',
  needs: ['post', 'all flags'],
  title: 'send_flags has bits that are not defined',
  why: 'ibv_send_flags has the bits 0x1 to 0x10 (ibv_post_send(3)). Others are ignored here; most often the struct was not initialised, or a flag of another call (IBV_ACCESS_…) or an opcode was given. Then defined bits may be missing too.',
  advice: 'initialise the whole request: struct ibv_send_wr wr = {0}, then set IBV_SEND_SIGNALED and the like',
} as const

export const sendsLost = {
  severity: 'warning',
  needs: ['check', 'queues', 'waits'],
  title: 'a queue pair was destroyed, reset, or moved to ERR, or its program ended, while sends were outstanding',
  why: 'The end of a queue pair ends its requests (IBA 10.3.1): their messages may have arrived, in part, or not, and data that they request does not come. rdma_disconnect moves the queue pair to ERR. The finding names the sends, and says whether the peer has received their messages. A send that only waits for the processor does not count: the device first executes what it can, so the finding does not depend on the load. Sends that are posted in ERR are flushed and lose nothing. The finding is a note if a signal has ended the program; if after the move to ERR the program has polled the flushed completions; or if the sends are complete, but the program has polled no completion that tells it, and got no message of the peer since.',
  advice: 'wait for the completions of all sends before the queue pair is destroyed, reset or disconnected',
  statuses: { WR_FLUSH_ERR: 3 },
} as const
