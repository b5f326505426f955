/*
 * Posts and polls of the program: the functions of providers in the public tables of libibverbs' objects, wrapped. A
 * context's table: when the provider has filled it (verbs_set_ops), or when the program gets the context. An extended
 * CQ or QP: when it is created. verbs.h says what each library does around the provider's functions and what it notes.
 *
 * libibverbs is not linked: the program has it, or loads it later.
 */
#define _GNU_SOURCE
#include "objects.h"
#include "refusals.h"
#include "verbs.h"

#include "batches.h"
#include "polls.h"

#include <errno.h>
#include <stdlib.h>

bool recorder_is_on;
bool verbs_tells_completions;

/* The stack pointer at the call of the current function. The program's frames at lower addresses have returned. */
#define FRAME ((uintptr_t)__builtin_dwarf_cfa())

/* Whether a function of an object is one of its wrappers. */
#define IS_WRAPPED(function, name)                                                                                     \
    ({                                                                                                                 \
        bool is_wrapped = false;                                                                                       \
        for (int slot = 0; slot < SLOTS; slot++)                                                                       \
            is_wrapped |= (function) == name##_wrapper[slot];                                                          \
        is_wrapped;                                                                                                    \
    })

/* ---- polls ---- */

FUNCTION_TYPE(poll_cq)
static int poll_cq(poll_cq_function *original, struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
    if (UNLIKELY(recorder_is_on)) {
        /* Not an error: ibv_destroy_cq may wait for this thread to acknowledge an event. */
        if (IS_BEING_DESTROYED(cq))
            return 0;
        if (IS_GONE("ibv_poll_cq", USERDMA_OBJECT_CQ, cq))
            return -1;
        if (entries > 0 && object_lacks_argument("ibv_poll_cq", 3, wc))
            return -1;
        calls_note("ibv_poll_cq");
        note_polling(cq, FRAME);
        if (entries > 1)
            entries = note_array(cq, entries, wc, FRAME);
        polls_locking(cq, USERDMA_ORDER_CALL_POLL_CQ);
        PROMISES_ENTER(cq, USERDMA_ORDER_CALL_POLL_CQ);
    }
    int found = original(cq, entries, wc);
    if (UNLIKELY(recorder_is_on))
        PROMISES_LEAVE(cq);
    if (UNLIKELY(found == 0) && provider_has_ended(cq->context)) {
        /* A last poll, for completions that the device wrote before it ended. */
        found = original(cq, entries, wc);
        if (found == 0) {
            errno = EIO;
            return -1;
        }
    }
    if (UNLIKELY(verbs_tells_completions) && found > 0)
        provider_completed();
    if (UNLIKELY(recorder_is_on) && found > 0)
        note_completions(cq, wc, (uint32_t)found);
    return found;
}
SLOTS_OF(poll_cq)

/* Returns `result`, of a poll of an extended CQ. */
static int completed(struct ibv_cq_ex *cq, int result)
{
    if (UNLIKELY(verbs_tells_completions) && result == 0)
        provider_completed();
    if (UNLIKELY(recorder_is_on) && result == 0) {
        polls_are_recorded = true;
        note_completion(cq);
        polls_are_recorded = false;
    }
    return result;
}

FUNCTION_TYPE(start_poll)
static IN_WRAPPER int start_poll(start_poll_function *original, struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attributes)
{
    if (UNLIKELY(recorder_is_on)) {
        if (IS_BEING_DESTROYED(cq))
            return ENOENT;
        if (IS_GONE("ibv_start_poll", USERDMA_OBJECT_CQ, cq))
            return EINVAL;
        if (object_lacks_argument("ibv_start_poll", 2, attributes))
            return EINVAL;
        calls_note("ibv_start_poll");
        note_polling(ibv_cq_ex_to_cq(cq), FRAME);
        polls_starting(cq);
        PROMISES_ENTER(cq, USERDMA_ORDER_CALL_START_POLL);
    }
    int result = original(cq, attributes);
    if (UNLIKELY(result == ENOENT) && provider_has_ended(cq->context)) {
        result = original(cq, attributes);
        if (result == ENOENT)
            result = EIO;
    }
    if (UNLIKELY(recorder_is_on)) {
        polls_started(cq, result == 0, CALLER);
        /* The poll is a call until its end. */
        if (result != 0)
            PROMISES_LEAVE(cq);
    }
    return completed(cq, result);
}
SLOTS_OF(start_poll)

FUNCTION_TYPE(next_poll)
static int next_poll(next_poll_function *original, struct ibv_cq_ex *cq)
{
    if (LIKELY(!recorder_is_on))
        return completed(cq, original(cq));
    polls_advancing(cq);
    const int result = original(cq);
    polls_advanced(cq, result == 0);
    return completed(cq, result);
}
SLOTS_OF(next_poll)

