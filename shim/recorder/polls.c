/*
 * Polls of the program and its extended CQs: the functions of providers, wrapped (slots.h) in a context's table and in
 * each extended CQ. verbs.h says what each library does around the provider's functions and what it notes.
 */
#define _GNU_SOURCE
#include "locks.h"
#include "objects.h"
#include "orders.h"
#include "refusals.h"
#include "verbs.h"
#include "wrapped.h"

#include <errno.h>

bool verbs_tells_completions;

/* A program without room for completions may poll for none, but not always. */
#define MANY_EMPTY 100

static void check_entries(int entries)
{
    static unsigned empty;
    static bool is_told;
    if (LIKELY(entries > 0)) {
        if (UNLIKELY(__atomic_load_n(&empty, __ATOMIC_RELAXED) != 0))
            __atomic_store_n(&empty, 0, __ATOMIC_RELAXED);
        return;
    }
    if (entries == 0 && __atomic_add_fetch(&empty, 1, __ATOMIC_RELAXED) < MANY_EMPTY)
        return;
    if (!__atomic_exchange_n(&is_told, true, __ATOMIC_RELAXED))
        object_tell_argument("ibv_poll_cq", 2, (uint64_t)(int64_t)entries);
}

FUNCTION_TYPE(poll_cq)

/* Polls, and notes what was found. */
static int poll_once(poll_cq_function *original, struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
    if (LIKELY(!requests_are_noted))
        return original(cq, entries, wc);
    struct queue_lock *const lock = locks_enter(cq);
    const int found = BY_PROVIDER(original(cq, entries, wc));
    if (found > 0)
        note_completions(cq, wc, (uint32_t)found);
    locks_leave(lock);
    return found;
}

static IN_WRAPPER int poll_cq(poll_cq_function *original, struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
    const int asked = entries;
    if (UNLIKELY(recorder_is_on)) {
        /* Not an error: ibv_destroy_cq may wait for this thread to acknowledge an event. */
        if (IS_BEING_DESTROYED(cq))
            return 0;
        if (IS_GONE("ibv_poll_cq", USERDMA_OBJECT_CQ, cq))
            return -1;
        if (entries > 0 && object_lacks_argument("ibv_poll_cq", 3, wc))
            return -1;
        check_entries(entries);
        calls_note("ibv_poll_cq");
        note_polling(cq, FRAME);
        if (entries > 1)
            entries = note_array(cq, entries, wc, FRAME);
        polls_locking(cq, USERDMA_ORDER_CALL_POLL_CQ);
        PROMISES_ENTER(cq, USERDMA_ORDER_CALL_POLL_CQ);
    }
    int found = poll_once(original, cq, entries, wc);
    if (UNLIKELY(recorder_is_on))
        PROMISES_LEAVE(cq);
    if (UNLIKELY(found == 0) && provider_has_ended(cq->context)) {
        /* A last poll, for completions that the device wrote before it ended. */
        found = poll_once(original, cq, entries, wc);
        if (found == 0) {
            errno = EIO;
            return -1;
        }
    }
    if (UNLIKELY(verbs_tells_completions) && found > 0)
        provider_completed();
    if (UNLIKELY(recorder_is_on) && found > 0)
        note_found((uint32_t)asked, (uint32_t)found, CALLER);
    return found;
}
SLOTS_OF(poll_cq)

/* Returns `result`, of a poll of an extended CQ */
static int completed(struct ibv_cq_ex *cq, int result)
{
    if (UNLIKELY(verbs_tells_completions) && result == 0)
        provider_completed();
    if (UNLIKELY(requests_are_noted) && result == 0) {
        polls_are_recorded = true;
        note_completion(cq);
        polls_are_recorded = false;
    }
    return result;
}

FUNCTION_TYPE(start_poll)

