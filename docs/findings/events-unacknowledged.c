/* The CQ is destroyed before its event is acknowledged: ibv_destroy_cq does not return. */
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
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    struct ibv_cq *cq;
    void *cq_context;
    check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
    completion(&one);
#ifdef FIXED
    ibv_ack_cq_events(cq, 1);
#else
    alarm(8);
#endif
    destroy_end(&one); /* FAULT */
    destroy_end(&other);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
