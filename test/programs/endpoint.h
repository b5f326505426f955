/*
 * One end of an RC connection with libibverbs: device, protection domain, one registered buffer, one completion queue,
 * one queue pair. A failure ends the program with a message and exit status 1.
 */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

UNUSED __attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* A message that begins with "cannot: ": this machine does not allow it, and the test is skipped. */
#define NEED(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(__VA_ARGS__);                                                                                         \
    } while (0)

struct options {
    const char *device; /* NULL: the first device */
    int gid_index;      /* -1: that of the first IPv4 address on RoCE v2; 0 if there is none */
    int mtu;            /* bytes */
    bool events;
    uint8_t timeout, retry_count, rnr_retry; /* as in struct ibv_qp_attr: the timeout is 4.096 us * 2^timeout */
};

static const struct options default_options = {
    .gid_index = -1, .mtu = 1024, .timeout = 14, .retry_count = 7, .rnr_retry = 7};

#define MAX_SGE 4
#define QUEUE 64 /* requests in each send queue and each receive queue */

struct endpoint {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_mr *mr;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    uint8_t *buffer;
    size_t length;
    uint32_t max_inline;
    int gid_index;
    union ibv_gid gid;
    uint32_t psn;
    unsigned unacknowledged; /* completion events that were read, but not acknowledged */
};

/* What the peer must know of an end; sent over TCP in host byte order. */
struct address {
    uint32_t qpn, psn, rkey, reserved;
    uint64_t buffer; /* its virtual address */
    union ibv_gid gid;
};

UNUSED static enum ibv_mtu mtu_of(int bytes)
{
    for (int i = 0; i < 5; i++)
        if (bytes == 256 << i)
            return (enum ibv_mtu)(IBV_MTU_256 + i);
    fail("MTU %d: 256, 512, 1024, 2048 and 4096 are allowed", bytes);
}

UNUSED static struct ibv_context *open_named(const char *name)
{
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    NEED(list, "ibv_get_device_list: %s", strerror(errno));
    struct ibv_context *context = NULL;
    for (int i = 0; i < count && !context; i++)
        if (!name || strcmp(name, ibv_get_device_name(list[i])) == 0) {
            context = ibv_open_device(list[i]);
            NEED(context, "ibv_open_device %s: %s", ibv_get_device_name(list[i]), strerror(errno));
        }
    ibv_free_device_list(list);
    NEED(context, "there is no RDMA device%s%s among %d", name ? " " : "", name ? name : "", count);
    return context;
}

/* `wanted`, or if it is negative, that of the first IPv4 address on RoCE v2; 0 if there is none. */
static int choose_gid(struct ibv_context *context, int wanted)
{
    struct ibv_port_attr port;
    struct ibv_gid_entry entry;
    if (wanted >= 0)
        return wanted;
    NEED(ibv_query_port(context, 1, &port) == 0, "ibv_query_port: %s", strerror(errno));
    for (int i = 0; i < port.gid_tbl_len; i++)
        if (ibv_query_gid_ex(context, 1, i, &entry, 0) == 0 && entry.gid_type != IBV_GID_TYPE_ROCE_V1 &&
            entry.gid.global.subnet_prefix == 0 && entry.gid.raw[11] == 0xff)
            return i;
    return 0;
}

UNUSED static void create_qp(struct endpoint *end)
{
    struct ibv_qp_init_attr init = {
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .cap = {.max_send_wr = QUEUE,
                .max_recv_wr = QUEUE,
                .max_send_sge = MAX_SGE,
                .max_recv_sge = MAX_SGE,
                .max_inline_data = 64},
        .qp_type = IBV_QPT_RC,
    };
    end->qp = ibv_create_qp(end->pd, &init);
    NEED(end->qp, "ibv_create_qp: %s", strerror(errno));
    end->max_inline = init.cap.max_inline_data;
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .port_num = 1,
        .qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC,
    };
    NEED(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT: %s", strerror(errno));
}

