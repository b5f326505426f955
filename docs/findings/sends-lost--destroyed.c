/* A queue pair is destroyed while its last message waits for a receive of the peer. */
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
#endif
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
#ifdef FIXED
    completion(&one);
#endif
    destroy_end(&one); /* FAULT */
    destroy_end(&other);
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
