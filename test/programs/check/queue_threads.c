/*
 * Eight threads post to one queue at the same time, without a lock of their own, as verbs allow; and poll one CQ. Each
 * request has memory of its own, which is written before the post alone: nothing is wrong. For `userdma check`
 * (test/system/check/queue-threads.test.ts).
 *
 *   queue_threads CASE[,wrong]...
 *
 * Each case has two rounds; in the second all requests have one wr_id. With `wrong`, one request of one thread has a
 * mistake, in each round of another thread, and the program prints the thread and the wr_id of what has failed. Before
 * each round it prints the queue pairs of the case.
 */
#define _GNU_SOURCE
#define DEPTH 512
#define BLOCK 64
#define BLOCKS 1024
#include "correct.h"

#include <fcntl.h>
#include <infiniband/efadv.h>
#include <pthread.h>

#define THREADS 8
#define MAX_LIST 4
/* Requests of a thread in a round. */
#define REQUESTS 24
#define TOTAL (THREADS * REQUESTS)
/* Elements of a request that no device takes. */
#define TOO_MANY 40

/* wr_ids of another thread's messages and receives, and of all requests of the threads in a second round. */
#define OTHER_ID 0
#define EQUAL_ID 9

static bool is_wrong;
/* In this round. */
static bool has_equal_ids;
static int wrong_thread, wrong_request;
static pthread_barrier_t barrier;

/* The ends of a connection, both in this process, and what the threads post to. */
static struct ibv_qp *sender, *receiver, *second_sender, *second_receiver;
static struct ibv_srq *srqs[2];
static uint32_t srq_numbers[2];
static struct ibv_cq *send_cq, *receive_cq;
static struct ibv_cq_ex *extended_cq;

/* A way to post a list of the requests of `thread` from number `first` on, to the queue of the case. */
typedef void list_function(int thread, int first, int count);

struct kind {
    const char *name;
    list_function *post;
    enum ibv_qp_type type;
    /* For ibv_wr_*. */
    uint64_t operations;
    /* The requests are messages, for which the peer has receives; or they are receives. */
    bool are_messages, are_receives;
    bool with_srqs, with_extended_polls;
    /* The first thread with a mistake: another one for each kind with the same function `post`. */
    int first_wrong;
};
static const struct kind *kind;

static uint64_t id_of(int thread, int request)
{
    return has_equal_ids ? EQUAL_ID : (uint64_t)(1000 * (thread + 1) + request);
}

static uint8_t *block_of(int thread, int request)
{
    return memory[thread * REQUESTS + request];
}

static bool is_mistaken(int thread, int request)
{
    return is_wrong && thread == wrong_thread && request == wrong_request;
}

/* Before the data of a receive there may be a GRH. */
static bool is_unreliable(void)
{
    return sender->qp_type == IBV_QPT_UD || sender->qp_type == IBV_QPT_DRIVER;
}

/* ---- sends ---- */

static void fill_send(struct ibv_send_wr *wr, struct ibv_sge *sge, enum ibv_wr_opcode opcode, int thread, int request)
{
    *sge = piece(block_of(thread, request), BLOCK);
    if (is_mistaken(thread, request) && opcode == IBV_WR_SEND)
        sge->lkey ^= 0x5500;
    *wr = (struct ibv_send_wr){.wr_id = id_of(thread, request),
                               .sg_list = sge,
                               .num_sge = 1,
                               .opcode = opcode,
                               .send_flags = IBV_SEND_SIGNALED};
    if (opcode == IBV_WR_RDMA_WRITE) {
        wr->wr.rdma.remote_addr = (uintptr_t)memory[TOTAL + thread * REQUESTS + request];
        wr->wr.rdma.rkey = is_mistaken(thread, request) ? mr->rkey ^ 0x5500 : mr->rkey;
    } else if (sender->qp_type == IBV_QPT_UD) {
        wr->wr.ud.ah = own_address;
        wr->wr.ud.remote_qpn = receiver->qp_num;
        wr->wr.ud.remote_qkey = QKEY;
    } else if (sender->qp_type == IBV_QPT_XRC_SEND) {
        wr->qp_type.xrc.remote_srqn = srq_numbers[request % 2];
    }
}

