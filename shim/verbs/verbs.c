/*
 * Wrappers of the provider's functions:
 *
 * - Polling: an empty poll yields the processor. Two programs and a daemon that spin on two processors take
 *   milliseconds per message, with sched_yield() microseconds. Empty polls also detect that the daemon has ended or the
 *   device was removed. There may be no completion that tells the program: requests of a shared receive queue are not
 *   flushed.
 * - Posting: a send or bind before RTS is refused (IBA 10.8.3.1). The daemon cannot refuse it: posting makes no call.
 * - Binding: after a post that binds a type 2 window, mw->rkey is the window's new key, as with providers of adapters.
 *   rxe's provider changes it only for type 1.
 * - XRC, for a provider without XRC (xrc.c).
 * - Fault rules may refuse posts (faults.c).
 * - For `userdma check`: posts and polls are recorded (check/).
 *
 * The functions are replaced in the public tables of libibverbs' objects. A context's table: when the provider has
 * filled it (verbs_set_ops), or when the program gets the context. An extended CQ or QP: when it is created. Each
 * provider function gets a numbered slot with its own wrapper, so a call needs no lookup. Contexts of other devices are
 * not changed.
 *
 * libibverbs is not linked: the program has it, or loads it later.
 */
#define _GNU_SOURCE
#include "../shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <sched.h>

#include "../check/outstanding.h"
#include "verbs_ops.h"

/* Maximum tables of provider functions in one program; libibverbs' dummy functions are one. */
#define SLOTS 4

/*
 * A thread's empty polls between two checks that the daemon is alive. A prime: a thread that polls several contexts in
 * turn checks all.
 */
#define EMPTY_POLLS_PER_CHECK 127

typedef int poll_cq_function(struct ibv_cq *, int, struct ibv_wc *);
typedef int start_poll_function(struct ibv_cq_ex *, struct ibv_poll_cq_attr *);
typedef int next_poll_function(struct ibv_cq_ex *);
typedef struct ibv_cq_ex *create_cq_ex_function(struct ibv_context *, struct ibv_cq_init_attr_ex *);
typedef struct ibv_qp *create_qp_ex_function(struct ibv_context *, struct ibv_qp_init_attr_ex *);
typedef int wr_complete_function(struct ibv_qp_ex *);
typedef void wr_bind_mw_function(struct ibv_qp_ex *, struct ibv_mw *, uint32_t, const struct ibv_mw_bind_info *);
typedef int post_recv_function(struct ibv_qp *, struct ibv_recv_wr *, struct ibv_recv_wr **);
typedef int post_srq_recv_function(struct ibv_srq *, struct ibv_recv_wr *, struct ibv_recv_wr **);
typedef int bind_mw_function(struct ibv_qp *, struct ibv_mw *, struct ibv_mw_bind *);

static poll_cq_function *poll_cq_of[SLOTS];
static start_poll_function *start_poll_of[SLOTS];
static next_poll_function *next_poll_of[SLOTS];
static create_cq_ex_function *create_cq_ex_of[SLOTS];
static create_qp_ex_function *create_qp_ex_of[SLOTS];
static post_send_function *post_send_of[SLOTS];
static wr_complete_function *wr_complete_of[SLOTS];
static wr_bind_mw_function *wr_bind_mw_of[SLOTS];
static post_recv_function *post_recv_of[SLOTS];
static post_srq_recv_function *post_srq_recv_of[SLOTS];
static bind_mw_function *bind_mw_of[SLOTS];

/* After an empty poll: true if the daemon has ended or the device was removed (checked by few calls); else yields. */
static bool check_or_yield(const struct ibv_context *context)
{
    static __thread unsigned empty_polls __attribute__((tls_model("initial-exec")));
    static __thread int dead_fd __attribute__((tls_model("initial-exec"))) = -1;
    if (UNLIKELY(dead_fd == context->cmd_fd) || ++empty_polls == EMPTY_POLLS_PER_CHECK) {
        empty_polls = 0;
        const bool is_dead = device_is_dead(context->cmd_fd);
        /* Each further poll of this descriptor checks again: the number may belong to another context. */
        if (is_dead)
            dead_fd = context->cmd_fd;
        else if (dead_fd == context->cmd_fd)
            dead_fd = -1;
        if (is_dead)
            return true;
    }
    sched_yield();
    return false;
}

