/* Queue pairs of SRD, for pair.h: they are not connected, so each request names its destination. */
#ifndef SRD_H
#define SRD_H

#include <infiniband/efadv.h>

/* The libefa of rdma-core before 49 posts no WRITE: a READ takes its place. */
#ifdef SRD_HAS_WRITE
#define SRD_WRITE IBV_QP_EX_WITH_RDMA_WRITE
#else
#define SRD_WRITE 0
#endif
#define SRD_QKEY 0x11111111
#define SRD_RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

static inline struct ibv_qp *srd_create(struct ibv_context *device, struct ibv_pd *pd, const struct ibv_qp_init_attr *init)
{
    struct ibv_qp_init_attr_ex attr = {
        .qp_type = IBV_QPT_DRIVER,
        .send_cq = init->send_cq,
        .recv_cq = init->recv_cq,
        .pd = pd,
        .cap = init->cap,
        .sq_sig_all = init->sq_sig_all,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ | SRD_WRITE,
    };
    struct efadv_qp_init_attr own = {.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD};
    return efadv_create_qp_ex(device, &attr, &own, sizeof own);
}

static inline void srd_modify(struct ibv_qp *qp, struct ibv_qp_attr attr, int mask)
{
    if (ibv_modify_qp(qp, &attr, mask | IBV_QP_STATE)) {
        perror("ibv_modify_qp");
        exit(1);
    }
}

static inline void srd_to_init(struct ibv_qp *qp)
{
    const struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = SRD_QKEY};
    srd_modify(qp, attr, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
}

static inline void srd_to_rtr(struct ibv_qp *qp)
{
    const struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
    srd_modify(qp, attr, 0);
}

static inline void srd_to_rts(struct ibv_qp *qp, uint8_t rnr_retry)
{
    const struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS, .rnr_retry = rnr_retry};
    srd_modify(qp, attr, IBV_QP_SQ_PSN | IBV_QP_RNR_RETRY);
}

/* SRD has no other operations than these three. */
static inline __attribute__((always_inline)) int srd_post(struct ibv_qp *queue, struct ibv_ah *ah, uint32_t number,
                                                           enum ibv_wr_opcode opcode, struct ibv_sge sge,
                                                           uint64_t address, uint32_t rkey)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(queue);
    ibv_wr_start(qp);
    qp->wr_id = 1;
    qp->wr_flags = IBV_SEND_SIGNALED;
    if (opcode == IBV_WR_RDMA_WRITE && SRD_WRITE)
        ibv_wr_rdma_write(qp, rkey, address);
    else if (opcode == IBV_WR_RDMA_READ || opcode == IBV_WR_RDMA_WRITE)
        ibv_wr_rdma_read(qp, rkey, address);
    else if (opcode == IBV_WR_SEND)
        ibv_wr_send(qp);
    else {
        ibv_wr_abort(qp);
        return EOPNOTSUPP;
    }
    ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length);
    ibv_wr_set_ud_addr(qp, ah, number, SRD_QKEY);
    return ibv_wr_complete(qp);
}

#endif
