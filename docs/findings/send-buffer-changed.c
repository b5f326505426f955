/* The buffer of a SEND is changed before the SEND is complete: the peer has no receive posted yet. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.rnr_retry = 7;
    connect_ends(&one, &other);
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    completion(&other);
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0); /* FAULT */
    usleep(100000);
#ifndef FIXED
    memset(one.buffer, 1, SIZE);
#endif
    post_receive(&other, all_of(&other));
    completion(&one);
    completion(&other);
    return destroy_pair(&one, &other);
}