/* Starts a poll. If it has found a completion, the lock of the CQ is held until ibv_end_poll. */
static int start_once(start_poll_function *original, struct ibv_cq_ex *cq, struct ibv_poll_cq_attr *attributes)
{
    if (LIKELY(!requests_are_noted))
        return original(cq, attributes);
    struct queue_lock *const lock = locks_enter(cq);
    const int result = original(cq, attributes);
    if (result != 0)
        locks_leave(lock);
    return result;
}

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
    int result = start_once(original, cq, attributes);
    if (UNLIKELY(result == ENOENT) && provider_has_ended(cq->context)) {
        result = start_once(original, cq, attributes);
        if (result == ENOENT)
            result = EIO;
    }
    if (UNLIKELY(recorder_is_on)) {
        polls_started(cq, result == 0, CALLER);
        if (result == 0)
            note_found(0, 1, CALLER);
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
    if (result == 0)
        note_found(0, 1, NULL);
    return completed(cq, result);
}
SLOTS_OF(next_poll)

FUNCTION_TYPE(end_poll)
static void end_poll(end_poll_function *original, struct ibv_cq_ex *cq)
{
    if (recorder_is_on)
        polls_ending(cq);
    original(cq);
    locks_leave_any(cq);
    PROMISES_LEAVE(cq);
    note_poll_end(cq);
}
SLOTS_OF(end_poll)

void verbs_wrap_cq(struct ibv_cq_ex *cq)
{
    WRAP(cq->start_poll, start_poll);
    if (requests_are_noted) {
        WRAP(cq->next_poll, next_poll);
        WRAP(cq->end_poll, end_poll);
    }
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
 * of the queue pair tells whose completion it is, and the length what has arrived: they are asked for, unless the
 * provider has none.
 */
#define CREATE_CQ(name, create)                                                                                        \
    do {                                                                                                               \
        struct ibv_cq_ex *cq = NULL;                                                                                   \
        struct object_call call;                                                                                       \
        const struct ibv_cq_init_attr_ex *wanted = attributes;                                                         \
        struct ibv_cq_init_attr_ex with_more;                                                                        \
        if (UNLIKELY(recorder_is_on)) {                                                                                \
            const struct object_use uses[] = {{USERDMA_OBJECT_CONTEXT, context},                                       \
                                              {USERDMA_OBJECT_CHANNEL, attributes->channel}};                          \
            if (!object_enter(&call, name, OBJECT_CREATED, uses, 2)) {                                                 \
                errno = EINVAL;                                                                                        \
                return NULL;                                                                                           \
            }                                                                                                          \
        }                                                                                                              \
        if (UNLIKELY(requests_are_noted)) {                               \
            with_more = *wanted;                                                                                     \
            with_more.wc_flags |= IBV_WC_EX_WITH_QP_NUM | IBV_WC_EX_WITH_BYTE_LEN;                                   \
            attributes = &with_more;                                                                                 \
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

void polls_wrap(struct ibv_context *context)
{
    WRAP(context->ops.poll_cq, poll_cq);
    if (UNLIKELY(recorder_is_on))
        WRAP(context->ops.req_notify_cq, req_notify_cq);
    struct verbs_context *extended = verbs_get_ctx_op(context, create_cq_ex);
    if (extended)
        WRAP(extended->create_cq_ex, create_cq_ex);
}

bool polls_are_wrapped(const struct ibv_context *context)
{
    return IS_WRAPPED(context->ops.poll_cq, poll_cq);
}

/* ---- destroyed extended CQs ---- */

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

void polls_gone(struct ibv_cq_ex *cq, size_t bytes)
{
    if (bytes < sizeof *cq || !IS_WRAPPED(cq->start_poll, start_poll))
        return;
    cq->start_poll = gone_start_poll;
    cq->next_poll = gone_next_poll;
    cq->end_poll = (__typeof__(cq->end_poll))(void *)verbs_gone_nothing;
}

int around_ibv_resize_cq(int (*original)(struct ibv_cq *, int), struct ibv_cq *cq, int entries)
{
    if (UNLIKELY(recorder_is_on))
        polls_locking(cq, USERDMA_ORDER_CALL_RESIZE_CQ);
    return original(cq, entries);
}
