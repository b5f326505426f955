/* The program waits for the completion of a request that is not signaled. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    struct ibv_qp_init_attr init = small_qp();
    init.sq_sig_all = FAULT_OR(0, 1);
    make_end_with(&one, init, 16);
    make_end(&other);
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
#ifndef FIXED
    alarm(3);
#endif
    completion(&one);
    return destroy_pair(&one, &other);
}
