/* The queue pair is created for WRITE, and used for READ: ibv_wr_rdma_read calls a NULL pointer. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    recreate_extended(&one, FAULT_OR(IBV_QP_EX_WITH_RDMA_WRITE, IBV_QP_EX_WITH_RDMA_READ));
    connect_ends(&one, &other);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    ibv_wr_start(qp);
    qp->wr_id = 1;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_read(qp, other.mr->rkey, address_of(&other)); /* FAULT */
    ibv_wr_set_sge(qp, one.mr->lkey, address_of(&one), 64);
    check(ibv_wr_complete(qp), "ibv_wr_complete");
    completion(&one);
    return destroy_pair(&one, &other);
}
