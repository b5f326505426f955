/* The move to RTR lacks the path MTU and two more attributes, and the program ignores the refusal. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
#ifndef FIXED
    struct ibv_qp_attr attr = one.attr;
    attr.qp_state = IBV_QPS_RTR;
    ibv_modify_qp(one.qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN); /* FAULT */
#endif
    connect_ends(&one, &other);
    return destroy_pair(&one, &other);
}
