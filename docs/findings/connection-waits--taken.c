/*
 * The server waits for ESTABLISHED and does not look at the event: it takes the request of the next client for it, which
 * nobody answers.
 */
#include "cm.h"

int main(void)
{
    struct cm_end first = {0}, passive = {0}, second = {0}, other = {0};
    struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
    resolve(&first, &passive);
    second.channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    check(rdma_create_id(second.channel, &second.id, NULL, RDMA_PS_TCP), "rdma_create_id"); /* FAULT */
    check(rdma_resolve_addr(second.id, NULL, rdma_get_peer_addr(first.id), 2000), "rdma_resolve_addr");
    event_of(second.channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    check(rdma_resolve_route(second.id, 2000), "rdma_resolve_route");
    event_of(second.channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
    make_cm_queue_pair(&second);
    check(rdma_connect(first.id, &parameters), "rdma_connect");
    take_request(&passive);
    check(rdma_connect(second.id, &parameters), "rdma_connect");
    check(rdma_accept(passive.id, &parameters), "rdma_accept");
    event_of(first.channel, RDMA_CM_EVENT_ESTABLISHED);
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(passive.channel, &event), "rdma_get_cm_event");
#ifdef FIXED
    other.id = event->id;
    rdma_ack_cm_event(event);
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
    make_cm_queue_pair(&other);
    check(rdma_accept(other.id, &parameters), "rdma_accept");
#else
    rdma_ack_cm_event(event);
    alarm(3);
#endif
    event_of(second.channel, RDMA_CM_EVENT_ESTABLISHED);
    destroy_cm_end(&second);
    destroy_cm_end(&other);
    destroy_cm_pair(&first, &passive);
    rdma_destroy_event_channel(second.channel);
    return 0;
}
