/* The peer READs for the first message, after the owner has used the buffer for the second. */
#include "told.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    memset(one.buffer, 1, HALF);
    tell(&one, &other);
#ifdef FIXED
    read_told(&other, &one);
    answer(&other, &one);
#endif
    memset(one.buffer, 2, HALF);
    tell(&one, &other);
    read_told(&other, &one); /* FAULT */
    return destroy_pair(&one, &other);
}
