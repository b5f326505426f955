/*
 * What goes wrong on RC must go wrong with the status that the InfiniBand specification gives it, and flush what
 * comes after.
 *
 *   verbs_errors [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]
 *
 * Each case joins two fresh queue pairs of one process and provokes one error; the statuses at both ends, the states
 * of the queue pairs and the flushed work requests are checked. Prints one line per case; status 1 if any differs.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "endpoint.h"

#define LENGTH 65536

static struct options options;
static struct endpoint ends[2];
static struct ibv_context *context;
static bool right;

static void differs(const char *what, int got, int wanted)
{
    printf("  %s: %d, not %d\n", what, got, wanted);
    right = false;
}

static void check(const char *what, int got, int wanted)
{
    if (got != wanted)
        differs(what, got, wanted);
}

/* ---- posting ---- */

static void post_receive(int who, uint64_t id, uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)ends[who].buffer, length, ends[who].mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    const int error = ibv_post_recv(ends[who].qp, &wr, &bad);
    NEED(error == 0, "ibv_post_recv: %s", strerror(error));
}

/* From end 0 to end 1; `offset` is of the far buffer. */
static void post(uint64_t id, enum ibv_wr_opcode opcode, uint32_t length, uint64_t offset, uint32_t rkey, uint32_t lkey)
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

static const char *running = "start";
static uint64_t awaited;

/* The next completion of an end, which must have this status; its wr_id. */
static uint64_t wait_for_any(int who, int status)
{
    struct ibv_wc wc;
    char what[64];
    while (next_completion(&ends[who], &wc) == 0)
        ;
    const char *kind = wc.wr_id >= 100 ? "receive" : "request";
    snprintf(what, sizeof what, "end %d, status of %s %u", who, kind, (unsigned)wc.wr_id);
    check(what, wc.status, status);
    return wc.wr_id;
}

static void wait_for(int who, uint64_t id, int status)
{
    awaited = id;
    const uint64_t found = wait_for_any(who, status);
    if (found != id)
        differs("wr_id", (int)found, (int)id);
}

static void check_state(int who, enum ibv_qp_state wanted)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    NEED(ibv_query_qp(ends[who].qp, &attr, IBV_QP_STATE, &init) == 0, "ibv_query_qp: %s", strerror(errno));
    check(who ? "state of end 1" : "state of end 0", attr.qp_state, wanted);
}

/* ---- cases ---- */

/*
 * The first request of end 0 fails with `status`, the two behind it are flushed, and so is what is posted to a queue
 * in error.
 */
static void first_fails(int status)
{
    post(2, IBV_WR_RDMA_WRITE, 64, 0, ends[1].mr->rkey, ends[0].mr->lkey);
    post(3, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    wait_for(0, 1, status);
    wait_for(0, 2, IBV_WC_WR_FLUSH_ERR);
    wait_for(0, 3, IBV_WC_WR_FLUSH_ERR);
    check_state(0, IBV_QPS_ERR);
    /* A receive has no doorbell of its own; the send's makes the device look at both queues. */
    post_receive(0, 104, 64);
    post(5, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    uint64_t seen = 0;
    for (int i = 0; i < 2; i++)
        seen += wait_for_any(0, IBV_WC_WR_FLUSH_ERR);
    check("requests flushed in the error state, sum of wr_id", (int)seen, 109);
}

static void write_bad_rkey(void)
{
    post(1, IBV_WR_RDMA_WRITE, 64, 0, ends[1].mr->rkey ^ 0x55, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_ACCESS_ERR);
}

static void read_bad_rkey(void)
{
    post(1, IBV_WR_RDMA_READ, 64, 0, 0xdeadbeef, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_ACCESS_ERR);
}

static void atomic_bad_rkey(void)
{
    post(1, IBV_WR_ATOMIC_FETCH_AND_ADD, 8, 0, 0, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_ACCESS_ERR);
}

static void write_past_end(void)
{
    memset(ends[1].buffer, 0x11, LENGTH);
    memset(ends[0].buffer, 0x22, LENGTH);
    post(1, IBV_WR_RDMA_WRITE, 8192, LENGTH - 8191, ends[1].mr->rkey, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_ACCESS_ERR);
    for (int i = 0; i < LENGTH; i++)
        if (ends[1].buffer[i] != 0x11) {
            differs("a byte that must not be written", ends[1].buffer[i], 0x11);
            break;
        }
}

static void write_before_start(void)
{
    post(1, IBV_WR_RDMA_WRITE, 64, (uint64_t)-1, ends[1].mr->rkey, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_ACCESS_ERR);
}

static void write_not_allowed(void)
{
    struct ibv_mr *mr = ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    post(1, IBV_WR_RDMA_WRITE, 64, 0, mr->rkey, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_ACCESS_ERR);
    ibv_dereg_mr(mr);
}

static void stale_rkey(void)
{
    const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    struct ibv_mr *mr = ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, access);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    const uint32_t rkey = mr->rkey;
    ibv_dereg_mr(mr);
    mr = ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, access);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    post(1, IBV_WR_RDMA_WRITE, 64, 0, rkey, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_ACCESS_ERR);
    ibv_dereg_mr(mr);
}

/* A SEND that is longer than the receive: one packet, and several. */
static void send_too_long(void)
{
    post_receive(1, 100, 32);
    post_receive(1, 101, 4096);
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_INV_REQ_ERR);
    wait_for(1, 100, IBV_WC_LOC_LEN_ERR);
    wait_for(1, 101, IBV_WC_WR_FLUSH_ERR);
    check_state(1, IBV_QPS_ERR);
}

