/* The destination of a READ is the source of a WRITE before the READ is complete. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_READ, (struct ibv_sge){.addr = address_of(&one), .length = 64, .lkey = one.mr->lkey},
         address_of(&other), other.mr->rkey);
#ifdef FIXED
    completion(&one);
#endif
    const struct ibv_sge fetched = {.addr = address_of(&one), .length = 64, .lkey = one.mr->lkey};
    post(&one, IBV_WR_RDMA_WRITE, fetched, address_of(&other) + SIZE / 2, other.mr->rkey); /* FAULT */
    completion(&one);
#ifndef FIXED
    completion(&one);
#endif
    return destroy_pair(&one, &other);
}
