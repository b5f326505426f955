/* The responder's memory is registered in a protection domain other than its queue pair's. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    other.extra = need(ibv_reg_mr(FAULT_OR(one.pd, other.pd), other.buffer, SIZE, other.access), "ibv_reg_mr"); /* FAULT */
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.extra->rkey);
    completion(&one);
    check(ibv_dereg_mr(other.extra), "ibv_dereg_mr");
    other.extra = NULL;
    return destroy_pair(&one, &other);
}