static void post_sends(enum ibv_wr_opcode opcode, int thread, int first, int count)
{
    struct ibv_send_wr *bad, wrs[MAX_LIST];
    struct ibv_sge sges[MAX_LIST];
    for (int i = 0; i < count; i++) {
        fill_send(&wrs[i], &sges[i], opcode, thread, first + i);
        wrs[i].next = i + 1 < count ? &wrs[i + 1] : NULL;
    }
    check(ibv_post_send(sender, wrs, &bad), "ibv_post_send");
}

static void sends(int thread, int first, int count)
{
    post_sends(IBV_WR_SEND, thread, first, count);
}

static void writes(int thread, int first, int count)
{
    post_sends(IBV_WR_RDMA_WRITE, thread, first, count);
}

static void build(struct ibv_qp_ex *qp, int thread, int request)
{
    const bool is_write = !kind->are_messages;
    qp->wr_id = id_of(thread, request);
    qp->wr_flags = IBV_SEND_SIGNALED;
    if (is_write)
        ibv_wr_rdma_write(qp, is_mistaken(thread, request) ? mr->rkey ^ 0x5500 : mr->rkey,
                          (uintptr_t)memory[TOTAL + thread * REQUESTS + request]);
    else
        ibv_wr_send(qp);
    ibv_wr_set_sge(qp, is_mistaken(thread, request) && !is_write ? mr->lkey ^ 0x5500 : mr->lkey,
                   (uintptr_t)block_of(thread, request), BLOCK);
    if (sender->qp_type == IBV_QPT_DRIVER)
        ibv_wr_set_ud_addr(qp, own_address, receiver->qp_num, QKEY);
}

/* Batches of ibv_wr_*; every third one is built twice, and given up the first time. */
static void batches(int thread, int first, int count)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(sender);
    for (int attempt = first % 3 == 0 ? 0 : 1; attempt < 2; attempt++) {
        ibv_wr_start(qp);
        for (int i = 0; i < count; i++)
            build(qp, thread, first + i);
        if (attempt == 0)
            ibv_wr_abort(qp);
        else
            check(ibv_wr_complete(qp), "ibv_wr_complete");
    }
}

/* Lists and batches on one queue; the second request of some lists is refused at first, and with it those after it. */
static void mixed(int thread, int first, int count)
{
    if (thread % 2) {
        batches(thread, first, count);
        return;
    }
    struct ibv_send_wr *bad = NULL, wrs[MAX_LIST];
    struct ibv_sge sges[MAX_LIST], many[TOO_MANY] = {{0}};
    for (int i = 0; i < count; i++) {
        fill_send(&wrs[i], &sges[i], IBV_WR_RDMA_WRITE, thread, first + i);
        wrs[i].next = i + 1 < count ? &wrs[i + 1] : NULL;
    }
    if (count < 2 || is_wrong) {
        check(ibv_post_send(sender, wrs, &bad), "ibv_post_send");
        return;
    }
    wrs[1].num_sge = TOO_MANY;
    wrs[1].sg_list = many;
    must(ibv_post_send(sender, wrs, &bad) != 0 && bad == &wrs[1], "a request with too many elements is refused");
    wrs[1].num_sge = 1;
    wrs[1].sg_list = &sges[1];
    check(ibv_post_send(sender, &wrs[1], &bad), "ibv_post_send");
}

/* ---- receives ---- */

/* The memory of a receive. */
static struct ibv_sge receive_piece(int number)
{
    return piece(memory[TOTAL + 2 * number], is_unreliable() ? 2 * BLOCK : BLOCK);
}

