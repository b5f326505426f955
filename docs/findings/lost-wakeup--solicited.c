/* The CQ is armed for solicited completions only, and the sender does not set IBV_SEND_SOLICITED. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    make_end(&one);
    make_end(&other);
    replace_cq(&other, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
    post_receive(&other, all_of(&other));
    check(ibv_req_notify_cq(other.cq, 1), "ibv_req_notify_cq");
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    wr.send_flags = FAULT_OR(0, IBV_SEND_SOLICITED);
    check(ibv_post_send(one.qp, &wr, &bad), "ibv_post_send"); /* FAULT */
    completion(&one);
#ifndef FIXED
    alarm(8);
#endif
    struct ibv_cq *cq;
    void *cq_context;
    check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
    ibv_ack_cq_events(cq, 1);
    completion(&other);
    destroy_end(&one);
    destroy_end(&other);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
