/* An event of an identifier is not acknowledged: rdma_destroy_id does not return. */
#include "cm.h"

int main(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(id, (struct sockaddr *)&address), "rdma_bind_addr");
    address.sin_port = rdma_get_src_port(id);
    check(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 2000), "rdma_resolve_addr");
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
#ifdef FIXED
    check(rdma_ack_cm_event(event), "rdma_ack_cm_event");
#else
    alarm(8);
#endif
    check(rdma_destroy_id(id), "rdma_destroy_id"); /* FAULT */
    rdma_destroy_event_channel(channel);
    return 0;
}
