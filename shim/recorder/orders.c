/*
 * The state of each extended CQ's poll, from ibv_start_poll to ibv_end_poll (ibv_create_cq_ex(3)), and the mistakes
 * that it shows. Only the first mistake of a poll is reported: others follow from it.
 *
 * A poll is written only by the thread that has started it, which holds the provider's lock of the CQ.
 */
#define _GNU_SOURCE
#include "orders.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "watched.h"

/* Reports of a process. */
#define MAX_REPORTS 1000

struct poll {
    int fd;
    uint32_t handle;
    /* The program's wc_flags. */
    uint64_t asked;
    bool is_single;
    /* That has started the poll; 0: none is open. */
    pid_t thread;
    /* Number of polls. */
    uint32_t polls;
    void *started_at;
    bool has_completion;
    /* That has started a poll last and found no completion, and where. */
    pid_t emptied_by;
    void *emptied_at;
    bool is_told;
    /* Fields that were read without wc_flags, and reported: bits. */
    uint32_t told_fields;
};

static struct watched table;
static struct poll polls[MAX_WATCHED];

TLS bool polls_are_recorded;

/* ---- threads ---- */

TLS pid_t threads_number;

pid_t threads_find(void)
{
    threads_number = (pid_t)syscall(SYS_gettid);
    return threads_number;
}

IN_CHILD void threads_in_child(void)
{
    threads_number = 0;
}

bool threads_has_ended(pid_t thread)
{
    const int saved = errno;
    const bool is_unknown = syscall(SYS_tgkill, getpid(), thread, 0) != 0 && errno == ESRCH;
    errno = saved;
    return is_unknown;
}

/* Kernel's PF_EXITING in the flags of proc(5): pthread_join returns before the number of the thread is free. */
#define IS_EXITING 0x4

static bool is_exiting(pid_t thread)
{
    char text[512];
    snprintf(text, sizeof text, "/proc/self/task/%d/stat", (int)thread);
    const int saved = errno, fd = (int)syscall(SYS_openat, AT_FDCWD, text, O_RDONLY | O_CLOEXEC);
    const long length = fd < 0 ? -1 : syscall(SYS_read, fd, text, sizeof text - 1);
    if (fd >= 0)
        syscall(SYS_close, fd);
    errno = saved;
    if (length <= 0)
        return false;
    text[length] = 0;
    const char *name_end = strrchr(text, ')');
    unsigned flags = 0;
    return name_end && sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & IS_EXITING);
}

bool threads_has_left(pid_t thread)
{
    /* In this order: a thread whose file is gone has ended. */
    return is_exiting(thread) || threads_has_ended(thread);
}

/* The parent's threads do not exist in a child. */
IN_CHILD static void in_child(void)
{
    table.is_locked = 0;
    for (struct poll *poll = polls; poll < polls + MAX_WATCHED; poll++)
        poll->thread = 0;
}

/* ---- reports ---- */

void orders_report(int fd, struct userdma_misordered *mistake, void *since)
{
    static unsigned reports;
    const int saved = errno;
    if (__atomic_fetch_add(&reports, 1, __ATOMIC_RELAXED) < MAX_REPORTS) {
        mistake->since = since ? stack_at(since) : 0;
        note_order(fd, mistake);
    }
    errno = saved;
}

static void send_report(const struct poll *poll, uint32_t kind, uint32_t call, uint32_t field, void *since)
{
    struct userdma_misordered mistake = {.object = USERDMA_OBJECT_CQ,
                                         .number = poll->handle,
                                         .mistake = kind,
                                         .called = call,
                                         .field = field,
                                         .is_single = poll->is_single};
    orders_report(poll->fd, &mistake, since);
}

static void report(struct poll *poll, uint32_t kind, uint32_t call, uint32_t field, void *since)
{
    if (!__atomic_exchange_n(&poll->is_told, true, __ATOMIC_RELAXED))
        send_report(poll, kind, call, field, since);
}

static struct poll *poll_of(const void *cq)
{
    const int index = watched_find(&table, cq);
    return LIKELY(index >= 0) ? &polls[index] : NULL;
}

