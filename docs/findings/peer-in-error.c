/* The peer has moved its queue pair to ERR. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
#ifndef FIXED
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    check(ibv_modify_qp(other.qp, &attr, IBV_QP_STATE), "ibv_modify_qp"); /* FAULT */
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
