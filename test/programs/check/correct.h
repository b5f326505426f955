/*
 * What the programs of correct.c and queue_threads.c have in common: one device, one protection domain, queue pairs
 * that reach each other by their numbers. Where the device has no reliable connections, but SRD, that takes their
 * place. A failure ends the program with a message and exit status 1.
 */
#ifndef CORRECT_H
#define CORRECT_H

#include <errno.h>
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Not each program calls all. */
#pragma GCC diagnostic ignored "-Wunused-function"

#define QKEY 0x11111111
#define ROUNDS 6
/* Unless the program has its own: requests of a queue; bytes of a block of `memory`, and their number. */
#ifndef DEPTH
#define DEPTH 8
#define BLOCK 512
#define BLOCKS 64
#endif
#define GRH_BYTES 40
#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_mr *mr;
static struct ibv_ah *own_address;
static union ibv_gid gid;
static uint8_t gid_index;
static bool has_srd;
static uint8_t memory[BLOCKS][BLOCK] __attribute__((aligned(4096)));

static void *need(void *object, const char *call)
{
    if (!object) {
        fprintf(stderr, "%s: %s\n", call, strerror(errno));
        exit(1);
    }
    return object;
}

/* `error`: an errno, or -1 for that of errno. */
static void check(int error, const char *call)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", call, strerror(error < 0 ? errno : error));
        exit(1);
    }
}

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "wrong: %s\n", what);
        exit(1);
    }
}

static int rights(void)
{
    return has_srd ? RIGHTS & ~(IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_REMOTE_WRITE) : RIGHTS;
}

static void open_all(void)
{
    int count;
    struct ibv_device **list = need(ibv_get_device_list(&count), "ibv_get_device_list");
    context = need(count > 0 ? ibv_open_device(list[0]) : NULL, "ibv_open_device");
    has_srd = strncmp(ibv_get_device_name(list[0]), "efa", 3) == 0;
    ibv_free_device_list(list);
    /* That of the first IPv4 address on RoCE v2. */
    const bool has_v1 = ibv_query_gid(context, 1, 3, &gid) == 0 && gid.global.interface_id != 0;
    gid_index = has_srd ? 0 : has_v1 ? 3 : 1;
    check(ibv_query_gid(context, 1, gid_index, &gid), "ibv_query_gid");
    pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    mr = need(ibv_reg_mr(pd, memory, sizeof memory, rights()), "ibv_reg_mr");
    struct ibv_ah_attr address = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = gid_index}};
    address.grh.hop_limit = 1;
    own_address = need(ibv_create_ah(pd, &address), "ibv_create_ah");
}

static void close_all(void)
{
    check(ibv_destroy_ah(own_address), "ibv_destroy_ah");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
}

static struct ibv_cq *create_cq(int entries, struct ibv_comp_channel *channel)
{
    return need(ibv_create_cq(context, entries, NULL, channel, 0), "ibv_create_cq");
}

static void destroy_cq(struct ibv_cq *cq)
{
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
}

static void destroy_qp(struct ibv_qp *qp)
{
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
}

static struct ibv_qp_cap capacity(void)
{
    return (struct ibv_qp_cap){
        .max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 1, .max_recv_sge = 1};
}

/* The type that stands for reliable connections here. */
static enum ibv_qp_type reliable(void)
{
    return has_srd ? IBV_QPT_DRIVER : IBV_QPT_RC;
}

/* A queue pair in RESET. `operations`: for ibv_wr_*; 0: ibv_post_send. SRD has ibv_wr_* alone. */
static struct ibv_qp *create_qp(enum ibv_qp_type type, struct ibv_cq *sends, struct ibv_cq *receives,
                                struct ibv_srq *srq, uint64_t operations)
{
    struct ibv_qp_init_attr_ex init = {.qp_type = type,
                                       .send_cq = sends,
                                       .recv_cq = receives,
                                       .srq = srq,
                                       .cap = capacity(),
                                       .comp_mask = IBV_QP_INIT_ATTR_PD,
                                       .pd = pd};
    if (srq)
        init.cap.max_recv_wr = init.cap.max_recv_sge = 0;
    if (type == IBV_QPT_DRIVER)
        operations = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ;
    else if (!has_srd)
        init.cap.max_inline_data = 16;
    if (operations) {
        init.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        init.send_ops_flags = operations;
    }
    struct efadv_qp_init_attr own = {.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD};
    return type == IBV_QPT_DRIVER ? need(efadv_create_qp_ex(context, &init, &own, sizeof own), "efadv_create_qp_ex")
                                  : need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
}

static void modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, enum ibv_qp_state state, int mask)
{
    attr->qp_state = state;
    check(ibv_modify_qp(qp, attr, mask | IBV_QP_STATE), "ibv_modify_qp");
}

