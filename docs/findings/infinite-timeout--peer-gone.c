/* The peer's queue pair is destroyed, and the requester waits for its answer without limit. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.timeout = FAULT_OR(0, 14);
    connect_ends(&one, &other);
#ifndef FIXED
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    other.qp = NULL;
    alarm(8);
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
