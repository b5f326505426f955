/* The server listens at ::1, one of the addresses of the name localhost, and the client connects to the other one. */
#include "cm.h"

int main(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
#ifdef FIXED
    struct sockaddr_in local = address;
#else
    struct sockaddr_in6 local = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
#endif
    struct rdma_cm_id *id;
    check(rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(listener, (struct sockaddr *)&local), "rdma_bind_addr"); /* FAULT */
    check(rdma_listen(listener, 1), "rdma_listen");
    address.sin_port = rdma_get_src_port(listener);
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 2000), "rdma_resolve_addr");
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
    printf("%s\n", rdma_event_str(event->event));
    struct rdma_cm_id *request = event->id;
    const int isRequest = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
    rdma_ack_cm_event(event);
    if (isRequest) {
        check(rdma_reject(request, NULL, 0), "rdma_reject");
        check(rdma_destroy_id(request), "rdma_destroy_id");
    }
    rdma_destroy_qp(id);
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(rdma_destroy_id(id), "rdma_destroy_id");
    check(rdma_destroy_id(listener), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
    return 0;
}
