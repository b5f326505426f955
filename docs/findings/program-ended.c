/* The process that registered the local memory has ended; its parent still has the device open. */
#include "child.h"

int main(void)
{
    struct end one = {0}, other = {0};
    uint32_t lkey, rkey;
    const bool keep_child = FAULT_OR(false, true);
    make_pair(&one, &other);
    register_in_child(&one, &lkey, &rkey, keep_child);
    struct ibv_sge sge = {.addr = address_of(&one), .length = SIZE, .lkey = lkey};
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    end_child(keep_child);
    return destroy_pair(&one, &other);
}
