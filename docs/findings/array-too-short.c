/* A poll of up to 16 completions into one struct ibv_wc: with two of them, the stack is overwritten. */
#include "pair.h"

static __attribute__((noinline)) int take(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    return ibv_poll_cq(cq, FAULT_OR(16, 1), &wc); /* FAULT */
}

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    for (int i = 0; i < 4; i++)
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    for (int taken = 0; taken < 4;)
        taken += take(one.cq);
    return destroy_pair(&one, &other);
}
