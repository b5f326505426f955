/* A function returns a request whose list of elements is one of its own variables. */
#include "pair.h"

static struct ibv_send_wr request;

static __attribute__((noinline)) void make_request(const struct end *end, const struct end *peer)
{
#ifdef FIXED
    static
#endif
        struct ibv_sge sge;
    sge = all_of(end);
    struct ibv_sge *volatile list = &sge;
    request = (struct ibv_send_wr){.wr_id = 1, .sg_list = list, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    request.wr.rdma.remote_addr = address_of(peer);
    request.wr.rdma.rkey = peer->mr->rkey;
}

int main(void)
{
    struct end one = {0}, other = {0};
    struct ibv_send_wr *bad;
    make_pair(&one, &other);
    make_request(&one, &other);
    if (ibv_post_send(one.qp, &request, &bad) == 0) /* FAULT */
        completion(&one);
    return destroy_pair(&one, &other);
}
