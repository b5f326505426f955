/* The buffer of a SEND is used again right after ibv_wr_complete. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    recreate_extended(&one, IBV_QP_EX_WITH_SEND);
    connect_ends(&one, &other);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    for (int i = 0; i < 8; i++) {
        post_receive(&other, all_of(&other));
        ibv_wr_start(qp);
        qp->wr_id = 1;
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_send(qp);
        ibv_wr_set_sge(qp, one.mr->lkey, address_of(&one), SIZE);
        memset(one.buffer, 0x91 * i, SIZE); /* before the post: no fault */
        check(ibv_wr_complete(qp), "ibv_wr_complete"); /* FAULT */
#ifndef FIXED
        memset(one.buffer, 0x91 * i + 1, SIZE);
#endif
        completion(&one);
        completion(&other);
    }
    return destroy_pair(&one, &other);
}
