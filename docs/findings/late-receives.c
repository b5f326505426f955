/* The first receive is posted after the message has arrived; until then the sender retries. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.rnr_retry = 6;
    other.attr.min_rnr_timer = 27; /* 123 ms */
#ifdef FIXED
    post_receive(&other, all_of(&other));
#endif
    connect_ends(&one, &other);
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
#ifndef FIXED
    usleep(200000);
    post_receive(&other, all_of(&other)); /* FAULT */
#endif
    completion(&one);
    return destroy_pair(&one, &other);
}
