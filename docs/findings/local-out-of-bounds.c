/* The scatter/gather element begins 8 bytes before the region. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    sge.addr -= FAULT_OR(8, 0);
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
