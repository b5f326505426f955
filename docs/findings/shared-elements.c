/* Four receives in one list: one struct ibv_sge is filled for each, so all have the last address. */
#include "pair.h"

enum { RECEIVES = 4, BYTES = SIZE / RECEIVES };

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge elements[RECEIVES];
    struct ibv_recv_wr *bad, receives[RECEIVES];
    for (unsigned i = 0; i < RECEIVES; i++) {
        struct ibv_sge *element = &elements[FAULT_OR(0, i)];
        *element = all_of(&other);
        element->addr += i * BYTES;
        element->length = BYTES;
        struct ibv_recv_wr *next = i + 1 < RECEIVES ? &receives[i + 1] : NULL;
        receives[i] = (struct ibv_recv_wr){.wr_id = i, .next = next, .sg_list = element, .num_sge = 1};
    }
    check(ibv_post_recv(other.qp, receives, &bad), "ibv_post_recv"); /* FAULT */
    for (int i = 0; i < RECEIVES; i++) {
        struct ibv_sge message = all_of(&one);
        message.length = BYTES;
        post(&one, IBV_WR_SEND, message, 0, 0);
        completion(&one);
        completion(&other);
    }
    return destroy_pair(&one, &other);
}
