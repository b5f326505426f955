/*
 * The row of the finding lost-wakeup.
 */

export const lostWakeup = {
  severity: 'warning',
  needs: ['check', 'waits'],
  title:
    'a CQ was not polled for a second, and was not armed, has no channel, was armed with completions that the program did not poll afterwards, or only for solicited ones, which did not come',
  why: 'Only the next completion after ibv_req_notify_cq raises an event; completions that are in the CQ already raise none, so the program waits for another one, perhaps for ever. The program must poll until the CQ is empty, not only a fixed number of completions. A CQ that is not armed is reported if it has a channel, and either was never armed nor polled, or the program is ended by a signal or hangs (`--hang`). Then it is also reported that a thread waits for an event (ibv_get_cq_event) of a channel that no CQ has, or whose CQs were never armed, or in epoll_wait for one that it was told of before and has not read (EPOLLET, EPOLLONESHOT). A CQ that is armed for solicited completions only (solicited_only 1) is reported if messages came and are not polled, and none of the messages so far had IBV_SEND_SOLICITED.',
  advice: 'call ibv_req_notify_cq, then poll the CQ until it is empty, and only then wait for the event',
  libraryAdvice:
    'call cq.arm, then poll until the queue is empty, and only then wait for the event; cq.wait and `for await` do so',
  wait: 4,
  tells: 'reason',
} as const
