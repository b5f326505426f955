/*
 * Requests with and without races, for `userdma check --races` (test/system/check/races.test.ts), modelled on the cases
 * of RMARaceBench (RWTH-HPC) for MPI, SHMEM and GASPI. Prints one line per case: its number, which is the wr_id of its
 * requests, its name, and the id of the expected finding or "none".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/*
 * Offsets in the buffer. SOURCE: local sources; REMOTE: remote memory; DEST: local destinations; WORD: targets of
 * atomics; RESULT: old values that atomics return. LENGTH: bytes of a request. BYTES: bytes of the buffer.
 */
enum {
    SOURCE = 0,
    SOURCE2 = 0x1000,
    REMOTE = 0x2000,
    REMOTE2 = 0x3000,
    DEST = 0x4000,
    DEST2 = 0x5000,
    WORD = 0x6000,
    WORD2 = 0x6008,
    RESULT = 0x7000,
    RESULT2 = 0x7100,
    LENGTH = 64,
    BYTES = 0x8000,
};

enum {
    ALL_RIGHTS =
        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
};

struct side {
    struct ibv_qp *qp;
    struct ibv_cq *cq;
    int outstanding; /* requests and receives without a polled completion */
    /* The peer's memory. */
    uint64_t address;
    uint32_t rkey;
};

struct link {
    struct side a, b;
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_mr *mr;
static char *buffer;
static union ibv_gid gid;
static uint64_t case_number;
/* In shared memory: threads and processes poll it, which `userdma check` does not see. */
static volatile int *shared_flag;

static void *need(void *object, const char *function)
{
    if (!object) {
        perror(function);
        exit(1);
    }
    return object;
}

/* `error`: as returned by a call; negative: the error is in errno. */
static void check(int error, const char *call)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", call, strerror(error < 0 ? errno : error));
        exit(1);
    }
}

static void open_device(void)
{
    int count;
    struct ibv_device **list = need(ibv_get_device_list(&count), "ibv_get_device_list");
    context = need(count > 0 ? ibv_open_device(list[0]) : NULL, "ibv_open_device");
    ibv_free_device_list(list);
    check(ibv_query_gid(context, 1, 1, &gid), "ibv_query_gid");
    pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    buffer = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mr = need(ibv_reg_mr(pd, buffer, BYTES, ALL_RIGHTS), "ibv_reg_mr");
}

/* `operations`: IBV_QP_EX_WITH_…, for ibv_wr_*; 0: for ibv_post_send. */
static struct side make_side(uint64_t operations)
{
    struct ibv_cq_init_attr_ex cq = {.cqe = 64, .wc_flags = IBV_WC_STANDARD_FLAGS};
    struct side side = {.cq = ibv_cq_ex_to_cq(need(ibv_create_cq_ex(context, &cq), "ibv_create_cq_ex"))};
    struct ibv_qp_init_attr_ex init = {
        .qp_type = IBV_QPT_RC,
        .sq_sig_all = 1,
        .send_cq = side.cq,
        .recv_cq = side.cq,
        .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1},
        .comp_mask = IBV_QP_INIT_ATTR_PD | (operations ? IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0),
        .pd = pd,
        .send_ops_flags = operations,
    };
    side.qp = need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = ALL_RIGHTS};
    check(ibv_modify_qp(side.qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
    return side;
}

static void connect_side(struct side *side, uint32_t peer, uint64_t address, uint32_t rkey)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .dest_qp_num = peer,
        .path_mtu = IBV_MTU_1024,
        .rq_psn = 7,
        .sq_psn = 7,
        .max_dest_rd_atomic = 4,
        .max_rd_atomic = 4,
        .min_rnr_timer = 1,
        .timeout = 14,
        .retry_cnt = 7,
        .rnr_retry = 7,
        .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = 1, .hop_limit = 1}},
    };
    check(ibv_modify_qp(side->qp, &attr,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                            IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
          "RTR");
    attr.qp_state = IBV_QPS_RTS;
    check(ibv_modify_qp(side->qp, &attr,
                        IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                            IBV_QP_MAX_QP_RD_ATOMIC),
          "RTS");
    side->address = address;
    side->rkey = rkey;
}

static struct link make_link(uint64_t operations)
{
    struct link link = {.a = make_side(operations), .b = make_side(0)};
    connect_side(&link.a, link.b.qp->qp_num, (uintptr_t)buffer, mr->rkey);
    connect_side(&link.b, link.a.qp->qp_num, (uintptr_t)buffer, mr->rkey);
    return link;
}

/* ---- requests ---- */

