/*
 * Events of requests and queues. Called only if recorder_is_on.
 *
 * Queues: `fd` is the context's descriptor, `kind` USERDMA_POST_SEND, _RECEIVE or _SHARED, `number` the queue pair
 * number or the handle of the shared receive queue. `frame`: the program's stack pointer when it called the verb.
 */
#ifndef USERDMA_OUTSTANDING_H
#define USERDMA_OUTSTANDING_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
 * The last `count` requests that were built for the queue pair are posted now, by the function that `stack` calls: notes
 * their positions, and hashes their buffers (hashes.c). With the lock of the queue.
 */
void outstanding_completed_batch(const struct ibv_qp_ex *qp, uint32_t count, uint32_t stack);
/*
 * The last `count` requests that were posted to the queue were refused. Returns how many it has taken before, since its
 * creation or RESET; 0: none, or unknown.
 */
uint32_t outstanding_refused(int fd, uint32_t kind, uint32_t number, uint32_t count);
/* A request of a batch lacks a setter. libmlx5 posts none then, and other providers do: its queue's positions are unknown. */
void outstanding_lacks_setter(int fd, uint32_t number);
/* Number of outstanding sends of queue pair `number` since the last signaled one. */
uint32_t outstanding_unsignaled(int fd, uint32_t number);

/* A completion was polled. `is_receive`: by its opcode, which is undefined if the request has failed. */
void outstanding_polled(int fd, uint32_t qpn, uint64_t wr_id, bool is_receive, bool has_failed);
/* A queue was reset or destroyed. */
void outstanding_forget(int fd, uint32_t kind, uint32_t number);
/* A new context, perhaps with the descriptor of an earlier one. */
void outstanding_opened(int fd);

/* Whether memory is in a returned frame of this thread's stack: below `frame`, which is on it. */
bool frames_is_dead(uintptr_t address, uintptr_t frame);
/* A post or poll begins: reports outstanding memory in returned frames (below `frame`), and sends all kept reports. */
void outstanding_check_frames(uintptr_t frame);
/* Sends the reports that were kept because nothing is sent inside free() (reports.c). Preserves errno. */
void reports_send_kept(void);
/*
 * A queue is used: reports the first use of each context that this process inherited by fork. `kind` may also be
 * USERDMA_EVENT_POLL; then `number` is the handle of a completion queue.
 */
void outstanding_check_inherited(int fd, uint32_t kind, uint32_t number);
/* This process has created a queue pair. */
void outstanding_created(void);
/* A queue pair has no requests. If it takes receives from an SRQ, notes that. */
void outstanding_shares(const struct ibv_qp *qp);
/* As outstanding_check_inherited: a queue pair is destroyed, which this process has not created since it was forked. */
void outstanding_check_destroyer(int fd, uint32_t kind, uint32_t number);
/* Whether this process has opened the context of `fd`. */
bool outstanding_is_own(int fd);
/* Before a fork, in the parent: reports memory of outstanding requests, only the first few elements. */
void outstanding_fork(void);
/* After a fork, in the child. */
void outstanding_child(void);

/* ---- unmaps.c ---- */

/* Number of known regions. */
EXPORT extern uint32_t userdma_registered;

/* A region was registered, or got other memory. */
void unmaps_registered(const struct ibv_mr *mr);
void unmaps_deregistered(const struct ibv_mr *mr);
/* This memory may be unmapped next: tells the daemon the caller's stack if it overlaps a region. Preserves errno. */
void unmaps_before(const void *memory, size_t bytes);
/* In the child of a fork. */
void unmaps_forget_all(void);

/*
 * The number of sends, of those posted last to the queue pair, for which an adapter that frees slots at polls has none.
 * They are noted as posted. Only if shim_frees_at_poll.
 */
uint32_t slots_missing(const struct ibv_qp *qp);
/* max_send_wr, as the program knows it; 0: unknown. */
void slots_set(const struct ibv_qp *qp, uint32_t slots);
uint32_t slots_of(const struct ibv_qp *qp);

#endif