static void fill_receives(struct ibv_recv_wr *wrs, struct ibv_sge *sges, int thread, int first, int count)
{
    for (int i = 0; i < count; i++) {
        sges[i] = receive_piece(thread * REQUESTS + first + i);
        if (is_mistaken(thread, first + i))
            sges[i].length = 8;
        wrs[i] = (struct ibv_recv_wr){.wr_id = id_of(thread, first + i),
                                      .sg_list = &sges[i],
                                      .num_sge = 1,
                                      .next = i + 1 < count ? &wrs[i + 1] : NULL};
    }
}

static void receives(int thread, int first, int count)
{
    struct ibv_recv_wr *bad, wrs[MAX_LIST];
    struct ibv_sge sges[MAX_LIST];
    fill_receives(wrs, sges, thread, first, count);
    check(ibv_post_recv(receiver, wrs, &bad), "ibv_post_recv");
}

/* To two SRQs in turn. */
static void shared_receives(int thread, int first, int count)
{
    struct ibv_recv_wr *bad, wrs[MAX_LIST];
    struct ibv_sge sges[MAX_LIST];
    for (int i = 0; i < count; i++) {
        fill_receives(wrs, sges, thread, first + i, 1);
        check(ibv_post_srq_recv(srqs[(first + i) % 2], wrs, &bad), "ibv_post_srq_recv");
    }
}

/* ---- threads ---- */

/* A function for each thread: findings name it. */
#define FUNCTION(n)                                                                                                    \
    __attribute__((noinline)) static void thread_##n(list_function *post, int first, int count)                        \
    {                                                                                                                  \
        post(n, first, count);                                                                                         \
        asm volatile("");                                                                                              \
    }
FUNCTION(0) FUNCTION(1) FUNCTION(2) FUNCTION(3) FUNCTION(4) FUNCTION(5) FUNCTION(6) FUNCTION(7)
static void (*const functions[THREADS])(list_function *, int, int) = {thread_0, thread_1, thread_2, thread_3,
                                                                      thread_4, thread_5, thread_6, thread_7};

/* Completions that this round still expects. */
static int expected;
static bool has_failed;

static void completed(uint64_t id, enum ibv_wc_status status)
{
    __atomic_fetch_sub(&expected, 1, __ATOMIC_RELAXED);
    if (status == IBV_WC_SUCCESS || status == IBV_WC_WR_FLUSH_ERR)
        return;
    must(is_wrong, ibv_wc_status_str(status));
    if (id == OTHER_ID)
        return; /* the message for a receive with the mistake */
    must(id == id_of(wrong_thread, wrong_request), "the request with the mistake fails");
    printf("failed thread_%d wr_id %d\n", wrong_thread, (int)id);
    __atomic_store_n(&has_failed, true, __ATOMIC_RELAXED);
}

static void poll_some(struct ibv_cq *cq)
{
    struct ibv_wc wc[3];
    const int found = ibv_poll_cq(cq, 3, wc);
    must(found >= 0, "ibv_poll_cq");
    for (int i = 0; i < found; i++)
        completed(wc[i].wr_id, wc[i].status);
}

static void poll_extended(void)
{
    struct ibv_poll_cq_attr attributes = {0};
    if (ibv_start_poll(extended_cq, &attributes) != 0)
        return;
    /* Without ibv_next_poll, which is wrong in rxe's provider (docs/reference/provider-faults.md). */
    completed(extended_cq->wr_id, extended_cq->status);
    ibv_end_poll(extended_cq);
}

static void poll_both(void)
{
    if (extended_cq)
        poll_extended();
    else
        poll_some(send_cq);
    poll_some(receive_cq);
}

static void *work(void *argument)
{
    const int thread = (int)(uintptr_t)argument;
    for (int i = 0; i < REQUESTS; i++)
        fill(block_of(thread, i), 16 * thread + i, BLOCK);
    pthread_barrier_wait(&barrier);
    for (int first = 0; first < REQUESTS;) {
        const int left = REQUESTS - first, wanted = 1 + (first + thread) % MAX_LIST, count = left < wanted ? left : wanted;
        functions[thread](kind->post, first, count);
        first += count;
        if (!kind->are_receives)
            poll_both();
    }
    pthread_barrier_wait(&barrier); /* all is posted */
    pthread_barrier_wait(&barrier); /* and for receives: all is sent */
    while (is_wrong ? !__atomic_load_n(&has_failed, __ATOMIC_RELAXED) : __atomic_load_n(&expected, __ATOMIC_RELAXED) > 0) {
        poll_both();
        sched_yield();
    }
    return NULL;
}