/* Inlined: findings with the same stacks would be reported as one. */
#define INLINE static inline __attribute__((always_inline))

INLINE void post_one(struct side *side, struct ibv_send_wr wr, int local, int length)
{
    struct ibv_sge sge = {.addr = (uintptr_t)buffer + (unsigned)local, .length = (uint32_t)length, .lkey = mr->lkey};
    struct ibv_send_wr *bad;
    wr.wr_id = case_number;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    side->outstanding++;
    check(ibv_post_send(side->qp, &wr, &bad), "ibv_post_send");
}

static struct ibv_send_wr request(enum ibv_wr_opcode opcode, const struct side *side, int remote, unsigned flags)
{
    struct ibv_send_wr wr = {.opcode = opcode, .send_flags = flags};
    wr.wr.rdma.remote_addr = side->address + (unsigned)remote;
    wr.wr.rdma.rkey = side->rkey;
    return wr;
}

#define WRITE(side, from, to) post_one(side, request(IBV_WR_RDMA_WRITE, side, to, 0), from, LENGTH)
#define WRITE_FENCED(side, from, to) post_one(side, request(IBV_WR_RDMA_WRITE, side, to, IBV_SEND_FENCE), from, LENGTH)
#define WRITE_WORD(side, from, to) post_one(side, request(IBV_WR_RDMA_WRITE, side, to, 0), from, 8)
#define READ(side, from, to) post_one(side, request(IBV_WR_RDMA_READ, side, from, 0), to, LENGTH)
#define READ_WORD(side, from, to) post_one(side, request(IBV_WR_RDMA_READ, side, from, 0), to, 8)
#define SEND(side, from) post_one(side, request(IBV_WR_SEND, side, 0, 0), from, LENGTH)
#define SEND_FENCED(side, from) post_one(side, request(IBV_WR_SEND, side, 0, IBV_SEND_FENCE), from, LENGTH)
#define WRITE_IMM(side, from, to) post_one(side, request(IBV_WR_RDMA_WRITE_WITH_IMM, side, to, 0), from, LENGTH)

INLINE void add(struct side *side, int word, int result)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD};
    wr.wr.atomic.remote_addr = side->address + (unsigned)word;
    wr.wr.atomic.rkey = side->rkey;
    wr.wr.atomic.compare_add = 1;
    post_one(side, wr, result, 8);
}

INLINE void receive(struct side *side, int into)
{
    struct ibv_sge sge = {.addr = (uintptr_t)buffer + (unsigned)into, .length = LENGTH, .lkey = mr->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = case_number, .sg_list = &sge, .num_sge = 1};
    side->outstanding++;
    check(ibv_post_recv(side->qp, &wr, &bad), "ibv_post_recv");
}

static void poll_one(struct side *side)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(side->cq, 1, &wc)) == 0)
        ;
    check(found < 0 ? EIO : 0, "ibv_poll_cq");
    if (wc.status != IBV_WC_SUCCESS)
        fprintf(stderr, "case %lu: %s\n", (unsigned long)case_number, ibv_wc_status_str(wc.status));
    side->outstanding--;
}

/* Polls `count` completions as one batch of the extended CQ. */
static void poll_batch(struct side *side, int count)
{
    struct ibv_cq_ex *cq = (struct ibv_cq_ex *)side->cq;
    struct ibv_poll_cq_attr attr = {0};
    int error;
    while ((error = ibv_start_poll(cq, &attr)) == ENOENT)
        ;
    check(error, "ibv_start_poll");
    for (int i = 1; i < count; i++) {
        while ((error = ibv_next_poll(cq)) == ENOENT)
            ;
        check(error, "ibv_next_poll");
    }
    ibv_end_poll(cq);
    side->outstanding -= count;
}

static void drain(struct side *side)
{
    while (side->outstanding > 0)
        poll_one(side);
}

