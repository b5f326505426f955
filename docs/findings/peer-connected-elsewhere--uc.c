/* UC has no acknowledgements, so messages to a queue pair that is connected to another one seem to succeed. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0}, third = {0};
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = IBV_QPT_UC;
    open_device();
    make_end_with(&one, init, 16);
    make_end_with(&other, init, 16);
    make_end_with(&third, init, 16);
    to_rtr(&one, &other);
    to_rtr(&other, FAULT_OR(&third, &one));
    to_rts(&one);
    to_rts(&other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    destroy_end(&third);
    return destroy_pair(&one, &other);
}
