/* One end is a reliable connection, the other an unreliable one. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = FAULT_OR(IBV_QPT_UC, IBV_QPT_RC);
    other.access = IBV_ACCESS_REMOTE_WRITE;
    make_end_with(&other, init, 16);
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