static void end_side(struct side *side)
{
    drain(side);
    check(ibv_destroy_qp(side->qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(side->cq), "ibv_destroy_cq");
}

INLINE void send_message(struct side *from, struct side *to)
{
    receive(to, DEST2);
    SEND(from, SOURCE2);
    poll_one(to);
}

/* ---- threads and processes ---- */

static void wait_for_flag(void)
{
    while (!*shared_flag)
        sched_yield();
}

static void set_flag(void)
{
    *shared_flag = 1;
}

/* If the body must run after the code of the case, it calls `wait_for_flag()`. */
static pthread_t start_thread(void *(*body)(void *), struct link *links)
{
    pthread_t thread;
    check(pthread_create(&thread, NULL, body, links), "pthread_create");
    return thread;
}

struct address {
    uint32_t qpn, rkey;
    uint64_t address;
};

/* Connects a side to the process at the other end of the socket. */
static struct side exchange_and_connect(struct side side, int socket, uint64_t address, uint32_t rkey)
{
    const struct address own = {.qpn = side.qp->qp_num, .rkey = rkey, .address = address};
    struct address peer;
    check(write(socket, &own, sizeof own) != sizeof own ? EIO : 0, "write");
    check(read(socket, &peer, sizeof peer) != sizeof peer ? EIO : 0, "read");
    connect_side(&side, peer.qpn, peer.address, peer.rkey);
    char ready = 0;
    check(write(socket, &ready, 1) != 1 || read(socket, &ready, 1) != 1 ? EIO : 0, "ready");
    return side;
}

/* Returns when the process at the other end of the socket calls barrier too. */
static void barrier(int socket)
{
    char none = 0;
    check(write(socket, &none, 1) != 1 || read(socket, &none, 1) != 1 ? EIO : 0, "barrier");
}

struct child {
    pid_t pid;
    int socket;
    /* The parent's side of the connection. */
    struct side side;
};

/* Starts a child with a device of its own, connected to this process. */
static struct child start_child(void (*body)(struct side *, int))
{
    int pair[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    const pid_t pid = fork();
    if (pid == 0) {
        open_device();
        struct side side = exchange_and_connect(make_side(0), pair[1], (uintptr_t)buffer, mr->rkey);
        body(&side, pair[1]);
        end_side(&side);
        check(ibv_dereg_mr(mr), "ibv_dereg_mr");
        check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
        check(ibv_close_device(context), "ibv_close_device");
        _exit(0);
    }
    return (struct child){pid, pair[0], exchange_and_connect(make_side(0), pair[0], (uintptr_t)buffer, mr->rkey)};
}

static void end_child(struct child *child)
{
    waitpid(child->pid, NULL, 0);
    end_side(&child->side);
    close(child->socket);
}

/* ---- cases: two links of one thread ---- */

/* `two` is `one + 1`: a thread gets both as `links`. */
#define CASE(name) static __attribute__((noinline)) void name(struct link *one, struct link *two)

CASE(write_write) { WRITE(&one->a, SOURCE, REMOTE); WRITE(&two->a, SOURCE2, REMOTE); }
CASE(write_read) { WRITE(&one->a, SOURCE, REMOTE); READ(&two->a, REMOTE, DEST); }
CASE(read_write) { READ(&one->a, REMOTE, DEST); WRITE(&two->a, SOURCE, REMOTE); }
CASE(read_read) { READ(&one->a, REMOTE, DEST); READ(&two->a, REMOTE, DEST2); }
CASE(add_add) { add(&one->a, WORD, RESULT); add(&two->a, WORD, RESULT2); }
CASE(write_add) { WRITE_WORD(&one->a, SOURCE, WORD); add(&two->a, WORD, RESULT); }
CASE(add_write) { add(&one->a, WORD, RESULT); WRITE(&two->a, SOURCE, WORD); }
CASE(add_read) { add(&one->a, WORD, RESULT); READ(&two->a, WORD, DEST); }
CASE(add_read_word) { add(&one->a, WORD, RESULT); READ_WORD(&two->a, WORD, RESULT2); }
CASE(overlapping) { WRITE(&one->a, SOURCE, REMOTE); WRITE(&two->a, SOURCE2, REMOTE + LENGTH / 2); }
CASE(adjacent) { WRITE(&one->a, SOURCE, REMOTE); WRITE(&two->a, SOURCE2, REMOTE + LENGTH); }
CASE(same_source) { WRITE(&one->a, SOURCE, REMOTE); WRITE(&two->a, SOURCE, REMOTE2); }
CASE(read_then_source) { READ(&one->a, REMOTE, DEST); WRITE(&two->a, DEST, REMOTE2); }
CASE(source_then_read) { WRITE(&one->a, SOURCE, REMOTE); READ(&two->a, REMOTE2, SOURCE); }
CASE(reads_into_one) { READ(&one->a, REMOTE, DEST); READ(&two->a, REMOTE2, DEST); }
CASE(result_sent) { add(&one->a, WORD, DEST); WRITE(&two->a, DEST, REMOTE); }

CASE(completion) { WRITE(&one->a, SOURCE, REMOTE); poll_one(&one->a); WRITE(&two->a, SOURCE2, REMOTE); }
CASE(read_completion) { READ(&one->a, REMOTE, DEST); poll_one(&one->a); WRITE(&two->a, DEST, REMOTE); }
CASE(later_completion)
{
    WRITE(&one->a, SOURCE, REMOTE);
    WRITE(&one->a, SOURCE, REMOTE2);
    poll_one(&one->a);
    poll_one(&one->a);
    WRITE(&two->a, SOURCE2, REMOTE);
}
CASE(earlier_completion)
{
    WRITE(&one->a, SOURCE, REMOTE2);
    poll_one(&one->a);
    WRITE(&one->a, SOURCE, REMOTE);
    WRITE(&two->a, SOURCE2, REMOTE);
}
CASE(another_completion)
{
    WRITE(&two->a, SOURCE, REMOTE2);
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&two->a);
    WRITE(&two->a, SOURCE2, REMOTE);
}
CASE(completion_of_batch)
{
    WRITE(&one->a, SOURCE, REMOTE2);
    WRITE(&one->a, SOURCE, REMOTE);
    poll_batch(&one->a, 2);
    WRITE(&two->a, SOURCE2, REMOTE);
}
CASE(completion_after_batch)
{
    WRITE(&one->a, SOURCE, REMOTE2);
    WRITE(&one->a, SOURCE, REMOTE);
    poll_batch(&one->a, 1);
    WRITE(&two->a, SOURCE2, REMOTE);
}

/* ---- one queue ---- */

CASE(queue_write_write) { (void)two; WRITE(&one->a, SOURCE, REMOTE); WRITE(&one->a, SOURCE2, REMOTE); }
CASE(queue_write_read) { (void)two; WRITE(&one->a, SOURCE, REMOTE); READ(&one->a, REMOTE, DEST); }
CASE(queue_read_write) { (void)two; READ(&one->a, REMOTE, DEST); WRITE(&one->a, SOURCE, REMOTE); }
CASE(queue_read_write_fenced) { (void)two; READ(&one->a, REMOTE, DEST); WRITE_FENCED(&one->a, SOURCE, REMOTE); }
CASE(queue_fence_between)
{
    (void)two;
    READ(&one->a, REMOTE, DEST);
    WRITE_FENCED(&one->a, SOURCE, REMOTE2);
    WRITE(&one->a, SOURCE, REMOTE);
}
CASE(queue_read_poll_write)
{
    (void)two;
    READ(&one->a, REMOTE, DEST);
    poll_one(&one->a);
    WRITE(&one->a, SOURCE, REMOTE);
}
CASE(queue_read_sent) { (void)two; READ(&one->a, REMOTE, DEST); WRITE(&one->a, DEST, REMOTE2); }
CASE(queue_read_sent_fenced) { (void)two; READ(&one->a, REMOTE, DEST); WRITE_FENCED(&one->a, DEST, REMOTE2); }
CASE(queue_reads) { (void)two; READ(&one->a, REMOTE, DEST); READ(&one->a, REMOTE2, DEST); }
CASE(queue_adds) { (void)two; add(&one->a, WORD, RESULT); add(&one->a, WORD, RESULT); }
CASE(queue_add_write) { (void)two; add(&one->a, WORD, RESULT); WRITE_WORD(&one->a, SOURCE, WORD); }

/* ---- messages between the sides of links, of one thread ---- */

CASE(write_then_message)
{
    (void)two;
    WRITE(&one->a, SOURCE, REMOTE);
    send_message(&one->a, &one->b);
    READ(&one->b, REMOTE2, REMOTE);
}
CASE(read_then_message)
{
    READ(&one->a, REMOTE, DEST);
    send_message(&one->a, &one->b);
    WRITE(&two->b, SOURCE, REMOTE);
}
CASE(read_then_fenced_message)
{
    READ(&one->a, REMOTE, DEST);
    receive(&one->b, DEST2);
    SEND_FENCED(&one->a, SOURCE2);
    poll_one(&one->b);
    WRITE(&two->b, SOURCE, REMOTE);
}
CASE(message_of_another_queue)
{
    WRITE(&one->a, SOURCE, REMOTE);
    send_message(&two->a, &two->b);
    READ(&two->b, REMOTE2, REMOTE);
}
CASE(immediate)
{
    receive(&one->b, DEST2);
    WRITE_IMM(&one->a, SOURCE, REMOTE);
    poll_one(&one->b);
    READ(&two->b, REMOTE2, REMOTE);
}
CASE(ping_pong)
{
    (void)two;
    for (int i = 0; i < 4; i++) {
        receive(&one->b, REMOTE);
        receive(&one->a, SOURCE);
        SEND(&one->a, SOURCE);
        poll_one(&one->b);
        SEND(&one->b, REMOTE);
        drain(&one->a);
        poll_one(&one->b);
    }
}
CASE(filled_while_sent)
{
    receive(&one->b, REMOTE);
    WRITE(&two->a, REMOTE, REMOTE2);
    SEND(&one->a, SOURCE);
}
CASE(received_then_sent)
{
    receive(&one->b, REMOTE);
    SEND(&one->a, SOURCE);
    poll_one(&one->b);
    WRITE(&two->a, REMOTE, REMOTE2);
}

/* ---- threads ---- */

static void *write_later(void *links)
{
    wait_for_flag();
    WRITE(&((struct link *)links)[1].a, SOURCE2, REMOTE);
    return NULL;
}
CASE(threads)
{
    (void)two;
    const pthread_t thread = start_thread(write_later, one);
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&one->a);
    set_flag();
    pthread_join(thread, NULL);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *write_locked(void *links)
{
    wait_for_flag();
    pthread_mutex_lock(&mutex);
    WRITE(&((struct link *)links)[1].a, SOURCE2, REMOTE);
    pthread_mutex_unlock(&mutex);
    return NULL;
}
CASE(threads_with_mutex)
{
    (void)two;
    const pthread_t thread = start_thread(write_locked, one);
    pthread_mutex_lock(&mutex);
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&one->a);
    pthread_mutex_unlock(&mutex);
    set_flag();
    pthread_join(thread, NULL);
}
static void *write_and_poll(void *argument)
{
    struct link *link = argument;
    WRITE(&link->a, SOURCE, REMOTE);
    poll_one(&link->a);
    return NULL;
}
CASE(thread_joined)
{
    pthread_join(start_thread(write_and_poll, one), NULL);
    WRITE(&two->a, SOURCE2, REMOTE);
}
CASE(thread_created)
{
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&one->a);
    pthread_join(start_thread(write_and_poll, two), NULL);
}
CASE(thread_created_early)
{
    WRITE(&one->a, SOURCE, REMOTE);
    pthread_join(start_thread(write_and_poll, two), NULL);
}
static void *poll_later(void *argument)
{
    struct link *links = argument;
    wait_for_flag();
    poll_one(&links[0].a);
    WRITE(&links[1].a, SOURCE2, REMOTE);
    return NULL;
}
CASE(polled_by_another)
{
    (void)two;
    const pthread_t thread = start_thread(poll_later, one);
    WRITE(&one->a, SOURCE, REMOTE);
    set_flag();
    pthread_join(thread, NULL);
}

