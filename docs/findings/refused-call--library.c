/* librdmacm refuses a queue pair for an identifier that listens at all addresses, without a call of the kernel. */
#include "cm.h"

int main(void)
{
    static struct cm_end active, passive;
    resolve(&active, &passive);
#ifndef FIXED
    struct ibv_qp_init_attr init = small_qp();
    struct rdma_cm_id *everywhere;
    struct sockaddr_in any = {.sin_family = AF_INET};
    check(rdma_create_id(passive.channel, &everywhere, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(everywhere, (struct sockaddr *)&any), "rdma_bind_addr");
    check(rdma_listen(everywhere, 1), "rdma_listen");
    if (rdma_create_qp(everywhere, active.pd, &init)) /* FAULT */
        perror("rdma_create_qp");
    check(rdma_destroy_id(everywhere), "rdma_destroy_id");
#endif
    destroy_cm_pair(&active, &passive);
    return 0;
}
