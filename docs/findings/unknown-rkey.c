/* The rkey is not filled in. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const uint32_t rkey = FAULT_OR(0, other.mr->rkey);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
