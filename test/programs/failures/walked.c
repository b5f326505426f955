/*
 * A program with known faults in its handling of failures, for `userdma walk`. Comments name the outcomes
 * of its call sites.
 */
#include <poll.h>

#include "../endpoint.h"

static struct ibv_pd *pd;

/* Handled: a message, and exit status 1. */
static struct ibv_context *open_device(void)
{
    return open_named(NULL);
}

/* crash: the result is not checked. */
static void use_channel(struct ibv_context *context)
{
    struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
    printf("channel %s\n", channel->fd >= 0 ? "open" : "closed");
    ibv_destroy_comp_channel(channel);
}

/* swallowed: the program does without the region, and says nothing. */
static void maybe_register(void)
{
    static char buffer[64];
    struct ibv_mr *mr = ibv_reg_mr(pd, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE);
    if (mr)
        ibv_dereg_mr(mr);
}

/* Handled: repeated. */
static void register_again(void)
{
    static char buffer[64];
    struct ibv_mr *mr = NULL;
    for (int i = 0; i < 3 && !mr; i++)
        mr = ibv_reg_mr(pd, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE);
    if (mr)
        ibv_dereg_mr(mr);
}

/* leak: of the CQ and the protection domain, only the latter is destroyed if there is no SRQ. */
static void make_queues(struct ibv_context *context)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 1, .max_sge = 1}};
    struct ibv_cq *cq = ibv_create_cq(context, 1, NULL, NULL, 0);
    NEED(cq, "ibv_create_cq: %s", strerror(errno));
    struct ibv_srq *srq = ibv_create_srq(pd, &init);
    if (!srq) {
        ibv_dealloc_pd(pd);
        fail("no SRQ");
    }
    ibv_destroy_srq(srq);
    ibv_destroy_cq(cq);
}

/* Handled: a queue pair that cannot be stopped is destroyed without. */
static void stop_queue_pair(struct ibv_context *context)
{
    struct ibv_cq *cq = ibv_create_cq(context, 1, NULL, NULL, 0);
    NEED(cq, "ibv_create_cq: %s", strerror(errno));
    struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq, .cap = {1, 1, 1, 1, 0}};
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    struct ibv_qp_attr stop = {.qp_state = IBV_QPS_ERR};
    ibv_modify_qp(qp, &stop, IBV_QP_STATE);
    ibv_destroy_qp(qp);
    ibv_destroy_cq(cq);
}

static struct endpoint ends[2];

/* hang: a failed completion is not counted, and the failed post of the receive not noticed. */
static void exchange(struct ibv_context *context)
{
    create_pair(&ends[0], &ends[1], context, &default_options);
    struct ibv_sge from = {(uintptr_t)ends[0].buffer, 8, ends[0].mr->lkey};
    struct ibv_send_wr send = {.sg_list = &from, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
                               .send_flags = IBV_SEND_SIGNALED,
                               .wr.rdma = {(uintptr_t)ends[1].buffer, ends[1].mr->rkey}}, *bad;
    struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
    NEED(ibv_post_send(ends[0].qp, &send, &bad) == 0, "ibv_post_send");
    while (ibv_poll_cq(ends[0].cq, 1, &wc) == 0 || wc.status != IBV_WC_SUCCESS)
        ;
    destroy_endpoint(&ends[0]);
    destroy_endpoint(&ends[1]);
}

int main(int argc, char **argv)
{
    const int only_stops = argc == 2 && strcmp(argv[1], "stop") == 0;
    NEED(argc == 1 || only_stops, "usage: walked [stop]");
    struct ibv_context *context = open_device();
    pd = ibv_alloc_pd(context);
    NEED(pd, "ibv_alloc_pd: %s", strerror(errno));
    if (only_stops) {
        stop_queue_pair(context);
        return 0;
    }
    use_channel(context);
    maybe_register();
    register_again();
    make_queues(context);
    ibv_dealloc_pd(pd);
    exchange(context);
    ibv_close_device(context);
    puts("done");
    return 0;
}
