/* The client takes the event after rdma_connect for ESTABLISHED, which it is not, and posts. */
#include "cm.h"

int main(void)
{
    struct cm_end active = {0}, passive = {0};
    struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    check(rdma_reject(passive.id, NULL, 0), "rdma_reject");
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(active.channel, &event), "rdma_get_cm_event");
    const int is_connected = FAULT_OR(1, event->event == RDMA_CM_EVENT_ESTABLISHED);
    rdma_ack_cm_event(event);
    if (is_connected) {
        cm_send(&active); /* FAULT */
        cm_completion(active.id->send_cq);
    }
    destroy_cm_pair(&active, &passive);
    return 0;
}
