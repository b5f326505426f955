/* The owner takes a buffer back while a READ of it waits for its queue pair. */
#include "pair.h"

#include <userdma.h>

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    const uint64_t lend = userdma_lend(other.buffer, SIZE, USERDMA_READ, "request 1");
    to_rtr(&one, &other);
    to_rts(&one);
    post(&one, IBV_WR_RDMA_READ, all_of(&one), address_of(&other), other.mr->rkey);
#ifndef FIXED
    usleep(20000); /* the device has the request */
    userdma_take_back(lend); /* FAULT */
    userdma_lend(other.buffer, SIZE, USERDMA_READ, "request 2");
#endif
    to_rtr(&other, &one);
    to_rts(&other);
    completion(&one);
#ifdef FIXED
    userdma_take_back(lend);
#endif
    return destroy_pair(&one, &other);
}
