/*
 * Programs that reuse or deregister the buffers of receives in the middle of a batch of completions, between
 * ibv_start_poll and ibv_end_poll, for `userdma check` (test/system/check/extended-polls.test.ts). A completion counts
 * as polled although the provider writes the consumer index only in ibv_end_poll. The first argument names a case; with
 * a second one, `high`, descriptors are above 4096.
 */
#define _GNU_SOURCE
#include "../../../docs/findings/pair.h"

#include <pthread.h>
#include <sys/resource.h>

/* Messages of one batch, and bytes of a message. */
#define BATCH 3
#define LENGTH 64

/* `other` sends; `one` receives, and polls with ibv_start_poll. */
struct pair {
    struct end one, other;
    struct ibv_cq_ex *cq;
    /* Each receive has a buffer in a region of its own. */
    char buffers[BATCH][LENGTH];
    struct ibv_mr *regions[BATCH];
};

/* Gives `one` an extended CQ and a queue pair. */
static void make_qp(struct pair *pair)
{
    struct ibv_qp_init_attr init = small_qp();
    struct ibv_cq_init_attr_ex cq = {.cqe = 16, .wc_flags = IBV_WC_STANDARD_FLAGS};
    pair->cq = need(ibv_create_cq_ex(context, &cq), "ibv_create_cq_ex");
    pair->one.cq = init.send_cq = init.recv_cq = ibv_cq_ex_to_cq(pair->cq);
    pair->one.qp = need(ibv_create_qp(pair->one.pd, &init), "ibv_create_qp");
    to_init(&pair->one);
}

/* Replaces the CQ and the queue pair of `one` by new ones with the same handles. */
static void renew(struct pair *pair)
{
    const uint32_t handle = pair->one.cq->handle;
    check(ibv_destroy_qp(pair->one.qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(pair->one.cq), "ibv_destroy_cq");
    make_qp(pair);
    if (pair->one.cq->handle != handle) {
        fprintf(stderr, "CQ %u became CQ %u\n", handle, pair->one.cq->handle);
        exit(1);
    }
}

/* Connects the ends after `renew`. */
static void reconnect(struct pair *pair)
{
    struct ibv_qp_attr reset = {.qp_state = IBV_QPS_RESET};
    check(ibv_modify_qp(pair->other.qp, &reset, IBV_QP_STATE), "ibv_modify_qp to RESET");
    to_init(&pair->other);
    /* 0: the peer's current QPN. */
    pair->one.attr.dest_qp_num = pair->other.attr.dest_qp_num = 0;
    connect_ends(&pair->one, &pair->other);
}

static void register_buffer(struct pair *pair, unsigned i)
{
    pair->regions[i] =
        need(ibv_reg_mr(pair->one.pd, pair->buffers[i], LENGTH, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
}

static void begin(struct pair *pair)
{
    make_end(&pair->one);
    make_end(&pair->other);
    renew(pair); /* make_end has created a CQ that is not extended */
    connect_ends(&pair->one, &pair->other);
    for (unsigned i = 0; i < BATCH; i++)
        register_buffer(pair, i);
}

static void deregister(struct pair *pair, unsigned i)
{
    check(ibv_dereg_mr(pair->regions[i]), "ibv_dereg_mr");
    pair->regions[i] = NULL;
}

/* A receive with wr_id `i`, into buffer `i`. */
static void receive(struct pair *pair, unsigned i)
{
    struct ibv_sge sge = {.addr = (uintptr_t)pair->buffers[i], .length = LENGTH, .lkey = pair->regions[i]->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(pair->one.qp, &wr, &bad), "ibv_post_recv");
}

/* Sends a message, and waits until it has arrived. */
static void deliver(struct pair *pair)
{
    struct ibv_sge sge = all_of(&pair->other);
    sge.length = LENGTH;
    post(&pair->other, IBV_WR_SEND, sge, 0, 0);
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(pair->other.cq, 1, &wc)) == 0)
        ;
    if (found < 0 || wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "the message is not delivered\n");
        exit(1);
    }
}

/* BATCH receives, all completed. */
static void fill(struct pair *pair)
{
    for (unsigned i = 0; i < BATCH; i++)
        receive(pair, i);
    for (unsigned i = 0; i < BATCH; i++)
        deliver(pair);
}

/* Waits for a completion, and starts a batch with it. */
static void start(struct pair *pair)
{
    struct ibv_poll_cq_attr attr = {0};
    int error;
    while ((error = ibv_start_poll(pair->cq, &attr)) == ENOENT)
        ;
    check(error, "ibv_start_poll");
}

/* Takes the rest of a batch of BATCH completions. */
static void take_rest(struct pair *pair)
{
    for (unsigned i = 1; i < BATCH; i++)
        check(ibv_next_poll(pair->cq), "ibv_next_poll");
    ibv_end_poll(pair->cq);
}

