/* The lkey of the scatter/gather element is not filled in. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    sge.lkey = FAULT_OR(0, one.mr->lkey);
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
