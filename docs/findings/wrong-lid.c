/*
 * The program was tried on RoCE only: it connects by GID, and sends no LID to the peer.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.ah_attr.dlid = FAULT_OR(0, lid);
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
