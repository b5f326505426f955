/* More receives are posted than the queue holds. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    sge.length = SIZE / 8;
    struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
    for (int i = 0; i < FAULT_OR(1000, 8); i++) {
        sge.addr = address_of(&one) + (uint64_t)(i % 8) * sge.length;
        if (ibv_post_recv(one.qp, &wr, &bad)) /* FAULT */
            break;
    }
    return destroy_pair(&one, &other);
}
