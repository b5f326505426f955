/* An error path leaves a batch without ibv_wr_abort: the next ibv_wr_start waits for ever. */
#include "pair.h"

static int write_at(struct ibv_qp_ex *qp, const struct end *from, const struct end *to, uint64_t offset)
{
    ibv_wr_start(qp); /* FAULT */
    qp->wr_id = offset;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write(qp, to->mr->rkey, address_of(to) + offset);
    if (offset >= SIZE) {
#ifdef FIXED
        ibv_wr_abort(qp);
#endif
        return ERANGE;
    }
    ibv_wr_set_sge(qp, from->mr->lkey, address_of(from), 64);
    return ibv_wr_complete(qp);
}

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    recreate_extended(&one, IBV_QP_EX_WITH_RDMA_WRITE);
    connect_ends(&one, &other);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    alarm(1);
    if (write_at(qp, &one, &other, SIZE) != ERANGE)
        return 1;
    check(write_at(qp, &one, &other, 64), "write_at");
    completion(&one);
    return destroy_pair(&one, &other);
}
