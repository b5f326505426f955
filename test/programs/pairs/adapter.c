/*
 * What adapters have and Linux's rxe lacks: the clock, events that are moderated, and device memory.
 *
 *   adapter [-d DEVICE] [CASE]
 */
#include "../cases.h"

#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

static uint64_t monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t device_clock(void)
{
    struct ibv_values_ex values = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};
    NEED(ibv_query_rt_values_ex(context, &values) == 0, "ibv_query_rt_values_ex: %s", strerror(errno));
    return (uint64_t)values.raw_clock.tv_nsec;
}

static struct ibv_device_attr_ex device_attributes(void)
{
    struct ibv_device_attr_ex attributes;
    NEED(ibv_query_device_ex(context, NULL, &attributes) == 0, "ibv_query_device_ex: %s", strerror(errno));
    return attributes;
}

/* ---- the clock ---- */

static long page_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

/* The device counts nanoseconds. A read that has waited for the sleeping daemon has the time of the read. */
static void clock_runs(void)
{
    const struct ibv_device_attr_ex attributes = device_attributes();
    check("kHz", (int)attributes.hca_core_clock, 1000000);
    check("mask", attributes.completion_timestamp_mask == INT64_MAX, 1);
    uint64_t last = 0;
    int64_t least = INT64_MIN, most = INT64_MAX; /* of the difference of the two clocks */
    for (int waits = 0; waits < 10;) {
        const long faults = page_faults();
        const uint64_t before = monotonic(), now = device_clock(), after = monotonic();
        check("goes back", now < last, 0);
        last = now;
        if (page_faults() == faults) {
            sched_yield();
            continue;
        }
        waits++;
        const int64_t low = (int64_t)(now - after), high = (int64_t)(now - before);
        least = low > least ? low : least;
        most = high < most ? high : most;
    }
    /* to a microsecond: clocks are rounded */
    check("the differences have one value in common", least - 1000 <= most, 1);
}

static struct ibv_cq_ex *timed[2];

/* The two ends get extended completion queues. */
static void time_completions(void)
{
    for (int side = 0; side < 2; side++) {
        struct endpoint *end = &ends[side];
        struct ibv_cq_init_attr_ex init = {.cqe = 16,
                                           .wc_flags = IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
                                                       IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK};
        NEED(ibv_destroy_qp(end->qp) == 0 && ibv_destroy_cq(end->cq) == 0, "destroy: %s", strerror(errno));
        timed[side] = ibv_create_cq_ex(context, &init);
        NEED(timed[side], "ibv_create_cq_ex: %s", strerror(errno));
        end->cq = ibv_cq_ex_to_cq(timed[side]);
        create_qp(end);
    }
    for (int side = 0; side < 2; side++) {
        const struct address peer = address_of(&ends[!side]);
        connect_to(&ends[side], &peer, &options);
    }
}

static void completions_have_times(void)
{
    time_completions();
    const int64_t real_start = (int64_t)time(NULL) * 1000000000;
    int64_t difference = 0;
    for (int round = 0; round < 100; round++) {
        const uint64_t before = device_clock();
        post_receive(1, 100, 8);
        post(1, IBV_WR_SEND, 8, 0, 0, ends[0].mr->lkey);
        for (int side = 0; side < 2; side++) {
            struct ibv_poll_cq_attr attr = {0};
            while (ibv_start_poll(timed[side], &attr) == ENOENT)
                ;
            check("status", timed[side]->status, IBV_WC_SUCCESS);
            const uint64_t stamp = ibv_wc_read_completion_ts(timed[side]);
            const int64_t wall = (int64_t)ibv_wc_read_completion_wallclock_ns(timed[side]);
            ibv_end_poll(timed[side]);
            const uint64_t after = device_clock();
            check("before its request", stamp < before, 0);
            check("after now", stamp > after, 0);
            if (difference == 0)
                difference = wall - (int64_t)stamp;
            check("same difference", wall - (int64_t)stamp == difference, 1);
            check("long ago", wall < real_start - 3600000000000, 0);
        }
    }
}

/* ---- moderation ---- */

static int events_pending(int side)
{
    /* answered after all events of completions that were polled */
    device_attributes();
    struct pollfd fd = {.fd = ends[side].channel->fd, .events = POLLIN};
    return poll(&fd, 1, 0);
}

static void moderate(struct ibv_cq *cq, uint16_t count, uint16_t period)
{
    struct ibv_modify_cq_attr attr = {.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {count, period}};
    const int error = ibv_modify_cq(cq, &attr);
    NEED(error == 0, "ibv_modify_cq: %s", strerror(error));
}

static void complete(int count)
{
    for (int i = 0; i < count; i++) {
        post(1, IBV_WR_RDMA_WRITE, 8, 0, ends[1].mr->rkey, ends[0].mr->lkey);
        struct ibv_wc wc;
        while (ibv_poll_cq(ends[0].cq, 1, &wc) == 0)
            ;
        check("status", wc.status, IBV_WC_SUCCESS);
    }
}

