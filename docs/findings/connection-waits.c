/* The server takes a connection request and never answers it: the client waits for ESTABLISHED. */
#include "cm.h"

int main(void)
{
    struct cm_end active = {0}, passive = {0};
    struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
    resolve(&active, &passive); /* FAULT */
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
#ifdef FIXED
    check(rdma_accept(passive.id, &parameters), "rdma_accept");
#else
    alarm(3);
#endif
    event_of(active.channel, RDMA_CM_EVENT_ESTABLISHED);
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
    check(rdma_disconnect(active.id), "rdma_disconnect");
    destroy_cm_pair(&active, &passive);
    return 0;
}
