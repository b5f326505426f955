/* A thread polls a CQ that the main thread destroys. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "pair.h"

static struct ibv_cq *cq;
static atomic_bool is_ending;
static atomic_int polls;

static void *poll_cq(void *unused)
{
    struct ibv_wc wc;
    for (; !is_ending; polls++)
        ibv_poll_cq(cq, 1, &wc); /* FAULT */
    return unused;
}

static void wait_for_polls(void)
{
    for (const int before = polls; polls < before + 100;)
        usleep(1000);
}

int main(void)
{
    open_device();
    cq = need(ibv_create_cq(context, 16, NULL, NULL, 0), "ibv_create_cq");
    pthread_t thread;
    check(pthread_create(&thread, NULL, poll_cq, NULL), "pthread_create");
    wait_for_polls();
#ifdef FIXED
    is_ending = true;
    pthread_join(thread, NULL);
#endif
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
#ifndef FIXED
    wait_for_polls();
    is_ending = true;
    pthread_join(thread, NULL);
#endif
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
