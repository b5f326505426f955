/* A thread holds a mutex while it waits for a completion, and the send of which that is the completion needs the mutex. */
#include "pair.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct end one, other;
static pthread_barrier_t locked;

static void *receive(void *unused)
{
    check(pthread_mutex_lock(&lock), "pthread_mutex_lock");
#ifdef FIXED
    check(pthread_mutex_unlock(&lock), "pthread_mutex_unlock");
#endif
    pthread_barrier_wait(&locked);
    completion(&other);
#ifndef FIXED
    check(pthread_mutex_unlock(&lock), "pthread_mutex_unlock");
#endif
    return unused;
}

int main(void)
{
    pthread_t receiver;
    make_pair(&one, &other);
    post_receive(&other, all_of(&other));
    check(pthread_barrier_init(&locked, NULL, 2), "pthread_barrier_init");
    check(pthread_create(&receiver, NULL, receive, NULL), "pthread_create");
    pthread_barrier_wait(&locked);
    alarm(4);
    check(pthread_mutex_lock(&lock), "pthread_mutex_lock"); /* FAULT */
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    check(pthread_mutex_unlock(&lock), "pthread_mutex_unlock");
    completion(&one);
    check(pthread_join(receiver, NULL), "pthread_join");
    return destroy_pair(&one, &other);
}
