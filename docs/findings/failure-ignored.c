/* The program counts completions with an error status, and posts to the queue pair again. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const uint32_t rkey = FAULT_OR(other.mr->rkey ^ 1, other.mr->rkey);
    int failed = 0;
    for (int i = 0; i < 8; i++) {
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), rkey); /* FAULT */
        failed += completion(&one) != IBV_WC_SUCCESS;
    }
    printf("%d of 8 failed\n", failed);
    return destroy_pair(&one, &other);
}