/* The stack pointer at the call of the current function. The program's frames at lower addresses have returned. */
#define FRAME ((uintptr_t)__builtin_dwarf_cfa())

/* Before a poll, if stacks are recorded. */
static void check_poll(const struct ibv_cq *cq, uintptr_t frame)
{
    outstanding_check_inherited(cq->context->cmd_fd, USERDMA_EVENT_POLL, cq->handle);
    outstanding_check_frames(frame);
}

/* Notes `found` polled completions, for valgrind and `userdma check`. Returns `found`. */
static int note_completions(const struct ibv_cq *cq, int found, const struct ibv_wc *wc)
{
    if (UNLIKELY(shim_under_valgrind) && found > 0)
        valgrind_mark();
    if (UNLIKELY(shim_records_stacks) && found > 0) {
        for (int i = 0; i < found; i++)
            outstanding_polled(cq->context->cmd_fd, wc[i].qp_num, wc[i].wr_id, wc[i].opcode & IBV_WC_RECV);
        events_taken(cq->context->cmd_fd, cq->handle, (uint32_t)found);
    }
    if (UNLIKELY(shim_logs_events) && found > 0)
        events_note(cq->context->cmd_fd, USERDMA_EVENT_POLL, cq->handle, (uint32_t)found, wc[found - 1].wr_id, 0);
    return found;
}

static int poll_cq(poll_cq_function *original, struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
    if (UNLIKELY(shim_records_stacks))
        check_poll(cq, FRAME);
    int found = original(cq, entries, wc);
    if (LIKELY(found != 0) || !check_or_yield(cq->context))
        return note_completions(cq, found, wc);
    /* A last poll, for completions that the daemon wrote before it ended. */
    found = original(cq, entries, wc);
    if (found != 0)
        return note_completions(cq, found, wc);
    errno = EIO;
    return -1;
}

/* As note_completions, for an extended CQ: the poll found a completion if `result` is 0. Returns `result`. */
static int note_completion(struct ibv_cq_ex *cq, int result)
{
    if (UNLIKELY(shim_under_valgrind) && result == 0)
        valgrind_mark();
    if (UNLIKELY(shim_records_stacks) && result == 0) {
        outstanding_polled(cq->context->cmd_fd, cq->read_qp_num(cq), cq->wr_id, cq->read_opcode(cq) & IBV_WC_RECV);
        events_taken(cq->context->cmd_fd, cq->handle, 1);
    }
    if (UNLIKELY(shim_logs_events) && result == 0)
        events_note(cq->context->cmd_fd, USERDMA_EVENT_POLL, cq->handle, 1, cq->wr_id, 0);
    return result;
}

static int start_poll(start_poll_function *original, struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attributes)
{
    if (UNLIKELY(shim_records_stacks))
        check_poll(ibv_cq_ex_to_cq(cq), FRAME);
    int result = original(cq, attributes);
    if (LIKELY(result != ENOENT) || !check_or_yield(cq->context))
        return note_completion(cq, result);
    result = note_completion(cq, original(cq, attributes));
    return result == ENOENT ? EIO : result;
}

/* Wrapped under valgrind, and if stacks are recorded. */
static int next_poll(next_poll_function *original, struct ibv_cq_ex *cq)
{
    return note_completion(cq, original(cq));
}

static struct ibv_cq_ex *create_cq_ex(create_cq_ex_function *original, struct ibv_context *context,
                                      struct ibv_cq_init_attr_ex *attributes);

static struct ibv_qp *create_qp_ex(create_qp_ex_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes);

/* RTS and later states; in ERR requests are accepted and flushed. */
static bool can_send(const struct ibv_qp *qp)
{
    return qp->state >= IBV_QPS_RTS;
}

static uint32_t count_sends(const struct ibv_send_wr *list)
{
    uint32_t count = 0;
    for (; list; list = list->next)
        count++;
    return count;
}

static uint32_t count_receives(const struct ibv_recv_wr *list)
{
    uint32_t count = 0;
    for (; list; list = list->next)
        count++;
    return count;
}

