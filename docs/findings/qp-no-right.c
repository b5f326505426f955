/* qp_access_flags of the responder's queue pair lack REMOTE_WRITE. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    other.access = IBV_ACCESS_REMOTE_READ | FAULT_OR(0, IBV_ACCESS_REMOTE_WRITE);
    make_end(&other);
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
