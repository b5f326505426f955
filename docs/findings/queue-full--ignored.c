/* A loop ends if ibv_post_send returns less than 0, which it never does: requests that are refused count as posted. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    int posted = 0;
    for (uint64_t i = 0; i < FAULT_OR(100, 8); i++) {
        struct ibv_send_wr *bad, wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
        wr.wr.rdma.remote_addr = address_of(&other);
        wr.wr.rdma.rkey = other.mr->rkey;
        const int result = ibv_post_send(one.qp, &wr, &bad); /* FAULT */
        if (FAULT_OR(result < 0, result != 0))
            break;
        posted++;
    }
    printf("%d posted\n", posted);
    for (int i = 0; i < 8; i++)
        completion(&one);
    return destroy_pair(&one, &other);
}
