/* The peer destroys its queue pair before the request. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
#ifndef FIXED
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp"); /* FAULT */
    other.qp = NULL;
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
