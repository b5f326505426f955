/* The program waits for its data at the peer, and polls no completion: its send queue has no slot on most adapters. */
#include "pair.h"

#define MESSAGES 12

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    memset(one.buffer, 1, MESSAGES);
    volatile char *arrived = other.buffer;
    for (int i = 0; i < MESSAGES; i++) {
        struct ibv_sge sge = {.addr = address_of(&one) + i, .length = 1, .lkey = one.mr->lkey};
        post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other) + i, other.mr->rkey); /* FAULT */
        while (!arrived[i])
            ;
#ifdef FIXED
        completion(&one);
#endif
    }
    return destroy_pair(&one, &other);
}
