/*
 * FLUSH and ATOMIC WRITE between two processes: the client WRITEs and FLUSHes a block, and publishes its number by an
 * ATOMIC WRITE; when the server sees the number, the whole block must be in its memory.
 *
 *   persist [options]        server, whose memory is written
 *   persist [options] HOST   client
 *
 *   -d DEVICE  -g GID-INDEX  -p TCP-PORT  -m MTU  -n BLOCKS  -s BYTES of a block  -t SECONDS (give up; 60)
 *   -o (regions with on-demand paging, whose pages are not in memory at first)
 *
 * The client needs libibverbs of rdma-core 45 or newer at run time. This file declares FLUSH, which older headers lack.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>

#include "../endpoint.h"
#include "../pattern.h"
#include "../tcp.h"

/* IBV_ACCESS_FLUSH_GLOBAL and so on of <infiniband/verbs.h>. */
enum {
    ACCESS_FLUSH_GLOBAL = 1 << 8,
    QP_EX_ATOMIC_WRITE = 1 << 12,
    QP_EX_FLUSH = 1 << 11,
    FLUSH_GLOBAL = 1,
    FLUSH_RANGE = 0,
    FLUSH_REGION = 1,
    WC_FLUSH = 8,
    WC_ATOMIC_WRITE = 9,
};

/* struct ibv_qp_ex from its member wr_atomic_write on, since rdma-core 45. */
struct last_members {
    void (*wr_atomic_write)(void);
    void (*wr_flush)(struct ibv_qp_ex *qp, uint32_t rkey, uint64_t address, size_t length, uint8_t type, uint8_t level);
};

/*
 * The server's buffer starts with the number of the last published block. Slots of one block begin at FIRST_SLOT, each
 * at a page: Linux's rxe copies to and from the beginning of the page in a region with on-demand paging.
 */
#define PAGE 4096
#define FIRST_SLOT PAGE
#define SLOTS 8
#define RIGHTS_BUT_FLUSH                                                                                               \
    (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)

static struct endpoint end;
static struct address remote;
static struct ibv_qp_ex *requests;
static size_t block_bytes = 20000;
static uint64_t block_count = 100;
static bool on_demand;

/* ---- the client ---- */

