/*
 * Reports of posts that the provider or the shim (before RTS, verbs.c) refused, for `userdma check`. A refused post
 * makes no call to the daemon. From the reported fields the daemon finds the broken rule.
 */
#define _GNU_SOURCE
#include "../shim.h"

#include <infiniband/verbs.h>
#include <stdlib.h>

#include "../verbs/verbs_ops.h"
#include "outstanding.h"

/* Maximum reports of a process. */
#define MAX_REPORTS 1000

static void send_report(int fd, struct userdma_refused *refused)
{
    /* Bounded: some programs always post until the queue is full. */
    static unsigned reports;
    if (__atomic_fetch_add(&reports, 1, __ATOMIC_RELAXED) >= MAX_REPORTS)
        return;
    if (refused->queue == USERDMA_POST_SEND)
        refused->unsignaled = outstanding_unsignaled(fd, refused->number);
    stack_report(fd, USERDMA_REFUSED, stack_here(), refused, sizeof *refused);
}

static bool is_atomic(enum ibv_wr_opcode opcode)
{
    return opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}

int refused_request(const struct ibv_qp *qp, uint64_t wr_id, int error)
{
    struct userdma_refused refused = {.wr_id = wr_id,
                                      .queue = USERDMA_POST_SEND,
                                      .number = qp->qp_num,
                                      .error = (uint32_t)abs(error),
                                      .state = qp->state};
    send_report(qp->context->cmd_fd, &refused);
    return error;
}

int refused_send(const struct ibv_qp *qp, const struct ibv_send_wr *wr, int error)
{
    /* The provider did not name the refused request. */
    if (!wr)
        return refused_request(qp, 0, error);
    struct userdma_refused refused = {.wr_id = wr->wr_id,
                                      .queue = USERDMA_POST_SEND,
                                      .number = qp->qp_num,
                                      .error = (uint32_t)abs(error),
                                      .state = qp->state,
                                      .opcode = wr->opcode,
                                      .flags = wr->send_flags,
                                      .elements = (uint32_t)wr->num_sge};
    /* With more elements the length stays unknown: `num_sge` may be wrong, and further elements may not exist. */
    if (wr->num_sge == 1)
        refused.length = wr->sg_list->length;
    if (is_atomic(wr->opcode))
        refused.address_low = (uint32_t)wr->wr.atomic.remote_addr;
    send_report(qp->context->cmd_fd, &refused);
    return error;
}

static int refused_recv_wr(int fd, uint32_t queue, uint32_t number, uint32_t state, const struct ibv_recv_wr *wr,
                           int error)
{
    struct userdma_refused refused = {.wr_id = wr ? wr->wr_id : 0,
                                      .queue = queue,
                                      .number = number,
                                      .error = (uint32_t)abs(error),
                                      .state = state,
                                      .elements = wr ? (uint32_t)wr->num_sge : 0};
    send_report(fd, &refused);
    return error;
}

int refused_receive(const struct ibv_qp *qp, const struct ibv_recv_wr *wr, int error)
{
    return refused_recv_wr(qp->context->cmd_fd, USERDMA_POST_RECEIVE, qp->qp_num, qp->state, wr, error);
}

int refused_shared(const struct ibv_srq *srq, const struct ibv_recv_wr *wr, int error)
{
    const uint32_t state = 0; /* an SRQ has none */
    return refused_recv_wr(srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle, state, wr, error);
}
