/* The memory of a request is deregistered before the request is posted. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const struct ibv_sge sge = all_of(&one);
#ifndef FIXED
    check(ibv_dereg_mr(one.mr), "ibv_dereg_mr"); /* FAULT */
    one.mr = NULL;
#endif
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