FUNCTION_TYPE(end_poll)
static void end_poll(end_poll_function *original, struct ibv_cq_ex *cq)
{
    polls_ending(cq);
    original(cq);
    PROMISES_LEAVE(cq);
    note_poll_end(cq);
}
SLOTS_OF(end_poll)

void verbs_wrap_cq(struct ibv_cq_ex *cq)
{
    WRAP(cq->start_poll, start_poll);
    if (recorder_is_on || verbs_tells_completions)
        WRAP(cq->next_poll, next_poll);
    if (recorder_is_on)
        WRAP(cq->end_poll, end_poll);
}

/* What the program has asked for, and what it has promised. */
static void watch_cq(struct ibv_cq_ex *cq, const struct ibv_cq_init_attr_ex *wanted)
{
    const bool is_single =
        wanted->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS && wanted->flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
    const bool by_domain = wanted->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD && promises_is_domain(wanted->parent_domain);
    polls_created(cq, wanted->wc_flags, is_single || by_domain);
    reads_wrap(cq);
    if (is_single || by_domain)
        promises_cq(ibv_cq_ex_to_cq(cq), !is_single);
}

/*
 * Creates an extended CQ by `create`, an expression with `attributes`, which it may replace, and wraps it. The number
 * of the queue pair tells whose completion it is: it is asked for, unless the provider has none.
 */
#define CREATE_CQ(name, create)                                                                                        \
    do {                                                                                                               \
        struct ibv_cq_ex *cq = NULL;                                                                                   \
        struct object_call call;                                                                                       \
        const struct ibv_cq_init_attr_ex *wanted = attributes;                                                         \
        struct ibv_cq_init_attr_ex with_qp_num;                                                                        \
        if (UNLIKELY(recorder_is_on)) {                                                                                \
            const struct object_use uses[] = {{USERDMA_OBJECT_CONTEXT, context},                                       \
                                              {USERDMA_OBJECT_CHANNEL, attributes->channel}};                          \
            if (!object_enter(&call, name, OBJECT_CREATED, uses, 2)) {                                                 \
                errno = EINVAL;                                                                                        \
                return NULL;                                                                                           \
            }                                                                                                          \
        }                                                                                                              \
        if (UNLIKELY(recorder_is_on) && !(wanted->wc_flags & IBV_WC_EX_WITH_QP_NUM)) {                                 \
            with_qp_num = *wanted;                                                                                     \
            with_qp_num.wc_flags |= IBV_WC_EX_WITH_QP_NUM;                                                             \
            attributes = &with_qp_num;                                                                                 \
            cq = (create);                                                                                             \
            attributes = (struct ibv_cq_init_attr_ex *)wanted;                                                         \
        }                                                                                                              \
        if (!cq)                                                                                                       \
            cq = (create);                                                                                             \
        if (cq)                                                                                                        \
            verbs_wrap_cq(cq);                                                                                         \
        if (UNLIKELY(recorder_is_on) && cq)                                                                            \
            watch_cq(cq, wanted);                                                                                      \
        if (UNLIKELY(recorder_is_on))                                                                                  \
            OBJECT_LEAVE(&call, cq ? 0 : errno, wanted->wc_flags, wanted->comp_mask,                                   \
                         PRESENT(wanted, IBV_CQ_INIT_ATTR_MASK_FLAGS, flags));                                         \
        return cq;                                                                                                     \
    } while (0)

FUNCTION_TYPE(create_cq_ex)
static struct ibv_cq_ex *create_cq_ex(create_cq_ex_function *original, struct ibv_context *context,
                                      struct ibv_cq_init_attr_ex *attributes)
{
    CREATE_CQ("ibv_create_cq_ex", original(context, attributes));
}
SLOTS_OF(create_cq_ex)

struct ibv_cq_ex *verbs_create_own_cq(const char *name, create_own_cq_function *original, struct ibv_context *context,
                                      struct ibv_cq_init_attr_ex *attributes, void *own, uint32_t bytes)
{
    CREATE_CQ(name, original(context, attributes, own, bytes));
}

static int req_notify_cq(req_notify_cq_function *original, struct ibv_cq *cq, int solicited)
{
    if (IS_GONE("ibv_req_notify_cq", USERDMA_OBJECT_CQ, cq))
        return EINVAL;
    return provider_req_notify_cq(original, cq, solicited);
}
SLOTS_OF(req_notify_cq)

/* ---- posts ---- */

