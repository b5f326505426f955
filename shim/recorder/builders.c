/*
 * ibv_wr_*: the functions of an extended queue pair, by which the program builds batches, wrapped (slots.h). batches.c
 * reports their misuse; verbs.h says what each library does around the provider's functions and what it notes.
 */
#define _GNU_SOURCE
#include "batches.h"
#include "locks.h"
#include "objects.h"
#include "orders.h"
#include "verbs.h"
#include "wrapped.h"

#include <errno.h>
#include <stdlib.h>

/* Without a lock: the queue pair whose batch this thread builds, and the number of requests in it. */
static TLS const struct ibv_qp_ex *batch_qp;
static TLS uint32_t batch_requests;

uint32_t batch_size(const struct ibv_qp_ex *qp)
{
    const struct queue_lock *lock = locks_held(SENDS_OF(qp));
    if (LIKELY(lock != NULL))
        return locks_counted(lock);
    return batch_qp == qp ? batch_requests : 0;
}

static void built(struct ibv_qp_ex *qp, int opcode, uint32_t rkey, uint64_t address, uint32_t immediate, void *caller)
{
    struct queue_lock *const lock = locks_held(SENDS_OF(qp));
    if (recorder_is_on)
        batches_added(qp, opcode, caller);
    note_built(qp, opcode, rkey, address, immediate, lock != NULL);
    if (LIKELY(lock != NULL))
        locks_count(lock);
    if (batch_qp == qp)
        batch_requests++;
    else
        batch_qp = NULL; /* this thread builds batches of two queue pairs: their sizes are unknown */
}

/*
 * NAME_missing, instead of NULL if the queue pair lacks the function: reports the call, and crashes, as the program
 * does without userdma. `opcode`: of a function that adds a request, else -1.
 */
#define MISSING_(name, call, opcode, type, parameters, arguments)                                                      \
    static void name##_missing parameters                                                                              \
    {                                                                                                                  \
        name##_function *volatile none = NULL;                                                                         \
        batches_missing(qp, call, opcode);                                                                             \
        none arguments;                                                                                                \
    }
#define MISSING(name, call, opcode) TYPED(MISSING_, name, call, opcode, FUNCTION_##name)

/* The functions that add a request: its opcode, key, remote address and immediate data. */
#define BUILDERS(X)                                                                                                    \
    X(wr_atomic_cmp_swp, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, address, 0)                                                  \
    X(wr_atomic_fetch_add, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, address, 0)                                              \
    X(wr_local_inv, IBV_WR_LOCAL_INV, rkey, 0, 0)                                                                      \
    X(wr_rdma_read, IBV_WR_RDMA_READ, rkey, address, 0)                                                                \
    X(wr_rdma_write, IBV_WR_RDMA_WRITE, rkey, address, 0)                                                              \
    X(wr_rdma_write_imm, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, address, data)                                              \
    X(wr_send, IBV_WR_SEND, 0, 0, 0)                                                                                   \
    X(wr_send_imm, IBV_WR_SEND_WITH_IMM, 0, 0, data)                                                                   \
    X(wr_send_inv, IBV_WR_SEND_WITH_INV, rkey, 0, 0)                                                                   \
    X(wr_send_tso, IBV_WR_TSO, 0, 0, 0)
#define NEWER_BUILDERS(X)                                                                                              \
    X(wr_atomic_write, OPCODE_ATOMIC_WRITE, rkey, address, 0)                                                          \
    X(wr_flush, OPCODE_FLUSH, rkey, address, 0)

