/*
 * Prints how the installed rxe provider of libibverbs behaves for each of its known faults. They also occur on Linux's
 * rxe (docs/reference/provider-faults.md).
 */
#include "../endpoint.h"

#define BYTES 8

static struct endpoint end;
static struct ibv_qp *qp;
static struct ibv_qp_ex *requests;

/* Gives `end` a queue pair for ibv_wr_*, connected to itself. */
static void connect_self(void)
{
    struct ibv_qp_init_attr_ex init = {
        .send_cq = end.cq,
        .recv_cq = end.cq,
        .cap = {.max_send_wr = QUEUE,
                .max_recv_wr = QUEUE,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = 64},
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = end.pd,
        .send_ops_flags = IBV_QP_EX_WITH_SEND,
    };
    qp = ibv_create_qp_ex(end.context, &init);
    NEED(qp, "ibv_create_qp_ex: %s", strerror(errno));
    requests = ibv_qp_to_qp_ex(qp);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT: %s", strerror(errno));
    NEED(ibv_destroy_qp(end.qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    end.qp = qp;
    const struct address self = address_of(&end);
    connect_to(&end, &self, &default_options);
}

static void post_receive(void)
{
    struct ibv_sge sge = {.addr = (uintptr_t)end.buffer + 1024, .length = 1024, .lkey = end.mr->lkey};
    struct ibv_recv_wr receive = {.sg_list = &sge, .num_sge = 1}, *bad;
    NEED(ibv_post_recv(qp, &receive, &bad) == 0, "ibv_post_recv: %s", strerror(errno));
}

/* Waits for a SEND and its receive; returns the number of bytes received, or -1 if one failed. */
static int wait_for_message(void)
{
    int bytes = -1;
    for (int i = 0; i < 2; i++) {
        struct ibv_wc wc;
        while (next_completion(&end, &wc) == 0)
            ;
        if (wc.status != IBV_WC_SUCCESS)
            return -1;
        if (wc.opcode == IBV_WC_RECV)
            bytes = (int)wc.byte_len;
    }
    return bytes;
}

static void inline_list(void)
{
    const struct ibv_data_buf list[] = {{.addr = "12345678", .length = BYTES}, {.addr = "abcdefgh", .length = BYTES}};
    post_receive();
    ibv_wr_start(requests);
    requests->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(requests);
    ibv_wr_set_inline_data_list(requests, 2, list);
    NEED(ibv_wr_complete(requests) == 0, "ibv_wr_complete");
    printf("ibv_wr_set_inline_data_list: %d of %d bytes\n", wait_for_message(), 2 * BYTES);
}

static void sge_list(void)
{
    const struct ibv_sge list[] = {
        {.addr = (uintptr_t)end.buffer, .length = BYTES, .lkey = end.mr->lkey},
        {.addr = (uintptr_t)end.buffer + 100, .length = 2 * BYTES, .lkey = end.mr->lkey},
    };
    post_receive();
    ibv_wr_start(requests);
    requests->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(requests);
    ibv_wr_set_sge_list(requests, 2, list);
    NEED(ibv_wr_complete(requests) == 0, "ibv_wr_complete");
    printf("ibv_wr_set_sge_list: %d of %d bytes\n", wait_for_message(), 3 * BYTES);
}

/* Polls as ibv_start_poll(3) describes, with one completion in the CQ. */
static void next_poll(void)
{
    struct ibv_cq_init_attr_ex init = {.cqe = 15};
    struct ibv_cq_ex *cq = ibv_create_cq_ex(end.context, &init);
    NEED(cq, "ibv_create_cq_ex: %s", strerror(errno));
    struct ibv_qp_init_attr plain = {.send_cq = ibv_cq_ex_to_cq(cq),
                                     .recv_cq = ibv_cq_ex_to_cq(cq),
                                     .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
                                     .qp_type = IBV_QPT_RC};
    struct ibv_qp *flushed_qp = ibv_create_qp(end.pd, &plain);
    NEED(flushed_qp, "ibv_create_qp: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    NEED(ibv_modify_qp(flushed_qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT: %s", strerror(errno));
    struct ibv_recv_wr receive = {.wr_id = 7}, *bad;
    NEED(ibv_post_recv(flushed_qp, &receive, &bad) == 0, "ibv_post_recv: %s", strerror(errno));
    attr.qp_state = IBV_QPS_ERR;
    NEED(ibv_modify_qp(flushed_qp, &attr, IBV_QP_STATE) == 0, "to ERR: %s", strerror(errno));

    struct ibv_poll_cq_attr attr_of_poll = {0};
    int polled = 0;
    while (ibv_start_poll(cq, &attr_of_poll) == ENOENT)
        ;
    do
        polled++;
    while (ibv_next_poll(cq) == 0);
    ibv_end_poll(cq);
    if (ibv_start_poll(cq, &attr_of_poll) == 0)
        polled++;
    printf("ibv_next_poll: %d of 1 completions\n", polled);
    /* The provider may have unlocked the lock of the CQ twice: the CQ is not destroyed. */
}

int main(int count, char **arguments)
{
    NEED(count == 1, "usage: %s", arguments[0]);
    create_endpoint(&end, open_named(NULL), &default_options, 4096, 1);
    connect_self();
    inline_list();
    sge_list();
    next_poll();
    return 0;
}
