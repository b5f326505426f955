/* The program gives the pages of a receive buffer back to the system: an adapter keeps the old ones. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post_receive(&other, all_of(&other));
#ifndef FIXED
    check(madvise(other.buffer, SIZE, MADV_DONTNEED), "madvise"); /* FAULT */
#endif
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    completion(&other);
    return destroy_pair(&one, &other);
}