/* ---- rounds ---- */

static struct ibv_srq *create_srq(struct ibv_xrcd *xrcd)
{
    struct ibv_srq_init_attr_ex init = {.attr = {.max_wr = DEPTH, .max_sge = 1}, .comp_mask = IBV_SRQ_INIT_ATTR_PD, .pd = pd};
    if (xrcd) {
        init.comp_mask |= IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
        init.srq_type = IBV_SRQT_XRC;
        init.xrcd = xrcd;
        init.cq = receive_cq;
    }
    return need(ibv_create_srq_ex(context, &init), "ibv_create_srq_ex");
}

static struct ibv_qp *create_xrc(enum ibv_qp_type type, struct ibv_xrcd *xrcd)
{
    struct ibv_qp_init_attr_ex init = {.qp_type = type, .send_cq = send_cq, .cap = {.max_send_wr = DEPTH, .max_send_sge = 1}};
    init.comp_mask = type == IBV_QPT_XRC_RECV ? IBV_QP_INIT_ATTR_XRCD : IBV_QP_INIT_ATTR_PD;
    init.pd = pd;
    init.xrcd = xrcd;
    return need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
}

/* As many messages as receives were posted, in turn to the queue pairs of both SRQs. */
static void send_all(void)
{
    for (int i = 0; i < TOTAL; i++) {
        struct ibv_sge sge = piece(memory[i], BLOCK);
        struct ibv_send_wr *bad, wr = {.wr_id = OTHER_ID, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
        struct ibv_qp *qp = srqs[0] && i % 2 ? second_sender : sender;
        if (qp->qp_type == IBV_QPT_UD) {
            wr.wr.ud.ah = own_address;
            wr.wr.ud.remote_qpn = receiver->qp_num;
            wr.wr.ud.remote_qkey = QKEY;
        }
        wr.send_flags = IBV_SEND_SIGNALED;
        check(ibv_post_send(qp, &wr, &bad), "ibv_post_send");
    }
}

static void one_round(int round)
{
    pthread_t threads[THREADS];
    struct ibv_cq_init_attr_ex extended = {.cqe = 4 * DEPTH, .wc_flags = IBV_WC_STANDARD_FLAGS};
    struct ibv_xrcd *xrcd = NULL;
    has_equal_ids = round == 1;
    wrong_thread = (3 * round + kind->first_wrong) % THREADS;
    wrong_request = (5 * round + 3) % REQUESTS;
    receive_cq = create_cq(4 * DEPTH, NULL);
    if (kind->with_extended_polls) {
        extended_cq = need(ibv_create_cq_ex(context, &extended), "ibv_create_cq_ex");
        send_cq = ibv_cq_ex_to_cq(extended_cq);
    } else {
        send_cq = create_cq(4 * DEPTH, NULL);
    }
    if (kind->type == IBV_QPT_XRC_SEND) {
        struct ibv_xrcd_init_attr domain = {
            .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
        xrcd = need(ibv_open_xrcd(context, &domain), "ibv_open_xrcd");
        for (int i = 0; i < 2; i++) {
            srqs[i] = create_srq(xrcd);
            check(ibv_get_srq_num(srqs[i], &srq_numbers[i]), "ibv_get_srq_num");
        }
        receiver = create_xrc(IBV_QPT_XRC_RECV, xrcd);
        sender = create_xrc(IBV_QPT_XRC_SEND, NULL);
    } else {
        const enum ibv_qp_type type = kind->type == IBV_QPT_RC ? reliable() : kind->type;
        for (int i = 0; kind->with_srqs && i < 2; i++)
            srqs[i] = create_srq(NULL);
        sender = create_qp(type, send_cq, send_cq, NULL, kind->operations);
        receiver = create_qp(type, receive_cq, receive_cq, srqs[0], 0);
        if (srqs[1]) {
            second_receiver = create_qp(type, receive_cq, receive_cq, srqs[1], 0);
            second_sender = create_qp(type, send_cq, send_cq, NULL, 0);
            connect_both(second_sender, second_receiver);
        }
    }
    connect_both(sender, receiver);
    printf("queue pairs %x %x", sender->qp_num, receiver->qp_num);
    if (second_sender)
        printf(" %x %x", second_sender->qp_num, second_receiver->qp_num);
    printf(" of %s%s\n", kind->name, is_wrong ? ",wrong" : "");
    expected = TOTAL;
    has_failed = false;
    for (int i = 0; i < TOTAL && kind->are_messages; i++, expected++) {
        struct ibv_sge sge = receive_piece(i);
        struct ibv_recv_wr *bad, wr = {.wr_id = OTHER_ID, .sg_list = &sge, .num_sge = 1};
        if (srqs[0])
            check(ibv_post_srq_recv(srqs[i % 2], &wr, &bad), "ibv_post_srq_recv");
        else
            check(ibv_post_recv(receiver, &wr, &bad), "ibv_post_recv");
    }
    for (int i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i), "pthread_create");
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    if (kind->are_receives) {
        expected += TOTAL;
        send_all();
    }
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++)
        check(pthread_join(threads[i], NULL), "pthread_join");
    destroy_qp(sender);
    destroy_qp(receiver);
    if (second_sender) {
        destroy_qp(second_sender);
        destroy_qp(second_receiver);
        second_sender = NULL;
    }
    for (int i = 0; i < 2; i++) {
        if (srqs[i])
            check(ibv_destroy_srq(srqs[i]), "ibv_destroy_srq");
        srqs[i] = NULL;
        srq_numbers[i] = 0;
    }
    if (xrcd)
        check(ibv_close_xrcd(xrcd), "ibv_close_xrcd");
    destroy_cq(send_cq);
    destroy_cq(receive_cq);
    extended_cq = NULL;
}

