/*
 * A thread WRITEs two blocks over two queue pairs, each with an addition to a counter behind it; who waits for the value 1
 * does not know which block has come.
 */
#include "pair.h"

enum { BLOCK = 1024, COUNTERS = 2 * BLOCK };

/* A block, and its count. */
static inline __attribute__((always_inline)) void put(struct end *from, uint64_t address, uint64_t counter, uint32_t rkey)
{
    const struct ibv_sge block = {.addr = address_of(from), .length = BLOCK, .lkey = from->mr->lkey};
    const struct ibv_sge result = {.addr = address_of(from) + BLOCK, .length = 8, .lkey = from->mr->lkey};
    post(from, IBV_WR_RDMA_WRITE, block, address, rkey);
    post(from, IBV_WR_ATOMIC_FETCH_AND_ADD, result, counter, rkey); /* FAULT */
}

int main(void)
{
    struct end one = {0}, other = {0}, second = {0}, peer = {0};
    make_pair(&one, &other);
    make_end(&second);
    make_end(&peer);
    connect_ends(&second, &peer);
    peer.extra = need(ibv_reg_mr(peer.pd, other.buffer, SIZE, peer.access), "ibv_reg_mr");
    const uint64_t blocks = address_of(&other), counter = blocks + COUNTERS;
    put(&one, blocks, counter, other.mr->rkey);
    put(&second, blocks + BLOCK, FAULT_OR(counter, counter + 8), peer.extra->rkey);
    completion(&one);
    completion(&one);
    completion(&second);
    completion(&second);
    destroy_end(&second);
    destroy_end(&peer);
    return destroy_pair(&one, &other);
}
