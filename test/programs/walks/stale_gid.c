/*
 * The fault of nccl #2157, for a walk: the index of the GID is looked up once. When an address has left and come back,
 * on Linux its GID has another index, since queue pairs hold the first one; each new connection is then refused for
 * ever.
 */
#include "../endpoint.h"

#define ROUNDS 20

static struct endpoint ends[2];

/* Both ends, with the index that was found at the start. False: refused. */
static bool connect_again(int index)
{
    for (int i = 0; i < 2; i++) {
        ibv_destroy_qp(ends[i].qp);
        ends[i].gid_index = index;
        create_qp(&ends[i]);
    }
    for (int i = 0; i < 2; i++) {
        struct ibv_qp_attr attr = {
            .qp_state = IBV_QPS_RTR,
            .path_mtu = IBV_MTU_1024,
            .dest_qp_num = ends[!i].qp->qp_num,
            .max_dest_rd_atomic = 1,
            .min_rnr_timer = 1,
            .ah_attr = {.is_global = 1,
                        .port_num = 1,
                        .grh = {.dgid = ends[!i].gid, .sgid_index = (uint8_t)index, .hop_limit = 64}}};
        if (ibv_modify_qp(ends[i].qp, &attr,
                          IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                              IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) != 0)
            return false;
        attr.qp_state = IBV_QPS_RTS;
        attr.timeout = 12;
        attr.retry_cnt = 7;
        attr.rnr_retry = 7;
        if (ibv_modify_qp(ends[i].qp, &attr,
                          IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                              IBV_QP_MAX_QP_RD_ATOMIC) != 0)
            return false;
    }
    return true;
}

static bool write_once(void)
{
    struct ibv_sge sge = {(uintptr_t)ends[0].buffer, 64, ends[0].mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.rdma = {(uintptr_t)ends[1].buffer, ends[1].mr->rkey}}, *bad;
    struct ibv_wc wc;
    if (ibv_post_send(ends[0].qp, &wr, &bad) != 0)
        return false;
    while (next_completion(&ends[0], &wc) == 0)
        usleep(100);
    return wc.status == IBV_WC_SUCCESS;
}

int main(int argc, char **argv)
{
    (void)argv;
    NEED(argc == 1, "usage: stale_gid");
    struct ibv_context *context = open_named(NULL);
    create_endpoint(&ends[0], context, &default_options, 4096, 0);
    create_endpoint(&ends[1], context, &default_options, 4096, 0);
    const int index = ends[0].gid_index;
    for (int i = 0; i < ROUNDS; i++)
        /* A connection for each few requests, as transfer engines make them. */
        while (!(i % 4 != 0 || connect_again(index)) || !write_once()) {
            fprintf(stderr, "the connection is made anew with GID index %d\n", index);
            usleep(20000);
            while (!connect_again(index))
                usleep(20000);
        }
    destroy_endpoint(&ends[0]);
    destroy_endpoint(&ends[1]);
    ibv_close_device(context);
    puts("done");
    return 0;
}
