/*
 * DREQ is lost, and the program does not look at the status of DISCONNECTED: its peer learns nothing of the end.
 * Options: --timers 0.01 --fault cm=DREQ,drop=1
 */
#include "cm.h"

int main(void)
{
    struct cm_end active = {0}, passive = {0};
    resolve(&active, &passive);
    struct rdma_conn_param parameters = {.retry_count = 3, .rnr_retry_count = 7};
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    check(rdma_accept(passive.id, &parameters), "rdma_accept");
    event_of(active.channel, RDMA_CM_EVENT_ESTABLISHED);
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
    check(rdma_disconnect(active.id), "rdma_disconnect");
#ifdef FIXED
    event_of(passive.channel, RDMA_CM_EVENT_DISCONNECTED);
    check(rdma_disconnect(passive.id), "rdma_disconnect");
#endif
    event_of(active.channel, RDMA_CM_EVENT_DISCONNECTED); /* FAULT */
    destroy_cm_pair(&active, &passive);
    return 0;
}
