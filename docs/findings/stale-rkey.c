/* The peer deregisters its memory before the WRITE arrives. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const uint32_t rkey = other.mr->rkey;
#ifndef FIXED
    check(ibv_dereg_mr(other.mr), "ibv_dereg_mr"); /* FAULT */
    other.mr = NULL;
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
