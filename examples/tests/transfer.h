/*
 * The program under test of the examples beside it: two connected queue pairs in one process, and WRITEs from one to the other.
 * After a failed WRITE it connects them anew.
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include <infiniband/verbs.h>
#include <stdint.h>
#include <stdlib.h>

struct transfer {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    struct ibv_qp *qps[2];
    union ibv_gid gid;
    char bytes[128];
};

static inline void transfer_disconnect(struct transfer *transfer)
{
    for (int i = 0; i < 2; i++)
        if (transfer->qps[i])
            ibv_destroy_qp(transfer->qps[i]);
    transfer->qps[0] = transfer->qps[1] = NULL;
}

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
        attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
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

/* Opens the first device; NULL without one. */
static inline struct transfer *transfer_open(void)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    struct transfer *transfer = (struct transfer *)calloc(1, sizeof *transfer);
    transfer->context = list && list[0] ? ibv_open_device(list[0]) : NULL;
    if (list)
        ibv_free_device_list(list);
    if (!transfer->context || ibv_query_gid(transfer->context, 1, 1, &transfer->gid))
        return NULL;
    transfer->pd = ibv_alloc_pd(transfer->context);
    transfer->cq = ibv_create_cq(transfer->context, 16, NULL, NULL, 0);
    transfer->mr = ibv_reg_mr(transfer->pd, transfer->bytes, sizeof transfer->bytes,
                              IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    return transfer->mr && transfer_connect(transfer) == 0 ? transfer : NULL;
}

/* The number of the queue pair that gets the WRITEs. */
static inline uint32_t transfer_qp_num(const struct transfer *transfer)
{
    return transfer->qps[1]->qp_num;
}

/* One WRITE with this key; returns the status of its completion, or -1. */
static inline int transfer_write_with(struct transfer *transfer, uint32_t rkey)
{
    struct ibv_sge sge = {};
    struct ibv_send_wr wr = {}, *bad;
    struct ibv_wc wc = {};
    sge.addr = (uintptr_t)transfer->bytes;
    sge.length = 64;
    sge.lkey = transfer->mr->lkey;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.wr.rdma.remote_addr = (uintptr_t)transfer->bytes + 64;
    wr.wr.rdma.rkey = rkey;
    if (ibv_post_send(transfer->qps[0], &wr, &bad))
        return -1;
    while (ibv_poll_cq(transfer->cq, 1, &wc) == 0)
        ;
    if (wc.status != IBV_WC_SUCCESS) {
        transfer_disconnect(transfer);
        transfer_connect(transfer);
    }
    return wc.status;
}

static inline int transfer_write(struct transfer *transfer)
{
    return transfer_write_with(transfer, transfer->mr->rkey);
}

/* The mistake: a WRITE to memory that is not registered any more. */
static inline int transfer_write_stale(struct transfer *transfer)
{
    const uint32_t rkey = transfer->mr->rkey;
    ibv_dereg_mr(transfer->mr);
    transfer->mr = ibv_reg_mr(transfer->pd, transfer->bytes, sizeof transfer->bytes,
                              IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    return transfer_write_with(transfer, rkey);
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
