/* The client gives the port without htons. */
#include "cm.h"

int main(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(7481);
    struct rdma_cm_id *id;
    check(rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(listener, (struct sockaddr *)&address), "rdma_bind_addr");
    check(rdma_listen(listener, 1), "rdma_listen");
    address.sin_port = FAULT_OR(7481, htons(7481));
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 2000), "rdma_resolve_addr"); /* FAULT */
    event_of(channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    check(rdma_resolve_route(id, 2000), "rdma_resolve_route");
    event_of(channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
    struct ibv_pd *pd = need(ibv_alloc_pd(id->verbs), "ibv_alloc_pd");
    struct ibv_qp_init_attr init = small_qp();
    check(rdma_create_qp(id, pd, &init), "rdma_create_qp");
    struct rdma_conn_param parameters = {.retry_count = 1};
    check(rdma_connect(id, &parameters), "rdma_connect");
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    puts(rdma_event_str(event->event));
#ifdef FIXED
    struct rdma_cm_id *request = event->id;
    check(rdma_reject(request, NULL, 0), "rdma_reject");
#endif
    rdma_ack_cm_event(event);
#ifdef FIXED
    check(rdma_destroy_id(request), "rdma_destroy_id");
#endif
    rdma_destroy_qp(id);
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(rdma_destroy_id(id), "rdma_destroy_id");
    check(rdma_destroy_id(listener), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
    return 0;
}