static void note_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame)
{
    const int fd = qp->context->cmd_fd;
    const uint32_t stack = stack_here();
    outstanding_check_inherited(fd, USERDMA_POST_SEND, qp->qp_num);
    outstanding_check_frames(frame);
    outstanding_sends(qp, list, frame);
    if (UNLIKELY(shim_logs_events) && list)
        events_note(fd, USERDMA_POST_SEND, qp->qp_num, count_sends(list), list->wr_id, stack);
    for (; list; list = list->next)
        stack_note_post(fd, USERDMA_POST_SEND, qp->qp_num, list->wr_id, stack);
}

static void note_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame)
{
    const uint32_t stack = stack_here();
    outstanding_check_inherited(fd, queue, number);
    outstanding_check_frames(frame);
    outstanding_receives(fd, queue, number, list, frame);
    if (UNLIKELY(shim_logs_events) && list)
        events_note(fd, queue, number, count_receives(list), list->wr_id, stack);
    for (; list; list = list->next)
        stack_note_post(fd, queue, number, list->wr_id, stack);
}

/* The last `count` noted requests were refused. */
static void note_refused(int fd, uint32_t queue, uint32_t number, uint32_t count)
{
    outstanding_refused(fd, queue, number, count);
    if (UNLIKELY(shim_logs_events) && count > 0)
        events_note(fd, USERDMA_EVENT_REFUSED | queue, number, count, 0, 0);
}

/*
 * Calls `post`, an expression that posts `list`. If a fault rule refuses a request, `post` gets the list before it.
 * `find`: fault_in_sends or fault_in_receives, with its arguments up to the list.
 */
#define POST_BEFORE_FAULT(result, post, find, ...)                                                                     \
    do {                                                                                                               \
        __typeof__(list) before, failing;                                                                              \
        const int fault = find(__VA_ARGS__, list, &before, &failing);                                                  \
        (result) = 0;                                                                                                  \
        if (before)                                                                                                    \
            before->next = NULL;                                                                                       \
        if (before || fault == 0)                                                                                      \
            (result) = (post);                                                                                         \
        if (before)                                                                                                    \
            before->next = failing;                                                                                    \
        if ((result) == 0 && fault != 0) {                                                                             \
            (result) = fault;                                                                                          \
            if (bad)                                                                                                   \
                *bad = failing;                                                                                        \
        }                                                                                                              \
    } while (0)

/* Posts, also if only the first receives of the list fit. */
static int post_receives(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                         struct ibv_recv_wr **bad)
{
    int error;
    if (UNLIKELY(posts_may_fail()))
        POST_BEFORE_FAULT(error, original(qp, list, bad), fault_in_receives, qp->context->cmd_fd, USERDMA_POST_RECEIVE,
                          qp->qp_num);
    else
        error = original(qp, list, bad);
    device_receive_posted(qp->context->cmd_fd, qp->handle, qp->qp_num);
    return error;
}

static int post_recv(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                     struct ibv_recv_wr **bad)
{
    if (LIKELY(!shim_records_stacks))
        return post_receives(original, qp, list, bad);
    const int fd = qp->context->cmd_fd;
    note_receives(fd, USERDMA_POST_RECEIVE, qp->qp_num, list, FRAME);
    const int error = post_receives(original, qp, list, bad);
    if (error == 0)
        return 0;
    /* The provider sets `*bad` to NULL if the queue pair has no receive queue, and refuses all requests without `bad`. */
    const struct ibv_recv_wr *first = bad && *bad ? *bad : list;
    note_refused(fd, USERDMA_POST_RECEIVE, qp->qp_num, count_receives(first));
    return refused_receive(qp, first, error);
}

static int post_shared(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                       struct ibv_recv_wr **bad)
{
    int error;
    if (LIKELY(!posts_may_fail()))
        return original(srq, list, bad);
    POST_BEFORE_FAULT(error, original(srq, list, bad), fault_in_receives, srq->context->cmd_fd, USERDMA_POST_SHARED,
                      srq->handle);
    return error;
}

static int post_srq_recv(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                         struct ibv_recv_wr **bad)
{
    if (LIKELY(!shim_records_stacks))
        return post_shared(original, srq, list, bad);
    note_receives(srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle, list, FRAME);
    const int error = post_shared(original, srq, list, bad);
    if (error == 0)
        return 0;
    note_refused(srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle, count_receives(*bad));
    return refused_shared(srq, *bad, error);
}

