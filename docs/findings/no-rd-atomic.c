/* A READ on a queue pair with max_rd_atomic 0. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.max_rd_atomic = FAULT_OR(0, 1);
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_READ, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
