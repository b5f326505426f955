/* A SEND to a shared receive queue that the XRC domain of the peer does not have. */
#include "pair.h"

#include <fcntl.h>

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    struct ibv_xrcd_init_attr domain = {
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
    struct ibv_xrcd *xrcd = need(ibv_open_xrcd(context, &domain), "ibv_open_xrcd");
    struct ibv_srq_init_attr_ex queue = {
        .attr = {.max_wr = 8, .max_sge = 1},
        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_PD,
        .srq_type = IBV_SRQT_XRC,
        .pd = other.pd,
        .xrcd = xrcd,
        .cq = other.cq,
    };
    struct ibv_srq *srq = need(ibv_create_srq_ex(context, &queue), "ibv_create_srq_ex");
    struct ibv_qp_init_attr_ex target = {
        .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd};
    struct ibv_qp_init_attr_ex initiator = {
        .qp_type = IBV_QPT_XRC_SEND,
        .send_cq = one.cq,
        .pd = one.pd,
        .comp_mask = IBV_QP_INIT_ATTR_PD,
        .sq_sig_all = 1,
        .cap = {.max_send_wr = 8, .max_send_sge = 1},
    };
    check(ibv_destroy_qp(one.qp) || ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    one.qp = need(ibv_create_qp_ex(context, &initiator), "ibv_create_qp_ex");
    other.qp = need(ibv_create_qp_ex(context, &target), "ibv_create_qp_ex");
    to_init(&one);
    to_init(&other);
    to_rtr(&one, &other);
    to_rtr(&other, &one);
    to_rts(&one);

    uint32_t number;
    check(ibv_get_srq_num(srq, &number), "ibv_get_srq_num");
    struct ibv_sge into = all_of(&other), from = all_of(&one);
    struct ibv_recv_wr *bad_receive, receive = {.wr_id = 2, .sg_list = &into, .num_sge = 1};
    check(ibv_post_srq_recv(srq, &receive, &bad_receive), "ibv_post_srq_recv");
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &from, .num_sge = 1, .opcode = IBV_WR_SEND};
    wr.qp_type.xrc.remote_srqn = FAULT_OR(number + 1, number);
    check(ibv_post_send(one.qp, &wr, &bad), "ibv_post_send"); /* FAULT */
    completion(&one);

    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    other.qp = NULL;
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
    check(ibv_close_xrcd(xrcd), "ibv_close_xrcd");
    return destroy_pair(&one, &other);
}