static void take_event(void)
{
    struct ibv_cq *cq;
    void *cq_context;
    NEED(ibv_get_cq_event(ends[0].channel, &cq, &cq_context) == 0, "ibv_get_cq_event: %s", strerror(errno));
    ends[0].unacknowledged++;
}

static void arm(void) { NEED(ibv_req_notify_cq(ends[0].cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno)); }

static void events_are_moderated(void)
{
    const struct ibv_device_attr_ex attributes = device_attributes();
    check("max_cq_count", attributes.cq_mod_caps.max_cq_count, 65535);
    check("max_cq_period", attributes.cq_mod_caps.max_cq_period, 4095);
    struct ibv_modify_cq_attr attr = {.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {1, 4096}};
    check("a longer period", ibv_modify_cq(ends[0].cq, &attr), EINVAL);
    moderate(ends[0].cq, 4, 0);
    for (int round = 0; round < 3; round++) {
        arm();
        complete(3);
        check("an event after 3 of 4", events_pending(0), 0);
        complete(1);
        take_event();
        check("a second event", events_pending(0), 0);
    }
    moderate(ends[0].cq, 1000, 200);
    arm();
    complete(1);
    take_event(); /* after the period */
    moderate(ends[0].cq, 0, 0);
    arm();
    complete(1);
    take_event();
}

/* ---- device memory ---- */

#define DM_LENGTH 8192
#define ALL_REMOTE                                                                                                     \
    (IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |               \
     IBV_ACCESS_REMOTE_ATOMIC)

static struct ibv_dm *dm;
static struct ibv_mr *dm_mr; /* from byte DM_OFFSET on */
#define DM_OFFSET 100

static struct ibv_dm *allocate(uint64_t length, uint32_t alignment)
{
    struct ibv_alloc_dm_attr attr = {.length = length, .log_align_req = alignment};
    return ibv_alloc_dm(context, &attr);
}

static void allocate_dm(int side)
{
    dm = allocate(DM_LENGTH, 0);
    NEED(dm, "ibv_alloc_dm: %s", strerror(errno));
    dm_mr = ibv_reg_dm_mr(ends[side].pd, dm, DM_OFFSET, DM_LENGTH - DM_OFFSET, ALL_REMOTE);
    NEED(dm_mr, "ibv_reg_dm_mr: %s", strerror(errno));
}

