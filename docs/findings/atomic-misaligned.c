/* The address of an atomic is not a multiple of 8. */
#include "pair.h"

/* A fetch and add by the calls of ibv_wr_*, which check nothing. */
static void post_atomic(struct end *end, uint64_t address, uint32_t rkey, uint32_t length)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(end->qp);
    ibv_wr_start(qp);
    qp->wr_id = 1;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_atomic_fetch_add(qp, rkey, address, 1);
    ibv_wr_set_sge(qp, end->mr->lkey, address_of(end), length);
    check(ibv_wr_complete(qp), "ibv_wr_complete"); /* FAULT */
}

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr_ex init = {
        .qp_type = IBV_QPT_RC,
        .send_cq = one.cq,
        .recv_cq = one.cq,
        .pd = one.pd,
        .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1},
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .send_ops_flags = IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD,
    };
    one.qp = need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
    to_init(&one);
    connect_ends(&one, &other);
    post_atomic(&one, address_of(&other) + FAULT_OR(4, 8), other.mr->rkey, 8);
    completion(&one);
    return destroy_pair(&one, &other);
}
