/* Requests were linked to a list at the start, and each is posted alone: what `next` leads to goes with it. */
#include "pair.h"

#define PARTS 3

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge parts[PARTS];
    struct ibv_send_wr sends[PARTS], *bad;
    for (int i = 0; i < PARTS; i++) {
        parts[i] = (struct ibv_sge){.addr = address_of(&one) + 64 * (uint64_t)i, .length = 64, .lkey = one.mr->lkey};
        sends[i] = (struct ibv_send_wr){.wr_id = (uint64_t)i + 1, .sg_list = &parts[i], .num_sge = 1};
        sends[i].opcode = IBV_WR_SEND, sends[i].send_flags = IBV_SEND_SIGNALED;
        sends[i].next = i + 1 < FAULT_OR(PARTS, 0) ? &sends[i + 1] : NULL;
    }
    for (int i = 0; i < PARTS * (PARTS + 1) / 2; i++)
        post_receive(&other, (struct ibv_sge){.addr = address_of(&other) + 64 * (uint64_t)i, .length = 64,
                                              .lkey = other.mr->lkey});
    for (int i = 0; i < PARTS; i++) {
        check(ibv_post_send(one.qp, &sends[i], &bad), "ibv_post_send"); /* FAULT */
        for (int sent = FAULT_OR(PARTS - i, 1); sent > 0; sent--)
            completion(&one), completion(&other);
    }
    return destroy_pair(&one, &other);
}
