/* The process that registered the remote memory has ended; its parent still has the device open. */
#include "child.h"

int main(void)
{
    struct end one = {0}, other = {0};
    uint32_t lkey, rkey;
    const bool keep_child = FAULT_OR(false, true);
    make_pair(&one, &other);
    register_in_child(&other, &lkey, &rkey, keep_child);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), rkey); /* FAULT */
    completion(&one);
    end_child(keep_child);
    return destroy_pair(&one, &other);
}
