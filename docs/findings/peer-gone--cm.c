/* The peer disconnects, and the program does not read the event. */
#include "cm.h"

int main(void)
{
    struct cm_end active = {0}, passive = {0};
    resolve(&active, &passive);
    struct rdma_conn_param parameters = {.retry_count = 3, .rnr_retry_count = 7};
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    cm_receive(&passive);
    check(rdma_accept(passive.id, &parameters), "rdma_accept");
    event_of(active.channel, RDMA_CM_EVENT_ESTABLISHED);
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
    check(rdma_disconnect(active.id), "rdma_disconnect"); /* FAULT */
#ifdef FIXED
    event_of(passive.channel, RDMA_CM_EVENT_DISCONNECTED);
    check(rdma_disconnect(passive.id), "rdma_disconnect");
    event_of(active.channel, RDMA_CM_EVENT_DISCONNECTED);
#endif
    alarm(8);
    cm_completion(passive.id->recv_cq);
    destroy_cm_pair(&active, &passive);
    return 0;
}
