/* The receive has 16 bytes, the message 4096. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&other);
    sge.length = FAULT_OR(16, SIZE);
    post_receive(&other, sge); /* FAULT */
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    completion(&other);
    return destroy_pair(&one, &other);
}
