/* A connection is requested before the queue pair is created. */
#include "cm.h"

int main(void)
{
    static struct cm_end active, passive;
    struct rdma_conn_param parameters = {.retry_count = 2, .rnr_retry_count = 2};
    resolve(&active, &passive);
    if (FAULT_OR(1, 0))
        rdma_destroy_qp(active.id);
    check(rdma_connect(active.id, &parameters), "rdma_connect"); /* FAULT */
    take_request(&passive);
    check(rdma_reject(passive.id, NULL, 0), "rdma_reject");
    event_of(active.channel, RDMA_CM_EVENT_REJECTED);
    destroy_cm_pair(&active, &passive);
    return 0;
}
