/*
 * Programs of adapters, for `userdma check` (test/system/check/devices.test.ts). The argument: `batch`, WRITEs by
 * ibv_wr_* on RC; `dc`, a WRITE from an initiator to a target of DC (mlx5dv); `srd`, a SEND of EFA's SRD (efadv). They
 * are correct, but each first posts two receives with wr_id 77 and one buffer, and `batch` with `open` leaves its last
 * batch open, with `lacking` has a queue pair that was made for SEND only; `dc` with `cut` has the lower half of the
 * target's access key; `direct` asks for the memory of the send queue (mlx5dv_init_obj), and `direct write` writes a
 * WRITE with a wrong rkey into it; `refused` opens a device by a function of libmlx5, which fails under a fault rule.
 */
#include "../../../docs/findings/pair.h"

#include <infiniband/efadv.h>
#include <infiniband/mlx5dv.h>
#include <stdatomic.h>
#include <stdbool.h>

static struct end end;
static struct ibv_srq *srq;

static void open_end(int gid_index)
{
    int count;
    struct ibv_device **list = need(ibv_get_device_list(&count), "ibv_get_device_list");
    context = need(count > 0 ? ibv_open_device(list[0]) : NULL, "ibv_open_device");
    ibv_free_device_list(list);
    check(ibv_query_gid(context, 1, gid_index, &gid), "ibv_query_gid");
    end.pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    end.cq = need(ibv_create_cq(context, 256, NULL, NULL, 0), "ibv_create_cq");
    end.buffer = need(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    const int rights = IBV_ACCESS_LOCAL_WRITE | (gid_index == 0 ? 0 : IBV_ACCESS_REMOTE_WRITE);
    end.mr = need(ibv_reg_mr(end.pd, end.buffer, SIZE, rights), "ibv_reg_mr");
}

static void close_end(void)
{
    check(ibv_dereg_mr(end.mr), "ibv_dereg_mr");
    check(ibv_destroy_cq(end.cq), "ibv_destroy_cq");
    check(ibv_dealloc_pd(end.pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
}

static struct ibv_qp_init_attr_ex extended(enum ibv_qp_type type, uint64_t operations)
{
    return (struct ibv_qp_init_attr_ex){
        .qp_type = type,
        .send_cq = end.cq,
        .recv_cq = end.cq,
        .pd = end.pd,
        .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1},
        .comp_mask = IBV_QP_INIT_ATTR_PD | (operations ? IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0),
        .send_ops_flags = operations,
    };
}

static void two_receives(struct ibv_qp *qp)
{
    struct ibv_sge sge = {.addr = address_of(&end) + SIZE / 2, .length = 64, .lkey = end.mr->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = 77, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(qp, &wr, &bad), "ibv_post_recv");
    check(ibv_post_recv(qp, &wr, &bad), "ibv_post_recv"); /* OVERLAP */
}

static void begin(struct ibv_qp_ex *qp)
{
    ibv_wr_start(qp);
    qp->wr_id = 7;
    qp->wr_flags = IBV_SEND_SIGNALED;
}

static void complete(struct ibv_qp_ex *qp)
{
    ibv_wr_set_sge(qp, end.mr->lkey, address_of(&end), 64);
    check(ibv_wr_complete(qp), "ibv_wr_complete");
}

static int batch(const char *how)
{
    const bool is_open = strcmp(how, "open") == 0, is_lacking = strcmp(how, "lacking") == 0;
    struct end other = {0};
    open_end(1);
    struct ibv_qp_init_attr_ex init = extended(IBV_QPT_RC, is_lacking ? IBV_QP_EX_WITH_SEND : IBV_QP_EX_WITH_RDMA_WRITE);
    end.qp = need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
    end.access = IBV_ACCESS_REMOTE_WRITE;
    struct end *const ends[] = {&end, &other};
    make_end_with(&other, small_qp(), 16);
    to_init(&end);
    end.attr = other.attr;
    connect_ends(ends[0], ends[1]);
    two_receives(end.qp);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(end.qp);
    for (int i = 0; i < 3; i++) {
        begin(qp);
        ibv_wr_rdma_write(qp, other.mr->rkey, address_of(&other));
        complete(qp);
        completion(&end);
    }
    if (is_open)
        begin(qp);
    check(ibv_destroy_qp(end.qp), "ibv_destroy_qp");
    destroy_end(&other);
    close_end();
    return 0;
}

static uint64_t access_key = 5;

static struct ibv_qp *dc_qp(enum mlx5dv_dc_type type)
{
    const bool is_target = type == MLX5DV_DCTYPE_DCT;
    struct ibv_qp_init_attr_ex init = extended(IBV_QPT_DRIVER, is_target ? 0 : IBV_QP_EX_WITH_RDMA_WRITE);
    if (is_target) {
        init.srq = srq;
        memset(&init.cap, 0, sizeof init.cap);
    }
    init.cap.max_recv_wr = init.cap.max_recv_sge = 0;
    struct mlx5dv_qp_init_attr own = {.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
                                      .dc_init_attr = {.dc_type = type, .dct_access_key = is_target ? access_key : 0}};
    struct ibv_qp *qp = need(mlx5dv_create_qp(context, &init, &own), "mlx5dv_create_qp");
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE,
                               .path_mtu = IBV_MTU_1024,
                               .min_rnr_timer = 1,
                               .timeout = 14,
                               .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = 1, .hop_limit = 1}}};
    attr.ah_attr.grh.dgid = gid;
    check(ibv_modify_qp(qp, &attr,
                        IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (is_target ? IBV_QP_ACCESS_FLAGS : 0)),
          "ibv_modify_qp to INIT");
    attr.qp_state = IBV_QPS_RTR;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | (is_target ? IBV_QP_MIN_RNR_TIMER : 0)),
          "ibv_modify_qp to RTR");
    attr.qp_state = IBV_QPS_RTS;
    if (!is_target)
        check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                           IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
              "ibv_modify_qp to RTS");
    return qp;
}