static void long_send_too_long(void)
{
    post_receive(1, 100, 10000);
    post(1, IBV_WR_SEND, 20000, 0, 0, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_INV_REQ_ERR);
    wait_for(1, 100, IBV_WC_LOC_LEN_ERR);
}

static void bad_lkey(void)
{
    post(1, IBV_WR_RDMA_WRITE, 64, 0, ends[1].mr->rkey, ends[0].mr->lkey ^ 0x55);
    first_fails(IBV_WC_LOC_PROT_ERR);
}

static void receive_bad_lkey(void)
{
    struct ibv_sge sge = {(uintptr_t)ends[1].buffer, 64, 0xdeadbeef};
    struct ibv_recv_wr wr = {.wr_id = 100, .sg_list = &sge, .num_sge = 1}, *bad;
    NEED(ibv_post_recv(ends[1].qp, &wr, &bad) == 0, "ibv_post_recv: %s", strerror(errno));
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    first_fails(IBV_WC_REM_OP_ERR);
    wait_for(1, 100, IBV_WC_LOC_PROT_ERR);
}

static void no_receive(void)
{
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    first_fails(IBV_WC_RNR_RETRY_EXC_ERR);
}

static void nobody_answers(void)
{
    NEED(ibv_destroy_qp(ends[1].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    ends[1].qp = NULL;
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    first_fails(IBV_WC_RETRY_EXC_ERR);
}

/* By the program's own order. */
static void flush(void)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    for (uint64_t i = 0; i < 5; i++)
        post_receive(1, 100 + i, 64);
    NEED(ibv_modify_qp(ends[1].qp, &attr, IBV_QP_STATE) == 0, "to ERR: %s", strerror(errno));
    for (uint64_t i = 0; i < 5; i++)
        wait_for(1, 100 + i, IBV_WC_WR_FLUSH_ERR);
    check_state(1, IBV_QPS_ERR);
    check_state(0, IBV_QPS_RTS);
}

/* After an error the queue pair works again when it is reset and joined anew. */
static void reset(void)
{
    write_bad_rkey();
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    for (int who = 0; who < 2; who++) {
        NEED(ibv_modify_qp(ends[who].qp, &attr, IBV_QP_STATE) == 0, "to RESET: %s", strerror(errno));
        check_state(who, IBV_QPS_RESET);
        NEED(ibv_destroy_qp(ends[who].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
        create_qp(&ends[who]);
    }
    for (int who = 0; who < 2; who++) {
        const struct address peer = address_of(&ends[!who]);
        connect_to(&ends[who], &peer, &options);
    }
    post_receive(1, 100, 64);
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    wait_for(0, 1, IBV_WC_SUCCESS);
    wait_for(1, 100, IBV_WC_SUCCESS);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"write_bad_rkey", write_bad_rkey},
    {"read_bad_rkey", read_bad_rkey},
    {"atomic_bad_rkey", atomic_bad_rkey},
    {"write_past_end", write_past_end},
    {"write_before_start", write_before_start},
    {"write_not_allowed", write_not_allowed},
    {"stale_rkey", stale_rkey},
    {"send_too_long", send_too_long},
    {"long_send_too_long", long_send_too_long},
    {"bad_lkey", bad_lkey},
    {"receive_bad_lkey", receive_bad_lkey},
    {"no_receive", no_receive},
    {"nobody_answers", nobody_answers},
    {"flush", flush},
    {"reset", reset},
};

static void on_alarm(int number)
{
    (void)number;
    dprintf(STDERR_FILENO, "gave up: case %s does not end; request %u was waited for\n", running, (unsigned)awaited);
    _exit(3);
}

static bool run(size_t i)
{
    running = cases[i].name;
    right = true;
    for (int who = 0; who < 2; who++)
        create_endpoint(&ends[who], context, &options, LENGTH, (uint32_t)(1000 * i + 77 * (unsigned)who));
    for (int who = 0; who < 2; who++) {
        const struct address peer = address_of(&ends[!who]);
        connect_to(&ends[who], &peer, &options);
    }
    cases[i].run();
    for (int who = 0; who < 2; who++) {
        struct ibv_wc wc;
        if (ibv_poll_cq(ends[who].cq, 1, &wc) != 0)
            differs("a completion too many, wr_id", (int)wc.wr_id, -1);
        destroy_endpoint(&ends[who]);
    }
    printf("%s: %s\n", cases[i].name, right ? "right" : "WRONG");
    return right;
}

int main(int argc, char **argv)
{
    /* One retry after 16 ms, no RNR retry: errors are to come soon. */
    options = default_options;
    options.timeout = 12;
    options.retry_count = 1;
    options.rnr_retry = 0;
    for (int c; (c = getopt(argc, argv, "d:g:m:")) != -1;) {
        switch (c) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 'm': options.mtu = atoi(optarg); break;
        default: fail("usage: %s [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]", argv[0]);
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGALRM, on_alarm);
    context = open_named(options.device);
    int wrong = 0, ran = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (optind < argc && strcmp(argv[optind], cases[i].name) != 0)
            continue;
        alarm(20);
        ran++;
        wrong += !run(i);
    }
    NEED(ran > 0, "there is no case %s", argv[optind]);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    printf("%d cases, %d wrong\n", ran, wrong);
    return wrong > 0;
}
