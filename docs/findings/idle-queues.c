/* The program waits for a second completion, and has posted one request. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other); /* FAULT */
    const int requests = FAULT_OR(1, 2);
    for (int i = 0; i < requests; i++)
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    alarm(3);
    completion(&one);
    completion(&one);
    return destroy_pair(&one, &other);
}
