/*
 * Many threads on one context: each creates and connects two ends, WRITEs in each direction, and destroys the ends,
 * ROUNDS times. Meanwhile another thread opens and closes the device, and with -f one more thread forks.
 *
 *   threads [options]
 *
 *   -d DEVICE  -g GID-INDEX  -t THREADS (1 to 64; 4)  -n ROUNDS (10)  -f (fork)
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/wait.h>

#include "../endpoint.h"

#define MAX_THREADS 64
#define LENGTH 8192 /* bytes of the buffer of each end */

static struct options options;
static struct ibv_context *context;
static int rounds = 10;
static bool is_running = true;

/* WRITEs the whole buffer, filled with `id`. */
static void write_between(struct endpoint *from, const struct endpoint *to, uint64_t id)
{
    memset(from->buffer, (int)id, LENGTH);
    struct ibv_sge sge = {(uintptr_t)from->buffer, LENGTH, from->mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = id,
                                   .sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED,
                                   .wr.rdma = {(uintptr_t)to->buffer, to->mr->rkey}};
    const int error = ibv_post_send(from->qp, &wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
    struct ibv_wc wc;
    while (next_completion(from, &wc) == 0)
        ;
    NEED(wc.status == IBV_WC_SUCCESS && wc.wr_id == id, "request %d: completion of request %d, %s", (int)id,
         (int)wc.wr_id, ibv_wc_status_str(wc.status));
    NEED(to->buffer[0] == (uint8_t)id && to->buffer[LENGTH - 1] == (uint8_t)id, "request %d: byte %d", (int)id,
         to->buffer[LENGTH - 1]);
}

static void *transfer_repeatedly(void *argument)
{
    const uint64_t id = (uintptr_t)argument;
    for (int round = 0; round < rounds; round++) {
        struct endpoint ends[2];
        for (int i = 0; i < 2; i++)
            create_endpoint(&ends[i], context, &options, LENGTH, (uint32_t)(1000 * id + i));
        const struct address addresses[2] = {address_of(&ends[0]), address_of(&ends[1])};
        for (int i = 0; i < 2; i++)
            connect_to(&ends[i], &addresses[1 - i], &options);
        write_between(&ends[0], &ends[1], id);
        write_between(&ends[1], &ends[0], id + 100);
        for (int i = 0; i < 2; i++)
            destroy_endpoint(&ends[i]);
    }
    return NULL;
}

static void *open_and_close(void *argument)
{
    while (__atomic_load_n(&is_running, __ATOMIC_RELAXED)) {
        struct ibv_context *other = open_named(options.device);
        struct ibv_pd *pd = ibv_alloc_pd(other);
        NEED(pd, "ibv_alloc_pd on another context: %s", strerror(errno));
        NEED(ibv_dealloc_pd(pd) == 0, "ibv_dealloc_pd on another context: %s", strerror(errno));
        NEED(ibv_close_device(other) == 0, "ibv_close_device: %s", strerror(errno));
    }
    return argument;
}

static void *fork_often(void *argument)
{
    while (__atomic_load_n(&is_running, __ATOMIC_RELAXED)) {
        const pid_t child = fork();
        NEED(child >= 0, "fork: %s", strerror(errno));
        if (child == 0)
            _exit(0);
        int status;
        NEED(waitpid(child, &status, 0) == child && status == 0, "a child ended with %d", status);
    }
    return argument;
}

static pthread_t start(void *(*body)(void *), uintptr_t argument)
{
    pthread_t thread;
    const int error = pthread_create(&thread, NULL, body, (void *)argument);
    NEED(error == 0, "pthread_create: %s", strerror(error));
    return thread;
}

int main(int count, char **arguments)
{
    int threads = 4, letter;
    bool forks = false;
    options = default_options;
    options.events = true;
    while ((letter = getopt(count, arguments, "d:g:t:n:f")) != -1)
        switch (letter) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 't': threads = atoi(optarg); break;
        case 'n': rounds = atoi(optarg); break;
        case 'f': forks = true; break;
        default: fail("usage: %s [-d DEVICE] [-g GID-INDEX] [-t THREADS] [-n ROUNDS] [-f]", arguments[0]);
        }
    NEED(threads >= 1 && threads <= MAX_THREADS, "%d threads: 1 to %d are allowed", threads, MAX_THREADS);
    context = open_named(options.device);
    pthread_t transfers[MAX_THREADS];
    for (int i = 0; i < threads; i++)
        transfers[i] = start(transfer_repeatedly, (uintptr_t)i + 1);
    const pthread_t opener = start(open_and_close, 0);
    const pthread_t forker = forks ? start(fork_often, 0) : opener;
    for (int i = 0; i < threads; i++)
        pthread_join(transfers[i], NULL);
    __atomic_store_n(&is_running, false, __ATOMIC_RELAXED);
    pthread_join(opener, NULL);
    if (forks)
        pthread_join(forker, NULL);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    printf("%d threads, %d rounds each\n", threads, rounds);
    return 0;
}
