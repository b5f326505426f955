/*
 * Completion events of CQs that are armed without a call.
 *
 *   armings [-d DEVICE] [-g GID-INDEX] [-n MESSAGES] [-c CQS] [-w]
 *
 * - One thread posts MESSAGES WRITEs, another waits for their events and arms the CQ after each: a lost event hangs it.
 * - A child arms an inherited CQ, posts a WRITE, and waits for its event.
 * - Of CQS armed CQs, only the one with a completion raises an event, and an unsolicited one none if it is armed for
 *   solicited completions.
 * - -w: meanwhile a thread stores random words over the words by which CQs are armed. Events may be lost, so the
 *   threads poll.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "../../../shim/protocol.h"
#include "../endpoint.h"

#define WINDOW 3

static struct options options;
static struct endpoint ends[2];
static unsigned messages = 20000, cq_count = 10000, done;
static bool is_wild, is_running = true;

static void post_write(struct endpoint *from, const struct endpoint *to)
{
    struct ibv_sge sge = {(uintptr_t)from->buffer, 8, from->mr->lkey};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED,
                                   .wr.rdma = {(uintptr_t)to->buffer, to->mr->rkey}};
    const int error = ibv_post_send(from->qp, &wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
}

static void arm(struct ibv_cq *cq, int solicited_only)
{
    const int error = ibv_req_notify_cq(cq, solicited_only);
    NEED(error == 0, "ibv_req_notify_cq: %s", strerror(error));
}

static void take_event(struct endpoint *end, struct ibv_cq *expected)
{
    struct ibv_cq *cq;
    void *context;
    NEED(ibv_get_cq_event(end->channel, &cq, &context) == 0, "ibv_get_cq_event: %s", strerror(errno));
    NEED(cq == expected, "the event is another CQ's");
    ibv_ack_cq_events(cq, 1);
}

static unsigned poll_all(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    unsigned count = 0;
    while (ibv_poll_cq(cq, 1, &wc) == 1) {
        NEED(wc.status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc.status));
        count++;
    }
    return count;
}

static bool has_event(const struct endpoint *end)
{
    struct pollfd channel = {.fd = end->channel->fd, .events = POLLIN};
    return poll(&channel, 1, 0) == 1;
}

static void *wait_for_messages(void *unused)
{
    (void)unused;
    for (unsigned seen = 0; seen < messages;) {
        if (is_wild)
            while (has_event(ends))
                take_event(ends, ends->cq);
        else
            take_event(ends, ends->cq);
        arm(ends->cq, 0);
        seen += poll_all(ends->cq);
        __atomic_store_n(&done, seen, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void *store_wild_words(void *unused)
{
    (void)unused;
    uint32_t *words = mmap(NULL, USERDMA_ARM_WORDS_ENTRIES * 4, PROT_READ | PROT_WRITE, MAP_SHARED,
                           ends->context->cmd_fd, (off_t)USERDMA_ARM_WORDS_OFFSET);
    NEED(words != MAP_FAILED, "mmap: %s", strerror(errno));
    unsigned seed = 1;
    while (__atomic_load_n(&is_running, __ATOMIC_RELAXED)) {
        const int number = rand_r(&seed);
        __atomic_store_n(words + number % 64, number & 64 ? (uint32_t)number % 6 : (uint32_t)rand_r(&seed) * 3u,
                         __ATOMIC_RELAXED);
        if (number % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static pthread_t start(void *(*body)(void *))
{
    pthread_t thread;
    const int error = pthread_create(&thread, NULL, body, NULL);
    NEED(error == 0, "pthread_create: %s", strerror(error));
    return thread;
}

static void exchange_messages(void)
{
    arm(ends->cq, 0);
    const pthread_t waiter = start(wait_for_messages);
    for (unsigned posted = 0; posted < messages; posted++) {
        while (posted - __atomic_load_n(&done, __ATOMIC_ACQUIRE) >= 1 + posted % WINDOW)
            sched_yield();
        post_write(ends, ends + 1);
    }
    pthread_join(waiter, NULL);
    /* The CQ may be armed, or an event unread. */
    post_write(ends, ends + 1);
    while (poll_all(ends->cq) == 0)
        sched_yield();
    while (!is_wild && !has_event(ends))
        sched_yield();
    while (has_event(ends))
        take_event(ends, ends->cq);
}

static void arm_in_child(void)
{
    const pid_t child = fork();
    NEED(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        arm(ends->cq, 0);
        post_write(ends, ends + 1);
        struct ibv_cq *cq;
        void *context;
        _exit(ibv_get_cq_event(ends->channel, &cq, &context) == 0 && cq == ends->cq ? 0 : 1);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && status == 0, "the child ended with status %d", status);
}

static void arm_many(void)
{
    struct ibv_cq **cqs = calloc(cq_count, sizeof *cqs);
    NEED(cqs, "no memory");
    for (unsigned i = 0; i < cq_count; i++) {
        cqs[i] = ibv_create_cq(ends->context, 1, NULL, ends->channel, 0);
        NEED(cqs[i], "ibv_create_cq %u: %s", i, strerror(errno));
        arm(cqs[i], i % 2);
    }
    struct endpoint *quiet = ends, *loud = ends + 1;
    arm(quiet->cq, 1);
    arm(loud->cq, 0);
    post_write(quiet, loud);
    post_write(loud, quiet);
    take_event(loud, loud->cq);
    while (poll_all(quiet->cq) == 0)
        sched_yield();
    NEED(!has_event(quiet), "an event without a solicited completion");
    arm(quiet->cq, 0);
    arm(quiet->cq, 1); /* does not weaken the arming */
    post_write(quiet, loud);
    take_event(quiet, quiet->cq);
    for (unsigned i = 0; i < cq_count; i++)
        NEED(ibv_destroy_cq(cqs[i]) == 0, "ibv_destroy_cq: %s", strerror(errno));
    free(cqs);
}

int main(int count, char **arguments)
{
    int letter;
    options = default_options;
    options.events = true;
    while ((letter = getopt(count, arguments, "d:g:n:c:w")) != -1)
        switch (letter) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 'n': messages = (unsigned)atoi(optarg); break;
        case 'c': cq_count = (unsigned)atoi(optarg); break;
        case 'w': is_wild = true; break;
        default: fail("usage: %s [-d DEVICE] [-g GID-INDEX] [-n MESSAGES] [-c CQS] [-w]", arguments[0]);
        }
    create_pair(ends, ends + 1, open_named(options.device), &options);
    const pthread_t wild = is_wild ? start(store_wild_words) : pthread_self();
    exchange_messages();
    if (is_wild) {
        __atomic_store_n(&is_running, false, __ATOMIC_RELAXED);
        pthread_join(wild, NULL);
    } else {
        arm_in_child();
        arm_many();
    }
    printf("%u messages\n", messages);
    return 0;
}
