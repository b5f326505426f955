/*
 * What the shim does around the provider's functions (../recorder/verbs.h):
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
 *
 * Contexts of other devices are not changed.
 */
#define _GNU_SOURCE
#include "../check/check.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <sched.h>

#include "../recorder/batches.h"
#include "../recorder/locks.h"
#include "verbs_ops.h"

/*
 * A thread's empty polls between two checks that the daemon is alive. A prime: a thread that polls several contexts in
 * turn checks all.
 */
#define EMPTY_POLLS_PER_CHECK 127

/* Of shim/clock/spin.c. */
__attribute__((weak, visibility("default"))) bool userdma_clock_spins(void);

/* True if the daemon has ended or the device was removed (checked by few calls); else yields. */
bool provider_has_ended(const struct ibv_context *context)
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
    /* While the clock runs by such polls, all others of the session sleep. */
    if (!userdma_clock_spins || !userdma_clock_spins())
        sched_yield();
    return false;
}

/* RTS and later states; in ERR requests are accepted and flushed. */
static bool can_send(const struct ibv_qp *qp)
{
    return qp->state >= IBV_QPS_RTS;
}

/* As `find` of POST_BEFORE_FAULT. Each request of the list that is asked about counts for the rules. */
#define FAULT_IN_LIST(fd, to_queue, of_number, of_opcode, is_inline)                                                   \
    ({                                                                                                                 \
        int error = 0;                                                                                                 \
        for (failing = list; failing; before = failing, failing = failing->next) {                                     \
            const struct userdma_posting posting = {.wr_id = failing->wr_id,                                           \
                                                    .queue = to_queue,                                                 \
                                                    .number = of_number,                                               \
                                                    .opcode = of_opcode,                                               \
                                                    .length = length_of(failing->sg_list, failing->num_sge),           \
                                                    .inlined = is_inline};                                              \
            if ((error = fault_of(fd, posting)) != 0)                                                                  \
                break;                                                                                                 \
        }                                                                                                              \
        error;                                                                                                         \
    })

/* Posts, also if only the first receives of the list fit. */
int provider_post_recv(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                       struct ibv_recv_wr **bad)
{
    int error;
    if (UNLIKELY(posts_may_fail()))
        POST_BEFORE_FAULT(error, original(qp, list, bad),
                          FAULT_IN_LIST(qp->context->cmd_fd, USERDMA_POST_RECEIVE, qp->qp_num, USERDMA_UNKNOWN_OPCODE,
                                        USERDMA_POST_INLINE_UNKNOWN));
    else
        error = original(qp, list, bad);
    device_receive_posted(qp->context->cmd_fd, qp->handle, qp->qp_num);
    return error;
}

int provider_post_srq_recv(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                           struct ibv_recv_wr **bad)
{
    int error;
    if (LIKELY(!posts_may_fail()))
        return original(srq, list, bad);
    POST_BEFORE_FAULT(error, original(srq, list, bad),
                      FAULT_IN_LIST(srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle, USERDMA_UNKNOWN_OPCODE,
                                    USERDMA_POST_INLINE_UNKNOWN));
    return error;
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
    if (UNLIKELY(qp->qp_type == IBV_QPT_XRC_SEND) && xrc_is_added(qp->context))
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
    POST_BEFORE_FAULT(error, post_valid_sends(original, qp, list, bad),
                      FAULT_IN_LIST(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, failing->opcode,
                                    failing->send_flags & IBV_SEND_INLINE ? USERDMA_POST_INLINE_YES : USERDMA_POST_INLINE_NO));
    return error;
}