/* The sends from `first` on were refused. */
static void sends_refused(const struct ibv_qp *qp, const struct ibv_send_wr *first, int error)
{
    struct userdma_refused refused = {
        .queue = USERDMA_POST_SEND, .number = qp->qp_num, .error = (uint32_t)abs(error), .state = qp->state};
    if (first) {
        refused.wr_id = first->wr_id;
        refused.opcode = first->opcode;
        refused.flags = first->send_flags;
        refused.elements = (uint32_t)first->num_sge;
        /* With more elements the length stays unknown: `num_sge` may be wrong, and further elements may not exist. */
        if (first->num_sge == 1)
            refused.length = first->sg_list->length;
        if (first->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || first->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
            refused.address_low = (uint32_t)first->wr.atomic.remote_addr;
    }
    note_refused(qp->context->cmd_fd, &refused, LENGTH(first));
}

/* Whether the queue pair, or the address handle of a request, is gone. Then no request is posted. */
static bool is_send_to_gone(struct ibv_qp *qp, const struct ibv_send_wr *list)
{
    if (IS_GONE("ibv_post_send", USERDMA_OBJECT_QP, qp))
        return true;
    if (UNLIKELY(qp->qp_type == IBV_QPT_UD))
        for (; list; list = list->next)
            if (IS_GONE("ibv_post_send", USERDMA_OBJECT_AH, list->wr.ud.ah))
                return true;
    return false;
}

/* Refuses all requests of a list. */
#define REFUSE(list, bad)                                                                                              \
    do {                                                                                                               \
        if (bad)                                                                                                       \
            *(bad) = (list);                                                                                           \
        return EINVAL;                                                                                                 \
    } while (0)

static int post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                     struct ibv_send_wr **bad)
{
    if (LIKELY(!recorder_is_on))
        return provider_post_send(original, qp, list, bad);
    if (UNLIKELY(__atomic_load_n(&objects_gone, __ATOMIC_RELAXED) != 0) && is_send_to_gone(qp, list))
        REFUSE(list, bad);
    calls_note("ibv_post_send");
    batches_posting(qp);
    note_sends(qp, list, FRAME);
    PROMISES_ENTER(SENDS_OF(qp), USERDMA_ORDER_CALL_POST_SEND);
    const int error = provider_post_send(original, qp, list, bad);
    PROMISES_LEAVE(SENDS_OF(qp));
    /* The provider sets `*bad` to NULL if it has no queue, and refuses all requests without `bad`. */
    if (UNLIKELY(error != 0))
        sends_refused(qp, bad && *bad ? *bad : list, error);
    return error;
}
SLOTS_OF(post_send)

/* The receives from `first` on were refused. `state`: of the queue pair; an SRQ has none: 0. */
static void receives_refused(int fd, uint32_t queue, uint32_t number, uint32_t state, const struct ibv_recv_wr *first,
                             int error)
{
    struct userdma_refused refused = {
        .queue = queue, .number = number, .error = (uint32_t)abs(error), .state = state};
    if (first) {
        refused.wr_id = first->wr_id;
        refused.elements = (uint32_t)first->num_sge;
    }
    note_refused(fd, &refused, LENGTH(first));
}

static int post_recv(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                     struct ibv_recv_wr **bad)
{
    if (LIKELY(!recorder_is_on))
        return provider_post_recv(original, qp, list, bad);
    if (IS_GONE("ibv_post_recv", USERDMA_OBJECT_QP, qp))
        REFUSE(list, bad);
    const int fd = qp->context->cmd_fd;
    calls_note("ibv_post_recv");
    note_receives(fd, USERDMA_POST_RECEIVE, qp->qp_num, list, FRAME);
    PROMISES_ENTER(RECEIVES_OF(qp), USERDMA_ORDER_CALL_POST_RECV);
    const int error = provider_post_recv(original, qp, list, bad);
    PROMISES_LEAVE(RECEIVES_OF(qp));
    if (UNLIKELY(error != 0))
        receives_refused(fd, USERDMA_POST_RECEIVE, qp->qp_num, qp->state, bad && *bad ? *bad : list, error);
    return error;
}
SLOTS_OF(post_recv)

static int post_srq_recv(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                         struct ibv_recv_wr **bad)
{
    if (LIKELY(!recorder_is_on))
        return provider_post_srq_recv(original, srq, list, bad);
    if (IS_GONE("ibv_post_srq_recv", USERDMA_OBJECT_SRQ, srq))
        REFUSE(list, bad);
    const int fd = srq->context->cmd_fd;
    note_receives(fd, USERDMA_POST_SHARED, srq->handle, list, FRAME);
    const int error = provider_post_srq_recv(original, srq, list, bad);
    if (UNLIKELY(error != 0))
        receives_refused(fd, USERDMA_POST_SHARED, srq->handle, 0, bad && *bad ? *bad : list, error);
    return error;
}
SLOTS_OF(post_srq_recv)

