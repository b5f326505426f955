/* The WRITE ends 8 bytes after the end of the region. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other) + FAULT_OR(8, 0), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
