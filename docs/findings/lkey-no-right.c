/* A READ into memory that the device may not write. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    one.extra = need(ibv_reg_mr(one.pd, one.buffer, SIZE, FAULT_OR(0, IBV_ACCESS_LOCAL_WRITE)), "ibv_reg_mr");
    struct ibv_sge sge = all_of(&one);
    sge.lkey = one.extra->lkey;
    post(&one, IBV_WR_RDMA_READ, sge, address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
