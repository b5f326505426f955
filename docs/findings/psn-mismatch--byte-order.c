/* The peer's PSN is used as it came over the network, in the other byte order. */
#include "pair.h"
#include <arpa/inet.h>

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.sq_psn = 0x123400;
    const uint32_t received = htonl(one.attr.sq_psn);
    other.attr.rq_psn = FAULT_OR(received, ntohl(received));
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