/* A bind changes only the low byte of the key. */
static void set_window_key(struct ibv_mw *mw, uint32_t rkey)
{
    mw->rkey = (mw->rkey & ~0xffu) | (rkey & 0xffu);
}

/* Posts by the provider, and sets the keys of the windows that the posted requests bind. */
static int post_provider_sends(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                               struct ibv_send_wr **bad)
{
    const int error = original(qp, list, bad);
    /* The provider sets `*bad` to NULL if it posts nothing. */
    const struct ibv_send_wr *end = error == 0 ? NULL : bad && *bad ? *bad : list;
    for (const struct ibv_send_wr *wr = list; wr && wr != end; wr = wr->next)
        if (UNLIKELY(wr->opcode == IBV_WR_BIND_MW))
            set_window_key(wr->bind_mw.mw, wr->bind_mw.rkey);
    return error;
}

/* Posts by the provider or by xrc.c. */
static int post_valid_sends(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                            struct ibv_send_wr **bad)
{
    if (UNLIKELY(qp->qp_type == IBV_QPT_XRC_SEND))
        return xrc_post_send(original, qp, list, bad);
    return post_provider_sends(original, qp, list, bad);
}

/* Refuses sends before RTS. */
static int post_sends(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                      struct ibv_send_wr **bad)
{
    int error;
    if (UNLIKELY(!can_send(qp))) {
        if (bad)
            *bad = list;
        return EINVAL;
    }
    if (LIKELY(!posts_may_fail()))
        return post_valid_sends(original, qp, list, bad);
    POST_BEFORE_FAULT(error, post_valid_sends(original, qp, list, bad), fault_in_sends, qp);
    return error;
}

/* As post_sends, of noted sends: posts only those for which an adapter has slots, and refuses the others. */
static int post_fitting(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                        struct ibv_send_wr **bad)
{
    const uint32_t missing = shim_frees_at_poll && can_send(qp) ? slots_missing(qp) : 0;
    const uint32_t count = missing == 0 ? 0 : count_sends(list);
    if (LIKELY(missing == 0))
        return post_sends(original, qp, list, bad);
    struct ibv_send_wr *last = NULL, *first_refused = list;
    for (uint32_t i = missing; i < count; i++) {
        last = first_refused;
        first_refused = last->next;
    }
    int error = 0;
    if (last) {
        last->next = NULL;
        error = post_sends(original, qp, list, bad);
        last->next = first_refused;
    }
    if (error == 0 && bad)
        *bad = first_refused;
    return error == 0 ? ENOMEM : error;
}

static int post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                     struct ibv_send_wr **bad)
{
    if (LIKELY(!shim_records_stacks))
        return post_sends(original, qp, list, bad);
    note_sends(qp, list, FRAME);
    const int error = post_fitting(original, qp, list, bad);
    if (error == 0)
        return 0;
    /* The provider refuses all requests of a program that passes no `bad`. */
    const struct ibv_send_wr *first = bad ? *bad : list;
    note_refused(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, count_sends(first));
    return refused_send(qp, first, error);
}

/*
 * Ends a batch of ibv_wr_*. Only here does the provider advance the producer index, so a batch before RTS is refused
 * here.
 */
static int wr_complete(wr_complete_function *original, struct ibv_qp_ex *qp)
{
    if (UNLIKELY(!can_send(&qp->qp_base))) {
        qp->wr_abort(qp);
        return LIKELY(!shim_records_stacks) ? EINVAL : refused_request(&qp->qp_base, qp->wr_id, EINVAL);
    }
    if (UNLIKELY(shim_records_stacks)) {
        const struct ibv_qp *base = &qp->qp_base;
        const uint32_t stack = stack_here();
        outstanding_check_inherited(base->context->cmd_fd, USERDMA_POST_SEND, base->qp_num);
        outstanding_check_frames(FRAME);
        if (shim_logs_events)
            events_note(base->context->cmd_fd, USERDMA_POST_SEND, base->qp_num, batch_size(qp), qp->wr_id,
                        stack);
        outstanding_completed_batch(qp, batch_size(qp));
        stack_note_post(base->context->cmd_fd, USERDMA_POST_BATCH, base->qp_num, 0, stack);
        stack_note_post(base->context->cmd_fd, USERDMA_POST_SEND, base->qp_num, qp->wr_id, stack);
    }
    int refusal = UNLIKELY(posts_may_fail()) ? fault_of_batch(qp) : 0;
    if (UNLIKELY(shim_frees_at_poll) && refusal == 0 && slots_missing(&qp->qp_base) != 0)
        refusal = ENOMEM;
    if (UNLIKELY(refusal != 0))
        qp->wr_abort(qp);
    const int error = refusal != 0 ? refusal : original(qp);
    if (LIKELY(error == 0 || !shim_records_stacks))
        return error;
    note_refused(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, batch_size(qp));
    return refused_request(&qp->qp_base, qp->wr_id, error);
}

