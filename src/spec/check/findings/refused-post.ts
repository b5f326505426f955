/*
 * The rows of findings about posts that are refused.
 */

export const postWrongState = {
  severity: 'warning',
  needs: ['call', 'post', 'library'],
  title: 'a request was posted to a queue pair whose state does not allow it',
  why: 'Sends can be posted from RTS on, receives from INIT on (IBA 10.3.1, 10.8.3). The call returns EINVAL, and no completion follows.',
  libraryAdvice: 'call qp.connect or qp.activate before the first send',
  story: 'post',
} as const

export const queueFull = {
  severity: 'note',
  needs: ['post', 'library'],
  title: 'a request was posted to a full queue',
  why: 'A queue has at least max_send_wr or max_recv_wr slots, an SRQ at least max_wr. The call returns ENOMEM, and the request is not posted. The finding is a warning if the queue pair was created without a slot (max_send_wr or max_recv_wr 0). Adapters free the slots of unsignaled requests only with the completion of a later signaled request.',
  libraryAdvice: 'await earlier requests first (requestWindow does), or ask for a larger maxSendWr or maxRecvWr',
  story: 'post',
} as const
