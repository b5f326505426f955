/* ibv_wr_set_sge is called before ibv_wr_send, so the message has no data. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    recreate_extended(&one, IBV_QP_EX_WITH_SEND);
    connect_ends(&one, &other);
    post_receive(&other, all_of(&other));
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    ibv_wr_start(qp);
    qp->wr_id = 1;
    qp->wr_flags = IBV_SEND_SIGNALED;
#ifndef FIXED
    ibv_wr_set_sge(qp, one.mr->lkey, address_of(&one), SIZE); /* FAULT */
#endif
    ibv_wr_send(qp);
#ifdef FIXED
    ibv_wr_set_sge(qp, one.mr->lkey, address_of(&one), SIZE);
#endif
    check(ibv_wr_complete(qp), "ibv_wr_complete");
    completion(&one);
    completion(&other);
    return destroy_pair(&one, &other);
}
