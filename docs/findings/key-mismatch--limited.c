/*
 * Both ends are limited members of their partition. With the options, entry 1 of the table of P_Keys is 0x0001.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband,pkeys=0xffff+0x0001
 */
#include "pair.h"

int main(void)
{
    struct end one = {.pkey_index = FAULT_OR(1, 0)}, other = {.pkey_index = FAULT_OR(1, 0)};
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