static pid_t thread_of(const struct poll *poll)
{
    return __atomic_load_n(&poll->thread, __ATOMIC_RELAXED);
}

/* The poll in which the thread may call `call`; NULL: there is none, and that was reported, or it is not watched. */
static struct poll *own_poll(const struct ibv_cq_ex *cq, uint32_t call, uint32_t field)
{
    struct poll *poll = poll_of(cq);
    if (!poll)
        return NULL;
    const pid_t thread = thread_of(poll), own = threads_own();
    if (LIKELY(thread == own))
        return poll;
    if (thread != 0)
        report(poll, USERDMA_ORDER_MISTAKE_OTHER_THREAD, call, field, poll->started_at);
    else if (poll->emptied_by == own)
        report(poll, USERDMA_ORDER_MISTAKE_EMPTY, call, field, poll->emptied_at);
    else
        report(poll, USERDMA_ORDER_MISTAKE_NOT_STARTED, call, field, poll->started_at);
    return NULL;
}

/* ---- calls ---- */

void polls_created(struct ibv_cq_ex *cq, uint64_t asked, bool is_single)
{
    static uint32_t has_begun;
    if (!__atomic_exchange_n(&has_begun, 1, __ATOMIC_RELAXED)) {
        pthread_atfork(NULL, NULL, in_child);
        atexit(polls_exiting);
    }
    const int index = watched_begin(&table, cq);
    if (index < 0)
        return;
    polls[index] =
        (struct poll){.fd = cq->context->cmd_fd, .handle = cq->handle, .asked = asked, .is_single = is_single};
    watched_publish(&table, index, cq);
}

void polls_destroyed(const void *object)
{
    watched_forget(&table, object);
}

/* Looks at a poll of another thread before the first nap, naps, and the nanoseconds of one: a second in all. */
#define LOOKS 1000
#define NAPS 5000
#define NAP 200000

/* Whether the poll with this number is open. */
static bool is_open(const struct poll *poll, uint32_t number)
{
    return thread_of(poll) != 0 && __atomic_load_n(&poll->polls, __ATOMIC_RELAXED) == number;
}

/*
 * The provider's lock of the CQ is held by the poll of another thread, mostly for microseconds. If the poll does not
 * end within a second, that is reported; then the provider waits.
 */
static void wait_for(struct poll *poll, uint32_t call)
{
    const uint32_t number = __atomic_load_n(&poll->polls, __ATOMIC_RELAXED);
    const pid_t thread = thread_of(poll);
    for (unsigned i = 0; i < LOOKS; i++)
        if (LIKELY(!is_open(poll, number)))
            return;
    const int saved = errno;
    unsigned naps = 0;
    for (; naps < NAPS && is_open(poll, number); naps++)
        nanosleep(&(struct timespec){.tv_nsec = NAP}, NULL);
    errno = saved;
    if (naps < NAPS)
        return;
    poll->is_told = false;
    report(poll, threads_has_left(thread) ? USERDMA_ORDER_MISTAKE_OWNER_ENDED : USERDMA_ORDER_MISTAKE_WAITS, call, 0,
           poll->started_at);
}

void polls_starting(const struct ibv_cq_ex *cq)
{
    struct poll *poll = poll_of(cq);
    const pid_t thread = poll ? thread_of(poll) : 0;
    if (LIKELY(thread == 0))
        return;
    if (thread == threads_own()) {
        poll->is_told = false; /* the program hangs: this is said whatever was said before */
        report(poll, USERDMA_ORDER_MISTAKE_STARTED_AGAIN, USERDMA_ORDER_CALL_START_POLL, 0, poll->started_at);
    } else if (threads_has_left(thread)) {
        report(poll, USERDMA_ORDER_MISTAKE_OWNER_ENDED, USERDMA_ORDER_CALL_START_POLL, 0, poll->started_at);
    } else if (!poll->is_single) {
        wait_for(poll, USERDMA_ORDER_CALL_START_POLL);
    }
}

