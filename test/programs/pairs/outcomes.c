/*
 * The results of failing requests between two processes.
 *
 *   outcomes [options]        server: the responder of every case
 *   outcomes [options] HOST   client: the requester
 *
 *   -d DEVICE  -g GID-INDEX  -p TCP-PORT  -m MTU  -t SECONDS (give up; 120)
 *
 * Each case: new RC queue pairs, one request, and a SEND of 16 bytes. Each end prints a line per case: the statuses of
 * its completions and the state of its queue pair. Implementations differ, so the caller judges the lines.
 */
#define _GNU_SOURCE
#include <time.h>

#include "../endpoint.h"
#include "../tcp.h"

#define LENGTH 65536

/* PAST_END: the last byte is beyond the region. READ_ONLY: a region whose only remote right is READ. */
enum target { WHOLE_REGION, WRONG_RKEY, PAST_END, READ_ONLY };
/* LATE_RECEIVE: two receives posted after 20 ms. GONE: the responder's queue pair is destroyed. */
enum receive { NO_RECEIVE = -1, LATE_RECEIVE = -2, GONE = -3 };

struct scenario {
    const char *name;
    enum ibv_wr_opcode opcode;
    uint32_t length;
    enum target target;
    int receive; /* bytes of each of the responder's two receives, or an enum receive */
    uint8_t rnr_retry;
};

static const struct scenario scenarios[] = {
    {"write_imm", IBV_WR_RDMA_WRITE_WITH_IMM, 20000, WHOLE_REGION, 64, 0},
    {"write_bad_rkey", IBV_WR_RDMA_WRITE, 64, WRONG_RKEY, 64, 0},
    {"long_write_bad_rkey", IBV_WR_RDMA_WRITE, 20000, WRONG_RKEY, 64, 0},
    {"read_bad_rkey", IBV_WR_RDMA_READ, 5000, WRONG_RKEY, 64, 0},
    {"atomic_bad_rkey", IBV_WR_ATOMIC_FETCH_AND_ADD, 8, WRONG_RKEY, 64, 0},
    {"write_past_end", IBV_WR_RDMA_WRITE, 8192, PAST_END, 64, 0},
    {"read_past_end", IBV_WR_RDMA_READ, 8192, PAST_END, 64, 0},
    {"write_not_allowed", IBV_WR_RDMA_WRITE, 64, READ_ONLY, 64, 0},
    {"atomic_not_allowed", IBV_WR_ATOMIC_CMP_AND_SWP, 8, READ_ONLY, 64, 0},
    {"short_receive", IBV_WR_SEND, 64, WHOLE_REGION, 32, 0},
    {"long_short_receive", IBV_WR_SEND, 20000, WHOLE_REGION, 10000, 0},
    {"no_receive", IBV_WR_SEND, 64, WHOLE_REGION, NO_RECEIVE, 1},
    {"write_imm_no_receive", IBV_WR_RDMA_WRITE_WITH_IMM, 3000, WHOLE_REGION, NO_RECEIVE, 1},
    {"late_receive", IBV_WR_SEND, 20000, WHOLE_REGION, LATE_RECEIVE, 7},
    {"write_imm_late_receive", IBV_WR_RDMA_WRITE_WITH_IMM, 3000, WHOLE_REGION, LATE_RECEIVE, 7},
    {"no_answer", IBV_WR_SEND, 64, WHOLE_REGION, GONE, 0},
};

static struct endpoint end;

static bool posts_receives(const struct scenario *s)
{
    return s->receive >= 0 || s->receive == LATE_RECEIVE;
}

static void post_receives(int length)
{
    for (uint64_t i = 0; i < 2; i++) {
        struct ibv_sge sge = {(uintptr_t)end.buffer, (uint32_t)length, end.mr->lkey};
        struct ibv_recv_wr *bad, wr = {.wr_id = 100 + i, .sg_list = &sge, .num_sge = 1};
        const int error = ibv_post_recv(end.qp, &wr, &bad);
        NEED(error == 0, "ibv_post_recv: %s", strerror(error));
    }
}

