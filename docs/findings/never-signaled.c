/* No request is signaled, so no completion frees the slots of the send queue. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    struct ibv_qp_init_attr init = small_qp();
    init.sq_sig_all = 0;
    make_end_with(&one, init, 16);
    make_end(&other);
    connect_ends(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    wr.wr.rdma.remote_addr = address_of(&other);
    wr.wr.rdma.rkey = other.mr->rkey;
    for (int i = 0; i < 200; i++) {
        wr.send_flags = i % 8 == 7 ? FAULT_OR(0, IBV_SEND_SIGNALED) : 0;
        while (ibv_post_send(one.qp, &wr, &bad) == ENOMEM) /* FAULT */
            drain(&one);
        if (wr.send_flags)
            completion(&one);
    }
    return destroy_pair(&one, &other);
}
