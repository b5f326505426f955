/* num_sge is left out. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post_receive(&other, all_of(&other));
    struct ibv_sge all = all_of(&one);
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &all, .num_sge = FAULT_OR(0, 1), .opcode = IBV_WR_SEND};
    check(ibv_post_send(one.qp, &wr, &bad), "ibv_post_send"); /* FAULT */
    completion(&one);
    completion(&other);
    return destroy_pair(&one, &other);
}
