/* One end of a connection sends in traffic class 236 (DSCP 59; SL 3), and the other answers in class 0. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.ah_attr.grh.traffic_class = 236;
    one.attr.ah_attr.sl = 3;
    other.attr.ah_attr.grh.traffic_class = FAULT_OR(0, 236);
    other.attr.ah_attr.sl = FAULT_OR(0, 3);
    connect_ends(&one, &other); /* FAULT */
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
