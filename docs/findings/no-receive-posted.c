/* A SEND to a peer without a receive. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
#ifdef FIXED
    post_receive(&other, all_of(&other));
#endif
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
