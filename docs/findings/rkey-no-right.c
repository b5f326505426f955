/* The region allows READs only. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const int rights = IBV_ACCESS_LOCAL_WRITE | FAULT_OR(IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE);
    other.extra = need(ibv_reg_mr(other.pd, other.buffer, SIZE, rights), "ibv_reg_mr"); /* FAULT */
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.extra->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
