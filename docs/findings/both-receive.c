/* Both ends wait for a message of the other. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post_receive(&one, all_of(&one)); /* FAULT */
    post_receive(&other, all_of(&other));
#ifdef FIXED
    post(&other, IBV_WR_SEND, all_of(&other), 0, 0);
    completion(&other);
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
#else
    alarm(3);
#endif
    completion(&one);
    completion(&other);
    return destroy_pair(&one, &other);
}
