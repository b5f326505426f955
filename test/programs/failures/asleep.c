/*
 * Requests that are posted while the daemon sleeps. The program waits for completion events, because polls could wake
 * the daemon.
 *
 *   asleep [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]
 */
#define _GNU_SOURCE
#include "../cases.h"

#include <fcntl.h>
#include <sched.h>

/* The page with the daemon's parked word, which the preload library maps. */
static const volatile uint32_t *parked_page(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    NEED(maps, "/proc/self/maps: %s", strerror(errno));
    char line[512];
    void *page = NULL;
    while (!page && fgets(line, sizeof line, maps))
        if (strstr(line, "userdma-parked"))
            sscanf(line, "%p-", &page);
    fclose(maps);
    NEED(page, "the parked page is not mapped");
    return page;
}

static void until_asleep(void)
{
    static const volatile uint32_t *parked;
    if (!parked)
        parked = parked_page();
    while (!*parked)
        sched_yield();
}

static void to_error(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE) == 0, "to ERR: %s", strerror(errno));
}

/* The queue pair of `side` is in ERR: each receive is flushed, although only this post can wake the daemon. */
static void expect_flushes(int side)
{
    for (uint64_t id = 100; id < 102; id++) {
        until_asleep();
        post_receive(side, id, 64);
        wait_for(side, id, IBV_WC_WR_FLUSH_ERR);
    }
}

static void receive_after_modify(void)
{
    to_error(ends[1].qp);
    expect_flushes(1);
}

/* The device itself moves both queue pairs to ERR, so libibverbs does not know the state. */
static void receive_after_failure(void)
{
    post(1, IBV_WR_RDMA_WRITE, 64, 0, ends[1].mr->rkey ^ 0x55, ends[0].mr->lkey);
    wait_for(0, 1, IBV_WC_REM_ACCESS_ERR);
    expect_flushes(0);
    expect_flushes(1);
}

/* In ERR, in RESET and again in ERR. */
static void receive_after_reset(void)
{
    struct ibv_qp_attr reset = {.qp_state = IBV_QPS_RESET};
    to_error(ends[1].qp);
    NEED(ibv_modify_qp(ends[1].qp, &reset, IBV_QP_STATE) == 0, "to RESET: %s", strerror(errno));
    to_error(ends[1].qp);
    expect_flushes(1);
}

