/* Two READs into one buffer, before the first is complete. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    for (int i = 0; i < 2; i++) {
        struct ibv_sge sge = all_of(&one);
        sge.length = SIZE / 2;
        sge.addr += FAULT_OR(0, i * SIZE / 2);
        post(&one, IBV_WR_RDMA_READ, sge, address_of(&other) + (unsigned)i * SIZE / 2, other.mr->rkey); /* FAULT */
    }
    completion(&one);
    completion(&one);
    return destroy_pair(&one, &other);
}