#define OPERATIONS (IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_SEND)
static const struct kind kinds[] = {
    {"sends", sends, .type = IBV_QPT_RC, .are_messages = true},
    {"datagrams", sends, .type = IBV_QPT_UD, .are_messages = true, .first_wrong = 1},
    {"xrc", sends, .type = IBV_QPT_XRC_SEND, .are_messages = true, .first_wrong = 2},
    {"writes", writes, .type = IBV_QPT_RC},
    {"batches", batches, .type = IBV_QPT_RC, .operations = OPERATIONS, .are_messages = true},
    {"mixed", mixed, .type = IBV_QPT_RC, .operations = OPERATIONS},
    {"extended", writes, .type = IBV_QPT_RC, .with_extended_polls = true, .first_wrong = 1},
    {"receives", receives, .type = IBV_QPT_RC, .are_receives = true},
    {"ud-receives", receives, .type = IBV_QPT_UD, .are_receives = true, .first_wrong = 1},
    {"srq", shared_receives, .type = IBV_QPT_RC, .are_receives = true, .with_srqs = true},
};

/* The kind with the name before a comma in `text`; NULL: there is none. */
static const struct kind *kind_of(const char *text)
{
    const size_t length = strcspn(text, ",");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        if (strlen(kinds[k].name) == length && strncmp(kinds[k].name, text, length) == 0)
            return &kinds[k];
    return NULL;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!kind_of(argv[i]))
            return fprintf(stderr, "usage: queue_threads KIND[,wrong] ...\n"), 1;
    setlinebuf(stdout);
    check(pthread_barrier_init(&barrier, NULL, THREADS + 1), "pthread_barrier_init");
    open_all();
    for (int i = 1; i < argc; i++) {
        kind = kind_of(argv[i]);
        is_wrong = strchr(argv[i], ',') != NULL;
        one_round(0);
        one_round(1);
    }
    close_all();
    return 0;
}
