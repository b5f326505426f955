/* A lock word is written in the byte order of the network, and a compare-and-swap expects the same number in that of the host. */
#include "pair.h"

#include <endian.h>

#define FREE 7
#define TAKEN 8

/* Returns the word that the compare-and-swap has found. */
static uint64_t swap(struct end *one, struct end *other)
{
    struct ibv_wc wc;
    struct ibv_sge sge = {.addr = address_of(one), .length = 8, .lkey = one->mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_ATOMIC_CMP_AND_SWP};
    wr.wr.atomic.remote_addr = address_of(other);
    wr.wr.atomic.rkey = other->mr->rkey;
    wr.wr.atomic.compare_add = FREE;
    wr.wr.atomic.swap = TAKEN;
    check(ibv_post_send(one->qp, &wr, &bad), "ibv_post_send"); /* FAULT */
    while (ibv_poll_cq(one->cq, 1, &wc) == 0)
        usleep(100);
    return *(uint64_t *)one->buffer;
}

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    *(uint64_t *)other.buffer = FAULT_OR(htobe64(FREE), FREE);
    alarm(60);
    for (int tries = 0; swap(&one, &other) != FREE; tries++)
        if (tries == 2000)
            alarm(4);
    return destroy_pair(&one, &other);
}
