/* The passive end posts its receive after rdma_accept: a message may come before it. */
#include "cm.h"

int main(void)
{
    static struct cm_end active, passive;
    resolve(&active, &passive);
    struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
#ifdef FIXED
    cm_receive(&passive);
#endif
    check(rdma_accept(passive.id, &parameters), "rdma_accept");
    event_of(active.channel, RDMA_CM_EVENT_ESTABLISHED);
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
#ifndef FIXED
    cm_receive(&passive); /* FAULT */
#endif
    cm_send(&active);
    cm_completion(active.id->send_cq);
    cm_completion(passive.id->recv_cq);
    check(rdma_disconnect(active.id), "rdma_disconnect");
    destroy_cm_pair(&active, &passive);
    return 0;
}
