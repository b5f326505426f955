/* The owner tells its peer of a buffer by a message, gets no answer, and uses the buffer for the next message. */
#include "told.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    memset(one.buffer, 1, HALF);
    tell(&one, &other);
#ifdef FIXED
    answer(&other, &one);
#endif
    memset(one.buffer, 2, HALF);
    tell(&one, &other); /* FAULT */
    return destroy_pair(&one, &other);
}
