/* timeout is 0: a request may wait for its answer without limit. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.timeout = FAULT_OR(0, 14);
    connect_ends(&one, &other); /* FAULT */
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
