/* The buffer of a SEND is used again right after ibv_post_send. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    for (int i = 0; i < 8; i++) {
        post_receive(&other, all_of(&other));
#ifdef FIXED
        memset(one.buffer, 0x91 * i, SIZE);
#endif
        post(&one, IBV_WR_SEND, all_of(&one), 0, 0); /* FAULT */
#ifndef FIXED
        memset(one.buffer, 0x91 * i + 1, SIZE);
#endif
        completion(&one);
        completion(&other);
    }
    return destroy_pair(&one, &other);
}
