/* The CQ is armed and then polled in part: the completions that are left in it raise no event. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    make_end(&one);
    make_end(&other);
    replace_cq(&one, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq");
    for (int i = 0; i < 4; i++)
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    struct ibv_cq *cq;
    void *cq_context;
    check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
    ibv_ack_cq_events(cq, 1);
    usleep(100000);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq"); /* FAULT */
    for (int i = 0; i < FAULT_OR(2, 4); i++)
        completion(&one);
#ifndef FIXED
    alarm(8);
    check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
#endif
    destroy_end(&one);
    destroy_end(&other);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