enum { THREADS = 200 };

/* A thread WRITEs when the previous thread has polled its completion. */
static void *write_in_turn(void *argument)
{
    struct link *link = argument;
    pthread_mutex_lock(&mutex);
    WRITE(&link->a, SOURCE, REMOTE);
    poll_one(&link->a);
    pthread_mutex_unlock(&mutex);
    return NULL;
}
CASE(many_threads)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(write_in_turn, i % 2 == 0 ? one : two);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}
/* The last thread does not lock the mutex. */
CASE(many_threads_but_one)
{
    (void)two;
    const pthread_t last = start_thread(write_later, one);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(write_in_turn, one);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    set_flag();
    pthread_join(last, NULL);
}

/*
 * Another thread WRITEs after `wait`, when this thread has polled its completion and called `wake`. `userdma check`
 * treats each lock, join or wait of a thread as a wait for all threads: any lock after `wait_for_flag()` is enough.
 */
#define WAITING_CASE(name, prepare, wait, wake)                                                                        \
    static void *name##_later(void *links)                                                                             \
    {                                                                                                                  \
        wait;                                                                                                          \
        WRITE(&((struct link *)links)[1].a, SOURCE2, REMOTE);                                                          \
        return NULL;                                                                                                   \
    }                                                                                                                  \
    CASE(name)                                                                                                         \
    {                                                                                                                  \
        (void)two;                                                                                                     \
        prepare;                                                                                                       \
        const pthread_t thread = start_thread(name##_later, one);                                                      \
        WRITE(&one->a, SOURCE, REMOTE);                                                                                \
        poll_one(&one->a);                                                                                             \
        wake;                                                                                                          \
        pthread_join(thread, NULL);                                                                                    \
    }

/* A time of CLOCK_MONOTONIC, the clock of std::condition_variable::wait_for and std::timed_mutex. */
static const struct timespec *far_future(void)
{
    static const struct timespec time = {.tv_sec = 1L << 40};
    return &time;
}

static bool is_ready;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static void set_ready(void)
{
    pthread_mutex_lock(&mutex);
    is_ready = true;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&mutex);
}
static void await_condition(void)
{
    pthread_mutex_lock(&mutex);
    while (!is_ready)
        pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, far_future());
    pthread_mutex_unlock(&mutex);
}
WAITING_CASE(condition_of_a_clock, is_ready = false, await_condition(), set_ready())

