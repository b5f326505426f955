/* The program ends the thread that reads asynchronous events by a join: no event is on its way, so the thread stays in ibv_get_async_event. */
#include "pair.h"

#include <pthread.h>

static void *read_events(void *context)
{
    struct ibv_async_event event;
    while (ibv_get_async_event(context, &event) == 0)
        ibv_ack_async_event(&event);
    return NULL;
}

int main(void)
{
    struct end one = {0}, other = {0};
    pthread_t reader;
    make_pair(&one, &other);
    check(pthread_create(&reader, NULL, read_events, one.qp->context), "pthread_create");
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    alarm(4);
#ifdef FIXED
    check(pthread_cancel(reader), "pthread_cancel");
#endif
    check(pthread_join(reader, NULL), "pthread_join"); /* FAULT */
    return destroy_pair(&one, &other);
}
