/* An identifier of rdma_cm is used after rdma_destroy_id. */
#include "cm.h"

int main(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    if (FAULT_OR(0, 1))
        check(rdma_bind_addr(id, (struct sockaddr *)&address), "rdma_bind_addr");
    check(rdma_destroy_id(id), "rdma_destroy_id");
    if (FAULT_OR(1, 0))
        rdma_bind_addr(id, (struct sockaddr *)&address); /* FAULT */
    rdma_destroy_event_channel(channel);
    return 0;
}
