/*
 * The program under test of the examples beside it: two connected queue pairs in one process, and requests from one to the
 * other. After a failed request it connects them anew.
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include <infiniband/verbs.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct transfer {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    struct ibv_qp *qps[2];
    union ibv_gid gid;
    uint8_t pattern;
    uint64_t words[2][375]; /* of the queue pairs */
};

static inline void transfer_disconnect(struct transfer *transfer)
{
    for (int i = 0; i < 2; i++)
        if (transfer->qps[i])
            ibv_destroy_qp(transfer->qps[i]);
    transfer->qps[0] = transfer->qps[1] = NULL;
}

enum { TRANSFER_ACCESS = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC };

static inline int transfer_connect(struct transfer *transfer)
{
    struct ibv_qp_init_attr init = {};
    init.qp_type = IBV_QPT_RC;
    init.send_cq = init.recv_cq = transfer->cq;
    init.cap.max_send_wr = init.cap.max_recv_wr = 4;
    init.cap.max_send_sge = init.cap.max_recv_sge = 1;
    for (int i = 0; i < 2; i++)
        if (!(transfer->qps[i] = ibv_create_qp(transfer->pd, &init)))
            return -1;
    for (int i = 0; i < 2; i++) {
        struct ibv_qp_attr attr = {};
        attr.qp_state = IBV_QPS_INIT;
        attr.port_num = 1;
        attr.qp_access_flags = TRANSFER_ACCESS;
        if (ibv_modify_qp(transfer->qps[i], &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
            return -1;
        attr.qp_state = IBV_QPS_RTR;
        attr.path_mtu = IBV_MTU_1024;
        attr.dest_qp_num = transfer->qps[1 - i]->qp_num;
        attr.max_dest_rd_atomic = 1;
        attr.min_rnr_timer = 1;
        attr.ah_attr.is_global = 1;
        attr.ah_attr.port_num = 1;
        attr.ah_attr.grh.dgid = transfer->gid;
        attr.ah_attr.grh.sgid_index = 1;
        attr.ah_attr.grh.hop_limit = 1;
        if (ibv_modify_qp(transfer->qps[i], &attr,
                          IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                              IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
            return -1;
        attr.qp_state = IBV_QPS_RTS;
        attr.timeout = 10;
        attr.retry_cnt = 2;
        attr.rnr_retry = 2;
        attr.max_rd_atomic = 1;
        if (ibv_modify_qp(transfer->qps[i], &attr,
                          IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                              IBV_QP_MAX_QP_RD_ATOMIC))
            return -1;
    }
    return 0;
}

static inline void transfer_register(struct transfer *transfer)
{
    transfer->mr =
        ibv_reg_mr(transfer->pd, transfer->words, sizeof transfer->words, IBV_ACCESS_LOCAL_WRITE | TRANSFER_ACCESS);
}

/* Opens the device with this name, or the first if it is NULL; returns NULL without one. */
static inline struct transfer *transfer_open(const char *name)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    struct transfer *transfer = (struct transfer *)calloc(1, sizeof *transfer);
    for (int i = 0; list && list[i] && !transfer->context; i++)
        if (!name || strcmp(ibv_get_device_name(list[i]), name) == 0)
            transfer->context = ibv_open_device(list[i]);
    if (list)
        ibv_free_device_list(list);
    if (!transfer->context || ibv_query_gid(transfer->context, 1, 1, &transfer->gid))
        return NULL;
    transfer->pd = ibv_alloc_pd(transfer->context);
    transfer->cq = ibv_create_cq(transfer->context, 16, NULL, NULL, 0);
    transfer_register(transfer);
    return transfer->mr && transfer_connect(transfer) == 0 ? transfer : NULL;
}

/* The number of the queue pair that gets the requests. */
static inline uint32_t transfer_qp_num(const struct transfer *transfer)
{
    return transfer->qps[1]->qp_num;
}

/* Whether the bytes have arrived. */
static inline int transfer_is_right(const struct transfer *transfer, int is_atomic)
{
    if (is_atomic)
        return transfer->words[1][0] == transfer->words[0][0] + 1;
    return memcmp(transfer->words[0], transfer->words[1], sizeof transfer->words[0]) == 0;
}

/*
 * One request of 3,000 bytes, or an atomic one of 8, with this key. Returns the status of its completion; if it cannot be posted,
 * the error as a negative number; -1000 if the bytes are wrong.
 */
static inline int transfer_request(struct transfer *transfer, enum ibv_wr_opcode opcode, uint32_t rkey)
{
    const int is_atomic = opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    const int has_receive = opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    const int source = opcode == IBV_WR_RDMA_READ || is_atomic;
    const size_t size = is_atomic ? 8 : sizeof transfer->words[0];
    struct ibv_sge sges[2] = {};
    struct ibv_recv_wr receive = {}, *bad_receive;
    struct ibv_send_wr wr = {}, *bad;
    struct ibv_wc wc = {};
    int status = 0;
    memset(transfer->words[source], ++transfer->pattern, sizeof transfer->words[0]);
    memset(transfer->words[1 - source], 0, sizeof transfer->words[0]);
    for (int i = 0; i < 2; i++) {
        sges[i].addr = (uintptr_t)transfer->words[i];
        sges[i].length = size;
        sges[i].lkey = transfer->mr->lkey;
    }
    receive.sg_list = &sges[1];
    receive.num_sge = 1;
    wr.sg_list = &sges[0];
    wr.num_sge = 1;
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    if (is_atomic) {
        wr.wr.atomic.remote_addr = sges[1].addr;
        wr.wr.atomic.rkey = rkey;
        wr.wr.atomic.compare_add = 1;
    } else {
        wr.wr.rdma.remote_addr = sges[1].addr;
        wr.wr.rdma.rkey = rkey;
    }
    if (has_receive)
        status = -ibv_post_recv(transfer->qps[1], &receive, &bad_receive);
    if (status == 0)
        status = -ibv_post_send(transfer->qps[0], &wr, &bad);
    for (int left = 1 + has_receive; left > 0 && status == 0;)
        if (ibv_poll_cq(transfer->cq, 1, &wc) > 0) {
            left--;
            status = wc.status;
        }
    if (status == 0)
        return transfer_is_right(transfer, is_atomic) ? 0 : -1000;
    transfer_disconnect(transfer);
    while (ibv_poll_cq(transfer->cq, 1, &wc) > 0)
        ;
    transfer_connect(transfer);
    return status;
}

static inline int transfer_write(struct transfer *transfer)
{
    return transfer_request(transfer, IBV_WR_RDMA_WRITE, transfer->mr->rkey);
}

/* The mistake: a WRITE to memory that is not registered any more. */
static inline int transfer_write_stale(struct transfer *transfer)
{
    const uint32_t rkey = transfer->mr->rkey;
    ibv_dereg_mr(transfer->mr);
    transfer_register(transfer);
    return transfer_request(transfer, IBV_WR_RDMA_WRITE, rkey);
}

static inline void transfer_close(struct transfer *transfer)
{
    transfer_disconnect(transfer);
    ibv_dereg_mr(transfer->mr);
    ibv_destroy_cq(transfer->cq);
    ibv_dealloc_pd(transfer->pd);
    ibv_close_device(transfer->context);
    free(transfer);
}

#endif
