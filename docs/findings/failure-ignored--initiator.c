/*
 * A request of an initiator of DC fails at one target, and the program posts those for another target to it, too: the
 * initiator is in ERR, and flushes them.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5
 */
#include "pair.h"

#include <infiniband/mlx5dv.h>

enum { KEY = 7, REQUESTS = 8 };

static struct ibv_qp *create(struct end *end, enum mlx5dv_dc_type type, struct ibv_srq *srq)
{
    const int is_target = type == MLX5DV_DCTYPE_DCT;
    struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_DRIVER, .send_cq = end->cq, .recv_cq = end->cq, .srq = srq, .sq_sig_all = 1,
                                       .pd = end->pd, .comp_mask = IBV_QP_INIT_ATTR_PD | (is_target ? 0 : IBV_QP_INIT_ATTR_SEND_OPS_FLAGS),
                                       .cap = {.max_send_wr = is_target ? 0 : 8, .max_send_sge = is_target ? 0 : 1},
                                       .send_ops_flags = is_target ? 0 : IBV_QP_EX_WITH_RDMA_WRITE};
    struct mlx5dv_qp_init_attr own = {.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
                                      .dc_init_attr = {.dc_type = type, .dct_access_key = is_target ? KEY : 0}};
    return need(mlx5dv_create_qp(context, &init, &own), "mlx5dv_create_qp");
}

static void start(const struct end *end, struct ibv_qp *qp, int is_target)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE};
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (is_target ? IBV_QP_ACCESS_FLAGS : 0)), "INIT");
    attr = end->attr;
    attr.qp_state = IBV_QPS_RTR;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PATH_MTU | (is_target ? IBV_QP_MIN_RNR_TIMER | IBV_QP_AV : 0)), "RTR");
    if (is_target)
        return;
    attr.qp_state = IBV_QPS_RTS;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
          "RTS");
}

/* Posts a WRITE for a target. */
static inline __attribute__((always_inline)) void write_to(struct end *end, struct ibv_qp *initiator, struct ibv_ah *ah, const struct ibv_qp *target,
                                                           uint64_t address, uint32_t rkey)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(initiator);
    ibv_wr_start(qp);
    ibv_wr_rdma_write(qp, rkey, address);
    mlx5dv_wr_set_dc_addr(mlx5dv_qp_ex_from_ibv_qp_ex(qp), ah, target->qp_num, KEY);
    ibv_wr_set_sge(qp, end->mr->lkey, address_of(end), 64);
    check(ibv_wr_complete(qp), "ibv_wr_complete"); /* FAULT */
}

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    if (!mlx5dv_is_supported(context->device))
        return destroy_pair(&one, &other);
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 1, .max_sge = 1}};
    struct ibv_srq *srq = need(ibv_create_srq(other.pd, &init), "ibv_create_srq");
    struct ibv_qp *initiator = create(&one, MLX5DV_DCTYPE_DCI, NULL);
    struct ibv_qp *targets[] = {create(&other, MLX5DV_DCTYPE_DCT, srq), create(&other, MLX5DV_DCTYPE_DCT, srq)};
    start(&one, initiator, 0);
    start(&other, targets[0], 1);
    start(&other, targets[1], 1);
    struct ibv_ah *ah = need(ibv_create_ah(one.pd, &one.attr.ah_attr), "ibv_create_ah");
    for (int i = 0; i < REQUESTS; i++) {
        const uint32_t rkey = other.mr->rkey ^ FAULT_OR(i == 0, 0);
        write_to(&one, initiator, ah, targets[i > 0], address_of(&other), rkey);
        completion(&one);
    }
    check(ibv_destroy_ah(ah), "ibv_destroy_ah");
    check(ibv_destroy_qp(initiator), "ibv_destroy_qp");
    check(ibv_destroy_qp(targets[0]), "ibv_destroy_qp");
    check(ibv_destroy_qp(targets[1]), "ibv_destroy_qp");
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
    return destroy_pair(&one, &other);
}
