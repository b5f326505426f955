/*
 * Posts that fault rules refuse (`--fault post=ENOMEM`). While such rules exist, the daemon has set a word of the parked
 * page, and each request is announced to it (message POST) before the provider gets it. A list is posted up to the
 * refused request, as a provider does that finds its queue full.
 */
#define _GNU_SOURCE
#include "../shim.h"

#include <errno.h>
#include <infiniband/verbs.h>

#include "verbs_ops.h"

bool posts_may_fail(void)
{
    const volatile uint32_t *page = __atomic_load_n(&session_parked_page, __ATOMIC_ACQUIRE);
    return page && page[USERDMA_PARKED_PAGE_POSTS] != 0;
}

/* Asks whether a request fails. Returns 0 or a positive errno. Preserves errno. */
static int fault_of(int fd, uint32_t queue, uint32_t number, uint32_t opcode, uint64_t wr_id)
{
    const struct userdma_posting posting = {.wr_id = wr_id, .queue = queue, .number = number, .opcode = opcode};
    const int64_t answer = stack_ask(fd, USERDMA_POST, shim_records_stacks ? stack_here() : 0, &posting,
                                     sizeof posting);
    return answer < 0 && answer >= -4095 ? (int)-answer : 0;
}

int fault_of_batch(const struct ibv_qp_ex *qp)
{
    const struct ibv_qp *base = &qp->qp_base;
    return fault_of(base->context->cmd_fd, USERDMA_POST_SEND, base->qp_num, USERDMA_UNKNOWN_OPCODE, qp->wr_id);
}

int fault_of_bind(const struct ibv_qp *qp, uint64_t wr_id)
{
    return fault_of(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, IBV_WR_BIND_MW, wr_id);
}

int fault_in_sends(const struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **before,
                   struct ibv_send_wr **failing)
{
    const int fd = qp->context->cmd_fd;
    int error = 0;
    *before = NULL;
    for (*failing = list; *failing; *before = *failing, *failing = (*failing)->next) {
        error = fault_of(fd, USERDMA_POST_SEND, qp->qp_num, (*failing)->opcode, (*failing)->wr_id);
        if (error != 0)
            break;
    }
    return error;
}

int fault_in_receives(int fd, uint32_t queue, uint32_t number, struct ibv_recv_wr *list, struct ibv_recv_wr **before,
                      struct ibv_recv_wr **failing)
{
    int error = 0;
    *before = NULL;
    for (*failing = list; *failing; *before = *failing, *failing = (*failing)->next) {
        error = fault_of(fd, queue, number, USERDMA_UNKNOWN_OPCODE, (*failing)->wr_id);
        if (error != 0)
            break;
    }
    return error;
}
