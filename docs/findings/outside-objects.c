/*
 * A request sends more bytes than its object has: the region is the whole heap block's page.
 * Compile: -fsanitize=address
 */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    char *const block = need(malloc(100), "malloc");
    memset(block, 1, 100);
    char *const page = (char *)((uintptr_t)block & ~(uintptr_t)(SIZE - 1));
    one.extra = need(ibv_reg_mr(one.pd, page, 2 * SIZE, 0), "ibv_reg_mr");
    post_receive(&other, all_of(&other));
    const struct ibv_sge sge = {(uintptr_t)block, FAULT_OR(101, 100), one.extra->lkey};
    post(&one, IBV_WR_SEND, sge, 0, 0); /* FAULT */
    completion(&one);
    completion(&other);
    const int status = destroy_pair(&one, &other);
    free(block);
    return status;
}
