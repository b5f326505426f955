/*
 * Test cases for programs with libibverbs. Each case gets two new RC queue pairs, connected to each other. The exit
 * status is 1 if a result differs or a call fails, and 3 if a case takes more than 20 seconds.
 *
 *   PROGRAM [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]
 */
#ifndef CASES_H
#define CASES_H

#include <signal.h>
#include <sys/time.h>

#include "endpoint.h"

struct test_case {
    const char *name;
    void (*run)(void);
};

#define LENGTH 65536 /* bytes of the buffer of each end */

static struct options options;
/* Whether completions are waited for by events, not by polls. */
static bool waits_for_events;
static struct endpoint ends[2];
static struct ibv_context *context;
static bool passes;

static void report_difference(const char *subject, int actual, int expected)
{
    printf("  %s: %d, not %d\n", subject, actual, expected);
    passes = false;
}

static void check(const char *subject, int actual, int expected)
{
    if (actual != expected)
        report_difference(subject, actual, expected);
}

/* ---- posting ---- */

UNUSED static void post_receive(int side, uint64_t id, uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)ends[side].buffer, length, ends[side].mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    const int error = ibv_post_recv(ends[side].qp, &wr, &bad);
    NEED(error == 0, "ibv_post_recv: %s", strerror(error));
}

/*
 * Posts a request at end 0, with the first `length` bytes of end 0's buffer. `offset`: in the buffer of end 1.
 * FETCH_AND_ADD adds 1.
 */
UNUSED static void post(uint64_t id, enum ibv_wr_opcode opcode, uint32_t length, uint64_t offset, uint32_t rkey,
                        uint32_t lkey)
{
    struct ibv_sge sge = {(uintptr_t)ends[0].buffer, length, lkey};
    struct ibv_send_wr wr = {
        .wr_id = id, .sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = (uintptr_t)ends[1].buffer + offset;
        wr.wr.atomic.rkey = rkey;
        wr.wr.atomic.compare_add = 1;
    } else {
        wr.wr.rdma.remote_addr = (uintptr_t)ends[1].buffer + offset;
        wr.wr.rdma.rkey = rkey;
    }
    struct ibv_send_wr *bad;
    const int error = ibv_post_send(ends[0].qp, &wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
}

/* For the message of on_limit. */
static const char *current_case = "start";
static uint64_t awaited_id;

/* Waits for the next completion of end `side`, and returns its wr_id. */
static uint64_t wait_for_any(int side, int status)
{
    struct ibv_wc wc;
    char subject[64];
    while (next_completion(&ends[side], &wc) == 0)
        ;
    /* In all cases the wr_id of a receive is 100 or more. */
    const char *kind = wc.wr_id >= 100 ? "receive" : "request";
    snprintf(subject, sizeof subject, "end %d, status of %s %u", side, kind, (unsigned)wc.wr_id);
    check(subject, wc.status, status);
    return wc.wr_id;
}

/* Waits for the next completion of end `side`, which must be that of `id`. */
UNUSED static void wait_for(int side, uint64_t id, int status)
{
    awaited_id = id;
    const uint64_t found = wait_for_any(side, status);
    if (found != id)
        report_difference("wr_id", (int)found, (int)id);
}

/* Like wait_for; returns the completion. */
UNUSED static struct ibv_wc wait_for_completion(int side, uint64_t id, int status)
{
    struct ibv_wc wc;
    awaited_id = id;
    while (next_completion(&ends[side], &wc) == 0)
        ;
    check("wr_id", (int)wc.wr_id, (int)id);
    check("status", wc.status, status);
    return wc;
}

UNUSED static void check_state(int side, enum ibv_qp_state expected)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    NEED(ibv_query_qp(ends[side].qp, &attr, IBV_QP_STATE, &init) == 0, "ibv_query_qp: %s", strerror(errno));
    check(side ? "state of end 1" : "state of end 0", attr.qp_state, expected);
}

static void on_limit(int number)
{
    (void)number;
    dprintf(STDERR_FILENO, "timeout: case %s did not end, it waits for request %u\n", current_case,
            (unsigned)awaited_id);
    _exit(3);
}

static bool run_case(const struct test_case *test, unsigned i)
{
    current_case = test->name;
    passes = true;
    for (int side = 0; side < 2; side++) {
        create_endpoint(&ends[side], context, &options, LENGTH, 1000 * i + 77 * (unsigned)side);
    }
    for (int side = 0; side < 2; side++) {
        const struct address peer = address_of(&ends[!side]);
        connect_to(&ends[side], &peer, &options);
    }
    test->run();
    for (int side = 0; side < 2; side++) {
        struct ibv_wc wc;
        if (ibv_poll_cq(ends[side].cq, 1, &wc) != 0)
            report_difference("an additional completion, wr_id", (int)wc.wr_id, -1);
        destroy_endpoint(&ends[side]);
    }
    printf("%s: %s\n", test->name, passes ? "right" : "WRONG");
    return passes;
}

static int run_cases(const struct test_case *cases, size_t count, int argc, char **argv)
{
    /* Fast errors: one retry after 17 ms (4.096 us * 2^12), and no RNR retry. */
    options = default_options;
    options.timeout = 12;
    options.retry_count = 1;
    options.rnr_retry = 0;
    options.events = waits_for_events;
    for (int c; (c = getopt(argc, argv, "d:g:m:")) != -1;) {
        switch (c) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 'm': options.mtu = atoi(optarg); break;
        default: fail("usage: %s [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]", argv[0]);
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPROF, on_limit);
    context = open_named(options.device);
    int wrong = 0, count_run = 0;
    for (size_t i = 0; i < count; i++) {
        if (optind < argc && strcmp(argv[optind], cases[i].name) != 0)
            continue;
        /* Of processor time, which other programs do not lengthen. */
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = 20}, NULL);
        count_run++;
        wrong += !run_case(&cases[i], (unsigned)i);
    }
    NEED(count_run > 0, "there is no case %s", argv[optind]);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    printf("%d cases, %d wrong\n", count_run, wrong);
    return wrong > 0;
}

#endif
