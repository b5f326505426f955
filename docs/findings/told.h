/* Messages that tell a peer of memory, for the programs of findings about it. */
#ifndef TOLD_H
#define TOLD_H

#include "pair.h"

/* What is told of is the first half of a buffer; messages are in the second. */
#define HALF (SIZE / 2)

struct told {
    uint64_t address;
    uint32_t rkey, length;
};

static inline struct ibv_sge part_of(const struct end *end, uint32_t offset, uint32_t length)
{
    return (struct ibv_sge){.addr = (uintptr_t)end->buffer + offset, .length = length, .lkey = end->mr->lkey};
}

static inline __attribute__((always_inline)) void message(struct end *from, struct end *to, uint32_t length)
{
    post_receive(to, part_of(to, HALF + 64, 64));
    post(from, IBV_WR_SEND, part_of(from, HALF, length), 0, 0);
    completion(from);
    completion(to);
}

/* Tells the peer of `from` of HALF bytes. */
static inline __attribute__((always_inline)) void tell_of(struct end *from, struct end *to, const struct ibv_mr *mr)
{
    const struct told told = {(uintptr_t)mr->addr, mr->rkey, HALF};
    memcpy(from->buffer + HALF, &told, sizeof told);
    message(from, to, sizeof told);
}

static inline __attribute__((always_inline)) void tell(struct end *from, struct end *to)
{
    tell_of(from, to, from->mr);
}

static inline __attribute__((always_inline)) void answer(struct end *from, struct end *to)
{
    message(from, to, 4);
}

/* The peer READs what it was told of. */
static inline __attribute__((always_inline)) void read_told(struct end *peer, const struct end *owner)
{
    post(peer, IBV_WR_RDMA_READ, part_of(peer, 0, HALF), address_of(owner), owner->mr->rkey);
    completion(peer);
}

/* The peer WRITEs what it was told of, with this key. */
static inline __attribute__((always_inline)) void write_told(struct end *peer, const struct ibv_mr *mr)
{
    post(peer, IBV_WR_RDMA_WRITE, part_of(peer, 0, HALF), (uintptr_t)mr->addr, mr->rkey);
    completion(peer);
}

#endif
