/* librdmacm refuses a queue pair for the listening identifier, without a call of the kernel. */
#include "cm.h"

int main(void)
{
    static struct cm_end active, passive;
    resolve(&active, &passive);
    struct ibv_qp_init_attr init = small_qp();
#ifndef FIXED
    if (rdma_create_qp(listener, active.pd, &init)) /* FAULT */
        perror("rdma_create_qp");
#endif
    rdma_destroy_qp(active.id);
    check(rdma_create_qp(active.id, active.pd, &init), "rdma_create_qp");
    destroy_cm_pair(&active, &passive);
    return 0;
}