UNUSED static void create_endpoint(struct endpoint *end, struct ibv_context *context, const struct options *options,
                                   size_t length, uint32_t psn)
{
    *end = (struct endpoint){.context = context, .length = length, .psn = psn & 0xffffff};
    end->gid_index = choose_gid(context, options->gid_index);
    NEED(ibv_query_gid(context, 1, end->gid_index, &end->gid) == 0, "GID %d: %s", end->gid_index, strerror(errno));
    NEED(posix_memalign((void **)&end->buffer, 4096, length) == 0, "no memory for %zu bytes", length);
    memset(end->buffer, 0, length);
    end->pd = ibv_alloc_pd(context);
    NEED(end->pd, "ibv_alloc_pd: %s", strerror(errno));
    end->mr = ibv_reg_mr(end->pd, end->buffer, length,
                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |
                             IBV_ACCESS_REMOTE_ATOMIC);
    NEED(end->mr, "ibv_reg_mr: %s", strerror(errno));
    if (options->events) {
        end->channel = ibv_create_comp_channel(context);
        NEED(end->channel, "ibv_create_comp_channel: %s", strerror(errno));
    }
    end->cq = ibv_create_cq(context, 4 * QUEUE, NULL, end->channel, 0);
    NEED(end->cq, "ibv_create_cq: %s", strerror(errno));
    create_qp(end);
}

UNUSED static struct address address_of(const struct endpoint *end)
{
    return (struct address){.qpn = end->qp->qp_num,
                            .psn = end->psn,
                            .rkey = end->mr->rkey,
                            .buffer = (uintptr_t)end->buffer,
                            .gid = end->gid};
}

UNUSED static void connect_to(struct endpoint *end, const struct address *peer, const struct options *options)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = mtu_of(options->mtu),
        .dest_qp_num = peer->qpn,
        .rq_psn = peer->psn,
        .max_dest_rd_atomic = 4,
        .min_rnr_timer = 1, /* 0.01 ms */
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .grh = {.dgid = peer->gid, .sgid_index = (uint8_t)end->gid_index, .hop_limit = 64}},
    };
    NEED(ibv_modify_qp(end->qp, &attr,
                       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                           IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) == 0,
         "to RTR: %s", strerror(errno));
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = options->timeout;
    attr.retry_cnt = options->retry_count;
    attr.rnr_retry = options->rnr_retry;
    attr.sq_psn = end->psn;
    attr.max_rd_atomic = 4;
    NEED(ibv_modify_qp(end->qp, &attr,
                       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                           IBV_QP_MAX_QP_RD_ATOMIC) == 0,
         "to RTS: %s", strerror(errno));
}

/* Two connected ends with buffers of 4096 bytes. */
UNUSED static void create_pair(struct endpoint *one, struct endpoint *other, struct ibv_context *context,
                               const struct options *options)
{
    create_endpoint(one, context, options, 4096, 1);
    create_endpoint(other, context, options, 4096, 2);
    const struct address ends[] = {address_of(one), address_of(other)};
    connect_to(one, &ends[1], options);
    connect_to(other, &ends[0], options);
}

/* Polls one completion. Returns 0 if there is none; with a completion channel, waits for one. */
UNUSED static int next_completion(struct endpoint *end, struct ibv_wc *wc)
{
    int found = ibv_poll_cq(end->cq, 1, wc);
    while (found == 0 && end->channel) {
        struct ibv_cq *cq;
        void *context;
        NEED(ibv_req_notify_cq(end->cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno));
        found = ibv_poll_cq(end->cq, 1, wc);
        if (found)
            break;
        NEED(ibv_get_cq_event(end->channel, &cq, &context) == 0, "ibv_get_cq_event: %s", strerror(errno));
        end->unacknowledged++;
        found = ibv_poll_cq(end->cq, 1, wc);
    }
    NEED(found >= 0, "ibv_poll_cq: %d %s", found, strerror(errno));
    return found;
}

UNUSED static void destroy_endpoint(struct endpoint *end)
{
    if (end->unacknowledged)
        ibv_ack_cq_events(end->cq, end->unacknowledged);
    NEED(!end->qp || ibv_destroy_qp(end->qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    NEED(ibv_destroy_cq(end->cq) == 0, "ibv_destroy_cq: %s", strerror(errno));
    NEED(!end->channel || ibv_destroy_comp_channel(end->channel) == 0, "ibv_destroy_comp_channel: %s", strerror(errno));
    NEED(ibv_dereg_mr(end->mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    NEED(ibv_dealloc_pd(end->pd) == 0, "ibv_dealloc_pd: %s", strerror(errno));
    free(end->buffer);
}

#endif
