/* The server frees a buffer that is still registered, and whose rkey the peer has. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    char *block = need(malloc(SIZE), "malloc");
    other.extra = need(ibv_reg_mr(other.pd, block, SIZE, IBV_ACCESS_REMOTE_READ), "ibv_reg_mr");
    const uint64_t address = (uintptr_t)block;
#ifndef FIXED
    free(block); /* FAULT */
#endif
    post(&one, IBV_WR_RDMA_READ, all_of(&one), address, other.extra->rkey);
    completion(&one);
#ifdef FIXED
    check(ibv_dereg_mr(other.extra), "ibv_dereg_mr");
    other.extra = NULL;
    free(block);
#endif
    return destroy_pair(&one, &other);
}