/* ibv_bind_mw: the provider posts the request itself, without ops.post_send. */
FUNCTION_TYPE(bind_mw)
static int bind_mw(bind_mw_function *original, struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    const struct ibv_send_wr posted = {.wr_id = bind->wr_id, .opcode = IBV_WR_BIND_MW, .send_flags = bind->send_flags};
    if (UNLIKELY(recorder_is_on)) {
        if (IS_GONE("ibv_bind_mw", USERDMA_OBJECT_QP, qp) || IS_GONE("ibv_bind_mw", USERDMA_OBJECT_MW, mw) ||
            IS_GONE("ibv_bind_mw", USERDMA_OBJECT_MR, bind->bind_info.mr))
            return EINVAL;
        note_sends(qp, &posted, FRAME);
    }
    const int refusal = provider_refusal(qp, bind->wr_id, IBV_WR_BIND_MW);
    const int error = refusal != 0 ? refusal : original(qp, mw, bind);
    if (UNLIKELY(recorder_is_on) && error != 0)
        sends_refused(qp, &posted, error);
    return error;
}
SLOTS_OF(bind_mw)

/* ---- batches of ibv_wr_* ---- */

/* The queue pair whose batch this thread builds, and the number of requests in it. */
static TLS const struct ibv_qp_ex *batch_qp;
static TLS uint32_t batch_requests;

uint32_t batch_size(const struct ibv_qp_ex *qp)
{
    return batch_qp == qp ? batch_requests : 0;
}

static void built(struct ibv_qp_ex *qp, int opcode, uint32_t rkey, uint64_t address, void *caller)
{
    batches_added(qp, opcode, caller);
    note_built(qp, opcode, rkey, address);
    if (batch_qp == qp)
        batch_requests++;
    else
        batch_qp = NULL; /* this thread builds batches of two queue pairs: their sizes are unknown */
}

/*
 * NAME_missing, instead of NULL if the queue pair lacks the function: reports the call, and crashes, as the program does
 * without userdma. `opcode`: of a function that adds a request, else -1.
 */
#define MISSING_(name, call, opcode, type, parameters, arguments)                                                      \
    static void name##_missing parameters                                                                              \
    {                                                                                                                  \
        name##_function *volatile none = NULL;                                                                         \
        batches_missing(qp, call, opcode);                                                                             \
        none arguments;                                                                                                \
    }
#define MISSING(name, call, opcode) TYPED(MISSING_, name, call, opcode, FUNCTION_##name)

/* The functions that add a request: its opcode, key and remote address. */
#define BUILDERS(X)                                                                                                    \
    X(wr_atomic_cmp_swp, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, address)                                                     \
    X(wr_atomic_fetch_add, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, address)                                                 \
    X(wr_local_inv, IBV_WR_LOCAL_INV, rkey, 0)                                                                         \
    X(wr_rdma_read, IBV_WR_RDMA_READ, rkey, address)                                                                   \
    X(wr_rdma_write, IBV_WR_RDMA_WRITE, rkey, address)                                                                 \
    X(wr_rdma_write_imm, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, address)                                                    \
    X(wr_send, IBV_WR_SEND, 0, 0)                                                                                      \
    X(wr_send_imm, IBV_WR_SEND_WITH_IMM, 0, 0)                                                                         \
    X(wr_send_inv, IBV_WR_SEND_WITH_INV, rkey, 0)                                                                      \
    X(wr_send_tso, IBV_WR_TSO, 0, 0)
#define NEWER_BUILDERS(X)                                                                                              \
    X(wr_atomic_write, OPCODE_ATOMIC_WRITE, rkey, address)                                                             \
    X(wr_flush, OPCODE_FLUSH, rkey, address)

