/* Two threads poll a CQ that was created for a single thread. */
#include "pair.h"

#include <pthread.h>

/* At the barrier one thread has polled, and the other polls next. */
static pthread_barrier_t barrier;
static struct ibv_cq_ex *cq;

/* `turn`: NULL: the thread polls first. */
static void *poll_in_turns(void *turn)
{
    for (int i = 0; i < 4; i++) {
        struct ibv_poll_cq_attr none = {0};
        const int is_mine = (i % 2 != 0) == (turn != NULL);
        if (is_mine && ibv_start_poll(cq, &none) == 0) /* FAULT */
            ibv_end_poll(cq);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

int main(void)
{
    open_device();
    struct ibv_cq_init_attr_ex attributes = {.cqe = 16,
                                             .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS,
                                             .flags = FAULT_OR(IBV_CREATE_CQ_ATTR_SINGLE_THREADED, 0)};
    cq = need(ibv_create_cq_ex(context, &attributes), "ibv_create_cq_ex");
    check(pthread_barrier_init(&barrier, NULL, 2), "pthread_barrier_init");
    pthread_t other;
    check(pthread_create(&other, NULL, poll_in_turns, &barrier), "pthread_create");
    poll_in_turns(NULL);
    check(pthread_join(other, NULL), "pthread_join");
    check(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), "ibv_destroy_cq");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