static void free_dm(void)
{
    check("ibv_free_dm with a region", ibv_free_dm(dm), EBUSY);
    NEED(ibv_dereg_mr(dm_mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    check("ibv_free_dm", ibv_free_dm(dm), 0);
}

static uint32_t word_of(uint32_t i) { return i * 2654435761u; }

/* Device memory at byte `offset` has `length` bytes of the buffer of end `side`. */
static void check_dm(int side, uint64_t offset, uint32_t length)
{
    static uint8_t copy[DM_LENGTH];
    NEED(ibv_memcpy_from_dm(copy, dm, offset, length) == 0, "ibv_memcpy_from_dm: %s", strerror(errno));
    check("bytes in device memory", memcmp(copy, ends[side].buffer, length), 0);
}

/* A peer writes to device memory, reads it, and counts in it. */
static void peers_reach_device_memory(void)
{
    allocate_dm(1);
    uint8_t *own = ends[0].buffer;
    for (uint32_t i = 0; i < LENGTH / 4; i++)
        ((uint32_t *)own)[i] = word_of(i);
    uint8_t *const peer = ends[1].buffer;
    ends[1].buffer = NULL; /* zero-based */
    for (uint32_t length = 4; length <= 4096; length *= 4) {
        post(1, IBV_WR_RDMA_WRITE, length, 0, dm_mr->rkey, ends[0].mr->lkey);
        wait_for(0, 1, IBV_WC_SUCCESS);
        check_dm(0, DM_OFFSET, length);
        memset(own, 0, length);
        post(2, IBV_WR_RDMA_READ, length, 0, dm_mr->rkey, ends[0].mr->lkey);
        wait_for(0, 2, IBV_WC_SUCCESS);
        for (uint32_t i = 0; i < length / 4; i++)
            check("word read", ((uint32_t *)own)[i] == word_of(i), 1);
    }
    const uint64_t five = 5;
    NEED(ibv_memcpy_to_dm(dm, DM_OFFSET + 8, &five, 8) == 0, "ibv_memcpy_to_dm: %s", strerror(errno));
    post(3, IBV_WR_ATOMIC_FETCH_AND_ADD, 8, 8, dm_mr->rkey, ends[0].mr->lkey);
    wait_for(0, 3, IBV_WC_SUCCESS);
    check("fetched", (int)*(uint64_t *)own, 5);
    *(uint64_t *)own = 6;
    check_dm(0, DM_OFFSET + 8, 8);
    /* one byte after the region */
    post(4, IBV_WR_RDMA_WRITE, 8, DM_LENGTH - DM_OFFSET - 7, dm_mr->rkey, ends[0].mr->lkey);
    wait_for(0, 4, IBV_WC_REM_ACCESS_ERR);
    ends[1].buffer = peer;
    free_dm();
}

/* Requests send from device memory, read to it, and receive to it. */
static void requests_use_device_memory(void)
{
    allocate_dm(0);
    uint8_t *const own = ends[0].buffer;
    for (uint32_t i = 0; i < LENGTH / 4; i++)
        ((uint32_t *)own)[i] = word_of(i);
    NEED(ibv_memcpy_to_dm(dm, DM_OFFSET, own, 4096) == 0, "ibv_memcpy_to_dm: %s", strerror(errno));
    ends[0].buffer = NULL;
    post_receive(1, 100, 4096);
    post(1, IBV_WR_SEND, 4096, 0, 0, dm_mr->lkey);
    wait_for(0, 1, IBV_WC_SUCCESS);
    wait_for(1, 100, IBV_WC_SUCCESS);
    check("bytes received", memcmp(own, ends[1].buffer, 4096), 0);
    post(2, IBV_WR_RDMA_WRITE, 4096, 8192, ends[1].mr->rkey, dm_mr->lkey);
    wait_for(0, 2, IBV_WC_SUCCESS);
    check("bytes written", memcmp(own, ends[1].buffer + 8192, 4096), 0);
    memset(ends[1].buffer, 0x5a, 4096);
    memset(own, 0x5a, 4096);
    post(3, IBV_WR_RDMA_READ, 4096, 0, ends[1].mr->rkey, dm_mr->lkey);
    wait_for(0, 3, IBV_WC_SUCCESS);
    ends[0].buffer = own;
    check_dm(0, DM_OFFSET, 4096);
    struct ibv_mr *const memory = ends[0].mr;
    ends[0].buffer = NULL;
    ends[0].mr = dm_mr;
    post_receive(0, 101, 64);
    ends[0].mr = memory;
    ends[0].buffer = own;
    struct ibv_sge sge = {(uintptr_t)ends[1].buffer + 8192, 64, ends[1].mr->lkey};
    struct ibv_send_wr wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND}, *bad;
    NEED(ibv_post_send(ends[1].qp, &wr, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    wait_for(0, 101, IBV_WC_SUCCESS);
    memcpy(own, ends[1].buffer + 8192, 64);
    check_dm(0, DM_OFFSET, 64);
    free_dm();
}

/* What device memory refuses; a program gets all of its pages, and gets them again. */
static void device_memory_has_limits(void)
{
    const struct ibv_device_attr_ex attributes = device_attributes();
    const uint64_t max = attributes.max_dm_size;
    check("max_dm_size", max == 131072, 1);
    check("too long", !allocate(max + 1, 0) && errno == EINVAL, 1);
    check("nothing", !allocate(0, 0) && errno == EINVAL, 1);
    check("too aligned", !allocate(64, 13) && errno == EINVAL, 1);
    static struct ibv_dm *all[257];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 8; i++) {
            all[i] = allocate(max, 12);
            NEED(all[i], "ibv_alloc_dm of %d: %s", i, strerror(errno));
            uint32_t word;
            NEED(ibv_memcpy_from_dm(&word, all[i], max - 4, 4) == 0, "ibv_memcpy_from_dm: %s", strerror(errno));
            check("a word of new memory", (int)word, 0);
            word = (uint32_t)i + 1;
            NEED(ibv_memcpy_to_dm(all[i], max - 4, &word, 4) == 0, "ibv_memcpy_to_dm: %s", strerror(errno));
        }
        check("more than all", !allocate(1, 0), 1);
        for (int i = 0; i < 8; i++) {
            uint32_t word;
            NEED(ibv_memcpy_from_dm(&word, all[i], max - 4, 4) == 0, "ibv_memcpy_from_dm: %s", strerror(errno));
            check("its own word", (int)word, i + 1);
            check("ibv_free_dm", ibv_free_dm(all[i]), 0);
        }
    }
    allocate_dm(0);
    for (uint64_t offset = 1; offset < 4; offset++) {
        const uint64_t lengths[] = {DM_LENGTH + 1 - offset, UINT64_MAX, UINT64_MAX - offset + 1};
        for (int i = 0; i < 3; i++)
            check("a region beyond its end", !ibv_reg_dm_mr(ends[0].pd, dm, offset, lengths[i], ALL_REMOTE), 1);
    }
    struct ibv_mr *const empty = ibv_reg_dm_mr(ends[0].pd, dm, DM_LENGTH, 0, ALL_REMOTE);
    check("an empty region", empty && ibv_dereg_mr(empty) == 0, 1);
    check("an offset beyond its end", !ibv_reg_dm_mr(ends[0].pd, dm, UINT64_MAX, 1, ALL_REMOTE), 1);
    check("a region that is not zero-based", !ibv_reg_dm_mr(ends[0].pd, dm, 0, 64, IBV_ACCESS_LOCAL_WRITE), 1);
    free_dm();
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"clock", clock_runs},
        {"timestamps", completions_have_times},
        {"moderation", events_are_moderated},
        {"peers", peers_reach_device_memory},
        {"requests", requests_use_device_memory},
        {"limits", device_memory_has_limits},
    };
    waits_for_events = true;
    return run_cases(cases, sizeof cases / sizeof *cases, argc, argv);
}
