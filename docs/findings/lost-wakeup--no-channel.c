/* The program waits for an event of a channel that its CQ does not have. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    make_end(&one);
    make_end(&other);
    replace_cq(&one, need(ibv_create_cq(context, 16, NULL, FAULT_OR(NULL, channel), 0), "ibv_create_cq")); /* FAULT */
    connect_ends(&one, &other);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq");
    post_receive(&one, all_of(&one));
#ifdef FIXED
    post(&other, IBV_WR_SEND, all_of(&other), 0, 0);
    completion(&other);
#else
    alarm(8);
#endif
    struct ibv_cq *cq;
    void *cq_context;
    check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
    ibv_ack_cq_events(cq, 1);
    completion(&one);
    destroy_end(&one);
    destroy_end(&other);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
