/* The peer posts no receive, and the sender repeats its message without limit (rnr_retry 7). */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.rnr_retry = 7;
    connect_ends(&one, &other);
#ifdef FIXED
    post_receive(&other, all_of(&other));
#else
    alarm(3);
#endif
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
