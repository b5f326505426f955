/*
 * A byte of a receive buffer is read before the completion was polled.
 * Compile: -fsanitize=thread
 */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
#ifndef FIXED
    one.buffer[0] = other.buffer[0]; /* FAULT */
#endif
    completion(&other);
    one.buffer[0] = other.buffer[0];
    return destroy_pair(&one, &other);
}
