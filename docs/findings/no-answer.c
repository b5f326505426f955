/* No device has the destination GID. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
#ifndef FIXED
    one.attr.ah_attr.grh.dgid.raw[15] ^= 0x40;
#endif
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