/* The wait ends at its time limit. The lock of the mutex orders the two threads. */
static void await_briefly(void)
{
    const struct timespec past = {0};
    pthread_mutex_lock(&mutex);
    while (!is_ready)
        pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, &past);
    pthread_mutex_unlock(&mutex);
}
static void set_ready_silently(void)
{
    pthread_mutex_lock(&mutex);
    is_ready = true;
    pthread_mutex_unlock(&mutex);
}
WAITING_CASE(condition_after_its_time, is_ready = false, await_briefly(), set_ready_silently())

static void lock_by_clock(void)
{
    wait_for_flag();
    pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, far_future());
    pthread_mutex_unlock(&mutex);
}
WAITING_CASE(mutex_of_a_clock, (void)0, lock_by_clock(), set_flag())

static sem_t semaphore;
WAITING_CASE(semaphore_of_a_clock, sem_init(&semaphore, 0, 0), sem_clockwait(&semaphore, CLOCK_MONOTONIC, far_future()),
             sem_post(&semaphore))

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static void read_lock_by_clock(void)
{
    wait_for_flag();
    pthread_rwlock_clockrdlock(&rwlock, CLOCK_MONOTONIC, far_future());
    pthread_rwlock_unlock(&rwlock);
}
WAITING_CASE(rwlock_of_a_clock, (void)0, read_lock_by_clock(), set_flag())