static struct ibv_ah *own_address(int gid_index)
{
    struct ibv_ah_attr attr = {
        .is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 1}};
    return need(ibv_create_ah(end.pd, &attr), "ibv_create_ah");
}

static int dc(bool is_cut)
{
    if (is_cut)
        access_key += 1ull << 32;
    open_end(1);
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 8, .max_sge = 1}};
    srq = need(ibv_create_srq(end.pd, &init), "ibv_create_srq");
    struct ibv_qp *target = dc_qp(MLX5DV_DCTYPE_DCT), *initiator = dc_qp(MLX5DV_DCTYPE_DCI);
    struct ibv_ah *ah = own_address(1);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(initiator);
    begin(qp);
    ibv_wr_rdma_write(qp, end.mr->rkey, address_of(&end) + SIZE / 2);
    mlx5dv_wr_set_dc_addr(mlx5dv_qp_ex_from_ibv_qp_ex(qp), ah, target->qp_num, 5);
    complete(qp);
    completion(&end);
    check(ibv_destroy_qp(initiator), "ibv_destroy_qp");
    check(ibv_destroy_qp(target), "ibv_destroy_qp");
    check(ibv_destroy_ah(ah), "ibv_destroy_ah");
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
    close_end();
    return 0;
}

static struct ibv_qp *srd_qp(void)
{
    struct ibv_qp_init_attr_ex init = extended(IBV_QPT_DRIVER, IBV_QP_EX_WITH_SEND);
    struct efadv_qp_init_attr own = {.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD};
    struct ibv_qp *qp = need(efadv_create_qp_ex(context, &init, &own, sizeof own), "efadv_create_qp_ex");
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 5};
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), "ibv_modify_qp to INIT");
    attr.qp_state = IBV_QPS_RTR;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE), "ibv_modify_qp to RTR");
    attr.qp_state = IBV_QPS_RTS;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), "ibv_modify_qp to RTS");
    return qp;
}

static int srd(void)
{
    open_end(0);
    struct ibv_qp *one = srd_qp(), *other = srd_qp();
    struct ibv_ah *ah = own_address(0);
    two_receives(other);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one);
    begin(qp);
    ibv_wr_send(qp);
    ibv_wr_set_ud_addr(qp, ah, other->qp_num, 5);
    complete(qp);
    completion(&end);
    completion(&end);
    check(ibv_destroy_qp(one), "ibv_destroy_qp");
    check(ibv_destroy_qp(other), "ibv_destroy_qp");
    check(ibv_destroy_ah(ah), "ibv_destroy_ah");
    close_end();
    return 0;
}

static void write_block(const struct mlx5dv_qp *memory, uint16_t at, uint64_t address, uint32_t rkey)
{
    struct {
        struct mlx5_wqe_ctrl_seg control;
        struct mlx5_wqe_raddr_seg remote;
        struct mlx5_wqe_data_seg data;
    } *block = (void *)((char *)memory->sq.buf + (size_t)(at % memory->sq.wqe_cnt) * memory->sq.stride);
    mlx5dv_set_ctrl_seg(&block->control, at, MLX5_OPCODE_RDMA_WRITE, 0, end.qp->qp_num, MLX5_WQE_CTRL_CQ_UPDATE,
                        sizeof *block / 16, 0, 0);
    block->remote = (struct mlx5_wqe_raddr_seg){.raddr = htobe64(address), .rkey = htobe32(rkey)};
    mlx5dv_set_data_seg(&block->data, 64, end.mr->lkey, address_of(&end));
    atomic_thread_fence(memory_order_seq_cst);
    memory->dbrec[MLX5_SND_DBR] = htobe32(at + 1);
    atomic_thread_fence(memory_order_seq_cst);
    *(volatile uint64_t *)memory->bf.reg = *(uint64_t *)&block->control;
}

static int direct(bool writes)
{
    struct end other = {0};
    struct mlx5dv_qp memory = {0};
    make_pair(&end, &other);
    struct mlx5dv_obj object = {.qp = {.in = end.qp, .out = &memory}};
    check(mlx5dv_init_obj(&object, MLX5DV_OBJ_QP), "mlx5dv_init_obj");
    if (writes) {
        for (uint16_t i = 0; i < 3; i++)
            write_block(&memory, i, address_of(&other), i == 2 ? other.mr->rkey + 0x100 : other.mr->rkey);
        while (completion(&end) == IBV_WC_SUCCESS)
            ;
    }
    return destroy_pair(&end, &other);
}

/* The daemon fails the call of the function of libmlx5, which closes what it has opened. */
static int refused(void)
{
    struct ibv_device **devices = need(ibv_get_device_list(NULL), "ibv_get_device_list");
    struct mlx5dv_context_attr attr = {.flags = 0};
    struct ibv_context *opened = mlx5dv_open_device(devices[0], &attr);
    ibv_free_device_list(devices);
    return opened != NULL;
}

int main(int count, char **arguments)
{
    const char *name = count > 1 ? arguments[1] : "";
    if (strcmp(name, "dc") == 0)
        return dc(count > 2);
    if (strcmp(name, "srd") == 0)
        return srd();
    if (strcmp(name, "direct") == 0)
        return direct(count > 2);
    if (strcmp(name, "batch") == 0)
        return batch(count > 2 ? arguments[2] : "");
    if (strcmp(name, "refused") == 0)
        return refused();
    fprintf(stderr, "usage: providers batch [open | lacking] | dc [cut] | srd | direct [write] | refused\n");
    return 1;
}
