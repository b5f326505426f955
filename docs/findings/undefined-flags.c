/* A flag of memory regions is given as a flag of a send. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    wr.send_flags = IBV_SEND_SIGNALED | FAULT_OR(IBV_ACCESS_ON_DEMAND, 0);
    wr.wr.rdma.remote_addr = address_of(&other);
    wr.wr.rdma.rkey = other.mr->rkey;
    check(ibv_post_send(one.qp, &wr, &bad), "ibv_post_send"); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
