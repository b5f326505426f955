/* An asynchronous event of a queue pair is acknowledged twice. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    /* A message at the other end's queue pair in RTR: COMM_EST. */
    struct ibv_qp_attr reset = {.qp_state = IBV_QPS_RESET};
    check(ibv_modify_qp(other.qp, &reset, IBV_QP_STATE), "ibv_modify_qp to RESET");
    to_init(&other);
    post_receive(&other, all_of(&other));
    to_rtr(&other, &one);
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    struct ibv_async_event event;
    check(ibv_get_async_event(context, &event), "ibv_get_async_event");
    puts(ibv_event_type_str(event.event_type));
    ibv_ack_async_event(&event);
#ifndef FIXED
    ibv_ack_async_event(&event); /* FAULT */
    return 1;
#endif
    return destroy_pair(&one, &other);
}
