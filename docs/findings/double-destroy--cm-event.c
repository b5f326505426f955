/* An event of rdma_cm is acknowledged twice. */
#include "cm.h"

int main(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    struct rdma_cm_event *event;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = 1, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 2000), "rdma_resolve_addr");
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    check(rdma_ack_cm_event(event), "rdma_ack_cm_event");
    if (FAULT_OR(1, 0))
        rdma_ack_cm_event(event); /* FAULT */
    check(rdma_destroy_id(id), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
    return 0;
}