#define BUILDER_(name, opcode, key, remote, immediate, type, parameters, arguments)                                    \
    static IN_WRAPPER void name(name##_function *original, EXPAND parameters)                                          \
    {                                                                                                                  \
        built(qp, opcode, key, remote, immediate, CALLER);                                                             \
        original arguments;                                                                                            \
    }
#define BUILDER(name, opcode, key, remote, immediate)                                                                  \
    FUNCTION_TYPE(name)                                                                                                \
    TYPED(BUILDER_, name, opcode, key, remote, immediate, FUNCTION_##name)                                             \
    SLOTS_OF(name)
BUILDERS(BUILDER)
NEWER_BUILDERS(BUILDER)

FUNCTION_TYPE(wr_bind_mw)
static IN_WRAPPER void wr_bind_mw(wr_bind_mw_function *original, struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey,
                                  const struct ibv_mw_bind_info *info)
{
    if (UNLIKELY(requests_are_noted))
        built(qp, IBV_WR_BIND_MW, rkey, 0, 0, CALLER);
    original(qp, mw, rkey, info);
    provider_bind_built(qp, mw, rkey);
}
SLOTS_OF(wr_bind_mw)

#define MISSING_BUILDER(name, opcode, key, remote, immediate) MISSING(name, USERDMA_BATCH_CALL_ADD, opcode)
BUILDERS(MISSING_BUILDER)
MISSING(wr_bind_mw, USERDMA_BATCH_CALL_ADD, IBV_WR_BIND_MW)

FUNCTION_TYPE(wr_set_sge)
static void wr_set_sge(wr_set_sge_function *original, struct ibv_qp_ex *qp, uint32_t lkey, uint64_t address,
                       uint32_t length)
{
    const struct ibv_sge element = {.addr = address, .length = length, .lkey = lkey};
    if (recorder_is_on)
        batches_set(qp, USERDMA_BATCH_CALL_SET_SGE, 1, 0);
    note_elements(qp, &element, 1, FRAME, false);
    original(qp, lkey, address, length);
}
SLOTS_OF(wr_set_sge)

FUNCTION_TYPE(wr_set_sge_list)
static void wr_set_sge_list(wr_set_sge_list_function *original, struct ibv_qp_ex *qp, size_t count,
                            const struct ibv_sge *list)
{
    if (recorder_is_on)
        batches_set(qp, USERDMA_BATCH_CALL_SET_SGE_LIST, (uint32_t)count, 0);
    note_elements(qp, list, count, FRAME, true);
    original(qp, count, list);
}
SLOTS_OF(wr_set_sge_list)

FUNCTION_TYPE(wr_set_ud_addr)
static void wr_set_ud_addr(wr_set_ud_addr_function *original, struct ibv_qp_ex *qp, struct ibv_ah *ah, uint32_t qpn,
                           uint32_t qkey)
{
    if (UNLIKELY(recorder_is_on) && object_is_garbage("ibv_wr_set_ud_addr", USERDMA_OBJECT_AH, ah))
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
    if (recorder_is_on)
        batches_starting(qp);
    PROMISES_ENTER(SENDS_OF(qp), USERDMA_ORDER_CALL_WR_START);
    /* Until ibv_wr_complete or ibv_wr_abort. */
    locks_enter(SENDS_OF(qp));
    original(qp);
    if (recorder_is_on)
        batches_started(qp, CALLER);
}
SLOTS_OF(wr_start)

/* ibv_wr_complete of this thread refuses the batch. */
static TLS bool is_completing;

FUNCTION_TYPE(wr_abort)
static void wr_abort(wr_abort_function *original, struct ibv_qp_ex *qp)
{
    /* ibv_wr_complete notes itself what it has refused. */
    if (!is_completing) {
        if (recorder_is_on)
            batches_ending(qp, USERDMA_BATCH_CALL_ABORT);
        note_aborted(qp);
    }
    if (batch_qp == qp)
        batch_qp = NULL;
    original(qp);
    if (!is_completing)
        locks_leave_any(SENDS_OF(qp));
    PROMISES_LEAVE(SENDS_OF(qp));
}
SLOTS_OF(wr_abort)

FUNCTION_TYPE(wr_complete)
static int wr_complete(wr_complete_function *original, struct ibv_qp_ex *qp)
{
    const struct ibv_qp *base = &qp->qp_base;
    struct batch_sizes sizes = {0};
    uint32_t count = 0, stack = 0;
    if (UNLIKELY(requests_are_noted)) {
        if (recorder_is_on)
            sizes = batches_ending(qp, USERDMA_BATCH_CALL_COMPLETE);
        count = batch_size(qp);
        stack = note_batch(qp, FRAME, locks_held(SENDS_OF(qp)) != NULL);
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
    if (UNLIKELY(requests_are_noted) && error != 0) {
        /* Of the last request only the wr_id is known, of all the largest sizes. */
        struct userdma_refused_post refused = {.wr_id = qp->wr_id,
                                               .queue = USERDMA_POST_SEND,
                                               .number = base->qp_num,
                                               .opcode = USERDMA_UNKNOWN_OPCODE,
                                               .error = (uint32_t)abs(error),
                                               .state = base->state,
                                               .elements = sizes.elements};
        if (sizes.inline_bytes > 0) {
            refused.flags = IBV_SEND_INLINE;
            refused.length = sizes.inline_bytes;
        }
        note_refused(base->context->cmd_fd, &refused, count, stack);
        locks_leave_any(SENDS_OF(qp));
        if (recorder_is_on)
            tell_refused(base->context->cmd_fd, &refused, stack);
    } else if (UNLIKELY(requests_are_noted)) {
        locks_leave_any(SENDS_OF(qp));
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
    if (LIKELY(!requests_are_noted))
        return;
#define WRAP_OR_TELL(name)                                                                                             \
    if (!qp->name && recorder_is_on)                                                                                   \
        qp->name = name##_missing;                                                                                     \
    else if (qp->name != name##_missing)                                                                               \
        WRAP(qp->name, name);
#define WRAP_BUILDER(name, opcode, key, remote, immediate) WRAP_OR_TELL(name)
    BUILDERS(WRAP_BUILDER)
    if (!qp->wr_bind_mw && recorder_is_on)
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
    if (!recorder_is_on)
        return;
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

/* ---- destroyed queue pairs ---- */

static void gone_wr_start(struct ibv_qp_ex *qp)
{
    object_is_gone("ibv_wr_start", USERDMA_OBJECT_QP, qp);
}

static int gone_wr_complete(struct ibv_qp_ex *qp)
{
    object_is_gone("ibv_wr_complete", USERDMA_OBJECT_QP, qp);
    return EINVAL;
}

void builders_gone(struct ibv_qp_ex *qp, size_t bytes)
{
    /* A queue pair that is no extended one may have memory for the functions, but not our wrappers in it. */
    if (bytes < sizeof *qp || !IS_WRAPPED(qp->wr_start, wr_start))
        return;
    void **const last = (void **)&qp->wr_abort;
    for (void **function = (void **)&qp->wr_atomic_cmp_swp; function <= last; function++)
        *function = (void *)verbs_gone_nothing;
    struct newer_ops *newer = (struct newer_ops *)(&qp->wr_abort + 1);
    if (bytes >= sizeof *qp + sizeof *newer) {
        if (IS_WRAPPED(newer->wr_atomic_write, wr_atomic_write))
            newer->wr_atomic_write = (__typeof__(newer->wr_atomic_write))(void *)verbs_gone_nothing;
        if (IS_WRAPPED(newer->wr_flush, wr_flush))
            newer->wr_flush = (__typeof__(newer->wr_flush))(void *)verbs_gone_nothing;
    }
    qp->wr_start = gone_wr_start;
    qp->wr_complete = gone_wr_complete;
}
