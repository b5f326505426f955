/*
 * Two threads read one completion channel, 20 times, and take for granted that they have turns: each event comes to the
 * one that has waited longer. So it is where events go to threads in the order in which they wait; Linux's uverbs wakes
 * all. Prints the order. Exit status 2 if it is another one.
 *
 *   turns [-d DEVICE]
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "../endpoint.h"

#define ROUNDS 20
#define THREADS 2

static struct endpoint ends[2];
static char order[ROUNDS + 1];
static atomic_int done;
static atomic_int threads[THREADS];

static void *reads(void *argument)
{
    const int me = (int)(intptr_t)argument;
    threads[me] = (int)syscall(SYS_gettid);
    for (;;) {
        struct ibv_cq *cq;
        void *context;
        NEED(ibv_get_cq_event(ends[0].channel, &cq, &context) == 0, "ibv_get_cq_event: %s", strerror(errno));
        ibv_ack_cq_events(cq, 1);
        struct ibv_wc wc;
        NEED(ibv_poll_cq(cq, 1, &wc) == 1 && wc.status == IBV_WC_SUCCESS, "no completion");
        NEED(ibv_req_notify_cq(cq, 0) == 0, "ibv_req_notify_cq");
        order[done] = (char)('a' + me);
        done++;
    }
    return NULL;
}

/* Whether a thread is in a system call that reads. */
static bool waits(int thread)
{
    char name[64], text[32] = "";
    snprintf(name, sizeof name, "/proc/self/task/%d/syscall", thread);
    FILE *file = fopen(name, "r");
    NEED(file, "cannot: open %s: %s", name, strerror(errno));
    const bool has_text = fgets(text, sizeof text, file);
    fclose(file);
    const long call = has_text && text[0] != 'r' ? strtol(text, NULL, 10) : -1;
    return call == SYS_read || call == SYS_recvfrom;
}

int main(int count, char **arguments)
{
    struct options options = default_options;
    options.events = true;
    int letter;
    while ((letter = getopt(count, arguments, "d:")) != -1)
        switch (letter) {
        case 'd': options.device = optarg; break;
        default: fail("usage: turns [-d DEVICE]");
        }
    struct ibv_context *context = open_named(options.device);
    for (uint32_t i = 0; i < 2; i++)
        create_endpoint(&ends[i], context, &options, 64, i);
    const struct address addresses[] = {address_of(&ends[0]), address_of(&ends[1])};
    for (int i = 0; i < 2; i++)
        connect_to(&ends[i], &addresses[1 - i], &options);
    NEED(ibv_req_notify_cq(ends[0].cq, 0) == 0, "ibv_req_notify_cq");
    for (int i = 0; i < THREADS; i++) {
        pthread_t thread;
        NEED(pthread_create(&thread, NULL, reads, (void *)(intptr_t)i) == 0, "pthread_create");
        while (threads[i] == 0 || !waits(threads[i]))
            usleep(200);
    }
    bool has_turns = true;
    for (int round = 0; round < ROUNDS; round++) {
        struct ibv_sge sge = {(uintptr_t)ends[0].buffer, 64, ends[0].mr->lkey};
        struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                       .num_sge = 1,
                                       .opcode = IBV_WR_RDMA_WRITE,
                                       .send_flags = IBV_SEND_SIGNALED,
                                       .wr.rdma = {(uintptr_t)ends[1].buffer, ends[1].mr->rkey}};
        NEED(ibv_post_send(ends[0].qp, &wr, &bad) == 0, "ibv_post_send");
        while (done == round || !waits(threads[0]) || !waits(threads[1]))
            usleep(200);
        has_turns &= round == 0 ? order[0] == 'a' : order[round] != order[round - 1];
    }
    printf("%s\n", order);
    return has_turns ? 0 : 2;
}
