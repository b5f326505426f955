/* A READ of data that its owner changes at any time: the reader checks its version and reads again. The owner says so. */
#include "pair.h"

#include <userdma_check.h>

int main(void)
{
    struct end one = {0}, other = {0}, second = {0}, peer = {0};
    make_pair(&one, &other);
    make_end(&second);
    make_end(&peer);
    connect_ends(&second, &peer);
    peer.extra = need(ibv_reg_mr(peer.pd, other.buffer, SIZE, peer.access), "ibv_reg_mr");
#ifdef FIXED
    USERDMA_CHECK_BENIGN_RACE(other.buffer, SIZE, "readers check the version before and after the data");
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    post(&second, IBV_WR_RDMA_READ, all_of(&second), address_of(&other), peer.extra->rkey); /* FAULT */
    completion(&second);
    completion(&one);
    destroy_end(&second);
    destroy_end(&peer);
    return destroy_pair(&one, &other);
}