#define BUILDER_(name, opcode, key, remote, type, parameters, arguments)                                               \
    static IN_WRAPPER void name(name##_function *original, EXPAND parameters)                                          \
    {                                                                                                                  \
        built(qp, opcode, key, remote, CALLER);                                                                        \
        original arguments;                                                                                            \
    }
#define BUILDER(name, opcode, key, remote)                                                                             \
    FUNCTION_TYPE(name)                                                                                                \
    TYPED(BUILDER_, name, opcode, key, remote, FUNCTION_##name)                                                        \
    SLOTS_OF(name)
BUILDERS(BUILDER)
NEWER_BUILDERS(BUILDER)

FUNCTION_TYPE(wr_bind_mw)
static IN_WRAPPER void wr_bind_mw(wr_bind_mw_function *original, struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey,
                                  const struct ibv_mw_bind_info *info)
{
    if (UNLIKELY(recorder_is_on))
        built(qp, IBV_WR_BIND_MW, rkey, 0, CALLER);
    original(qp, mw, rkey, info);
    provider_bind_built(qp, mw, rkey);
}
SLOTS_OF(wr_bind_mw)

#define MISSING_BUILDER(name, opcode, key, remote) MISSING(name, USERDMA_BATCH_CALL_ADD, opcode)
BUILDERS(MISSING_BUILDER)
MISSING(wr_bind_mw, USERDMA_BATCH_CALL_ADD, IBV_WR_BIND_MW)

FUNCTION_TYPE(wr_set_sge)
static void wr_set_sge(wr_set_sge_function *original, struct ibv_qp_ex *qp, uint32_t lkey, uint64_t address,
                       uint32_t length)
{
    const struct ibv_sge element = {.addr = address, .length = length, .lkey = lkey};
    batches_set(qp, USERDMA_BATCH_CALL_SET_SGE, 1, 0);
    note_elements(qp, &element, 1, FRAME);
    original(qp, lkey, address, length);
}
SLOTS_OF(wr_set_sge)

FUNCTION_TYPE(wr_set_sge_list)
static void wr_set_sge_list(wr_set_sge_list_function *original, struct ibv_qp_ex *qp, size_t count,
                            const struct ibv_sge *list)
{
    batches_set(qp, USERDMA_BATCH_CALL_SET_SGE_LIST, (uint32_t)count, 0);
    note_elements(qp, list, count, FRAME);
    original(qp, count, list);
}
SLOTS_OF(wr_set_sge_list)

FUNCTION_TYPE(wr_set_ud_addr)
static void wr_set_ud_addr(wr_set_ud_addr_function *original, struct ibv_qp_ex *qp, struct ibv_ah *ah, uint32_t qpn,
                           uint32_t qkey)
{
    if (IS_GONE("ibv_wr_set_ud_addr", USERDMA_OBJECT_AH, ah))
        return;
    batches_set(qp, USERDMA_BATCH_CALL_SET_UD_ADDR, 0, 0);
    note_destination(qp, qpn, qkey);
    original(qp, ah, qpn, qkey);
}
SLOTS_OF(wr_set_ud_addr)

FUNCTION_TYPE(wr_set_inline_data)
static void wr_set_inline_data(wr_set_inline_data_function *original, struct ibv_qp_ex *qp, void *address,
                               size_t length)
{
    batches_set(qp, USERDMA_BATCH_CALL_SET_INLINE_DATA, 0, length);
    original(qp, address, length);
}
SLOTS_OF(wr_set_inline_data)

FUNCTION_TYPE(wr_set_inline_data_list)
static void wr_set_inline_data_list(wr_set_inline_data_list_function *original, struct ibv_qp_ex *qp, size_t count,
                                    const struct ibv_data_buf *list)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += list[i].length;
    batches_set(qp, USERDMA_BATCH_CALL_SET_INLINE_DATA_LIST, 0, bytes);
    original(qp, count, list);
}
SLOTS_OF(wr_set_inline_data_list)

FUNCTION_TYPE(wr_set_xrc_srqn)
static void wr_set_xrc_srqn(wr_set_xrc_srqn_function *original, struct ibv_qp_ex *qp, uint32_t srqn)
{
    batches_set(qp, USERDMA_BATCH_CALL_SET_XRC_SRQN, 0, 0);
    original(qp, srqn);
}
SLOTS_OF(wr_set_xrc_srqn)

MISSING(wr_set_ud_addr, USERDMA_BATCH_CALL_SET_UD_ADDR, -1)
MISSING(wr_set_xrc_srqn, USERDMA_BATCH_CALL_SET_XRC_SRQN, -1)
MISSING(wr_set_inline_data, USERDMA_BATCH_CALL_SET_INLINE_DATA, -1)
MISSING(wr_set_inline_data_list, USERDMA_BATCH_CALL_SET_INLINE_DATA_LIST, -1)

/* Whether the provider has not set its functions again since they were wrapped. */
static bool is_complete_wrapped(const struct ibv_qp_ex *qp);

FUNCTION_TYPE(wr_start)
static IN_WRAPPER void wr_start(wr_start_function *original, struct ibv_qp_ex *qp)
{
    if (UNLIKELY(!is_complete_wrapped(qp)))
        verbs_keep_qp_wrapped(&qp->qp_base);
    batch_qp = qp;
    batch_requests = 0;
    batches_starting(qp);
    PROMISES_ENTER(SENDS_OF(qp), USERDMA_ORDER_CALL_WR_START);
    original(qp);
    batches_started(qp, CALLER);
}
SLOTS_OF(wr_start)

/* ibv_wr_complete of this thread refuses the batch. */
static TLS bool is_completing;

FUNCTION_TYPE(wr_abort)
static void wr_abort(wr_abort_function *original, struct ibv_qp_ex *qp)
{
    if (!is_completing)
        batches_ending(qp, USERDMA_BATCH_CALL_ABORT);
    note_aborted(qp);
    if (batch_qp == qp)
        batch_qp = NULL;
    original(qp);
    PROMISES_LEAVE(SENDS_OF(qp));
}
SLOTS_OF(wr_abort)

FUNCTION_TYPE(wr_complete)
static int wr_complete(wr_complete_function *original, struct ibv_qp_ex *qp)
{
    const struct ibv_qp *base = &qp->qp_base;
    struct batch_sizes sizes = {0};
    uint32_t count = 0;
    if (UNLIKELY(recorder_is_on)) {
        sizes = batches_ending(qp, USERDMA_BATCH_CALL_COMPLETE);
        count = batch_size(qp);
        note_batch(qp, FRAME);
        if (batch_qp == qp)
            batch_qp = NULL;
    }
    int error = provider_refusal(base, qp->wr_id, (int)USERDMA_UNKNOWN_OPCODE);
    if (LIKELY(error == 0)) {
        error = original(qp);
        if (UNLIKELY(recorder_is_on))
            PROMISES_LEAVE(SENDS_OF(qp));
    } else {
        is_completing = true;
        qp->wr_abort(qp);
        is_completing = false;
    }
    if (UNLIKELY(recorder_is_on) && error != 0) {
        /* Of the last request only the wr_id is known, of all the largest sizes. */
        struct userdma_refused refused = {.wr_id = qp->wr_id,
                                          .queue = USERDMA_POST_SEND,
                                          .number = base->qp_num,
                                          .error = (uint32_t)abs(error),
                                          .state = base->state,
                                          .elements = sizes.elements};
        if (sizes.inline_bytes > 0) {
            refused.flags = IBV_SEND_INLINE;
            refused.length = sizes.inline_bytes;
        }
        note_refused(base->context->cmd_fd, &refused, count);
    }
    return error;
}
SLOTS_OF(wr_complete)

static bool is_complete_wrapped(const struct ibv_qp_ex *qp)
{
    return IS_WRAPPED(qp->wr_complete, wr_complete);
}

static void wrap_functions(struct ibv_qp_ex *qp, uint64_t operations)
{
    WRAP(qp->wr_complete, wr_complete);
    if (qp->wr_bind_mw != wr_bind_mw_missing)
        WRAP(qp->wr_bind_mw, wr_bind_mw);
    if (LIKELY(!recorder_is_on))
        return;
#define WRAP_OR_TELL(name)                                                                                             \
    if (!qp->name)                                                                                                     \
        qp->name = name##_missing;                                                                                     \
    else if (qp->name != name##_missing)                                                                               \
        WRAP(qp->name, name);
#define WRAP_BUILDER(name, opcode, key, remote) WRAP_OR_TELL(name)
    BUILDERS(WRAP_BUILDER)
    if (!qp->wr_bind_mw)
        qp->wr_bind_mw = wr_bind_mw_missing;
    struct newer_ops *newer = (struct newer_ops *)(&qp->wr_abort + 1);
    if (operations & WITH_ATOMIC_WRITE)
        WRAP(newer->wr_atomic_write, wr_atomic_write);
    if (operations & WITH_FLUSH)
        WRAP(newer->wr_flush, wr_flush);
    WRAP(qp->wr_start, wr_start);
    WRAP(qp->wr_abort, wr_abort);
    WRAP(qp->wr_set_sge, wr_set_sge);
    WRAP(qp->wr_set_sge_list, wr_set_sge_list);
    WRAP_OR_TELL(wr_set_ud_addr)
    WRAP_OR_TELL(wr_set_xrc_srqn)
    WRAP_OR_TELL(wr_set_inline_data)
    WRAP_OR_TELL(wr_set_inline_data_list)
}

void verbs_wrap_qp(struct ibv_qp_ex *qp, uint64_t operations)
{
    if (recorder_is_on)
        batches_created(qp, operations);
    wrap_functions(qp, operations);
}

void verbs_keep_qp_wrapped(struct ibv_qp *qp)
{
    uint64_t operations = 0;
    if (recorder_is_on) {
        if (batches_operations(qp, &operations))
            wrap_functions((struct ibv_qp_ex *)qp, operations);
        return;
    }
    struct ibv_qp_ex *(*extended)(struct ibv_qp *) =
        qp->qp_type == IBV_QPT_XRC_RECV ? NULL : verbs_original("ibv_qp_to_qp_ex");
    struct ibv_qp_ex *own = extended ? extended(qp) : NULL;
    if (own)
        wrap_functions(own, operations);
}

/* ---- destroyed queue pairs and CQs with functions of their own ---- */

static void gone_nothing(void)
{
}

static void gone_wr_start(struct ibv_qp_ex *qp)
{
    object_is_gone("ibv_wr_start", USERDMA_OBJECT_QP, qp);
}

static int gone_wr_complete(struct ibv_qp_ex *qp)
{
    object_is_gone("ibv_wr_complete", USERDMA_OBJECT_QP, qp);
    return EINVAL;
}

static int gone_start_poll(struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attributes)
{
    (void)attributes;
    object_is_gone("ibv_start_poll", USERDMA_OBJECT_CQ, cq);
    return EINVAL;
}

static int gone_next_poll(struct ibv_cq_ex *cq)
{
    object_is_gone("ibv_next_poll", USERDMA_OBJECT_CQ, cq);
    return ENOENT;
}

static void qp_is_gone(struct ibv_qp_ex *qp, size_t bytes)
{
    /* A queue pair that is no extended one may have memory for the functions, but not our wrappers in it. */
    if (bytes < sizeof *qp || !IS_WRAPPED(qp->wr_start, wr_start))
        return;
    void **const last = (void **)&qp->wr_abort;
    for (void **function = (void **)&qp->wr_atomic_cmp_swp; function <= last; function++)
        *function = (void *)gone_nothing;
    struct newer_ops *newer = (struct newer_ops *)(&qp->wr_abort + 1);
    if (bytes >= sizeof *qp + sizeof *newer) {
        if (IS_WRAPPED(newer->wr_atomic_write, wr_atomic_write))
            newer->wr_atomic_write = (__typeof__(newer->wr_atomic_write))(void *)gone_nothing;
        if (IS_WRAPPED(newer->wr_flush, wr_flush))
            newer->wr_flush = (__typeof__(newer->wr_flush))(void *)gone_nothing;
    }
    qp->wr_start = gone_wr_start;
    qp->wr_complete = gone_wr_complete;
}

static void cq_is_gone(struct ibv_cq_ex *cq, size_t bytes)
{
    if (bytes < sizeof *cq || !IS_WRAPPED(cq->start_poll, start_poll))
        return;
    cq->start_poll = gone_start_poll;
    cq->next_poll = gone_next_poll;
    cq->end_poll = (__typeof__(cq->end_poll))(void *)gone_nothing;
}

void verbs_gone(uint32_t kind, void *object, size_t bytes)
{
    if (kind == USERDMA_OBJECT_QP)
        qp_is_gone(object, bytes);
    else if (kind == USERDMA_OBJECT_CQ)
        cq_is_gone(object, bytes);
}

/* ---- queue pairs ---- */

/* The object of a new queue pair if `mask` has `bit`. */
#define IF(mask, bit, object) ((mask) & (bit) ? (object) : NULL)

/* The program gets a queue pair in `pd`; NULL: in none. */
static void created_qp(struct ibv_qp *qp, uint32_t slots, const struct ibv_pd *pd)
{
    provider_created_qp(qp, slots);
    if (UNLIKELY(recorder_is_on) && promises_is_domain(pd))
        promises_qp(qp);
}

static struct ibv_qp *create_qp_ex(create_qp_ex_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes)
{
    struct object_call call;
    if (UNLIKELY(recorder_is_on)) {
        const struct object_use uses[] = {
            {USERDMA_OBJECT_CONTEXT, context},
            {USERDMA_OBJECT_PD, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_PD, attributes->pd)},
            {USERDMA_OBJECT_XRCD, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_XRCD, attributes->xrcd)},
            {USERDMA_OBJECT_CQ, attributes->send_cq},
            {USERDMA_OBJECT_CQ, attributes->recv_cq},
            {USERDMA_OBJECT_SRQ, attributes->srq},
        };
        if (!object_enter(&call, "ibv_create_qp_ex", OBJECT_CREATED, uses, sizeof uses / sizeof uses[0])) {
            errno = EINVAL;
            return NULL;
        }
    }
    struct ibv_qp *qp = provider_create_qp(original, context, attributes);
    if (qp)
        created_qp(qp, attributes->cap.max_send_wr, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_PD, attributes->pd));
    /* An XRC target is no extended queue pair. */
    if (qp && attributes->qp_type != IBV_QPT_XRC_RECV && attributes->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        verbs_wrap_qp((struct ibv_qp_ex *)qp, attributes->send_ops_flags);
    if (UNLIKELY(recorder_is_on))
        OBJECT_LEAVE(&call, qp ? 0 : errno, attributes->qp_type, attributes->comp_mask,
                     PRESENT(attributes, IBV_QP_INIT_ATTR_CREATE_FLAGS, create_flags),
                     PRESENT(attributes, IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, send_ops_flags));
    return qp;
}
SLOTS_OF(create_qp_ex)