static void end(struct pair *pair)
{
    for (unsigned i = 0; i < BATCH; i++)
        if (pair->regions[i])
            deregister(pair, i);
    destroy_end(&pair->one);
    destroy_end(&pair->other);
}

static struct pair first;

/* ---- without mistakes ---- */

static void deregister_each(struct pair *pair)
{
    start(pair);
    deregister(pair, pair->cq->wr_id);
    for (unsigned i = 1; i < BATCH; i++) {
        check(ibv_next_poll(pair->cq), "ibv_next_poll");
        deregister(pair, pair->cq->wr_id);
    }
    ibv_end_poll(pair->cq);
}

static void deregisters(void)
{
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BATCH; i++)
            if (!first.regions[i])
                register_buffer(&first, i);
        fill(&first);
        deregister_each(&first);
    }
}

/* Each buffer is filled again while its first message is in the batch. */
static void reposts(void)
{
    fill(&first);
    for (unsigned round = 0; round < 3; round++) {
        start(&first);
        for (unsigned i = 0;; i++) {
            receive(&first, first.cq->wr_id);
            deliver(&first);
            if (i + 1 == BATCH)
                break;
            check(ibv_next_poll(first.cq), "ibv_next_poll");
        }
        ibv_end_poll(first.cq);
    }
    start(&first);
    take_rest(&first);
}

static void renews_in_batch(void)
{
    fill(&first);
    start(&first);
    check(ibv_next_poll(first.cq), "ibv_next_poll");
    check(ibv_next_poll(first.cq), "ibv_next_poll");
    renew(&first);
    reconnect(&first);
    fill(&first);
    deregister_each(&first);
}

static void resizes(void)
{
    fill(&first);
    start(&first);
    ibv_end_poll(first.cq);
    check(ibv_resize_cq(first.one.cq, 64), "ibv_resize_cq");
    start(&first);
    deregister(&first, first.cq->wr_id);
    check(ibv_next_poll(first.cq), "ibv_next_poll");
    deregister(&first, first.cq->wr_id);
    ibv_end_poll(first.cq);
}

/* Both functions of polling, in turn. */
static void polls_in_both_ways(void)
{
    fill(&first);
    struct ibv_wc wc;
    if (ibv_poll_cq(first.one.cq, 1, &wc) != 1)
        exit(1);
    start(&first);
    deregister(&first, first.cq->wr_id);
    deregister(&first, wc.wr_id);
    ibv_end_poll(first.cq);
    if (ibv_poll_cq(first.one.cq, 1, &wc) != 1)
        exit(1);
    deregister(&first, wc.wr_id);
}

static void *deregister_repeatedly(void *pair)
{
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < BATCH; i++)
            if (!((struct pair *)pair)->regions[i])
                register_buffer(pair, i);
        fill(pair);
        deregister_each(pair);
    }
    return NULL;
}

/* Two threads, each with a CQ of its own. */
static void threads(void)
{
    static struct pair second;
    begin(&second);
    pthread_t thread;
    check(pthread_create(&thread, NULL, deregister_repeatedly, &second), "pthread_create");
    deregister_repeatedly(&first);
    check(pthread_join(thread, NULL), "pthread_join");
    end(&second);
}

/* ---- mistakes: the completion in hand is that of another receive ---- */

static void deregisters_early(void)
{
    fill(&first);
    start(&first);
    deregister(&first, 1);
    take_rest(&first);
}

/* Messages 1 and 2 have the same buffer. */
static void overwrites(void)
{
    receive(&first, 0);
    receive(&first, 1);
    receive(&first, 1);
    deliver(&first);
    deliver(&first);
    start(&first);
    deliver(&first);
    take_rest(&first);
}

/* The completions that were taken from the earlier CQ with this handle do not count. */
static void deregisters_early_after_renewal(void)
{
    fill(&first);
    start(&first);
    check(ibv_next_poll(first.cq), "ibv_next_poll");
    renew(&first);
    reconnect(&first);
    fill(&first);
    deregister(&first, 0);
    start(&first);
    take_rest(&first);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"deregisters", deregisters},
    {"reposts", reposts},
    {"renews_in_batch", renews_in_batch},
    {"resizes", resizes},
    {"polls_in_both_ways", polls_in_both_ways},
    {"threads", threads},
    {"deregisters_early", deregisters_early},
    {"overwrites", overwrites},
    {"deregisters_early_after_renewal", deregisters_early_after_renewal},
};

/* New descriptors are above 4096. */
static void use_low_descriptors(void)
{
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    limit.rlim_cur = 8192;
    check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
    int used;
    while ((used = dup(STDERR_FILENO)) < 4096)
        check(used < 0, "dup");
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[2], "high") == 0) {
        use_low_descriptors();
        argc--;
    }
    for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            open_device();
            begin(&first);
            cases[i].run();
            end(&first);
            check(ibv_close_device(context), "ibv_close_device");
            return 0;
        }
    fprintf(stderr, "usage: extended_polls CASE [high]\n");
    return 1;
}
