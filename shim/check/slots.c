/*
 * Refuses sends as adapters do that free slots of a send queue only when completions are polled (`userdma check
 * --like`). The soft device frees a slot when it has executed the request.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <stdlib.h>

bool shim_frees_at_poll;

void slots_detect(void)
{
    shim_frees_at_poll = recorder_is_on && getenv(USERDMA_ENV_SLOTS) != NULL;
}

void slots_set(const struct ibv_qp *qp, uint32_t slots)
{
    if (!requests_lock())
        return;
    struct queue *queue = queue_of(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, true);
    if (queue)
        queue->slots = slots;
    requests_unlock();
}

uint32_t slots_of(const struct ibv_qp *qp)
{
    if (!requests_lock())
        return 0;
    const struct queue *queue = queue_of(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, false);
    const uint32_t slots = queue ? queue->slots : 0;
    requests_unlock();
    return slots;
}

uint32_t slots_missing(const struct ibv_qp *qp)
{
    uint32_t missing = 0;
    if (!requests_lock())
        return 0;
    const struct queue *queue = queue_of(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, false);
    if (queue && queue->slots != 0 && queue->first != NONE) {
        /* Sends complete in order. */
        const uint32_t used = queue->posted - elements[queue->first].index + 1;
        missing = used > queue->slots ? used - queue->slots : 0;
    }
    requests_unlock();
    return missing;
}