/*
 * Adds a bind to a batch of ibv_wr_*. The key is set here, because nothing after this call names the window. Before RTS
 * wr_complete aborts the batch.
 */
static void wr_bind_mw(wr_bind_mw_function *original, struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey,
                       const struct ibv_mw_bind_info *info)
{
    original(qp, mw, rkey, info);
    if (LIKELY(can_send(&qp->qp_base)))
        set_window_key(mw, rkey);
}

static int post_bind(bind_mw_function *original, struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    if (UNLIKELY(!can_send(qp)))
        return EINVAL;
    const int fault = UNLIKELY(posts_may_fail()) ? fault_of_bind(qp, bind->wr_id) : 0;
    return fault != 0 ? fault : original(qp, mw, bind);
}

/* ibv_bind_mw: the provider posts the request itself, without ops.post_send. */
static int bind_mw(bind_mw_function *original, struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    if (LIKELY(!shim_records_stacks))
        return post_bind(original, qp, mw, bind);
    const int fd = qp->context->cmd_fd;
    const struct ibv_send_wr posted = {.wr_id = bind->wr_id, .opcode = IBV_WR_BIND_MW, .send_flags = bind->send_flags};
    note_sends(qp, &posted, FRAME);
    const int error = post_bind(original, qp, mw, bind);
    if (error == 0)
        return 0;
    note_refused(fd, USERDMA_POST_SEND, qp->qp_num, 1);
    return refused_send(qp, &posted, error);
}

#define SLOT(n)                                                                                                        \
    static int poll_cq_##n(struct ibv_cq *cq, int entries, struct ibv_wc *wc)                                          \
    {                                                                                                                  \
        return poll_cq(poll_cq_of[n], cq, entries, wc);                                                                \
    }                                                                                                                  \
    static int start_poll_##n(struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attributes)                               \
    {                                                                                                                  \
        return start_poll(start_poll_of[n], cq, attributes);                                                           \
    }                                                                                                                  \
    static int next_poll_##n(struct ibv_cq_ex *cq)                                                                     \
    {                                                                                                                  \
        return next_poll(next_poll_of[n], cq);                                                                         \
    }                                                                                                                  \
    static struct ibv_cq_ex *create_cq_ex_##n(struct ibv_context *context, struct ibv_cq_init_attr_ex *attributes)     \
    {                                                                                                                  \
        return create_cq_ex(create_cq_ex_of[n], context, attributes);                                                  \
    }                                                                                                                  \
    static struct ibv_qp *create_qp_ex_##n(struct ibv_context *context, struct ibv_qp_init_attr_ex *attributes)        \
    {                                                                                                                  \
        return create_qp_ex(create_qp_ex_of[n], context, attributes);                                                  \
    }                                                                                                                  \
    static int post_send_##n(struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **bad)                    \
    {                                                                                                                  \
        return post_send(post_send_of[n], qp, list, bad);                                                              \
    }                                                                                                                  \
    static int wr_complete_##n(struct ibv_qp_ex *qp)                                                                   \
    {                                                                                                                  \
        return wr_complete(wr_complete_of[n], qp);                                                                     \
    }                                                                                                                  \
    static void wr_bind_mw_##n(struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey,                                 \
                               const struct ibv_mw_bind_info *info)                                                    \
    {                                                                                                                  \
        wr_bind_mw(wr_bind_mw_of[n], qp, mw, rkey, info);                                                              \
    }                                                                                                                  \
    static int post_recv_##n(struct ibv_qp *qp, struct ibv_recv_wr *list, struct ibv_recv_wr **bad)                    \
    {                                                                                                                  \
        return post_recv(post_recv_of[n], qp, list, bad);                                                              \
    }                                                                                                                  \
    static int post_srq_recv_##n(struct ibv_srq *srq, struct ibv_recv_wr *list, struct ibv_recv_wr **bad)              \
    {                                                                                                                  \
        return post_srq_recv(post_srq_recv_of[n], srq, list, bad);                                                     \
    }                                                                                                                  \
    static int bind_mw_##n(struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)                             \
    {                                                                                                                  \
        return bind_mw(bind_mw_of[n], qp, mw, bind);                                                                   \
    }
