/* A list that does not fit into the queue is posted again from its head, not from bad_wr. */
#include "pair.h"

/* The queue has 8 slots, or a few more. */
#define RECEIVES FAULT_OR(64, 8)

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    static struct ibv_sge parts[64];
    static struct ibv_recv_wr list[64];
    for (int i = 0; i < RECEIVES; i++) {
        parts[i] = (struct ibv_sge){.addr = address_of(&one) + 64 * (uint64_t)i, .length = 64, .lkey = one.mr->lkey};
        list[i] = (struct ibv_recv_wr){.wr_id = (uint64_t)i + 1, .sg_list = &parts[i], .num_sge = 1};
        list[i].next = i + 1 < RECEIVES ? &list[i + 1] : NULL;
    }
    struct ibv_recv_wr *bad = NULL;
    if (ibv_post_recv(one.qp, list, &bad) == ENOMEM) {
        post(&other, IBV_WR_SEND, (struct ibv_sge){.addr = address_of(&other), .length = 64, .lkey = other.mr->lkey}, 0, 0);
        completion(&other);
        completion(&one);
        bad->next = NULL;
        ibv_post_recv(one.qp, list, &bad); /* FAULT */
    }
    return destroy_pair(&one, &other);
}