struct ibv_qp *verbs_create_own_qp(const char *name, create_own_qp_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes, void *own, uint32_t bytes)
{
    struct object_call call;
    if (UNLIKELY(recorder_is_on)) {
        const struct object_use uses[] = {
            {USERDMA_OBJECT_CONTEXT, context},
            {USERDMA_OBJECT_PD, PRESENT(attributes, IBV_QP_INIT_ATTR_PD, pd)},
            {USERDMA_OBJECT_CQ, attributes->send_cq},
            {USERDMA_OBJECT_CQ, attributes->recv_cq},
            {USERDMA_OBJECT_SRQ, attributes->srq},
        };
        if (!object_enter(&call, name, OBJECT_CREATED, uses, sizeof uses / sizeof uses[0])) {
            errno = EINVAL;
            return NULL;
        }
    }
    struct ibv_qp *qp = original(context, attributes, own, bytes);
    if (qp)
        created_qp(qp, attributes->cap.max_send_wr, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_PD, attributes->pd));
    if (qp && attributes->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        verbs_wrap_qp((struct ibv_qp_ex *)qp, attributes->send_ops_flags);
    if (UNLIKELY(recorder_is_on))
        OBJECT_LEAVE(&call, qp ? 0 : errno, attributes->qp_type, attributes->comp_mask);
    return qp;
}

