/* An opcode that reliable connections do not have. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post(&one, FAULT_OR((enum ibv_wr_opcode)77, IBV_WR_RDMA_WRITE), all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
