/*
 * Batches of ibv_wr_*: mistakes between ibv_wr_start and ibv_wr_complete (batches.c). Called only if recorder_is_on.
 * `caller`: the return address of the program's call. `call`: USERDMA_BATCH_CALL_.
 */
#ifndef USERDMA_RECORDER_BATCHES_H
#define USERDMA_RECORDER_BATCHES_H

#include <infiniband/verbs.h>

#include "../protocol.h"
#include "recorder.h"

/* What a batch that is refused may have too much of: the largest of its requests. */
struct batch_sizes {
    uint32_t elements;
    uint64_t inline_bytes;
};

/* A new queue pair, whose setters are wrapped. `operations`: IBV_QP_EX_WITH_…, which batches_operations tells again. */
void batches_created(struct ibv_qp_ex *qp, uint64_t operations);
/* False: the queue pair is not watched. */
bool batches_operations(const struct ibv_qp *qp, uint64_t *operations);
/* Before the queue pair is destroyed, and after it was. */
void batches_destroying(const struct ibv_qp *qp);
void batches_destroyed(const struct ibv_qp *qp);
/* Before the provider's wr_start, and after it: it may wait for another thread's batch. */
void batches_starting(const struct ibv_qp_ex *qp);
void batches_started(const struct ibv_qp_ex *qp, void *caller);
/* A request is added to the batch. */
void batches_added(const struct ibv_qp_ex *qp, int opcode, void *caller);
/* A setter of its last request. `elements`, `inline_bytes`: how much data it sets. */
void batches_set(const struct ibv_qp_ex *qp, uint32_t call, uint32_t elements, uint64_t inline_bytes);
/* Before ibv_wr_complete or ibv_wr_abort. */
struct batch_sizes batches_ending(const struct ibv_qp_ex *qp, uint32_t call);
/* Before ibv_post_send, which waits for the end of a batch. */
void batches_posting(const struct ibv_qp *qp);
/* The program calls a function that the queue pair does not have, and crashes next. `opcode`: of BATCH_CALL_ADD. */
void batches_missing(const struct ibv_qp_ex *qp, uint32_t call, int opcode);
/* The program ends: reports batches that this thread has left open, or a thread that has ended. */
void batches_exiting(void);

/* ---- of each library ---- */

/* Reports a mistake; `fd`: of the context. Preserves errno. */
void note_batch_mistake(int fd, const struct userdma_batch_mistaken *mistake);
/* This thread has started a batch, by a call that returns to `caller`, or has ended it. */
void note_batch_started(const struct ibv_qp *qp, const void *caller);
void note_batch_ended(void);

#endif
