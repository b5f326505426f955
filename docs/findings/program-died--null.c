/* The result of a registration is not checked: it was refused, since a remote right needs the local one. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const int rights = IBV_ACCESS_REMOTE_WRITE | FAULT_OR(0, IBV_ACCESS_LOCAL_WRITE);
    one.extra = ibv_reg_mr(one.pd, one.buffer, SIZE, rights);
    struct ibv_sge all = all_of(&one);
    all.lkey = one.extra->lkey; /* FAULT */
    post(&one, IBV_WR_RDMA_WRITE, all, address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