SLOT(0)
SLOT(1)
SLOT(2)
SLOT(3)

static poll_cq_function *const poll_cq_wrapper[SLOTS] = {poll_cq_0, poll_cq_1, poll_cq_2, poll_cq_3};
static start_poll_function *const start_poll_wrapper[SLOTS] = {start_poll_0, start_poll_1, start_poll_2, start_poll_3};
static next_poll_function *const next_poll_wrapper[SLOTS] = {next_poll_0, next_poll_1, next_poll_2, next_poll_3};
static create_cq_ex_function *const create_cq_ex_wrapper[SLOTS] = {create_cq_ex_0, create_cq_ex_1, create_cq_ex_2,
                                                                   create_cq_ex_3};
static create_qp_ex_function *const create_qp_ex_wrapper[SLOTS] = {create_qp_ex_0, create_qp_ex_1, create_qp_ex_2,
                                                                   create_qp_ex_3};
static post_send_function *const post_send_wrapper[SLOTS] = {post_send_0, post_send_1, post_send_2, post_send_3};
static wr_complete_function *const wr_complete_wrapper[SLOTS] = {wr_complete_0, wr_complete_1, wr_complete_2,
                                                                 wr_complete_3};
static wr_bind_mw_function *const wr_bind_mw_wrapper[SLOTS] = {wr_bind_mw_0, wr_bind_mw_1, wr_bind_mw_2, wr_bind_mw_3};
static post_recv_function *const post_recv_wrapper[SLOTS] = {post_recv_0, post_recv_1, post_recv_2, post_recv_3};
static post_srq_recv_function *const post_srq_recv_wrapper[SLOTS] = {post_srq_recv_0, post_srq_recv_1, post_srq_recv_2,
                                                                     post_srq_recv_3};
static bind_mw_function *const bind_mw_wrapper[SLOTS] = {bind_mw_0, bind_mw_1, bind_mw_2, bind_mw_3};

