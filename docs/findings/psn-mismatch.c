/* sq_psn of one end differs from rq_psn of the other. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.sq_psn = FAULT_OR(200, 100);
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