static pthread_mutex_t robust_mutex;
static volatile bool is_robust_locked;

static void *end_with_lock(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&robust_mutex);
    is_robust_locked = true;
    wait_for_flag();
    return NULL;
}
static void start_owner(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&robust_mutex, &attributes);
    pthread_detach(start_thread(end_with_lock, NULL));
    while (!is_robust_locked)
        sched_yield();
}
static void lock_of_ended_owner(void)
{
    check(pthread_mutex_lock(&robust_mutex) == EOWNERDEAD ? 0 : EINVAL, "EOWNERDEAD");
    pthread_mutex_consistent(&robust_mutex);
    pthread_mutex_unlock(&robust_mutex);
}
WAITING_CASE(owner_ended_with_lock, start_owner(), lock_of_ended_owner(), set_flag())

/* Programs that are compiled with _FORTIFY_SOURCE call this function in place of recvfrom. */
ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                       socklen_t *length);

static int sockets[2];
static void receive_byte(void)
{
    char byte;
    check(__recvfrom_chk(sockets[0], &byte, 1, sizeof byte, 0, NULL, NULL) != 1 ? EIO : 0, "__recvfrom_chk");
}
WAITING_CASE(fortified_recvfrom, check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), "socketpair"), receive_byte(),
             check(write(sockets[1], "", 1) != 1 ? EIO : 0, "write"))

/* A call that finds no ended child orders nothing. */
static void ask_for_ended_child(void)
{
    wait_for_flag();
    siginfo_t info;
    check(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : EINVAL, "waitpid");
    check(waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0 && errno == ECHILD ? 0 : EINVAL, "waitid");
}
WAITING_CASE(no_child_ended, (void)0, ask_for_ended_child(), set_flag())

static void run_command(void)
{
    wait_for_flag();
    check(system("true"), "system");
}
WAITING_CASE(command_ended, (void)0, run_command(), set_flag())

static FILE *command;
static void close_command(void)
{
    wait_for_flag();
    check(pclose(command), "pclose");
}
WAITING_CASE(command_closed, command = need(popen("true", "r"), "popen"), close_command(), set_flag())

static void wait_by_wait3(void)
{
    wait_for_flag();
    char *arguments[] = {"true", NULL};
    pid_t child;
    check(posix_spawnp(&child, "true", NULL, NULL, arguments, environ), "posix_spawnp");
    check(wait3(NULL, 0, NULL) == child ? 0 : ECHILD, "wait3");
}
WAITING_CASE(child_of_wait3, (void)0, wait_by_wait3(), set_flag())

static mtx_t c11_mutex;
static cnd_t c11_condition;

static void lock_c11(void)
{
    wait_for_flag();
    mtx_lock(&c11_mutex);
    mtx_unlock(&c11_mutex);
}
WAITING_CASE(c11_lock, mtx_init(&c11_mutex, mtx_plain), lock_c11(), set_flag())