/* Replaces `function` by the wrapper of its slot, unless all slots are in use or `function` is a wrapper. */
#define WRAP(function, originals, wrappers)                                                                            \
    do {                                                                                                               \
        __typeof__(*(originals)) current = (function);                                                                 \
        for (int slot = 0; current && slot < SLOTS; slot++) {                                                          \
            if (current == (wrappers)[slot])                                                                           \
                break;                                                                                                 \
            __typeof__(*(originals)) present = NULL;                                                                   \
            if (__atomic_compare_exchange_n(&(originals)[slot], &present, current, false, __ATOMIC_ACQ_REL,            \
                                            __ATOMIC_ACQUIRE) ||                                                       \
                present == current) {                                                                                  \
                (function) = (wrappers)[slot];                                                                         \
                break;                                                                                                 \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

static struct ibv_cq_ex *create_cq_ex(create_cq_ex_function *original, struct ibv_context *context,
                                      struct ibv_cq_init_attr_ex *attributes)
{
    struct ibv_cq_init_attr_ex with_qp_num;
    /* note_completion reads the QP number of each completion. */
    if (UNLIKELY(shim_records_stacks)) {
        with_qp_num = *attributes;
        with_qp_num.wc_flags |= IBV_WC_EX_WITH_QP_NUM;
        attributes = &with_qp_num;
    }
    struct ibv_cq_ex *cq = original(context, attributes);
    if (cq)
        WRAP(cq->start_poll, start_poll_of, start_poll_wrapper);
    if (cq && (shim_under_valgrind || shim_records_stacks))
        WRAP(cq->next_poll, next_poll_of, next_poll_wrapper);
    return cq;
}

static struct ibv_qp *create_qp_ex(create_qp_ex_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes)
{
    if (UNLIKELY(attributes->qp_type == IBV_QPT_XRC_RECV))
        return xrc_create_target(context, attributes);
    struct ibv_qp *qp = original(context, attributes);
    if (UNLIKELY(shim_frees_at_poll) && qp)
        slots_set(qp, attributes->cap.max_send_wr);
    if (qp && attributes->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) {
        struct ibv_qp_ex *extended = (struct ibv_qp_ex *)qp;
        WRAP(extended->wr_complete, wr_complete_of, wr_complete_wrapper);
        WRAP(extended->wr_bind_mw, wr_bind_mw_of, wr_bind_mw_wrapper);
        if (UNLIKELY(shim_records_stacks))
            batch_watch(extended, attributes->send_ops_flags);
    }
    return qp;
}

/* Wraps the functions of a context of the daemon. Returns `context`. */
static struct ibv_context *wrap(struct ibv_context *context)
{
    if (!context || fd_kind_for_use(context->cmd_fd) != FD_CONTEXT)
        return context;
    WRAP(context->ops.poll_cq, poll_cq_of, poll_cq_wrapper);
    WRAP(context->ops.post_send, post_send_of, post_send_wrapper);
    WRAP(context->ops.post_recv, post_recv_of, post_recv_wrapper);
    WRAP(context->ops.post_srq_recv, post_srq_recv_of, post_srq_recv_wrapper);
    WRAP(context->ops.bind_mw, bind_mw_of, bind_mw_wrapper);
    if (UNLIKELY(shim_records_stacks)) {
        events_open(context->cmd_fd);
        outstanding_opened(context->cmd_fd);
    }
    struct verbs_context *extended = verbs_get_ctx_op(context, create_cq_ex);
    if (extended)
        WRAP(extended->create_cq_ex, create_cq_ex_of, create_cq_ex_wrapper);
    extended = verbs_get_ctx_op(context, create_qp_ex);
    if (extended) {
        WRAP(extended->create_qp_ex, create_qp_ex_of, create_qp_ex_wrapper);
        xrc_add_operations(extended);
    }
    return context;
}

/*
 * libibverbs' own function, also of a libibverbs that was loaded with RTLD_LOCAL. Some functions have an older version,
 * for binaries of libibverbs 1.0; before glibc 2.36, dlsym with RTLD_NEXT finds this one.
 */
static void *find_original(const char *name)
{
    void *found = dlvsym(RTLD_NEXT, name, "IBVERBS_1.1");
    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (found)
        return found;
    void *library = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return NULL;
    found = dlsym(library, name);
    dlclose(library);
    return found;
}

static void forget_queues(int fd, uint32_t qpn)
{
    outstanding_forget(fd, USERDMA_POST_SEND, qpn);
    outstanding_forget(fd, USERDMA_POST_RECEIVE, qpn);
}

/* The program has called ibv_fork_init, or asked and was told that this is not needed. */
static bool is_fork_initialized;

bool verbs_is_fork_safe(void)
{
    return is_fork_initialized || getenv("RDMAV_FORK_SAFE") || getenv("IBV_FORK_SAFE");
}

/*
 * libibverbs' function would keep pages of registered memory, with all other data on these pages, from children
 * (MADV_DONTFORK). This is not needed: nothing is pinned.
 */
EXPORT int ibv_fork_init(void)
{
    if (!shim_is_ready())
        shim_init();
    is_fork_initialized = true;
    if (shim_is_active)
        return 0;
    int (*original)(void) = find_original("ibv_fork_init");
    return original ? original() : ENOSYS;
}

EXPORT enum ibv_fork_status ibv_is_fork_initialized(void)
{
    enum ibv_fork_status (*original)(void) = find_original("ibv_is_fork_initialized");
    const enum ibv_fork_status status = original ? original() : IBV_FORK_DISABLED;
    if (status == IBV_FORK_UNNEEDED)
        is_fork_initialized = true;
    return status;
}

EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attributes)
{
    struct ibv_qp *(*original)(struct ibv_pd *, struct ibv_qp_init_attr *) = find_original("ibv_create_qp");
    if (!original) {
        errno = ENOSYS;
        return NULL;
    }
    struct ibv_qp *qp = original(pd, attributes);
    if (UNLIKELY(shim_frees_at_poll) && qp && fd_kind_for_use(qp->context->cmd_fd) == FD_CONTEXT)
        slots_set(qp, attributes->cap.max_send_wr);
    return qp;
}

EXPORT int ibv_destroy_qp(struct ibv_qp *qp)
{
    int (*original)(struct ibv_qp *) = find_original("ibv_destroy_qp");
    if (!original)
        return ENOSYS;
    const int fd = qp->context->cmd_fd;
    const uint32_t number = qp->qp_num;
    const int error = original(qp);
    if (UNLIKELY(shim_records_stacks) && error == 0)
        forget_queues(fd, number);
    return error;
}

EXPORT int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask)
{
    int (*original)(struct ibv_qp *, struct ibv_qp_attr *, int) = find_original("ibv_modify_qp");
    const int error = original ? original(qp, attributes, mask) : ENOSYS;
    if (UNLIKELY(shim_records_stacks) && error == 0 && mask & IBV_QP_STATE && attributes->qp_state == IBV_QPS_RESET) {
        const uint32_t slots = slots_of(qp);
        forget_queues(qp->context->cmd_fd, qp->qp_num);
        if (slots != 0)
            slots_set(qp, slots);
    }
    return error;
}

/* ---- regions, whose unmapping is reported (shim/check/unmaps.c) ---- */

static struct ibv_mr *registered(struct ibv_mr *mr)
{
    if (UNLIKELY(shim_records_stacks) && mr && fd_kind(mr->context->cmd_fd) == FD_CONTEXT)
        unmaps_registered(mr);
    return mr;
}

static void *not_found(void)
{
    errno = ENOSYS;
    return NULL;
}

/* Macros of verbs.h. */
#undef ibv_reg_mr
#undef ibv_reg_mr_iova
EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
    struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, int) = find_original("ibv_reg_mr");
    return original ? registered(original(pd, address, length, access)) : not_found();
}

