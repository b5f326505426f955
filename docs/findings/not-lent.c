/* The owner takes a buffer back from a request that it gives up, and lends it again; the peer reads it for the first. */
#include "pair.h"

#include <userdma.h>

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const uint64_t first = userdma_lend(other.buffer, SIZE, USERDMA_READ, "request 1");
#ifndef FIXED
    userdma_take_back(first); /* FAULT */
    userdma_lend(other.buffer, SIZE, USERDMA_WRITE, "request 2");
#endif
    post(&one, IBV_WR_RDMA_READ, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
#ifdef FIXED
    userdma_take_back(first);
#endif
    return destroy_pair(&one, &other);
}
