/* Two receives have the same buffer, and two messages arrive before the first completion is polled. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&other);
    sge.length = SIZE / 2;
    post_receive(&other, sge);
    sge.addr += FAULT_OR(0, SIZE / 2);
    post_receive(&other, sge); /* FAULT */
    for (int i = 0; i < 2; i++) {
        struct ibv_sge message = all_of(&one);
        message.length = SIZE / 2;
        post(&one, IBV_WR_SEND, message, 0, 0);
        completion(&one);
    }
    completion(&other);
    completion(&other);
    return destroy_pair(&one, &other);
}
