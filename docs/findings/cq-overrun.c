/* More requests complete than the CQ has entries, and the program does not poll. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    struct ibv_qp_init_attr init = small_qp();
    init.cap.max_send_wr = 64;
    make_end_with(&one, init, FAULT_OR(1, 128)); /* FAULT */
    make_end(&other);
    connect_ends(&one, &other);
    struct ibv_sge from = all_of(&one), into = all_of(&one), back = all_of(&other);
    from.length = into.length = back.length = SIZE / 2;
    into.addr += SIZE / 2;
    back.addr += SIZE / 2;
    const int writes = FAULT_OR(one.cq->cqe + 1, 40);
    for (int i = 0; i < writes; i++)
        post(&one, IBV_WR_RDMA_WRITE, from, address_of(&other), other.mr->rkey);
    for (int i = 0; i < FAULT_OR(0, writes); i++)
        completion(&one);
    /* A SEND back: until it has completed, the WRITEs have time to complete. */
    post_receive(&one, into);
    post(&other, IBV_WR_SEND, back, 0, 0);
    completion(&other);
    return destroy_pair(&one, &other);
}