static void prepare_c11(void)
{
    cnd_init(&c11_condition);
    mtx_init(&c11_mutex, mtx_plain);
    is_ready = false;
}
static void set_ready_c11(void)
{
    mtx_lock(&c11_mutex);
    is_ready = true;
    cnd_signal(&c11_condition);
    mtx_unlock(&c11_mutex);
}
static void await_c11(void)
{
    mtx_lock(&c11_mutex);
    while (!is_ready)
        cnd_wait(&c11_condition, &c11_mutex);
    mtx_unlock(&c11_mutex);
}
WAITING_CASE(c11_condition_wait, prepare_c11(), await_c11(), set_ready_c11())

static int write_and_poll_c11(void *link)
{
    write_and_poll(link);
    return 0;
}
static void run_c11(struct link *link)
{
    thrd_t thread;
    check(thrd_create(&thread, write_and_poll_c11, link), "thrd_create");
    check(thrd_join(thread, NULL), "thrd_join");
}
CASE(c11_thread_joined)
{
    run_c11(one);
    WRITE(&two->a, SOURCE2, REMOTE);
}
CASE(c11_thread_created)
{
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&one->a);
    run_c11(two);
}
CASE(c11_thread_created_early)
{
    WRITE(&one->a, SOURCE, REMOTE);
    run_c11(two);
}

/* ---- a batch of ibv_wr_*: its second request takes part in a race ---- */

CASE(batch)
{
    (void)two;
    struct link link = make_link(IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_ATOMIC_WRITE);
    struct ibv_qp_ex *requests = ibv_qp_to_qp_ex(link.a.qp);
    ibv_wr_start(requests);
    requests->wr_id = case_number;
    const uint64_t word = 1;
    ibv_wr_atomic_write(requests, link.a.rkey, link.a.address + WORD, &word);
    ibv_wr_rdma_write(requests, link.a.rkey, link.a.address + REMOTE);
    ibv_wr_set_sge(requests, mr->lkey, (uintptr_t)buffer + SOURCE, LENGTH);
    check(ibv_wr_complete(requests), "ibv_wr_complete");
    link.a.outstanding += 2;
    WRITE(&one->a, SOURCE2, REMOTE);
    end_side(&link.a);
    end_side(&link.b);
}

/* ---- processes: child and parent write to the parent's memory ---- */

#define CHILD(name) static __attribute__((noinline)) void name(struct side *side, int socket)

CHILD(child_writes)
{
    (void)socket;
    wait_for_flag();
    WRITE(side, SOURCE, REMOTE);
}
CASE(processes)
{
    (void)two;
    struct child child = start_child(child_writes);
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&one->a);
    set_flag();
    end_child(&child);
}
CHILD(child_writes_after_barrier)
{
    barrier(socket);
    WRITE(side, SOURCE, REMOTE);
}
CASE(processes_with_barrier)
{
    (void)two;
    struct child child = start_child(child_writes_after_barrier);
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&one->a);
    barrier(child.socket);
    end_child(&child);
}
CASE(processes_with_early_barrier)
{
    (void)two;
    struct child child = start_child(child_writes_after_barrier);
    WRITE(&one->a, SOURCE, REMOTE);
    barrier(child.socket);
    end_child(&child);
}
CHILD(child_is_told)
{
    (void)socket;
    receive(side, DEST);
    set_flag();
    poll_one(side);
    WRITE(side, SOURCE, REMOTE);
}
CASE(processes_with_message)
{
    (void)two;
    struct child child = start_child(child_is_told);
    wait_for_flag();
    WRITE(&one->a, SOURCE, REMOTE);
    poll_one(&one->a);
    SEND(&child.side, SOURCE2);
    end_child(&child);
}
CASE(processes_with_early_message)
{
    (void)two;
    struct child child = start_child(child_is_told);
    wait_for_flag();
    WRITE(&one->a, SOURCE, REMOTE);
    SEND(&child.side, SOURCE2);
    end_child(&child);
}
/* WORD is a lock: the completion of the first `add` locks it, the second `add` unlocks it. */
CHILD(child_locks)
{
    (void)socket;
    wait_for_flag();
    add(side, WORD, RESULT);
    poll_one(side);
    WRITE(side, SOURCE, REMOTE);
}
CASE(processes_with_lock)
{
    (void)two;
    struct child child = start_child(child_locks);
    add(&one->a, WORD, RESULT2);
    poll_one(&one->a);
    WRITE(&one->a, SOURCE, REMOTE);
    add(&one->a, WORD, RESULT2);
    poll_one(&one->a);
    poll_one(&one->a);
    set_flag();
    end_child(&child);
}
CHILD(child_locks_another)
{
    (void)socket;
    wait_for_flag();
    add(side, WORD2, RESULT);
    poll_one(side);
    WRITE(side, SOURCE, REMOTE);
}
CASE(processes_with_two_locks)
{
    (void)two;
    struct child child = start_child(child_locks_another);
    add(&one->a, WORD, RESULT2);
    poll_one(&one->a);
    WRITE(&one->a, SOURCE, REMOTE);
    add(&one->a, WORD, RESULT2);
    poll_one(&one->a);
    poll_one(&one->a);
    set_flag();
    end_child(&child);
}

