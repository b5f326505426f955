/*
 * Records of extended CQs and queue pairs. A queue pair's requests are built one by one and posted by ibv_wr_complete.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <string.h>

/* ---- polls ---- */

/* Queue pairs that go to ERR at the end of this thread's poll. */
static TLS struct {
    uint32_t count, qpns[USERDMA_OBSERVE_MAX_REQUESTS];
} failing;

/*
 * Fails the completion that a poll has found. Its queue pair goes to ERR at the end of the poll: a provider may hold a
 * lock until then.
 */
static void fail_completion(struct ibv_cq_ex *cq)
{
    struct userdma_polled_completion one = {cq->wr_id, cq->status == IBV_WC_SUCCESS ? cq->read_opcode(cq) : 0,
                                            cq->read_qp_num ? cq->read_qp_num(cq) : 0, cq->status, 0};
    struct userdma_completion_verdict verdict;
    if (ask_completions(ibv_cq_ex_to_cq(cq), &one, 1, &verdict) == 0 || verdict.status == 0)
        return;
    cq->status = verdict.status;
    if (verdict.fails && failing.count < USERDMA_OBSERVE_MAX_REQUESTS)
        failing.qpns[failing.count++] = one.qpn;
}

void note_completion(struct ibv_cq_ex *cq)
{
    const int saved = errno;
    sanitizers_polled();
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        fail_completion(cq);
    struct {
        struct userdma_record record;
        struct userdma_poll_record poll;
        struct userdma_completion_record completion;
    } *made = record_begin(USERDMA_RECORD_POLL, sizeof *made);
    if (made) {
        made->poll = (struct userdma_poll_record){cq->context->cmd_fd, cq->handle, 1, 0};
        made->completion = (struct userdma_completion_record){
            .wr_id = cq->wr_id,
            .status = cq->status,
            .opcode = cq->status == IBV_WC_SUCCESS ? cq->read_opcode(cq) : 0,
            .vendor_err = cq->status == IBV_WC_SUCCESS ? 0 : cq->read_vendor_err(cq),
            .bytes = cq->status == IBV_WC_SUCCESS && cq->read_byte_len ? cq->read_byte_len(cq) : 0,
            .qpn = cq->read_qp_num ? cq->read_qp_num(cq) : 0,
            .flags = cq->status == IBV_WC_SUCCESS ? cq->read_wc_flags(cq) : 0,
        };
        record_end(made, sizeof *made);
        if (UNLIKELY(flight_is_on))
            flight_completed(cq->status);
    }
    errno = saved;
}

void note_poll_end(const struct ibv_cq_ex *cq)
{
    while (UNLIKELY(failing.count > 0))
        fail_queue_pair(cq->context, failing.qpns[--failing.count]);
}

/* ---- batches ---- */

/* The batch of this thread. A batch that another one interrupts is posted without its first part. */
static TLS struct {
    const struct ibv_qp_ex *qp;
    uint32_t count, elements;
    /* Requests of it that were recorded. */
    uint32_t posted;
    struct userdma_request_record requests[USERDMA_OBSERVE_MAX_REQUESTS];
    struct userdma_element_record list[USERDMA_OBSERVE_MAX_REQUESTS];
    /* The first element of each request. */
    uint32_t first[USERDMA_OBSERVE_MAX_REQUESTS];
} batch;

static void record_batch(const struct ibv_qp *qp, uint32_t stack)
{
    struct userdma_request_record *first = batch.count == 0
                                               ? NULL
                                               : post_begin(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num,
                                                            batch.count, batch.elements, stack);
    if (first) {
        char *at = (char *)first;
        for (uint32_t i = 0; i < batch.count; i++) {
            const size_t bytes = batch.requests[i].elements * sizeof batch.list[0];
            memcpy(at, &batch.requests[i], sizeof batch.requests[i]);
            memcpy(at + sizeof batch.requests[i], &batch.list[batch.first[i]], bytes);
            sanitizers_posts(qp->context->cmd_fd, qp->qp_num, &batch.requests[i], &batch.list[batch.first[i]]);
            at += sizeof batch.requests[i] + bytes;
        }
        char *record = (char *)first - sizeof(struct userdma_post_record) - sizeof(struct userdma_record);
        record_end(record, (size_t)(at - record));
    }
    batch.posted += batch.count;
    batch.count = batch.elements = 0;
}

void note_built(struct ibv_qp_ex *qp, int opcode, uint32_t rkey, uint64_t address, uint32_t immediate, bool is_ordered)
{
    (void)immediate, (void)is_ordered;
    if (batch.qp != qp) {
        batch.qp = qp;
        batch.count = batch.elements = batch.posted = 0;
    } else if (batch.count == USERDMA_OBSERVE_MAX_REQUESTS) {
        record_batch(&qp->qp_base, STACK_HERE());
    }
    batch.first[batch.count] = batch.elements;
    batch.requests[batch.count++] = (struct userdma_request_record){
        .wr_id = qp->wr_id, .opcode = opcode, .flags = qp->wr_flags, .rkey = rkey, .remote_address = address};
}

void note_elements(const struct ibv_qp_ex *qp, const struct ibv_sge *list, size_t count, uintptr_t frame, bool is_own)
{
    (void)is_own;
    (void)frame;
    if (batch.qp != qp || batch.count == 0)
        return;
    for (size_t i = 0; i < count && batch.elements < USERDMA_OBSERVE_MAX_REQUESTS; i++) {
        batch.list[batch.elements++] =
            (struct userdma_element_record){list[i].addr, list[i].length, list[i].lkey};
        batch.requests[batch.count - 1].elements++;
    }
}

void note_destination(const struct ibv_qp_ex *qp, uint32_t qpn, uint32_t qkey)
{
    if (batch.qp != qp || batch.count == 0)
        return;
    batch.requests[batch.count - 1].dest_qpn = qpn;
    batch.requests[batch.count - 1].qkey = qkey;
}

void note_aborted(const struct ibv_qp_ex *qp)
{
    if (batch.qp == qp)
        batch.qp = NULL;
}

uint32_t note_batch(const struct ibv_qp_ex *qp, uintptr_t frame, bool is_ordered)
{
    const uint32_t stack = STACK_HERE();
    (void)frame, (void)is_ordered;
    if (batch.qp == qp)
        record_batch(&qp->qp_base, stack);
    else
        batch.posted = 0;
    batch.qp = NULL;
    return stack;
}

uint32_t batch_posted(void)
{
    return batch.posted;
}