EXPORT struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access)
{
    struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t, int) = find_original("ibv_reg_mr_iova");
    return original ? registered(original(pd, address, length, iova, access)) : not_found();
}

EXPORT struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
                                       unsigned int access)
{
    struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t, unsigned int) =
        find_original("ibv_reg_mr_iova2");
    return original ? registered(original(pd, address, length, iova, access)) : not_found();
}

EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *address, size_t length, int access)
{
    int (*original)(struct ibv_mr *, int, struct ibv_pd *, void *, size_t, int) = find_original("ibv_rereg_mr");
    const int error = original ? original(mr, flags, pd, address, length, access) : ENOSYS;
    if (error == 0)
        registered(mr);
    return error;
}

EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
    int (*original)(struct ibv_mr *) = find_original("ibv_dereg_mr");
    const int error = original ? original(mr) : ENOSYS;
    /* Only the address of `mr` is used. */
    if (UNLIKELY(userdma_registered != 0) && error == 0)
        unmaps_deregistered(mr);
    return error;
}

EXPORT int ibv_destroy_srq(struct ibv_srq *srq)
{
    int (*original)(struct ibv_srq *) = find_original("ibv_destroy_srq");
    if (!original)
        return ENOSYS;
    const int fd = srq->context->cmd_fd;
    const uint32_t handle = srq->handle;
    const int error = original(srq);
    if (UNLIKELY(shim_records_stacks) && error == 0)
        outstanding_forget(fd, USERDMA_POST_SHARED, handle);
    return error;
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    struct ibv_context *(*original)(struct ibv_device *) = find_original("ibv_open_device");
    if (!original) {
        errno = ENOSYS;
        return NULL;
    }
    return wrap(original(device));
}

EXPORT struct ibv_context *ibv_import_device(int fd)
{
    struct ibv_context *(*original)(int) = find_original("ibv_import_device");
    if (!original) {
        errno = ENOSYS;
        return NULL;
    }
    return wrap(original(fd));
}

/* Fills a context's table for a provider. Wrapped for programs that find ibv_open_device by dlsym in libibverbs. */
struct verbs_context_ops;
EXPORT void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations);
void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations)
{
    void (*original)(struct verbs_context *, const struct verbs_context_ops *) = find_original("verbs_set_ops");
    if (!original)
        return;
    original(context, operations);
    wrap(&context->context);
}
