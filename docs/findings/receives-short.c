/* The sender counts one credit more than the peer has receives. */
#include "pair.h"

#define CREDITS 4
#define ROUNDS 3

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.rnr_retry = 7;
    connect_ends(&one, &other);
    const int messages = FAULT_OR(CREDITS + 1, CREDITS);
    struct ibv_sge small = {.addr = address_of(&one), .length = 8, .lkey = one.mr->lkey};
    struct ibv_sge slots[CREDITS];
    for (int i = 0; i < CREDITS; i++) {
        slots[i] = (struct ibv_sge){.addr = address_of(&other) + 8 * i, .length = 8, .lkey = other.mr->lkey};
        post_receive(&other, slots[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < messages; i++)
            post(&one, IBV_WR_SEND, small, 0, 0); /* FAULT */
        usleep(100000);
        for (int i = 0; i < messages; i++) {
            completion(&other);
            post_receive(&other, slots[i % CREDITS]);
        }
        for (int i = 0; i < messages; i++)
            completion(&one);
    }
    return destroy_pair(&one, &other);
}
