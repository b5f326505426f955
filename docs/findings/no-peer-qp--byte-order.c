/* The number of the peer's queue pair is used as it came over the network, in the other byte order. */
#include "pair.h"
#include <arpa/inet.h>

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    const uint32_t received = htonl(other.qp->qp_num);
    one.attr.dest_qp_num = FAULT_OR(received, ntohl(received));
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