void polls_started(const struct ibv_cq_ex *cq, bool has_completion, void *caller)
{
    struct poll *poll = poll_of(cq);
    if (!poll)
        return;
    if (!has_completion) {
        if (thread_of(poll) == 0) {
            poll->emptied_by = threads_own();
            poll->emptied_at = caller;
        }
        return;
    }
    poll->started_at = caller;
    poll->emptied_by = 0;
    poll->has_completion = true;
    /* A provider without locks has let a second thread in: that is told by promises.c. */
    poll->is_told = thread_of(poll) != 0;
    __atomic_fetch_add(&poll->polls, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&poll->thread, threads_own(), __ATOMIC_RELEASE);
}

void polls_advancing(const struct ibv_cq_ex *cq)
{
    own_poll(cq, USERDMA_ORDER_CALL_NEXT_POLL, 0);
}

void polls_advanced(const struct ibv_cq_ex *cq, bool has_completion)
{
    struct poll *poll = poll_of(cq);
    if (poll && thread_of(poll) == threads_own())
        poll->has_completion = has_completion;
}

void polls_ending(const struct ibv_cq_ex *cq)
{
    struct poll *poll = own_poll(cq, USERDMA_ORDER_CALL_END_POLL, 0);
    if (!poll)
        return;
    __atomic_store_n(&poll->thread, 0, __ATOMIC_RELEASE);
}

void polls_reading(const struct ibv_cq_ex *cq, uint32_t field, uint64_t asked)
{
    struct poll *poll = poll_of(cq);
    if (!poll)
        return;
    /* Each field once: the mistake is in the creation of the CQ. */
    if (UNLIKELY((poll->asked & asked) != asked) &&
        !(__atomic_fetch_or(&poll->told_fields, 1u << field, __ATOMIC_RELAXED) & 1u << field))
        send_report(poll, USERDMA_ORDER_MISTAKE_NOT_REQUESTED, USERDMA_ORDER_CALL_READ, field, NULL);
    poll = own_poll(cq, USERDMA_ORDER_CALL_READ, field);
    if (poll && UNLIKELY(!poll->has_completion))
        report(poll, USERDMA_ORDER_MISTAKE_NO_COMPLETION, USERDMA_ORDER_CALL_READ, field, poll->started_at);
}

void polls_locking(const struct ibv_cq *cq, uint32_t call)
{
    struct poll *poll = poll_of(cq);
    const pid_t thread = poll ? thread_of(poll) : 0;
    if (LIKELY(thread == 0))
        return;
    if (thread != threads_own()) {
        if (!poll->is_single)
            wait_for(poll, call);
        return;
    }
    poll->is_told = false;
    const bool starts = call == USERDMA_ORDER_CALL_POLL_CQ;
    report(poll, starts ? USERDMA_ORDER_MISTAKE_STARTED_AGAIN : USERDMA_ORDER_MISTAKE_HELD, call, 0, poll->started_at);
}

void polls_destroying(uint32_t kind, const void *object)
{
    if (LIKELY(__atomic_load_n(&table.count, __ATOMIC_RELAXED) == 0))
        return;
    if (kind == USERDMA_OBJECT_QP) {
        const struct ibv_qp *qp = object;
        polls_locking(qp->send_cq, USERDMA_ORDER_CALL_DESTROY_QP);
        if (qp->recv_cq != qp->send_cq)
            polls_locking(qp->recv_cq, USERDMA_ORDER_CALL_DESTROY_QP);
    } else if (kind == USERDMA_OBJECT_CQ) {
        struct poll *poll = poll_of(object);
        if (poll && thread_of(poll) != 0)
            report(poll, USERDMA_ORDER_MISTAKE_LEFT_OPEN, USERDMA_ORDER_CALL_DESTROY_CQ, 0, poll->started_at);
    }
}

void polls_exiting(void)
{
    if (__atomic_load_n(&table.count, __ATOMIC_RELAXED) == 0)
        return;
    for (int i = 0; i < MAX_WATCHED; i++) {
        const pid_t thread = table.objects[i] ? thread_of(&polls[i]) : 0;
        /* A thread that is alive may still end its poll. */
        if (thread != 0 && (thread == threads_own() || threads_has_left(thread)))
            report(&polls[i], USERDMA_ORDER_MISTAKE_LEFT_OPEN, USERDMA_ORDER_CALL_EXIT, 0, polls[i].started_at);
    }
}
