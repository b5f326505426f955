/* A request is posted to a queue pair that was destroyed: two parts of the program have its pointer. */
#include "pair.h"

int main(void)
{
    static struct end a, b;
    make_pair(&a, &b);
    struct ibv_qp *kept = a.qp;
    struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_RDMA_WRITE, .wr.rdma = {address_of(&b), b.mr->rkey}};
    if (FAULT_OR(0, 1)) {
        check(ibv_post_send(kept, &wr, &bad), "ibv_post_send");
        completion(&a);
    }
    check(ibv_destroy_qp(a.qp), "ibv_destroy_qp");
    a.qp = NULL;
    if (FAULT_OR(1, 0))
        ibv_post_send(kept, &wr, &bad); /* FAULT */
    return destroy_pair(&a, &b);
}
