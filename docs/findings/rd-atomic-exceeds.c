/* max_rd_atomic is larger than the peer's max_dest_rd_atomic. */
#include "pair.h"

static struct ibv_sge eighth_of(const struct end *end, int i)
{
    const uint32_t length = SIZE / 8;
    return (struct ibv_sge){.addr = address_of(end) + (uint64_t)i * length, .length = length, .lkey = end->mr->lkey};
}

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.max_rd_atomic = FAULT_OR(8, 1);
    connect_ends(&one, &other); /* FAULT */
    for (int i = 0; i < 8; i++)
        post(&one, IBV_WR_RDMA_READ, eighth_of(&one, i), address_of(&other), other.mr->rkey); /* FAULT */
    for (int i = 0; i < 8; i++)
        completion(&one);
    return destroy_pair(&one, &other);
}
