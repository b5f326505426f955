/* The identifier is destroyed, and its queue pair is not. */
#include "cm.h"

int main(void)
{
    static struct cm_end active, passive;
    resolve(&active, &passive);
    struct ibv_qp *qp = active.id->qp;
#ifdef FIXED
    rdma_destroy_qp(active.id);
#endif
    check(rdma_destroy_id(active.id), "rdma_destroy_id"); /* FAULT */
    if (FAULT_OR(1, 0))
        check(ibv_destroy_qp(qp), "ibv_destroy_qp");
    check(ibv_dereg_mr(active.mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(active.pd), "ibv_dealloc_pd");
    check(rdma_destroy_id(listener), "rdma_destroy_id");
    rdma_destroy_event_channel(active.channel);
    rdma_destroy_event_channel(passive.channel);
    return 0;
}
