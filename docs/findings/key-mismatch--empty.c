/*
 * pkey_index of one end points at an empty entry of the table of P_Keys.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "pair.h"

int main(void)
{
    struct end one = {.pkey_index = FAULT_OR(5, 0)}, other = {0};
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
