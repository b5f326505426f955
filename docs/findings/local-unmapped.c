/* Registered memory is unmapped before a request uses it. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
#ifndef FIXED
    check(munmap(one.buffer, SIZE), "munmap"); /* FAULT */
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