/* Posts only the sends for which an adapter has slots (slots.c), and refuses the others. */
int provider_post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                       struct ibv_send_wr **bad)
{
    const uint32_t missing = UNLIKELY(shim_frees_at_poll) && can_send(qp) ? slots_missing(qp) : 0;
    const uint32_t count = missing == 0 ? 0 : LENGTH(list);
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

/*
 * Only when a batch of ibv_wr_* ends does the provider advance the producer index, so a batch before RTS is refused
 * here. For fault rules a batch is one post of an unknown request.
 */
int provider_refusal(const struct ibv_qp *qp, uint64_t wr_id, int opcode)
{
    if (UNLIKELY(!can_send(qp)))
        return EINVAL;
    const struct userdma_posting posting = {.wr_id = wr_id,
                                            .queue = USERDMA_POST_SEND,
                                            .number = qp->qp_num,
                                            .opcode = (uint32_t)opcode,
                                            .length = USERDMA_UNKNOWN_LENGTH};
    const int fault = UNLIKELY(posts_may_fail()) ? fault_of(qp->context->cmd_fd, posting) : 0;
    const bool is_full = UNLIKELY(shim_frees_at_poll) && opcode != IBV_WR_BIND_MW && slots_missing(qp) != 0;
    return fault == 0 && is_full ? ENOMEM : fault;
}

/* The key is set here, because nothing after this call names the window. Before RTS the batch is aborted. */
void provider_bind_built(struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey)
{
    if (LIKELY(can_send(&qp->qp_base)))
        set_window_key(mw, rkey);
}

struct ibv_qp *provider_create_qp(create_qp_ex_function *original, struct ibv_context *context,
                                  struct ibv_qp_init_attr_ex *attributes)
{
    return UNLIKELY(attributes->qp_type == IBV_QPT_XRC_RECV) && xrc_is_added(context)
               ? xrc_create_target(context, attributes)
               : original(context, attributes);
}

void provider_created_qp(struct ibv_qp *qp, uint32_t slots)
{
    if (UNLIKELY(requests_are_noted)) {
        locks_reset(SENDS_OF(qp));
        locks_reset(RECEIVES_OF(qp));
        outstanding_created();
        if (fd_kind_for_use(qp->context->cmd_fd) == FD_CONTEXT)
            outstanding_shares(qp);
    }
    if (UNLIKELY(shim_frees_at_poll) && fd_kind_for_use(qp->context->cmd_fd) == FD_CONTEXT)
        slots_set(qp, slots);
}

bool provider_wraps(struct ibv_context *context, bool is_new)
{
    if (fd_kind_for_use(context->cmd_fd) != FD_CONTEXT)
        return false;
    if (UNLIKELY(requests_are_noted)) {
        outstanding_opened(context->cmd_fd);
        sanitizers_opened(context->cmd_fd, context->device->name);
    }
    if (UNLIKELY(recorder_is_on)) {
        events_open(context->cmd_fd);
        /* The provider's library was loaded. */
        waiting_describe_modules();
        if (is_new)
            devices_opened(context);
    }
    struct verbs_context *extended = verbs_get_ctx_op(context, create_qp_ex);
    if (extended)
        xrc_add_operations(extended);
    return true;
}

int provider_req_notify_cq(req_notify_cq_function *original, struct ibv_cq *cq, int solicited)
{
    return original(cq, solicited);
}

static void forget_queues(int fd, uint32_t qpn)
{
    outstanding_forget(fd, USERDMA_POST_SEND, qpn);
    outstanding_forget(fd, USERDMA_POST_RECEIVE, qpn);
}

/* The program has called ibv_fork_init, or asked and was told that this is not needed. */
static bool is_fork_initialized;

/* Reports a fork without ibv_fork_init: a mistake if an adapter pins registered memory. */
void program_forks(void)
{
    if (is_fork_initialized || getenv("RDMAV_FORK_SAFE") || getenv("IBV_FORK_SAFE"))
        return;
    /* Without a connection the process has no registered memory that a fork could harm. */
    event_forked(stack_here());
    outstanding_fork();
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
    int (*original)(void) = verbs_original("ibv_fork_init");
    return original ? original() : ENOSYS;
}

EXPORT enum ibv_fork_status ibv_is_fork_initialized(void)
{
    enum ibv_fork_status (*original)(void) = verbs_original("ibv_is_fork_initialized");
    const enum ibv_fork_status status = original ? original() : IBV_FORK_DISABLED;
    if (status == IBV_FORK_UNNEEDED)
        is_fork_initialized = true;
    return status;
}

int around_ibv_destroy_qp(int (*original)(struct ibv_qp *), struct ibv_qp *qp)
{
    if (LIKELY(!requests_are_noted) || !qp)
        return original(qp);
    const int fd = qp->context->cmd_fd;
    const uint32_t number = qp->qp_num;
    if (recorder_is_on)
        batches_destroying(qp);
    const int error = original(qp);
    if (error == 0) {
        forget_queues(fd, number);
        if (recorder_is_on)
            batches_destroyed(qp); /* only the address of `qp` is used */
    }
    return error;
}

int around_ibv_modify_qp(int (*original)(struct ibv_qp *, struct ibv_qp_attr *, int), struct ibv_qp *qp,
                         struct ibv_qp_attr *attributes, int mask)
{
    const int error = original(qp, attributes, mask);
    /* With the recorder, object_leave does so. */
    if (!recorder_is_on && qp && fd_kind(qp->context->cmd_fd) == FD_CONTEXT)
        verbs_keep_qp_wrapped(qp);
    if (UNLIKELY(sanitizers_watch) && error == 0 && mask & IBV_QP_STATE && attributes->qp_state == IBV_QPS_RTR)
        sanitizers_connected((struct device_queue){.fd = qp->context->cmd_fd, .number = qp->qp_num},
                             mask & IBV_QP_DEST_QPN ? attributes->dest_qp_num : 0);
    if (UNLIKELY(requests_are_noted) && error == 0 && mask & IBV_QP_STATE && attributes->qp_state == IBV_QPS_RESET) {
        const uint32_t slots = slots_of(qp);
        forget_queues(qp->context->cmd_fd, qp->qp_num);
        if (slots != 0)
            slots_set(qp, slots);
        outstanding_shares(qp);
        locks_reset(SENDS_OF(qp));
        locks_reset(RECEIVES_OF(qp));
    }
    return error;
}

/* ---- regions, whose unmapping is reported (shim/check/unmaps.c) ---- */

/* With one of these, peers may access the region, perhaps by a window. */
#define REMOTE (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND)

/* `iova`: what requests call the address `mr->addr`. */
static struct ibv_mr *registered(struct ibv_mr *mr, uint64_t iova, unsigned access)
{
    if (LIKELY(!requests_are_noted) || !mr || fd_kind(mr->context->cmd_fd) != FD_CONTEXT)
        return mr;
    unmaps_registered(mr, iova);
    if (sanitizers_watch && access & REMOTE)
        peers_watch();
    return mr;
}

struct ibv_mr *around_ibv_reg_mr(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, int), struct ibv_pd *pd,
                                 void *address, size_t length, int access)
{
    return registered(original(pd, address, length, access), (uintptr_t)address, (unsigned)access);
}

