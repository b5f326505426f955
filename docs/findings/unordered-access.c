/*
 * A program waits for a flag that a peer writes, and then for no more of the data behind it.
 * Compile: -fsanitize=thread
 */
#include "pair.h"

/* Where the flag is in the buffer: before or after the data. */
#define FLAG FAULT_OR(0, SIZE - 8)
#define DATA FAULT_OR(8, 0)

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    *(uint64_t *)(one.buffer + FLAG) = 1;
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), (uintptr_t)other.buffer, other.mr->rkey);
    while (__atomic_load_n((uint64_t *)(other.buffer + FLAG), __ATOMIC_ACQUIRE) == 0)
        ;
    const char first = other.buffer[DATA]; /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other) + first;
}
