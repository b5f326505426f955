/*
 * The LID is the peer's, and the GID in the GRH is not: it was never exchanged.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.ah_attr.grh.dgid.raw[15] += FAULT_OR(1, 0);
    connect_ends(&one, &other); /* FAULT */
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
