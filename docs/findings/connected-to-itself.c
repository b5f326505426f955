/* dest_qp_num of one end is its own number. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.dest_qp_num = FAULT_OR(one.qp->qp_num, other.qp->qp_num);
    to_rtr(&one, &other); /* FAULT */
    to_rtr(&other, &one);
    to_rts(&one);
    to_rts(&other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), FAULT_OR(address_of(&one), address_of(&other)), FAULT_OR(one.mr, other.mr)->rkey);
    completion(&one);
    return destroy_pair(&one, &other);
}