/* Moves the queue pair to RTS. `peer`: the number of the queue pair at the other end, for requests too. */
static void connect_to(struct ibv_qp *qp, uint32_t peer, union ibv_gid peer_gid)
{
    struct ibv_qp_attr attr = {.port_num = 1,
                               .qkey = QKEY,
                               .qp_access_flags = rights(),
                               .path_mtu = IBV_MTU_256,
                               .dest_qp_num = peer,
                               .rq_psn = 7,
                               .sq_psn = 7,
                               .max_dest_rd_atomic = 4,
                               .max_rd_atomic = 4,
                               .min_rnr_timer = 1,
                               .timeout = 14,
                               .retry_cnt = 7,
                               .rnr_retry = 7,
                               .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = peer_gid, .hop_limit = 1}}};
    attr.ah_attr.grh.sgid_index = gid_index;
    qp->qp_context = (void *)(uintptr_t)peer;
    const enum ibv_qp_type type = qp->qp_type;
    const bool is_connected = type != IBV_QPT_UD && type != IBV_QPT_DRIVER;
    const bool responds = type == IBV_QPT_RC || type == IBV_QPT_XRC_RECV;
    const bool requests = type == IBV_QPT_RC || type == IBV_QPT_XRC_SEND;
    modify(qp, &attr, IBV_QPS_INIT,
           IBV_QP_PKEY_INDEX | IBV_QP_PORT | (is_connected ? IBV_QP_ACCESS_FLAGS : IBV_QP_QKEY));
    modify(qp, &attr, IBV_QPS_RTR,
           (is_connected ? IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN : 0) |
               (responds ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0));
    modify(qp, &attr, IBV_QPS_RTS,
           IBV_QP_SQ_PSN |
               (type == IBV_QPT_XRC_RECV ? IBV_QP_TIMEOUT : 0) |
               (requests ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0) |
               (type == IBV_QPT_DRIVER ? IBV_QP_RNR_RETRY : 0));
}

static void connect_both(struct ibv_qp *one, struct ibv_qp *other)
{
    connect_to(one, other->qp_num, gid);
    connect_to(other, one->qp_num, gid);
}

static struct ibv_sge piece(const void *at, uint32_t length)
{
    return (struct ibv_sge){.addr = (uintptr_t)at, .length = length, .lkey = mr->lkey};
}

static void post_receive(struct ibv_qp *qp, uint64_t id, void *at, uint32_t length)
{
    struct ibv_sge sge = piece(at, length);
    struct ibv_recv_wr *bad, wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(qp, &wr, &bad), "ibv_post_recv");
}

/* Posts one request, by ibv_wr_* on SRD. */
static void post(struct ibv_qp *qp, struct ibv_send_wr wr)
{
    struct ibv_send_wr *bad;
    if (qp->qp_type == IBV_QPT_UD) {
        wr.wr.ud.remote_qkey = QKEY;
        wr.wr.ud.ah = wr.wr.ud.ah ? wr.wr.ud.ah : own_address;
    }
    if (qp->qp_type != IBV_QPT_DRIVER) {
        check(ibv_post_send(qp, &wr, &bad), "ibv_post_send");
        return;
    }
    struct ibv_qp_ex *extended = ibv_qp_to_qp_ex(qp);
    ibv_wr_start(extended);
    extended->wr_id = wr.wr_id;
    extended->wr_flags = IBV_SEND_SIGNALED;
    if (wr.opcode == IBV_WR_RDMA_READ)
        ibv_wr_rdma_read(extended, wr.wr.rdma.rkey, wr.wr.rdma.remote_addr);
    else
        ibv_wr_send(extended);
    ibv_wr_set_sge(extended, wr.sg_list->lkey, wr.sg_list->addr, wr.sg_list->length);
    ibv_wr_set_ud_addr(extended, own_address, (uint32_t)(uintptr_t)qp->qp_context, QKEY);
    check(ibv_wr_complete(extended), "ibv_wr_complete");
}

static void send_piece(struct ibv_qp *qp, uint64_t id, const void *at, uint32_t length, unsigned flags)
{
    struct ibv_sge sge = piece(at, length);
    struct ibv_send_wr wr = {
        .wr_id = id, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = flags};
    if (qp->qp_type == IBV_QPT_UD)
        wr.wr.ud.remote_qpn = (uint32_t)(uintptr_t)qp->qp_context;
    post(qp, wr);
}

static void access_remote(struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint64_t id, void *at, uint32_t length,
                          const void *remote, unsigned flags)
{
    struct ibv_sge sge = piece(at, length);
    struct ibv_send_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = flags};
    wr.wr.rdma.remote_addr = (uintptr_t)remote;
    wr.wr.rdma.rkey = mr->rkey;
    post(qp, wr);
}

static void post_atomic(struct ibv_qp *qp, enum ibv_wr_opcode opcode, void *result, const void *remote,
                        uint64_t compare_or_add, uint64_t swap)
{
    struct ibv_sge sge = piece(result, 8);
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};
    wr.wr.atomic.remote_addr = (uintptr_t)remote;
    wr.wr.atomic.rkey = mr->rkey;
    wr.wr.atomic.compare_add = compare_or_add;
    wr.wr.atomic.swap = swap;
    post(qp, wr);
}

/* Waits for the next completion, which must be a success. */
static struct ibv_wc next(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(cq, 1, &wc)) == 0)
        sched_yield();
    must(found > 0, "ibv_poll_cq");
    if (wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "wr_id %u: %s\n", (unsigned)wc.wr_id, ibv_wc_status_str(wc.status));
        exit(1);
    }
    return wc;
}

static void next_of(struct ibv_cq *cq, uint64_t id)
{
    must(next(cq).wr_id == id, "wr_id");
}

static void fill(void *at, int value, size_t length)
{
    memset(at, value, length);
}

static bool is_filled(const void *at, int value, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (((const uint8_t *)at)[i] != (uint8_t)value)
            return false;
    return true;
}

#endif