static void receive_of(enum ibv_qp_type type)
{
    struct endpoint *end = &ends[1];
    struct ibv_qp *connected = end->qp;
    struct ibv_qp_init_attr init = {.send_cq = end->cq,
                                    .recv_cq = end->cq,
                                    .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
                                    .qp_type = type};
    end->qp = ibv_create_qp(end->pd, &init);
    NEED(end->qp, "ibv_create_qp: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    NEED(ibv_modify_qp(end->qp, &attr,
                       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
                           (type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)) == 0,
         "to INIT: %s", strerror(errno));
    to_error(end->qp);
    expect_flushes(1);
    NEED(ibv_destroy_qp(end->qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    end->qp = connected;
}

static void receive_of_uc(void)
{
    receive_of(IBV_QPT_UC);
}

static void receive_of_ud(void)
{
    receive_of(IBV_QPT_UD);
}

static void send_in_error(void)
{
    to_error(ends[0].qp);
    for (uint64_t id = 1; id < 3; id++) {
        until_asleep();
        post(id, IBV_WR_SEND, 8, 0, 0, ends[0].mr->lkey);
        wait_for(0, id, IBV_WC_WR_FLUSH_ERR);
    }
}

static void post_shared(struct ibv_srq *srq, uint64_t id)
{
    struct ibv_sge sge = {(uintptr_t)ends[1].buffer, 64, ends[1].mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    const int error = ibv_post_srq_recv(srq, &wr, &bad);
    NEED(error == 0, "ibv_post_srq_recv: %s", strerror(error));
}

/* Replaces the queue pair of `side` until `restore`. The caller connects both. */
static struct ibv_qp *replace(int side, enum ibv_qp_type type, struct ibv_srq *srq, struct ibv_xrcd *xrcd)
{
    struct ibv_qp *connected = ends[side].qp;
    struct ibv_qp_init_attr_ex init = {.send_cq = ends[side].cq,
                                       .recv_cq = ends[side].cq,
                                       .srq = srq,
                                       .cap = {.max_send_wr = 4, .max_send_sge = 1},
                                       .qp_type = type,
                                       .comp_mask = xrcd ? IBV_QP_INIT_ATTR_XRCD : IBV_QP_INIT_ATTR_PD,
                                       .pd = ends[side].pd,
                                       .xrcd = xrcd};
    ends[side].qp = ibv_create_qp_ex(context, &init);
    NEED(ends[side].qp, "ibv_create_qp_ex: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    NEED(ibv_modify_qp(ends[side].qp, &attr,
                       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT: %s", strerror(errno));
    return connected;
}

static void restore(int side, struct ibv_qp *connected)
{
    NEED(ibv_destroy_qp(ends[side].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    ends[side].qp = connected;
}

static void connect_ends(void)
{
    for (int side = 0; side < 2; side++) {
        const struct address peer = address_of(&ends[!side]);
        connect_to(&ends[side], &peer, &options);
    }
}

/* A shared receive queue is filled, and its limit armed, while the daemon sleeps. */
static void srq_limit(void)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(ends[1].pd, &init);
    NEED(srq, "ibv_create_srq: %s", strerror(errno));
    struct ibv_qp *old[2] = {replace(0, IBV_QPT_RC, NULL, NULL), replace(1, IBV_QPT_RC, srq, NULL)};
    connect_ends();
    until_asleep();
    post_shared(srq, 100);
    until_asleep();
    struct ibv_srq_attr armed = {.srq_limit = 1};
    NEED(ibv_modify_srq(srq, &armed, IBV_SRQ_LIMIT) == 0, "ibv_modify_srq: %s", strerror(errno));
    until_asleep();
    post(1, IBV_WR_SEND, 8, 0, 0, ends[0].mr->lkey);
    wait_for(0, 1, IBV_WC_SUCCESS);
    wait_for(1, 100, IBV_WC_SUCCESS);
    struct ibv_async_event event;
    do {
        NEED(ibv_get_async_event(context, &event) == 0, "ibv_get_async_event: %s", strerror(errno));
        ibv_ack_async_event(&event);
    } while (event.event_type != IBV_EVENT_SRQ_LIMIT_REACHED);
    for (int side = 0; side < 2; side++)
        restore(side, old[side]);
    NEED(ibv_destroy_srq(srq) == 0, "ibv_destroy_srq: %s", strerror(errno));
}

static void xrc(void)
{
    struct ibv_xrcd_init_attr domain = {
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
    struct ibv_xrcd *xrcd = ibv_open_xrcd(context, &domain);
    NEED(xrcd, "ibv_open_xrcd: %s", strerror(errno));
    struct ibv_srq_init_attr_ex init = {.attr = {.max_wr = 4, .max_sge = 1},
                                        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
                                                     IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
                                        .srq_type = IBV_SRQT_XRC,
                                        .pd = ends[1].pd,
                                        .xrcd = xrcd,
                                        .cq = ends[1].cq};
    struct ibv_srq *srq = ibv_create_srq_ex(context, &init);
    uint32_t srqn;
    NEED(srq && ibv_get_srq_num(srq, &srqn) == 0, "ibv_create_srq_ex: %s", strerror(errno));
    struct ibv_qp *old[2] = {replace(0, IBV_QPT_XRC_SEND, NULL, NULL), replace(1, IBV_QPT_XRC_RECV, NULL, xrcd)};
    connect_ends();
    for (uint64_t id = 1; id < 3; id++) {
        until_asleep();
        post_shared(srq, 99 + id);
        if (id == 2)
            to_error(ends[0].qp);
        until_asleep();
        struct ibv_sge sge = {(uintptr_t)ends[0].buffer, 8, ends[0].mr->lkey};
        struct ibv_send_wr wr = {
            .wr_id = id, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
        wr.qp_type.xrc.remote_srqn = srqn;
        struct ibv_send_wr *bad;
        NEED(ibv_post_send(ends[0].qp, &wr, &bad) == 0, "ibv_post_send: %s", strerror(errno));
        wait_for(0, id, id == 1 ? IBV_WC_SUCCESS : IBV_WC_WR_FLUSH_ERR);
        if (id == 1)
            wait_for(1, 100, IBV_WC_SUCCESS);
    }
    for (int side = 0; side < 2; side++)
        restore(side, old[side]);
    NEED(ibv_destroy_srq(srq) == 0, "ibv_destroy_srq: %s", strerror(errno));
    NEED(ibv_close_xrcd(xrcd) == 0, "ibv_close_xrcd: %s", strerror(errno));
}

static void bind_window(void)
{
    struct ibv_mr *mr =
        ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    struct ibv_mw *mw = ibv_alloc_mw(ends[1].pd, IBV_MW_TYPE_1);
    NEED(mr && mw, "ibv_alloc_mw: %s", strerror(errno));
    struct ibv_mw_bind bind = {.wr_id = 1,
                               .send_flags = IBV_SEND_SIGNALED,
                               .bind_info = {mr, (uintptr_t)ends[1].buffer, LENGTH, IBV_ACCESS_REMOTE_WRITE}};
    until_asleep();
    NEED(ibv_bind_mw(ends[1].qp, mw, &bind) == 0, "ibv_bind_mw: %s", strerror(errno));
    wait_for(1, 1, IBV_WC_SUCCESS);
    NEED(ibv_dealloc_mw(mw) == 0 && ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
}

/* The request is in the queue pair's ring, so it is executed, although the doorbell has a handle of no queue pair. */
static void bind_by_wrong_handle(void)
{
    ends[1].qp->handle ^= 0x5555;
    bind_window();
    ends[1].qp->handle ^= 0x5555;
}

static void resize_cq(void)
{
    for (uint64_t id = 1; id < 3; id++) {
        until_asleep();
        post_receive(1, 99 + id, 64);
        NEED(ibv_resize_cq(ends[1].cq, (int)(id * QUEUE)) == 0, "ibv_resize_cq: %s", strerror(errno));
        until_asleep();
        post(id, IBV_WR_SEND, 8, 0, 0, ends[0].mr->lkey);
        wait_for(0, id, IBV_WC_SUCCESS);
        wait_for(1, 99 + id, IBV_WC_SUCCESS);
    }
}

/* The queue is armed, and not polled, before the daemon sleeps. */
static void armed(void)
{
    NEED(ibv_req_notify_cq(ends[1].cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno));
    until_asleep();
    post_receive(1, 100, 64);
    post(1, IBV_WR_SEND, 8, 0, 0, ends[0].mr->lkey);
    struct ibv_cq *cq;
    void *cq_context;
    NEED(ibv_get_cq_event(ends[1].channel, &cq, &cq_context) == 0, "ibv_get_cq_event: %s", strerror(errno));
    ends[1].unacknowledged++;
    wait_for(1, 100, IBV_WC_SUCCESS);
    wait_for(0, 1, IBV_WC_SUCCESS);
}

static const struct test_case cases[] = {
    {"receive_after_modify", receive_after_modify},
    {"receive_after_failure", receive_after_failure},
    {"receive_after_reset", receive_after_reset},
    {"receive_of_uc", receive_of_uc},
    {"receive_of_ud", receive_of_ud},
    {"send_in_error", send_in_error},
    {"srq_limit", srq_limit},
    {"xrc", xrc},
    {"bind_window", bind_window},
    {"bind_by_wrong_handle", bind_by_wrong_handle},
    {"resize_cq", resize_cq},
    {"armed", armed},
};

int main(int argc, char **argv)
{
    waits_for_events = true;
    return run_cases(cases, sizeof cases / sizeof cases[0], argc, argv);
}
