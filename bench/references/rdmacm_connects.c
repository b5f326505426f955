/*
 * Successive connections of librdmacm, with queue pairs and disconnects. The client prints connections per second.
 *
 *   rdmacm_connects server ADDRESS PORT            prints "ready" when it listens
 *   rdmacm_connects client ADDRESS PORT COUNT
 */
#include <netdb.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(bool succeeded, const char *call)
{
    if (succeeded)
        return;
    perror(call);
    exit(1);
}

/* Waits for an event of this type, and acknowledges it. Returns the event's identifier. */
static struct rdma_cm_id *expect(struct rdma_event_channel *channel, enum rdma_cm_event_type type)
{
    struct rdma_cm_event *event;
    check(!rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    if (event->event != type) {
        fprintf(stderr, "%s (%d) came, expected %s\n", rdma_event_str(event->event), event->status,
                rdma_event_str(type));
        exit(1);
    }
    struct rdma_cm_id *id = event->id;
    rdma_ack_cm_event(event);
    return id;
}

/* All queue pairs share these objects. */
static struct ibv_pd *pd;
static struct ibv_cq *cq;

static void create_qp(struct rdma_cm_id *id)
{
    if (!pd) {
        pd = ibv_alloc_pd(id->verbs);
        cq = ibv_create_cq(id->verbs, 16, NULL, NULL, 0);
        check(pd && cq, "ibv_create_cq");
    }
    struct ibv_qp_init_attr attributes = {
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    check(!rdma_create_qp(id, pd, &attributes), "rdma_create_qp");
}

static struct rdma_conn_param parameters = {.responder_resources = 1, .initiator_depth = 1, .retry_count = 7};

/* Accepts connections until the process is killed. */
static _Noreturn void serve(struct rdma_event_channel *channel, struct sockaddr *address)
{
    struct rdma_cm_id *listener;
    check(!rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(!rdma_bind_addr(listener, address), "rdma_bind_addr");
    check(!rdma_listen(listener, 0), "rdma_listen");
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct rdma_cm_event *event;
        check(!rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
        struct rdma_cm_id *id = event->id;
        const enum rdma_cm_event_type type = event->event;
        rdma_ack_cm_event(event);
        if (type == RDMA_CM_EVENT_CONNECT_REQUEST) {
            create_qp(id);
            check(!rdma_accept(id, &parameters), "rdma_accept");
        } else if (type == RDMA_CM_EVENT_DISCONNECTED) {
            check(!rdma_disconnect(id), "rdma_disconnect");
            rdma_destroy_qp(id);
            rdma_destroy_id(id);
        }
    }
}

/* Milliseconds, for the address and for the route. */
#define RESOLVE_TIMEOUT 1000

static void connect_once(struct rdma_event_channel *channel, struct sockaddr *address)
{
    struct rdma_cm_id *id;
    check(!rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(!rdma_resolve_addr(id, NULL, address, RESOLVE_TIMEOUT), "rdma_resolve_addr");
    expect(channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    check(!rdma_resolve_route(id, RESOLVE_TIMEOUT), "rdma_resolve_route");
    expect(channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
    create_qp(id);
    check(!rdma_connect(id, &parameters), "rdma_connect");
    expect(channel, RDMA_CM_EVENT_ESTABLISHED);
    check(!rdma_disconnect(id), "rdma_disconnect");
    expect(channel, RDMA_CM_EVENT_DISCONNECTED);
    rdma_destroy_qp(id);
    check(!rdma_destroy_id(id), "rdma_destroy_id");
}

int main(int argc, char **argv)
{
    const bool is_server = argc == 4 && strcmp(argv[1], "server") == 0;
    if (!is_server && !(argc == 5 && strcmp(argv[1], "client") == 0)) {
        fprintf(stderr, "usage: rdmacm_connects server ADDRESS PORT | client ADDRESS PORT COUNT\n");
        return 2;
    }
    struct addrinfo *address;
    if (getaddrinfo(argv[2], argv[3], NULL, &address)) {
        fprintf(stderr, "%s port %s is not an address\n", argv[2], argv[3]);
        return 2;
    }
    struct rdma_event_channel *channel = rdma_create_event_channel();
    check(channel, "rdma_create_event_channel");
    if (is_server)
        serve(channel, address->ai_addr);
    const long count = strtol(argv[4], NULL, 0);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < count; i++)
        connect_once(channel, address->ai_addr);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.1f\n", count / ((end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9));
    return 0;
}
