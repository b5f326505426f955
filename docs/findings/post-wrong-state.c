/* A send is posted in RTR. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
#ifndef FIXED
    to_rtr(&one, &other);
    to_rtr(&other, &one);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    if (ibv_post_send(one.qp, &wr, &bad)) /* FAULT */
        return destroy_pair(&one, &other);
#endif
    connect_ends(&one, &other);
    return destroy_pair(&one, &other);
}
