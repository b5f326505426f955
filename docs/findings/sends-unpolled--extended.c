/* As sends-unpolled.c, with ibv_wr_start and ibv_wr_complete. */
#include "pair.h"

#define MESSAGES 12

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    recreate_extended(&one, IBV_QP_EX_WITH_RDMA_WRITE);
    connect_ends(&one, &other);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    memset(one.buffer, 1, MESSAGES);
    volatile char *arrived = other.buffer;
    for (int i = 0; i < MESSAGES; i++) {
        ibv_wr_start(qp);
        qp->wr_id = 1;
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_rdma_write(qp, other.mr->rkey, address_of(&other) + i);
        ibv_wr_set_sge(qp, one.mr->lkey, address_of(&one) + i, 1);
        check(ibv_wr_complete(qp), "ibv_wr_complete"); /* FAULT */
        while (!arrived[i])
            ;
#ifdef FIXED
        completion(&one);
#endif
    }
    return destroy_pair(&one, &other);
}
