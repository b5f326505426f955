/* A program waits for a message of a queue pair that is destroyed. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post_receive(&one, all_of(&one));
#ifdef FIXED
    post(&other, IBV_WR_SEND, all_of(&other), 0, 0);
    completion(&other);
#endif
    destroy_end(&other); /* FAULT */
    alarm(3);
    completion(&one);
    destroy_end(&one);
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
