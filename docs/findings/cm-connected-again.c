/* The client connects again with the identifier whose connection was rejected. */
#include "cm.h"

int main(void)
{
    struct cm_end active = {0}, passive = {0};
    struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    check(rdma_reject(passive.id, NULL, 0), "rdma_reject");
    event_of(active.channel, RDMA_CM_EVENT_REJECTED);
    if (FAULT_OR(1, 0))
        rdma_connect(active.id, &parameters); /* FAULT */
    destroy_cm_pair(&active, &passive);
    return 0;
}