/* Gives `end` a new queue pair, for ibv_wr_*. */
static void use_extended_qp(void)
{
    NEED(ibv_destroy_qp(end.qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    struct ibv_qp_init_attr_ex init = {
        .send_cq = end.cq,
        .recv_cq = end.cq,
        .cap = {.max_send_wr = QUEUE, .max_recv_wr = QUEUE, .max_send_sge = MAX_SGE, .max_recv_sge = MAX_SGE},
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = end.pd,
        .send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | QP_EX_ATOMIC_WRITE | QP_EX_FLUSH,
    };
    end.qp = ibv_create_qp_ex(end.context, &init);
    NEED(end.qp, "ibv_create_qp_ex with FLUSH and ATOMIC WRITE: %s", strerror(errno));
    requests = ibv_qp_to_qp_ex(end.qp);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = 0};
    NEED(ibv_modify_qp(end.qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT: %s", strerror(errno));
}

static void start_request(uint64_t id)
{
    ibv_wr_start(requests);
    requests->wr_id = id;
    requests->wr_flags = IBV_SEND_SIGNALED;
}

static void finish_request(void)
{
    const int error = ibv_wr_complete(requests);
    NEED(error == 0, "ibv_wr_complete: %s", strerror(error));
}

static void post_flush(uint64_t id, uint32_t rkey, uint64_t address, size_t length, uint8_t level)
{
    start_request(id);
    const struct last_members *members = (void *)&requests->wr_atomic_write;
    members->wr_flush(requests, rkey, address, length, FLUSH_GLOBAL, level);
    finish_request();
}

static void post_atomic_write(uint64_t id, uint64_t address, uint64_t value)
{
    start_request(id);
    ibv_wr_atomic_write(requests, remote.rkey, address, &value);
    finish_request();
}

/* Waits for the next completion, which must be that of request `id`. `opcode` is compared only for SUCCESS. */
static void expect_completion(uint64_t id, int status, int opcode)
{
    struct ibv_wc wc;
    while (next_completion(&end, &wc) == 0)
        sched_yield();
    NEED(wc.wr_id == id && (int)wc.status == status, "request %lu: %s, expected was %lu: %s", (unsigned long)wc.wr_id,
         ibv_wc_status_str(wc.status), (unsigned long)id, ibv_wc_status_str((enum ibv_wc_status)status));
    NEED(status != IBV_WC_SUCCESS || (int)wc.opcode == opcode, "request %lu: completion opcode %d, not %d",
         (unsigned long)id, wc.opcode, opcode);
}

static size_t slot_bytes(void)
{
    return (block_bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static uint64_t slot_of(uint64_t number)
{
    return FIRST_SLOT + number % SLOTS * slot_bytes();
}

static void synchronise(int peer)
{
    const uint32_t mine = 0;
    uint32_t theirs;
    exchange(peer, &mine, &theirs, sizeof mine);
}

static void write_blocks(int peer)
{
    for (uint64_t number = 1; number <= block_count; number++) {
        const uint64_t offset = slot_of(number);
        fill(end.buffer + offset, block_bytes, number);
        start_request(3 * number);
        ibv_wr_rdma_write(requests, remote.rkey, remote.buffer + offset);
        ibv_wr_set_sge(requests, end.mr->lkey, (uintptr_t)end.buffer + offset, (uint32_t)block_bytes);
        finish_request();
        if (number % 3 == 0)
            post_flush(3 * number + 1, remote.rkey, remote.buffer, 0, FLUSH_REGION);
        else
            post_flush(3 * number + 1, remote.rkey, remote.buffer + offset, block_bytes, FLUSH_RANGE);
        post_atomic_write(3 * number + 2, remote.buffer, number);
        expect_completion(3 * number, IBV_WC_SUCCESS, IBV_WC_RDMA_WRITE);
        expect_completion(3 * number + 1, IBV_WC_SUCCESS, WC_FLUSH);
        expect_completion(3 * number + 2, IBV_WC_SUCCESS, WC_ATOMIC_WRITE);
        /* The server compares all blocks before their slots are reused. */
        if (number % SLOTS == 0)
            synchronise(peer);
    }
}

/* ---- the server ---- */

static void check_blocks(int peer)
{
    const uint64_t *published = (uint64_t *)end.buffer;
    uint8_t *expected = malloc(block_bytes);
    NEED(expected, "no memory for %zu bytes", block_bytes);
    for (uint64_t seen = 0; seen < block_count;) {
        const uint64_t number = __atomic_load_n(published, __ATOMIC_ACQUIRE);
        if (number == seen) {
            sched_yield();
            continue;
        }
        NEED(number > seen && number <= block_count, "number %lu after %lu", (unsigned long)number,
             (unsigned long)seen);
        for (uint64_t i = seen + 1; i <= number; i++) {
            fill(expected, block_bytes, i);
            NEED(memcmp(end.buffer + slot_of(i), expected, block_bytes) == 0,
                 "block %lu was published, but has not arrived", (unsigned long)i);
            if (i % SLOTS == 0)
                synchronise(peer);
        }
        seen = number;
    }
    free(expected);
}

/* ---- both sides ---- */

/* `access`: rights of the regions. The PSN wraps soon. */
static void open_connection(int peer, struct ibv_context *context, const struct options *options, bool is_client,
                            int access)
{
    create_endpoint(&end, context, options, FIRST_SLOT + SLOTS * slot_bytes(), 0xffff00);
    NEED(ibv_dereg_mr(end.mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    if (on_demand) {
        access |= IBV_ACCESS_ON_DEMAND;
        NEED(madvise(end.buffer, end.length, MADV_DONTNEED) == 0, "madvise: %s", strerror(errno));
    }
    end.mr = ibv_reg_mr(end.pd, end.buffer, end.length, access);
    NEED(end.mr, "ibv_reg_mr with access 0x%x: %s", access, strerror(errno));
    if (is_client) {
        use_extended_qp();
    } else {
        struct ibv_qp_attr attr = {.qp_access_flags = RIGHTS_BUT_FLUSH | ACCESS_FLUSH_GLOBAL};
        NEED(ibv_modify_qp(end.qp, &attr, IBV_QP_ACCESS_FLAGS) == 0, "access of the queue pair: %s", strerror(errno));
    }
    const struct address local = address_of(&end);
    exchange(peer, &local, &remote, sizeof local);
    connect_to(&end, &remote, options);
    synchronise(peer);
}

static void close_connection(int peer)
{
    synchronise(peer);
    destroy_endpoint(&end);
}

int main(int argc, char **argv)
{
    const char *port = "18515";
    unsigned time_limit = 60;
    struct options options = default_options;
    options.timeout = 18; /* 1.1 s */
    for (int c; (c = getopt(argc, argv, "d:g:p:m:n:s:t:o")) != -1;) {
        switch (c) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 'p': port = optarg; break;
        case 'm': options.mtu = atoi(optarg); break;
        case 'n': block_count = strtoull(optarg, NULL, 0); break;
        case 's': block_bytes = strtoul(optarg, NULL, 0); break;
        case 't': time_limit = (unsigned)atoi(optarg); break;
        case 'o': on_demand = true; break;
        default:
            fail("usage: %s [-d DEVICE] [-g GID-INDEX] [-p TCP-PORT] [-m MTU] [-n BLOCKS] [-s BYTES] [-t SECONDS] "
                 "[-o] [HOST]",
                 argv[0]);
        }
    }
    NEED(block_bytes >= 1 && block_bytes <= 1u << 24, "block of %zu bytes: 1 to %u are allowed", block_bytes, 1u << 24);
    set_time_limit(time_limit);
    const char *host = optind < argc ? argv[optind] : NULL;
    struct ibv_context *context = open_named(options.device);
    const int peer = host ? connect_to_server(host, port) : accept_client(port);

    open_connection(peer, context, &options, host != NULL, RIGHTS_BUT_FLUSH | ACCESS_FLUSH_GLOBAL);
    if (host)
        write_blocks(peer);
    else
        check_blocks(peer);
    close_connection(peer);
    printf("%lu blocks of %zu bytes, each complete before its number\n", (unsigned long)block_count, block_bytes);

    open_connection(peer, context, &options, host != NULL, RIGHTS_BUT_FLUSH | ACCESS_FLUSH_GLOBAL);
    if (host) {
        post_flush(1, remote.rkey, remote.buffer + end.length - 100, 200, FLUSH_RANGE);
        expect_completion(1, IBV_WC_REM_ACCESS_ERR, 0);
        printf("a FLUSH beyond the region is refused\n");
    }
    close_connection(peer);
    open_connection(peer, context, &options, host != NULL, RIGHTS_BUT_FLUSH);
    if (host) {
        post_flush(1, remote.rkey, remote.buffer, 100, FLUSH_RANGE);
        expect_completion(1, IBV_WC_REM_ACCESS_ERR, 0);
        printf("a FLUSH without that right is refused\n");
    }
    close_connection(peer);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    return 0;
}
