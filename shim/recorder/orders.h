/*
 * Calls on queues in a wrong order, or by threads that were excluded. Called only if recorder_is_on. `caller`: the
 * return address of the program's call. `call`: USERDMA_ORDER_CALL_.
 *
 *   orders.c     polls of extended CQs, from ibv_start_poll to ibv_end_poll
 *   reads.c      the functions that read a completion of an extended CQ, wrapped
 *   promises.c   objects that only one thread at a time uses
 */
#ifndef USERDMA_RECORDER_ORDERS_H
#define USERDMA_RECORDER_ORDERS_H

#include <infiniband/verbs.h>
#include <sys/types.h>

#include "../protocol.h"
#include "recorder.h"

/* A new extended CQ. `asked`: the wc_flags of the program. */
void polls_created(struct ibv_cq_ex *cq, uint64_t asked, bool is_single);
/* Before an object is destroyed, and after it was. Others than CQs and queue pairs are ignored. */
void polls_destroying(uint32_t kind, const void *object);
void polls_destroyed(const void *object);
/* Before the provider's start_poll, and after it. */
void polls_starting(const struct ibv_cq_ex *cq);
void polls_started(const struct ibv_cq_ex *cq, bool has_completion, void *caller);
void polls_advancing(const struct ibv_cq_ex *cq);
void polls_advanced(const struct ibv_cq_ex *cq, bool has_completion);
void polls_ending(const struct ibv_cq_ex *cq);
/* A read of USERDMA_FIELD_, `asked` by IBV_WC_EX_WITH_ (0: every CQ has it). */
void polls_reading(const struct ibv_cq_ex *cq, uint32_t field, uint64_t asked);
/* Before a call that takes the lock of a CQ: waits while another thread has a poll of it open, at most a second. */
void polls_locking(const struct ibv_cq *cq, uint32_t call);
/* The program ends. */
void polls_exiting(void);

/* The recorder itself reads the completion: that is no read of the program. */
extern TLS bool polls_are_recorded;
void reads_wrap(struct ibv_cq_ex *cq);

/* ---- promises.c ---- */

/* Objects that are watched. */
extern uint32_t promises_count;

/* A protection domain with a thread domain. */
void promises_domain(const struct ibv_pd *domain);
bool promises_is_domain(const struct ibv_pd *domain);
/* A CQ, or the queues of a queue pair, for one thread at a time. */
void promises_cq(const struct ibv_cq *cq, bool by_domain);
void promises_qp(const struct ibv_qp *qp);
void promises_destroyed(const void *object);

void promises_enter_always(const void *queue, uint32_t call, void *caller);
void promises_leave_always(const void *queue);
/* A call uses a queue: the CQ, or SENDS_OF or RECEIVES_OF a queue pair. */
#define SENDS_OF(qp) ((const void *)(qp))
#define RECEIVES_OF(qp) ((const void *)((const char *)(qp) + 1))
#define PROMISES_ENTER(queue, call)                                                                                    \
    do {                                                                                                               \
        if (UNLIKELY(__atomic_load_n(&promises_count, __ATOMIC_RELAXED) != 0))                                         \
            promises_enter_always(queue, call, __builtin_return_address(0));                                           \
    } while (0)
#define PROMISES_LEAVE(queue)                                                                                          \
    do {                                                                                                               \
        if (UNLIKELY(__atomic_load_n(&promises_count, __ATOMIC_RELAXED) != 0))                                         \
            promises_leave_always(queue);                                                                              \
    } while (0)

/* ---- threads (orders.c) ---- */

/* The number of this thread; 0: not known yet. */
HIDDEN extern TLS pid_t threads_number;
pid_t threads_find(void);
static inline pid_t threads_own(void)
{
    return LIKELY(threads_number != 0) ? threads_number : threads_find();
}
/* Whether no thread has this number any more. */
bool threads_has_ended(pid_t thread);
/* Whether a thread has ended, or is about to and runs no code of the program any more; some microseconds. */
bool threads_has_left(pid_t thread);
/* In the child of a fork. */
void threads_in_child(void);
/* Reports a mistake, at most 1,000 of a process. `since`: a return address; NULL: none. */
void orders_report(int fd, struct userdma_misordered *mistake, void *since);

/* ---- of each library ---- */

/* Reports a mistake; `fd`: of the context. Preserves errno. */
void note_order(int fd, const struct userdma_misordered *mistake);

#endif
