/*
 * Two connected ends for programs of other languages that lend memory and set faults: `peers_open` returns a buffer of
 * PEERS_BYTES, and `peers_read` READs it from the other end.
 */
#include "../../../../docs/findings/pair.h"

static struct end one, other;

char *peers_open(void)
{
    make_pair(&one, &other);
    return other.buffer;
}

int peers_read(void)
{
    post(&one, IBV_WR_RDMA_READ, all_of(&one), address_of(&other), other.mr->rkey);
    return completion(&one);
}

/* Of the queue pair that gets the requests. */
unsigned peers_qpn(void)
{
    return other.qp->qp_num;
}

int peers_close(void)
{
    return destroy_pair(&one, &other);
}
