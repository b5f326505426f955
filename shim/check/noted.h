/*
 * What the files of this folder call of each other; requests.h has the memory of outstanding requests.
 */
#ifndef USERDMA_NOTED_H
#define USERDMA_NOTED_H

#include "check.h"

/* ---- messages.c ---- */

/*
 * Notes the stack of a post in the post log. Called before the post, so the note exists when the request fails.
 * `queue`: USERDMA_POST_…. `number`: the QPN, or the SRQ's handle. Preserves errno.
 */
void stack_note_post(int fd, uint32_t queue, uint32_t number, uint64_t wr_id, uint32_t stack);
/* Notes the wr_id and the stack of the request at `index` of its queue, from 0, in the position log. */
void post_note_index(int fd, uint32_t queue, uint32_t number, uint32_t index, uint64_t wr_id, uint32_t stack);
/* What was noted of the request at `index`, or of an earlier one of the queue's time before a RESET, is not valid. */
void post_forget_index(int fd, uint32_t queue, uint32_t number, uint32_t index);

/* ---- events.c ---- */

/* Counts completions that a poll of a CQ has returned (taken counts). */
void events_taken(int fd, uint32_t cq, uint32_t count);
/* The post log; NULL: not mapped. */
struct userdma_post *events_post_log(int fd);
struct userdma_position *events_position_log(int fd);
/* As events_post_log, for the hash log (hashes.c). */
struct userdma_hash *events_hash_log(int fd);
/* Read the environment. */
void hashes_detect(void);
void slots_detect(void);
/* Appends an entry to the event log (struct userdma_event). Called before the device can see a post. */
void events_note(int fd, uint32_t kind, uint32_t number, uint32_t count, uint64_t wr_id, uint32_t stack);

/*
 * ---- outstanding.c, frames.c ----
 *
 * As in check.h. `frame`: the program's stack pointer when it called the verb.
 */

/*
 * Posts, before the device can see them, with the lock of the queue (../recorder/locks.h) if `is_ordered`. `stack`: the
 * number of the caller's stack.
 */
void outstanding_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame, uint32_t stack,
                       bool is_ordered);
void outstanding_receives(int fd, uint32_t kind, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame,
                          uint32_t stack, bool is_ordered);
/* A request that ibv_wr_* functions build. `sends`: the device sends the bytes of its elements. */
void outstanding_built(const struct ibv_qp_ex *qp, int opcode, bool sends, bool is_ordered);
/*
 * The last `count` requests that were built for the queue pair are posted now, by the function that `stack` calls:
 * notes their positions, and hashes their buffers (hashes.c). With the lock of the queue.
 */
void outstanding_completed_batch(const struct ibv_qp_ex *qp, uint32_t count, uint32_t stack);
/*
 * The last `count` requests that were posted to the queue were refused. Returns how many it has taken before, since its
 * creation or RESET; 0: none, or unknown.
 */
uint32_t outstanding_refused(int fd, uint32_t kind, uint32_t number, uint32_t count);
/*
 * A request of a batch lacks a setter. libmlx5 posts none then, and other providers do: its queue's positions are
 * unknown.
 */
void outstanding_lacks_setter(int fd, uint32_t number);
/* Number of outstanding sends of queue pair `number` since the last signaled one. */
uint32_t outstanding_unsignaled(int fd, uint32_t number);
/*
 * For sanitizers: the last `count` requests that were noted are posted next. `has_message`: one may tell the peer
 * something. With the lock of the queue.
 */
void outstanding_given(int fd, uint32_t kind, uint32_t number, uint32_t count, bool has_message);
/*
 * A completion was polled. `is_receive`: by its opcode, which is undefined if the request has failed. `arrived`: bytes
 * that the device has written to the memory of a receive; 0: unknown.
 */
void outstanding_polled(int fd, uint32_t qpn, uint64_t wr_id, bool is_receive, bool has_failed, uint32_t arrived);
/* Whether memory is in a returned frame of this thread's stack: below `frame`, which is on it. */
bool frames_is_dead(uintptr_t address, uintptr_t frame);
/* A post or poll begins: reports outstanding memory in returned frames (below `frame`), and sends all kept reports. */
void outstanding_check_frames(uintptr_t frame);
/*
 * A queue is used: reports the first use of each context that this process inherited by fork. `kind` may also be
 * USERDMA_EVENT_POLL; then `number` is the handle of a completion queue.
 */
void outstanding_check_inherited(int fd, uint32_t kind, uint32_t number);
/* As outstanding_check_inherited: a queue pair is destroyed, which this process has not created since it was forked. */
void outstanding_check_destroyer(int fd, uint32_t kind, uint32_t number);

/* ---- unmaps.c ---- */

/* In the child of a fork. */
void unmaps_forget_all(void);

/* ---- waiting.c, lends.c, samples.c ---- */

/* At the start of the process, if it is recorded. */
void waiting_detect(void);
/* In the child of a fork: it gets a table of its own. */
void waiting_in_child(void);
/* The ring of lends, in the same file (lends.c); NULL: none. */
char *waiting_lend_ring(void);
/* lends.c: in the child of a fork, the lends of the parent are not the child's. */
void lends_in_child(void);
/* The sample of this thread, to be written; NULL: there is no table. */
struct userdma_wait_sample *waiting_sample(void);
/* From now on nobody sends the signal for samples. */
void waiting_no_samples(void);
/* samples.c: the signal for samples, whose handler is installed; 0: the program has one. */
uint32_t samples_signal(void);
/* A poll of a CQ begins; it has found a completion. */
void waiting_polls(const struct ibv_cq *cq);
HIDDEN extern TLS uint32_t waiting_empty_polls;
static inline void waiting_found(void)
{
    waiting_empty_polls = 0;
}
/*
 * The last poll has found `count` completions of at most `asked`, for a call that returns to `caller`. asked 0: of an
 * extended CQ; without a caller it has found one more.
 */
void waiting_found_by(uint32_t asked, uint32_t count, const void *caller);
/* Where the last poll of this thread that has found something returns to; NULL: there is none. */
void *waiting_last_found(void);
/* This thread has started a batch of ibv_wr_*, by a call that returns to `caller`, or has ended it. */
void waiting_batch(const struct ibv_qp *qp, const void *caller);
void waiting_batch_ended(void);

#endif
