/* The region has no right for peers, so that it has no rkey. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    static char target[SIZE];
    const int rights = IBV_ACCESS_LOCAL_WRITE | FAULT_OR(0, IBV_ACCESS_REMOTE_WRITE);
    other.extra = need(ibv_reg_mr(other.pd, target, SIZE, rights), "ibv_reg_mr"); /* FAULT */
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), (uintptr_t)target, other.extra->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
