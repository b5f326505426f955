/* A request is sent while the peer is in INIT. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    to_rtr(&one, &other);
    to_rts(&one);
#ifdef FIXED
    to_rtr(&other, &one);
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
