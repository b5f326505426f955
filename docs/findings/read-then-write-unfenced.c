/* The source of a READ is overwritten by the next WRITE of the queue, which may be executed first. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge into = all_of(&one), from = all_of(&one);
    into.length = from.length = SIZE / 2;
    from.addr += SIZE / 2;
    struct ibv_send_wr *bad;
    struct ibv_send_wr change = {.sg_list = &from, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    struct ibv_send_wr fetch = {.sg_list = &into, .num_sge = 1, .opcode = IBV_WR_RDMA_READ, .next = &change};
    fetch.wr.rdma.remote_addr = change.wr.rdma.remote_addr = address_of(&other);
    fetch.wr.rdma.rkey = change.wr.rdma.rkey = other.mr->rkey;
    change.send_flags = FAULT_OR(0, IBV_SEND_FENCE);
    check(ibv_post_send(one.qp, &fetch, &bad), "ibv_post_send"); /* FAULT */
    completion(&one);
    completion(&one);
    return destroy_pair(&one, &other);
}
