/*
 * A receive without elements on EFA, which never completes.
 * Options: --device efa_0@127.0.0.1,driver=efa
 */
#include "pair.h"

int main(void)
{
    struct end one = {0};
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = IBV_QPT_UD;
    open_device();
    one.access = IBV_ACCESS_LOCAL_WRITE;
    one.pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    one.cq = need(ibv_create_cq(context, 32, NULL, NULL, 0), "ibv_create_cq");
    init.send_cq = init.recv_cq = one.cq;
    one.qp = need(ibv_create_qp(one.pd, &init), "ibv_create_qp");
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 1};
    check(ibv_modify_qp(one.qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), "INIT");
    struct ibv_mr *mr = need(ibv_reg_mr(one.pd, &attr, sizeof attr, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    struct ibv_sge element = {(uintptr_t)&attr, sizeof attr, mr->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = 1, .sg_list = FAULT_OR(NULL, &element), .num_sge = FAULT_OR(0, 1)};
    check(ibv_post_recv(one.qp, &wr, &bad), "ibv_post_recv"); /* FAULT */
    (void)element;
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_destroy_cq(one.cq), "ibv_destroy_cq");
    check(ibv_dealloc_pd(one.pd), "ibv_dealloc_pd");
    return ibv_close_device(context);
}
