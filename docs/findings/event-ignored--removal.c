/*
 * The device of an identifier is removed, and the program does not read DEVICE_REMOVAL.
 * Options: --fault call=cm_id.resolveRoute,nth=1,gone=600s
 */
#include "cm.h"

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 2000), "rdma_resolve_addr");
    event_of(channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    const int tries = FAULT_OR(5, 1);
    for (int i = 0; i < tries; i++) {
        if (rdma_resolve_route(id, 2000)) /* FAULT */
            perror("rdma_resolve_route");
        usleep(10000);
    }
    rdma_destroy_id(id);
    rdma_destroy_event_channel(channel);
    return 0;
}