struct ibv_mr *around_ibv_reg_mr_iova(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t, int),
                                      struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access)
{
    return registered(original(pd, address, length, iova, access), iova, (unsigned)access);
}

struct ibv_mr *around_ibv_reg_mr_iova2(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t,
                                                                  unsigned int),
                                       struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
                                       unsigned int access)
{
    return registered(original(pd, address, length, iova, access), iova, (unsigned)access);
}

int around_ibv_rereg_mr(int (*original)(struct ibv_mr *, int, struct ibv_pd *, void *, size_t, int),
                        struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *address, size_t length, int access)
{
    const int error = original(mr, flags, pd, address, length, access);
    if (error == 0)
        registered(mr, (uintptr_t)mr->addr, (unsigned)access);
    return error;
}

int around_ibv_dereg_mr(int (*original)(struct ibv_mr *), struct ibv_mr *mr)
{
    const int error = original(mr);
    /* Only the address of `mr` is used. */
    if (UNLIKELY(userdma_registered != 0) && error == 0)
        unmaps_deregistered(mr);
    return error;
}

struct ibv_comp_channel *around_ibv_create_comp_channel(struct ibv_comp_channel *(*original)(struct ibv_context *),
                                                        struct ibv_context *context)
{
    return original(context);
}

int around_ibv_destroy_srq(int (*original)(struct ibv_srq *), struct ibv_srq *srq)
{
    if (LIKELY(!requests_are_noted) || !srq)
        return original(srq);
    const int fd = srq->context->cmd_fd;
    const uint32_t handle = srq->handle;
    const int error = original(srq);
    if (error == 0)
        outstanding_forget(fd, USERDMA_POST_SHARED, handle);
    return error;
}
