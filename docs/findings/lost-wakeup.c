/* The CQ is armed with a completion in it, and the program waits for an event without a poll. */
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
    /* The completion of the SEND is in the CQ before the CQ is armed. */
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&other);
    usleep(100000);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq"); /* FAULT */
#ifdef FIXED
    completion(&one);
#else
    alarm(8);
    struct ibv_cq *cq;
    void *cq_context;
    check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
#endif
    destroy_end(&one);
    destroy_end(&other);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
