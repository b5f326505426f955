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
    for (int i = 0; i <= (one.cq->cqe < 40 ? one.cq->cqe : 40); i++)
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    /* A message in the other direction comes after them. */
    post_receive(&one, all_of(&one));
    post(&other, IBV_WR_SEND, all_of(&other), 0, 0);
    completion(&other);
    return destroy_pair(&one, &other);
}
