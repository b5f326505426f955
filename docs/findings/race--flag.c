/* A thread learns from a flag in memory that another has polled the completion: userdma does not see the flag. */
#include "pair.h"

#include <pthread.h>
#include <userdma_check.h>

static struct end one, other, second, peer;
static volatile int is_complete;

static void *poll_first(void *argument)
{
    completion(&one);
    __atomic_store_n(&is_complete, 1, __ATOMIC_RELEASE);
    return argument;
}

int main(void)
{
    pthread_t poller;
    make_pair(&one, &other);
    make_end(&second);
    make_end(&peer);
    connect_ends(&second, &peer);
    peer.extra = need(ibv_reg_mr(peer.pd, other.buffer, SIZE, peer.access), "ibv_reg_mr");
    check(pthread_create(&poller, NULL, poll_first, NULL), "pthread_create");
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    while (!__atomic_load_n(&is_complete, __ATOMIC_ACQUIRE))
        ;
#ifdef FIXED
    USERDMA_CHECK_HAPPENS_AFTER();
#endif
    post(&second, IBV_WR_RDMA_WRITE, all_of(&second), address_of(&other), peer.extra->rkey); /* FAULT */
    completion(&second);
    check(pthread_join(poller, NULL), "pthread_join");
    destroy_end(&second);
    destroy_end(&peer);
    return destroy_pair(&one, &other);
}