/* Posts the request of the case, and a SEND. */
static void post_requests(const struct scenario *s, const struct address *peer_address)
{
    const uint64_t offset = s->target == PAST_END ? LENGTH - s->length + 1 : 0;
    const uint64_t address = peer_address->buffer + offset;
    const uint32_t rkey = s->target == WRONG_RKEY ? peer_address->rkey ^ 0x55 : peer_address->rkey;
    struct ibv_sge sge = {(uintptr_t)end.buffer, s->length, end.mr->lkey};
    struct ibv_send_wr second = {
        .wr_id = 2, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad, wr = second;
    wr.wr_id = 1;
    wr.opcode = s->opcode;
    if (s->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || s->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = address;
        wr.wr.atomic.rkey = rkey;
        wr.wr.atomic.compare_add = 1;
    } else {
        wr.wr.rdma.remote_addr = address;
        wr.wr.rdma.rkey = rkey;
    }
    int error = ibv_post_send(end.qp, &wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
    sge.length = 16;
    error = ibv_post_send(end.qp, &second, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
}

/* Prints `expected` completions, or fewer after 20 s: responders differ in what they flush. */
static void report(const struct scenario *s, int expected)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    printf("%s:", s->name);
    for (int found = 0; found < expected;) {
        struct ibv_wc wc;
        const int polled = ibv_poll_cq(end.cq, 1, &wc);
        NEED(polled >= 0, "ibv_poll_cq: %d", polled);
        if (polled) {
            printf(" %u %s;", (unsigned)wc.wr_id, ibv_wc_status_str(wc.status));
            found++;
            continue;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec > 20) {
            printf(" nothing;");
            break;
        }
        usleep(500);
    }
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_UNKNOWN};
    struct ibv_qp_init_attr init;
    if (end.qp)
        NEED(ibv_query_qp(end.qp, &attr, IBV_QP_STATE, &init) == 0, "ibv_query_qp: %s", strerror(errno));
    printf(" state %d\n", attr.qp_state);
}

/* READY: the responder is prepared. REPORTED: the requester has printed its completions. */
enum step { READY = 1, REPORTED };

/* Waits until the other end is at the same step. */
static void synchronise(int peer, enum step own_step)
{
    const uint32_t step = own_step;
    uint32_t peer_step;
    exchange(peer, &step, &peer_step, sizeof step);
    NEED(step == peer_step, "the peer is at step %u, this program at %u", peer_step, step);
}

static void run(const struct scenario *s, int peer, bool is_requester, struct options options,
                struct ibv_context *context)
{
    struct ibv_mr *read_only_mr = NULL;
    options.rnr_retry = s->rnr_retry;
    /* The PSN wraps. */
    create_endpoint(&end, context, &options, LENGTH, 0xfffff0);
    struct address peer_address, own_address = address_of(&end);
    if (s->target == READ_ONLY) {
        read_only_mr = ibv_reg_mr(end.pd, end.buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
        NEED(read_only_mr, "ibv_reg_mr: %s", strerror(errno));
        own_address.rkey = read_only_mr->rkey;
    }
    exchange(peer, &own_address, &peer_address, sizeof own_address);
    connect_to(&end, &peer_address, &options);
    if (is_requester) {
        synchronise(peer, READY);
        post_requests(s, &peer_address);
        report(s, 2);
        synchronise(peer, REPORTED);
    } else {
        if (s->receive >= 0)
            post_receives(s->receive);
        if (s->receive == GONE) {
            NEED(ibv_destroy_qp(end.qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
            end.qp = NULL;
        }
        synchronise(peer, READY);
        if (s->receive == LATE_RECEIVE) {
            /* Whether the requests have arrived by now is unknown: both orders are valid. */
            usleep(20000);
            post_receives(LENGTH);
        }
        synchronise(peer, REPORTED);
        report(s, posts_receives(s) ? 2 : 0);
    }
    if (read_only_mr)
        NEED(ibv_dereg_mr(read_only_mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    destroy_endpoint(&end);
}

int main(int argc, char **argv)
{
    const char *port = "18515";
    unsigned time_limit = 120;
    struct options options = default_options;
    /* 0.27 s and six retries: some implementations treat 7 retries as unlimited. */
    options.timeout = 16;
    options.retry_count = 6;
    for (int c; (c = getopt(argc, argv, "d:g:p:m:t:")) != -1;) {
        switch (c) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 'p': port = optarg; break;
        case 'm': options.mtu = atoi(optarg); break;
        case 't': time_limit = (unsigned)atoi(optarg); break;
        default: fail("usage: %s [-d DEVICE] [-g GID-INDEX] [-p TCP-PORT] [-m MTU] [-t SECONDS] [HOST]", argv[0]);
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    set_time_limit(time_limit);
    const char *host = optind < argc ? argv[optind] : NULL;
    struct ibv_context *context = open_named(options.device);
    const int peer = host ? connect_to_server(host, port) : accept_client(port);
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        run(&scenarios[i], peer, host != NULL, options, context);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    return 0;
}
