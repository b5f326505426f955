/* A counter is changed by an atomic and by a WRITE at the same time. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0}, second = {0}, peer = {0};
    make_pair(&one, &other);
    make_end(&second);
    make_end(&peer);
    connect_ends(&second, &peer);
    peer.extra = need(ibv_reg_mr(peer.pd, other.buffer, SIZE, peer.access), "ibv_reg_mr");
    struct ibv_sge result = {.addr = address_of(&one), .length = 8, .lkey = one.mr->lkey};
    struct ibv_sge value = {.addr = address_of(&second), .length = 8, .lkey = second.mr->lkey};
    post(&one, IBV_WR_ATOMIC_FETCH_AND_ADD, result, address_of(&other), other.mr->rkey);
#ifdef FIXED
    completion(&one);
#endif
    post(&second, IBV_WR_RDMA_WRITE, value, address_of(&other), peer.extra->rkey); /* FAULT */
    completion(&second);
#ifndef FIXED
    completion(&one);
#endif
    destroy_end(&second);
    destroy_end(&peer);
    return destroy_pair(&one, &other);
}
