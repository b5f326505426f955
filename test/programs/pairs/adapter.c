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

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"clock", clock_runs},
        {"timestamps", completions_have_times},
        {"moderation", events_are_moderated},
    };
    waits_for_events = true;
    return run_cases(cases, sizeof cases / sizeof *cases, argc, argv);
}
