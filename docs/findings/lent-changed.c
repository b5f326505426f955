/* The owner changes a buffer that it has lent for reading, before the peer reads it. */
#include "pair.h"

#include <userdma.h>

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
#ifdef FIXED
    memset(other.buffer, 1, SIZE);
#else
    memset(other.buffer, 0, SIZE);
#endif
    const uint64_t lend = userdma_lend(other.buffer, SIZE, USERDMA_READ, "block"); /* FAULT */
#ifndef FIXED
    memset(other.buffer, 1, SIZE);
#endif
    post(&one, IBV_WR_RDMA_READ, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    userdma_take_back(lend);
    return destroy_pair(&one, &other);
}
