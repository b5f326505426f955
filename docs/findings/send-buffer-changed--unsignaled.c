/* The buffer of an unsignaled WRITE is used again after it has arrived, before a later completion is polled. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    struct ibv_qp_init_attr init = small_qp();
    init.sq_sig_all = 0;
    make_end_with(&one, init, 16);
    make_end(&other);
    connect_ends(&one, &other);
    memset(one.buffer, 1, SIZE);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    while (((volatile char *)other.buffer)[SIZE - 1] != 1)
        ;
#ifndef FIXED
    memset(one.buffer, 2, SIZE);
#endif
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, wr = {
        .wr_id = 2,
        .sg_list = &sge,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE,
        .send_flags = IBV_SEND_SIGNALED,
        .wr.rdma = {.remote_addr = address_of(&other), .rkey = other.mr->rkey},
    };
    check(ibv_post_send(one.qp, &wr, &bad), "ibv_post_send");
    completion(&one);
#ifdef FIXED
    memset(one.buffer, 2, SIZE);
#endif
    return destroy_pair(&one, &other);
}
