/* Two queue pairs WRITE to the same bytes, and the program does not wait for the first WRITE. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0}, second = {0}, peer = {0};
    make_pair(&one, &other);
    make_end(&second);
    make_end(&peer);
    connect_ends(&second, &peer);
    /* A region of the same memory for the second peer. */
    peer.extra = need(ibv_reg_mr(peer.pd, other.buffer, SIZE, peer.access), "ibv_reg_mr");
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
#ifdef FIXED
    completion(&one);
#endif
    post(&second, IBV_WR_RDMA_WRITE, all_of(&second), address_of(&other), peer.extra->rkey); /* FAULT */
    completion(&second);
#ifndef FIXED
    completion(&one);
#endif
    destroy_end(&second);
    destroy_end(&peer);
    return destroy_pair(&one, &other);
}
