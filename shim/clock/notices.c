/*
 * Timers that start a thread (SIGEV_THREAD). To the keeper they are timers with a signal, for a thread of this library
 * that starts the others, as one of the C library does.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct notice {
    struct notice *next;
    timer_t timer;
    void (*act)(union sigval);
    union sigval value;
    pthread_attr_t attributes;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct notice *notices;
/* The thread that starts the others; 0: there is none. */
static pid_t starter;
static pthread_cond_t has_started = PTHREAD_COND_INITIALIZER;

static uint64_t bit(int signal)
{
    return UINT64_C(1) << (signal - 1);
}

static void set_mask(uint64_t mask)
{
    NEXT(syscall)(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
}

static void *act(void *notice)
{
    const struct notice own = *(struct notice *)notice;
    free(notice);
    /* As the C library's: a thread of the program gets the signals. */
    set_mask(~(bit(WAKE_SIGNAL) | bit(NOTICE_SIGNAL)));
    own.act(own.value);
    return NULL;
}

/* Starts the thread of a notice, unless its timer was deleted meanwhile. */
static void start_thread(const struct notice *due)
{
    pthread_t thread;
    pthread_mutex_lock(&mutex);
    const struct notice *found = notices;
    while (found && found != due)
        found = found->next;
    struct notice *const copy = found ? malloc(sizeof *copy) : NULL;
    if (copy) {
        *copy = *found;
        if (pthread_create(&thread, &found->attributes, act, copy) != 0)
            free(copy);
    }
    pthread_mutex_unlock(&mutex);
}

static void *start_threads(void *unused)
{
    const uint64_t awaited = bit(NOTICE_SIGNAL);
    siginfo_t info;
    set_mask(~bit(WAKE_SIGNAL));
    pthread_mutex_lock(&mutex);
    starter = (pid_t)NEXT(syscall)(SYS_gettid);
    pthread_cond_signal(&has_started);
    pthread_mutex_unlock(&mutex);
    for (;;)
        if (NEXT(syscall)(SYS_rt_sigtimedwait, &awaited, &info, NULL, sizeof awaited) == NOTICE_SIGNAL && info.si_code == SI_TIMER)
            start_thread(info.si_value.sival_ptr);
    return unused;
}

/* A child has none of its parent's timers. */
static void forget_all(void)
{
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&has_started, NULL);
    notices = NULL;
    starter = 0;
}

/* The program may change and destroy its own. */
static void copy_attributes(pthread_attr_t *copy, const pthread_attr_t *from)
{
    size_t size;
    int number;
    struct sched_param parameters;
    pthread_attr_init(copy);
    pthread_attr_setdetachstate(copy, PTHREAD_CREATE_DETACHED);
    if (!from)
        return;
    if (pthread_attr_getstacksize(from, &size) == 0)
        pthread_attr_setstacksize(copy, size);
    if (pthread_attr_getguardsize(from, &size) == 0)
        pthread_attr_setguardsize(copy, size);
    if (pthread_attr_getinheritsched(from, &number) == 0)
        pthread_attr_setinheritsched(copy, number);
    if (pthread_attr_getschedpolicy(from, &number) == 0)
        pthread_attr_setschedpolicy(copy, number);
    if (pthread_attr_getschedparam(from, &parameters) == 0)
        pthread_attr_setschedparam(copy, &parameters);
}

/* With the mutex. */
static bool has_starter(void)
{
    static bool is_registered;
    pthread_attr_t detached;
    pthread_t thread;
    if (starter != 0)
        return true;
    if (!is_registered && pthread_atfork(NULL, NULL, forget_all) != 0)
        return false;
    is_registered = true;
    copy_attributes(&detached, NULL);
    if (pthread_create(&thread, &detached, start_threads, NULL) != 0)
        return false;
    while (starter == 0)
        pthread_cond_wait(&has_started, &mutex);
    return true;
}

static void delete(struct notice *notice)
{
    pthread_attr_destroy(&notice->attributes);
    free(notice);
}

int clock_create_notice(clockid_t clock, struct sigevent *event, timer_t *timer)
{
    struct notice *const notice = malloc(sizeof *notice);
    int result = -1;
    errno = EAGAIN;
    if (!notice)
        return result;
    *notice = (struct notice){.act = event->sigev_notify_function, .value = event->sigev_value};
    copy_attributes(&notice->attributes, event->sigev_notify_attributes);
    pthread_mutex_lock(&mutex);
    if (has_starter()) {
        *event = (struct sigevent){.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = NOTICE_SIGNAL, .sigev_value.sival_ptr = notice};
        event->_sigev_un._tid = starter;
        result = NEXT(timer_create)(clock, event, timer);
    }
    if (result == 0) {
        notice->timer = *timer;
        notice->next = notices;
        notices = notice;
    }
    pthread_mutex_unlock(&mutex);
    if (result != 0)
        delete(notice);
    return result;
}

void clock_remove_notice(timer_t timer)
{
    pthread_mutex_lock(&mutex);
    for (struct notice **at = &notices; *at; at = &(*at)->next) {
        struct notice *const notice = *at;
        if (notice->timer != timer)
            continue;
        *at = notice->next;
        delete(notice);
        break;
    }
    pthread_mutex_unlock(&mutex);
}