/* ---- contexts ---- */

static void wrap_table(struct ibv_context *context)
{
    WRAP(context->ops.poll_cq, poll_cq);
    WRAP(context->ops.post_send, post_send);
    WRAP(context->ops.post_recv, post_recv);
    WRAP(context->ops.post_srq_recv, post_srq_recv);
    WRAP(context->ops.bind_mw, bind_mw);
    if (UNLIKELY(recorder_is_on)) {
        WRAP(context->ops.req_notify_cq, req_notify_cq);
        operations_wrap(context);
    }
    struct verbs_context *extended = verbs_get_ctx_op(context, create_cq_ex);
    if (extended)
        WRAP(extended->create_cq_ex, create_cq_ex);
    extended = verbs_get_ctx_op(context, create_qp_ex);
    if (extended)
        WRAP(extended->create_qp_ex, create_qp_ex);
}

static struct ibv_context *wrap(struct ibv_context *context, bool is_new)
{
    if (context && provider_wraps(context, is_new))
        wrap_table(context);
    return context;
}

void verbs_keep_wrapped(uint32_t kind, void *object, const void *context)
{
    struct ibv_context *own = (struct ibv_context *)(uintptr_t)context;
    if (kind == USERDMA_OBJECT_QP)
        verbs_keep_qp_wrapped(object);
    /* Contexts of other devices have none of our wrappers. */
    if (own && (IS_WRAPPED(own->ops.poll_cq, poll_cq) || IS_WRAPPED(own->ops.post_send, post_send) ||
                IS_WRAPPED(own->ops.post_recv, post_recv)))
        wrap_table(own);
}

