/*
 * rdma_cm over the loopback address, for the programs in this folder: a passive and an active end in one process.
 */
#ifndef CM_H
#define CM_H

#include <arpa/inet.h>
#include <rdma/rdma_cma.h>

#include "pair.h"

struct cm_end {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_mr *mr;
    char buffer[SIZE];
};

static struct rdma_cm_id *listener;

/* Waits for an event of `channel`; returns the identifier that it is about. */
static inline struct rdma_cm_id *event_of(struct rdma_event_channel *channel, enum rdma_cm_event_type expected)
{
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    if (event->event != expected) {
        fprintf(stderr, "%s instead of %s\n", rdma_event_str(event->event), rdma_event_str(expected));
        exit(1);
    }
    struct rdma_cm_id *id = event->id;
    rdma_ack_cm_event(event);
    return id;
}

/* Creates the end's protection domain, region and queue pair. */
static inline void make_cm_queue_pair(struct cm_end *end)
{
    struct ibv_qp_init_attr init = small_qp();
    end->pd = need(ibv_alloc_pd(end->id->verbs), "ibv_alloc_pd");
    end->mr = need(ibv_reg_mr(end->pd, end->buffer, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    check(rdma_create_qp(end->id, end->pd, &init), "rdma_create_qp");
}

/* The active end resolves the address of a new listener on the loopback address, and creates its queue pair. */
static inline void resolve(struct cm_end *active, struct cm_end *passive)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    passive->channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    active->channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    check(rdma_create_id(passive->channel, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(listener, (struct sockaddr *)&address), "rdma_bind_addr");
    check(rdma_listen(listener, 1), "rdma_listen");
    address.sin_port = rdma_get_src_port(listener);
    check(rdma_create_id(active->channel, &active->id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(active->id, NULL, (struct sockaddr *)&address, 2000), "rdma_resolve_addr");
    event_of(active->channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    check(rdma_resolve_route(active->id, 2000), "rdma_resolve_route");
    event_of(active->channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
    make_cm_queue_pair(active);
}

/* The passive end takes the active end's request, and creates its queue pair. */
static inline void take_request(struct cm_end *passive)
{
    passive->id = event_of(passive->channel, RDMA_CM_EVENT_CONNECT_REQUEST);
    make_cm_queue_pair(passive);
}

static inline void cm_receive(struct cm_end *end)
{
    struct ibv_sge sge = {.addr = (uintptr_t)end->buffer, .length = SIZE, .lkey = end->mr->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(end->id->qp, &wr, &bad), "ibv_post_recv");
}

static inline void cm_send(struct cm_end *end)
{
    struct ibv_sge sge = {.addr = (uintptr_t)end->buffer, .length = SIZE, .lkey = end->mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    check(ibv_post_send(end->id->qp, &wr, &bad), "ibv_post_send");
}

/* Waits for one completion. */
static inline void cm_completion(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    while (ibv_poll_cq(cq, 1, &wc) == 0)
        ;
    puts(ibv_wc_status_str(wc.status));
}

static inline void destroy_cm_end(struct cm_end *end)
{
    if (end->id->qp)
        rdma_destroy_qp(end->id);
    check(ibv_dereg_mr(end->mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(end->pd), "ibv_dealloc_pd");
    check(rdma_destroy_id(end->id), "rdma_destroy_id");
}

static inline void destroy_cm_pair(struct cm_end *active, struct cm_end *passive)
{
    destroy_cm_end(active);
    if (passive->id)
        destroy_cm_end(passive);
    check(rdma_destroy_id(listener), "rdma_destroy_id");
    rdma_destroy_event_channel(active->channel);
    rdma_destroy_event_channel(passive->channel);
}

#endif
