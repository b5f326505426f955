/*
 * A page with a queue and its doorbell record has other data of the program, too. While the queue is created and
 * destroyed again and again, a peer writes there, and threads store and read(2) there: nothing fails, and nothing is
 * lost.
 *
 *   frozen DEVICE ROUNDS
 *
 * Prints "good" at its end.
 */
#define _GNU_SOURCE
#include "../endpoint.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define PAGE 4096
/* Offsets in the page. */
enum { ENTRIES_AT = 0, RECORD_AT = 1024, WRITTEN_AT = 2048, READ_AT = 2560, STORED_AT = 3072 };
/* Completion queue entries of 64 bytes, up to RECORD_AT. */
#define ENTRIES 15

static uint8_t *page;
static struct endpoint ends[2];
static bool is_over;

static bool is_running(void)
{
    return !__atomic_load_n(&is_over, __ATOMIC_RELAXED);
}

static void *allocate(struct ibv_pd *pd, void *context, size_t size, size_t alignment, uint64_t type)
{
    (void)pd, (void)context, (void)alignment, (void)type;
    return size > 64 ? page + ENTRIES_AT : page + RECORD_AT;
}

static void release(struct ibv_pd *pd, void *context, void *memory, uint64_t type)
{
    (void)pd, (void)context, (void)memory, (void)type;
}

static void execute(struct ibv_send_wr *wr, const char *what, uint64_t number)
{
    struct ibv_send_wr *bad;
    struct ibv_wc wc;
    NEED(ibv_post_send(ends[0].qp, wr, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    while (next_completion(&ends[0], &wc) == 0)
        sched_yield();
    NEED(wc.status == IBV_WC_SUCCESS, "%s %llu: %s", what, (unsigned long long)number, ibv_wc_status_str(wc.status));
}

/* The peer: WRITEs, and atomics. */
static void *write_there(void *argument)
{
    volatile uint64_t *written = (uint64_t *)(page + WRITTEN_AT), *source = (uint64_t *)ends[0].buffer;
    uint64_t *rounds = argument;
    for (uint64_t i = 1; is_running(); i++, ++*rounds) {
        struct ibv_sge sge = {(uintptr_t)source, 8, ends[0].mr->lkey};
        struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .send_flags = IBV_SEND_SIGNALED};
        *source = 2 * i;
        wr.opcode = IBV_WR_RDMA_WRITE;
        wr.wr.rdma.remote_addr = (uintptr_t)written;
        wr.wr.rdma.rkey = ends[1].mr->rkey;
        execute(&wr, "WRITE", i);
        NEED(*written == 2 * i, "WRITE %llu is lost", (unsigned long long)i);
        wr.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
        wr.wr.atomic.remote_addr = (uintptr_t)written;
        wr.wr.atomic.compare_add = 1;
        wr.wr.atomic.rkey = ends[1].mr->rkey;
        execute(&wr, "FETCH_ADD", i);
        NEED(*written == 2 * i + 1, "FETCH_ADD %llu is lost", (unsigned long long)i);
    }
    return NULL;
}

/* By read(2) and readv(2). */
static void *read_there(void *argument)
{
    int ends_of_pipe[2];
    volatile uint64_t *to = (uint64_t *)(page + READ_AT);
    uint64_t *rounds = argument;
    NEED(pipe(ends_of_pipe) == 0, "pipe: %s", strerror(errno));
    for (uint64_t i = 1; is_running(); i++, ++*rounds) {
        const struct iovec vector = {(void *)to, sizeof i};
        NEED(write(ends_of_pipe[1], &i, sizeof i) == sizeof i, "write: %s", strerror(errno));
        const ssize_t got = i & 1 ? read(ends_of_pipe[0], (void *)to, sizeof i) : readv(ends_of_pipe[0], &vector, 1);
        NEED(got == sizeof i, "read %llu: %zd %s", (unsigned long long)i, got, strerror(errno));
        NEED(*to == i, "read %llu is lost", (unsigned long long)i);
    }
    return NULL;
}

static void *store_there(void *argument)
{
    volatile uint64_t *word = (uint64_t *)(page + STORED_AT);
    uint64_t *rounds = argument;
    for (uint64_t i = 1; is_running(); i++, ++*rounds) {
        *word = i;
        for (int looks = 0; looks < 20; looks++)
            NEED(*word == i, "store %llu is lost", (unsigned long long)i);
        sched_yield();
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static void *(*const bodies[])(void *) = {write_there, read_there, store_there};
    enum { THREADS = sizeof bodies / sizeof *bodies };
    uint64_t rounds[THREADS] = {0};
    pthread_t threads[THREADS];
    NEED(argc == 3, "usage: frozen DEVICE ROUNDS");
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(page != MAP_FAILED, "mmap: %s", strerror(errno));
    create_pair(&ends[0], &ends[1], open_named(argv[1]), &default_options);
    NEED(ibv_dereg_mr(ends[1].mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    const int rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
    ends[1].mr = ibv_reg_mr(ends[1].pd, page + WRITTEN_AT, 64, rights);
    NEED(ends[1].mr, "ibv_reg_mr: %s", strerror(errno));
    struct ibv_parent_domain_init_attr domain = {.pd = ends[1].pd,
                                                 .comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS,
                                                 .alloc = allocate,
                                                 .free = release};
    struct ibv_cq_init_attr_ex init = {.cqe = ENTRIES, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD};
    init.parent_domain = ibv_alloc_parent_domain(ends[1].context, &domain);
    NEED(init.parent_domain, "ibv_alloc_parent_domain: %s", strerror(errno));
    for (int i = 0; i < THREADS; i++)
        NEED(pthread_create(&threads[i], NULL, bodies[i], &rounds[i]) == 0, "pthread_create: %s", strerror(errno));
    for (int i = 0; i < atoi(argv[2]); i++) {
        struct ibv_cq_ex *cq = ibv_create_cq_ex(ends[1].context, &init);
        NEED(cq, "ibv_create_cq_ex: %s", strerror(errno));
        NEED(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)) == 0, "ibv_destroy_cq: %s", strerror(errno));
    }
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++)
        NEED(pthread_join(threads[i], NULL) == 0, "pthread_join: %s", strerror(errno));
    for (int i = 0; i < THREADS; i++)
        NEED(rounds[i] > 0, "thread %d did nothing", i);
    printf("good\n");
    return 0;
}
