/*
 * Errors of RC requests complete with the status that the InfiniBand specification defines, and flush later requests.
 *
 *   verbs_errors [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]
 */
#define _GNU_SOURCE
#include "../cases.h"

/* Request 1 of end 0 must fail with `status`. Requests posted before and after the failure are flushed. */
static void expect_failure(int status)
{
    post(2, IBV_WR_RDMA_WRITE, 64, 0, ends[1].mr->rkey, ends[0].mr->lkey);
    post(3, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    wait_for(0, 1, status);
    wait_for(0, 2, IBV_WC_WR_FLUSH_ERR);
    wait_for(0, 3, IBV_WC_WR_FLUSH_ERR);
    check_state(0, IBV_QPS_ERR);
    post_receive(0, 104, 64);
    wait_for(0, 104, IBV_WC_WR_FLUSH_ERR);
    post(5, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    wait_for(0, 5, IBV_WC_WR_FLUSH_ERR);
}

static void write_bad_rkey(void)
{
    post(1, IBV_WR_RDMA_WRITE, 64, 0, ends[1].mr->rkey ^ 0x55, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_ACCESS_ERR);
}

static void read_bad_rkey(void)
{
    post(1, IBV_WR_RDMA_READ, 64, 0, 0xdeadbeef, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_ACCESS_ERR);
}

static void atomic_bad_rkey(void)
{
    post(1, IBV_WR_ATOMIC_FETCH_AND_ADD, 8, 0, 0, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_ACCESS_ERR);
}

static void write_past_end(void)
{
    memset(ends[1].buffer, 0x11, LENGTH);
    memset(ends[0].buffer, 0x22, LENGTH);
    post(1, IBV_WR_RDMA_WRITE, 8192, LENGTH - 8192 + 1, ends[1].mr->rkey, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_ACCESS_ERR);
    for (int i = 0; i < LENGTH; i++)
        if (ends[1].buffer[i] != 0x11) {
            report_difference("a byte that must not be written", ends[1].buffer[i], 0x11);
            break;
        }
}

static void write_before_start(void)
{
    post(1, IBV_WR_RDMA_WRITE, 64, (uint64_t)-1, ends[1].mr->rkey, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_ACCESS_ERR);
}

static void write_not_allowed(void)
{
    struct ibv_mr *mr = ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    post(1, IBV_WR_RDMA_WRITE, 64, 0, mr->rkey, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_ACCESS_ERR);
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
    expect_failure(IBV_WC_REM_ACCESS_ERR);
    ibv_dereg_mr(mr);
}

/* A SEND of one packet, longer than the receive. */
static void send_too_long(void)
{
    post_receive(1, 100, 32);
    post_receive(1, 101, 4096);
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_INV_REQ_ERR);
    wait_for(1, 100, IBV_WC_LOC_LEN_ERR);
    wait_for(1, 101, IBV_WC_WR_FLUSH_ERR);
    check_state(1, IBV_QPS_ERR);
}

static void long_send_too_long(void)
{
    post_receive(1, 100, 10000);
    post(1, IBV_WR_SEND, 20000, 0, 0, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_INV_REQ_ERR);
    wait_for(1, 100, IBV_WC_LOC_LEN_ERR);
}

static void bad_lkey(void)
{
    post(1, IBV_WR_RDMA_WRITE, 64, 0, ends[1].mr->rkey, ends[0].mr->lkey ^ 0x55);
    expect_failure(IBV_WC_LOC_PROT_ERR);
}

static void receive_bad_lkey(void)
{
    struct ibv_sge sge = {(uintptr_t)ends[1].buffer, 64, 0xdeadbeef};
    struct ibv_recv_wr wr = {.wr_id = 100, .sg_list = &sge, .num_sge = 1}, *bad;
    NEED(ibv_post_recv(ends[1].qp, &wr, &bad) == 0, "ibv_post_recv: %s", strerror(errno));
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    expect_failure(IBV_WC_REM_OP_ERR);
    wait_for(1, 100, IBV_WC_LOC_PROT_ERR);
}

static void no_receive(void)
{
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    expect_failure(IBV_WC_RNR_RETRY_EXC_ERR);
}

static void no_answer(void)
{
    NEED(ibv_destroy_qp(ends[1].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    ends[1].qp = NULL;
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    expect_failure(IBV_WC_RETRY_EXC_ERR);
}

/* A transition to ERR flushes the receives, and does not affect the peer. */
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

/* After an error the queue pairs can be reset, and new queue pairs of the same ends transfer data. */
static void reset(void)
{
    write_bad_rkey();
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    for (int side = 0; side < 2; side++) {
        NEED(ibv_modify_qp(ends[side].qp, &attr, IBV_QP_STATE) == 0, "to RESET: %s", strerror(errno));
        check_state(side, IBV_QPS_RESET);
        NEED(ibv_destroy_qp(ends[side].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
        create_qp(&ends[side]);
    }
    for (int side = 0; side < 2; side++) {
        const struct address peer = address_of(&ends[!side]);
        connect_to(&ends[side], &peer, &options);
    }
    post_receive(1, 100, 64);
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    wait_for(0, 1, IBV_WC_SUCCESS);
    wait_for(1, 100, IBV_WC_SUCCESS);
}

/* Before RTS a send or bind returns EINVAL immediately (IBA 10.8.3.1), and does not complete later. */
static void not_ready(void)
{
    struct ibv_qp_init_attr_ex init = {.send_cq = ends[0].cq,
                                       .recv_cq = ends[0].cq,
                                       .cap = {.max_send_wr = 4, .max_send_sge = 1},
                                       .qp_type = IBV_QPT_RC,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                       .pd = ends[0].pd,
                                       .send_ops_flags = IBV_QP_EX_WITH_SEND};
    struct ibv_qp *qp_in_reset = ibv_create_qp_ex(ends[0].context, &init);
    NEED(qp_in_reset, "ibv_create_qp_ex: %s", strerror(errno));
    struct ibv_qp_ex *requests = ibv_qp_to_qp_ex(qp_in_reset);
    ibv_wr_start(requests);
    requests->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(requests);
    ibv_wr_set_sge(requests, ends[0].mr->lkey, (uintptr_t)ends[0].buffer, 64);
    check("ibv_wr_complete in RESET", ibv_wr_complete(requests), EINVAL);
    ibv_destroy_qp(qp_in_reset);

    NEED(ibv_destroy_qp(ends[0].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    create_qp(&ends[0]);
    struct ibv_sge sge = {(uintptr_t)ends[0].buffer, 64, ends[0].mr->lkey};
    struct ibv_send_wr wr = {.wr_id = 7, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND}, *bad = NULL;
    check("ibv_post_send in INIT", ibv_post_send(ends[0].qp, &wr, &bad), EINVAL);
    check("bad_wr is the first request", bad == &wr, 1);
    check("ibv_post_send in INIT without bad_wr", ibv_post_send(ends[0].qp, &wr, NULL), EINVAL);
    struct ibv_recv_wr receive = {.wr_id = 8};
    check("ibv_post_recv without bad_wr", ibv_post_recv(ends[0].qp, &receive, NULL), EINVAL);
    struct ibv_mw *mw = ibv_alloc_mw(ends[0].pd, IBV_MW_TYPE_1);
    NEED(mw, "ibv_alloc_mw: %s", strerror(errno));
    const uint32_t rkey = mw->rkey;
    struct ibv_mw_bind bind = {.bind_info = {ends[0].mr, (uintptr_t)ends[0].buffer, 64, IBV_ACCESS_REMOTE_READ}};
    check("ibv_bind_mw in INIT", ibv_bind_mw(ends[0].qp, mw, &bind), EINVAL);
    check("the rkey is the same", mw->rkey == rkey, 1);
    NEED(ibv_dealloc_mw(mw) == 0, "ibv_dealloc_mw: %s", strerror(errno));
    NEED(ibv_destroy_qp(ends[1].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    create_qp(&ends[1]);
    for (int side = 0; side < 2; side++) {
        const struct address peer = address_of(&ends[!side]);
        connect_to(&ends[side], &peer, &options);
    }
    post_receive(1, 100, 64);
    post(1, IBV_WR_SEND, 64, 0, 0, ends[0].mr->lkey);
    wait_for(0, 1, IBV_WC_SUCCESS);
    wait_for(1, 100, IBV_WC_SUCCESS);
}

static const struct test_case cases[] = {
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
    {"no_answer", no_answer},
    {"flush", flush},
    {"reset", reset},
    {"not_ready", not_ready},
};

int main(int argc, char **argv)
{
    return run_cases(cases, sizeof cases / sizeof cases[0], argc, argv);
}