/*
 * Also of a libibverbs that was loaded with RTLD_LOCAL. Some functions have an older version, for binaries of
 * libibverbs 1.0; before glibc 2.36, dlsym with RTLD_NEXT finds this one.
 */
void *verbs_original(const char *name)
{
    void *found = dlvsym(RTLD_NEXT, name, "IBVERBS_1.1");
    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (found)
        return found;
    void *library = NEXT(dlopen)("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return NULL;
    found = dlsym(library, name);
    NEXT(dlclose)(library);
    return found;
}

void *verbs_missing(void)
{
    errno = ENOSYS;
    return NULL;
}

struct ibv_context *around_ibv_open_device(struct ibv_context *(*original)(struct ibv_device *),
                                           struct ibv_device *device)
{
    return wrap(original(device), true);
}

struct ibv_context *around_ibv_import_device(struct ibv_context *(*original)(int), int fd)
{
    return wrap(original(fd), true);
}

struct ibv_qp *around_ibv_create_qp(struct ibv_qp *(*original)(struct ibv_pd *, struct ibv_qp_init_attr *),
                                    struct ibv_pd *pd, struct ibv_qp_init_attr *attributes)
{
    struct ibv_qp *qp = original(pd, attributes);
    if (qp)
        created_qp(qp, attributes->cap.max_send_wr, pd);
    return qp;
}

int around_ibv_resize_cq(int (*original)(struct ibv_cq *, int), struct ibv_cq *cq, int entries)
{
    if (UNLIKELY(recorder_is_on))
        polls_locking(cq, USERDMA_ORDER_CALL_RESIZE_CQ);
    return original(cq, entries);
}

/*
 * Fills a context's table for a provider, which may call it again. Wrapped for programs that find ibv_open_device by
 * dlsym in libibverbs.
 */
struct verbs_context_ops;
EXPORT void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations);
void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations)
{
    void (*original)(struct verbs_context *, const struct verbs_context_ops *) = verbs_original("verbs_set_ops");
    if (!original)
        return;
    original(context, operations);
    wrap(&context->context, false);
}