static const struct {
    const char *name;
    void (*run)(struct link *, struct link *);
    const char *finding;
} cases[] = {
#define RACE(name, finding) {#name, name, finding}
#define NONE(name) {#name, name, "none"}
    RACE(write_write, "race"),
    RACE(write_read, "race"),
    RACE(read_write, "race"),
    NONE(read_read),
    NONE(add_add),
    RACE(write_add, "atomic-mixed-with-write"),
    RACE(add_write, "atomic-mixed-with-write"),
    RACE(add_read, "atomic-mixed-with-write"),
    NONE(add_read_word),
    RACE(overlapping, "race"),
    NONE(adjacent),
    NONE(same_source),
    RACE(read_then_source, "buffer-reused"),
    RACE(source_then_read, "buffer-reused"),
    RACE(reads_into_one, "buffer-reused"),
    RACE(result_sent, "buffer-reused"),
    NONE(completion),
    NONE(read_completion),
    NONE(later_completion),
    RACE(earlier_completion, "race"),
    RACE(another_completion, "race"),
    NONE(completion_of_batch),
    RACE(completion_after_batch, "race"),
    NONE(queue_write_write),
    NONE(queue_write_read),
    RACE(queue_read_write, "read-then-write-unfenced"),
    NONE(queue_read_write_fenced),
    NONE(queue_fence_between),
    NONE(queue_read_poll_write),
    RACE(queue_read_sent, "buffer-reused"),
    NONE(queue_read_sent_fenced),
    NONE(queue_reads),
    NONE(queue_adds),
    RACE(queue_add_write, "atomic-mixed-with-write"),
    NONE(write_then_message),
    RACE(read_then_message, "race"),
    NONE(read_then_fenced_message),
    RACE(message_of_another_queue, "race"),
    NONE(immediate),
    NONE(ping_pong),
    RACE(filled_while_sent, "buffer-reused"),
    NONE(received_then_sent),
    RACE(threads, "race"),
    NONE(threads_with_mutex),
    NONE(thread_joined),
    NONE(thread_created),
    RACE(thread_created_early, "race"),
    NONE(polled_by_another),
    NONE(many_threads),
    RACE(many_threads_but_one, "race"),
    NONE(condition_of_a_clock),
    NONE(condition_after_its_time),
    NONE(mutex_of_a_clock),
    NONE(semaphore_of_a_clock),
    NONE(rwlock_of_a_clock),
    NONE(owner_ended_with_lock),
    NONE(fortified_recvfrom),
    RACE(no_child_ended, "race"),
    NONE(command_ended),
    NONE(command_closed),
    NONE(child_of_wait3),
    NONE(c11_lock),
    NONE(c11_condition_wait),
    NONE(c11_thread_joined),
    NONE(c11_thread_created),
    RACE(c11_thread_created_early, "race"),
    RACE(batch, "race"),
    RACE(processes, "race"),
    NONE(processes_with_barrier),
    RACE(processes_with_early_barrier, "race"),
    NONE(processes_with_message),
    RACE(processes_with_early_message, "race"),
    NONE(processes_with_lock),
    RACE(processes_with_two_locks, "race"),
};

int main(int argc, char **argv)
{
    if (argc > 1) {
        fprintf(stderr, "usage: %s\n", argv[0]);
        return 1;
    }
    shared_flag = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_device();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        case_number = i + 1;
        *shared_flag = 0;
        struct link links[2] = {make_link(0), make_link(0)};
        cases[i].run(&links[0], &links[1]);
        for (int k = 0; k < 2; k++) {
            drain(&links[k].a);
            drain(&links[k].b);
        }
        for (int k = 0; k < 2; k++) {
            end_side(&links[k].a);
            end_side(&links[k].b);
        }
        printf("%lu %s %s\n", (unsigned long)case_number, cases[i].name, cases[i].finding);
    }
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
