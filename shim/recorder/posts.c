/*
 * Posts of the program, of lists of requests: the functions of providers in a context's table, wrapped (slots.h). Those
 * of batches are in builders.c. verbs.h says what each library does around the provider's functions and what it notes.
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

/* Notes that the sends from `first` on were refused, with the lock of their queue. */
static struct userdma_refused_post sends_refused(const struct ibv_qp *qp, const struct ibv_send_wr *first, int error,
                                                 uint32_t stack)
{
    struct userdma_refused_post refused = {
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
        if (first->opcode == IBV_WR_BIND_MW)
            refused.address_low = first->bind_mw.bind_info.mw_access_flags;
    }
    note_refused(qp->context->cmd_fd, &refused, LENGTH(first), stack);
    return refused;
}

/* Positions for parts of requests (src/tools/check/arguments.ts). */
enum { BAD_WR = 3, SG_LIST = 17, UD_AH = 18, NEXT = 19, NUM_SGE = 20 };

/*
 * Whether a list is a ring; then that was reported. A provider fills its queue with it, and note_sends would not end.
 */
#define IS_RING(function, list)                                                                                        \
    ({                                                                                                                 \
        __typeof__(list) at = (list), earlier = at;                                                                    \
        size_t steps = 0, limit = 8;                                                                                   \
        bool is_ring = false;                                                                                          \
        while (at && LIKELY(at->next) && !is_ring) {                                                                   \
            at = at->next;                                                                                             \
            is_ring = at == earlier;                                                                                   \
            if (++steps == limit) {                                                                                    \
                earlier = at;                                                                                          \
                limit *= 2;                                                                                            \
                steps = 0;                                                                                             \
            }                                                                                                          \
        }                                                                                                              \
        if (UNLIKELY(is_ring))                                                                                         \
            object_tell_argument(function, NEXT, (uintptr_t)at);                                                       \
        is_ring;                                                                                                       \
    })

/* Whether a request lacks the elements that it should have; then that was reported. libmlx5 posts it if num_sge < 0. */
static bool lacks_elements(const char *function, int count, const struct ibv_sge *elements)
{
    if (count >= 0)
        return object_lacks_argument(function, SG_LIST, elements);
    object_tell_argument(function, NUM_SGE, (uint64_t)(int64_t)count);
    return true;
}

/* The first request of a list that has no elements where num_sge says so; NULL: none. Then that was reported. */
#define WITHOUT_ELEMENTS(function, list)                                                                               \
    ({                                                                                                                 \
        __typeof__(list) at = (list);                                                                                  \
        while (at && LIKELY(at->num_sge == 0 || (at->num_sge > 0 && at->sg_list)))                                     \
            at = at->next;                                                                                             \
        at && lacks_elements(function, at->num_sge, at->sg_list) ? at : NULL;                                          \
    })

/* Whether `wr.ud` of a request of UD or SRD is meant: other operations have their remote memory there. */
static bool has_destination(const struct ibv_send_wr *request)
{
    return request->opcode == IBV_WR_SEND || request->opcode == IBV_WR_SEND_WITH_IMM;
}

/*
 * The first request that the provider would crash on: without elements, or a SEND of UD or SRD with an address
 * handle that is none.
 * NULL: none. Then that was reported.
 */
static struct ibv_send_wr *wrong_send(const struct ibv_qp *qp, struct ibv_send_wr *list)
{
    /* Posts of SRD too early are told as such. */
    if (UNLIKELY(qp->qp_type == IBV_QPT_UD || (qp->qp_type == IBV_QPT_DRIVER && qp->state == IBV_QPS_RTS)))
        for (struct ibv_send_wr *at = list; at; at = at->next)
            if (has_destination(at) && ((!at->wr.ud.ah && object_lacks_argument("ibv_post_send", UD_AH, NULL)) ||
                                        object_is_garbage("ibv_post_send", USERDMA_OBJECT_AH, at->wr.ud.ah)))
                return at;
    return WITHOUT_ELEMENTS("ibv_post_send", list);
}

/* The list of which the thread's last refused post has taken the first requests, until it posts to the queue again. */
static TLS struct {
    const void *of, *list, *bad;
    uint64_t head, bad_id;
    uint32_t taken;
} rest;

/* Before a post to the queue of `of`: reports a list that is posted again though only its rest was refused. */
#define CHECK_AGAIN(fd, of_, queue, number, first, stack)                                                              \
    do {                                                                                                               \
        if (LIKELY(rest.of != (of_)))                                                                                  \
            break;                                                                                                     \
        rest.of = NULL;                                                                                                \
        __typeof__(first) at = (first);                                                                                \
        if (at != rest.list || at->wr_id != rest.head)                                                                 \
            break;                                                                                                     \
        for (uint32_t i = 0; at && i < rest.taken; i++)                                                                \
            at = at->next;                                                                                             \
        if (at && at == rest.bad && at->wr_id == rest.bad_id)                                                          \
            note_posted_again(fd, queue, number, rest.head, rest.taken, stack);                                        \
    } while (0)

/* After a post that was refused from `bad_wr` on. Requests with one wr_id may be others. */
#define KEEP_REST(of_, first, bad_wr)                                                                                  \
    do {                                                                                                               \
        __typeof__(first) at = (first);                                                                                \
        uint32_t taken = 0;                                                                                            \
        chain.of = NULL;                                                                                               \
        for (; at && at != (bad_wr); at = at->next)                                                                    \
            taken++;                                                                                                   \
        if (at && taken > 0 && at->wr_id != (first)->wr_id) {                                                          \
            rest.of = (of_), rest.list = (first), rest.bad = at;                                                       \
            rest.head = (first)->wr_id, rest.bad_id = at->wr_id, rest.taken = taken;                                   \
        }                                                                                                              \
    } while (0)

/*
 * The `next` of the first request of the list that the thread has posted last, if that was not refused, and how many
 * lists in a row have begun with the `next` of the list before, which was posted with it.
 */
static TLS struct {
    const void *of, *next, *after, *elements;
    uint64_t head, id;
    uint32_t steps;
} chain;

/* Before a post to the queue of `of`: reports such a list, and keeps the `next` of this one. */
#define CHECK_NEXT(fd, of_, queue, number, list, stack)                                                                \
    do {                                                                                                               \
        __typeof__(list) first = (list), next = first ? first->next : NULL;                                            \
        if (LIKELY(!next && chain.of != (of_)))                                                                        \
            break;                                                                                                     \
        if (!first || chain.of != (of_) || chain.next != first || chain.id != first->wr_id || chain.after != next ||   \
            chain.elements != first->sg_list)                                                                          \
            chain.steps = 0;                                                                                           \
        else                                                                                                           \
            note_posted_next(fd, queue, number, first->wr_id, chain.head, LENGTH(first), ++chain.steps, stack);        \
        chain.of = next ? (of_) : NULL;                                                                                \
        if (next) {                                                                                                    \
            chain.next = next, chain.after = next->next, chain.elements = next->sg_list;                               \
            chain.head = first->wr_id, chain.id = next->wr_id;                                                         \
        }                                                                                                              \
    } while (0)

/* Reports a post without `bad`: a provider that refuses a request writes to it. */
#define CHECK_BAD(function, bad)                                                                                       \
    do {                                                                                                               \
        static bool is_told;                                                                                           \
        if (UNLIKELY(!(bad)) && !__atomic_exchange_n(&is_told, true, __ATOMIC_RELAXED))                                \
            object_lacks_argument(function, BAD_WR, NULL);                                                             \
    } while (0)

/* Refuses all requests of a list. */
#define REFUSE(list, bad)                                                                                              \
    do {                                                                                                               \
        if (bad)                                                                                                       \
            *(bad) = (list);                                                                                           \
        return EINVAL;                                                                                                 \
    } while (0)

/*
 * A post without the recorder: `post`, an expression, posts `list`, and `note`, with `lock`, notes it before. The
 * requests that are refused are noted again.
 */
#define POST_NOTED(fd_, queue_of, queue_, number_, list, bad, note, post)                                              \
    do {                                                                                                               \
        struct queue_lock *const lock = locks_enter(queue_of);                                                         \
        note;                                                                                                          \
        const int error = (post);                                                                                      \
        if (UNLIKELY(error != 0))                                                                                      \
            note_refused(fd_, &(struct userdma_refused_post){.queue = (queue_), .number = (number_)},                  \
                         LENGTH((bad) && *(bad) ? *(bad) : (list)), 0);                                                \
        locks_leave(lock);                                                                                             \
        return error;                                                                                                  \
    } while (0)

static __attribute__((noinline)) int post_noted_sends(post_send_function *original, struct ibv_qp *qp,
                                                      struct ibv_send_wr *list, struct ibv_send_wr **bad)
{
    POST_NOTED(qp->context->cmd_fd, SENDS_OF(qp), USERDMA_POST_SEND, qp->qp_num, list, bad,
               note_sends(qp, list, FRAME, 0, lock != NULL), provider_post_send(original, qp, list, bad));
}

static __attribute__((noinline)) int post_noted_receives(post_recv_function *original, struct ibv_qp *qp,
                                                         struct ibv_recv_wr *list, struct ibv_recv_wr **bad)
{
    const int fd = qp->context->cmd_fd;
    POST_NOTED(fd, RECEIVES_OF(qp), USERDMA_POST_RECEIVE, qp->qp_num, list, bad,
               note_receives(fd, USERDMA_POST_RECEIVE, qp->qp_num, list, FRAME, 0, lock != NULL),
               provider_post_recv(original, qp, list, bad));
}

static __attribute__((noinline)) int post_noted_shared(post_srq_recv_function *original, struct ibv_srq *srq,
                                                       struct ibv_recv_wr *list, struct ibv_recv_wr **bad)
{
    const int fd = srq->context->cmd_fd;
    POST_NOTED(fd, srq, USERDMA_POST_SHARED, srq->handle, list, bad,
               note_receives(fd, USERDMA_POST_SHARED, srq->handle, list, FRAME, 0, lock != NULL),
               provider_post_srq_recv(original, srq, list, bad));
}

static int post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                     struct ibv_send_wr **bad)
{
    if (LIKELY(!recorder_is_on))
        return (UNLIKELY(requests_are_noted) ? post_noted_sends : provider_post_send)(original, qp, list, bad);
    if (IS_GONE("ibv_post_send", USERDMA_OBJECT_QP, qp))
        REFUSE(list, bad);
    CHECK_BAD("ibv_post_send", bad);
    calls_note("ibv_post_send");
    if (UNLIKELY(IS_RING("ibv_post_send", list)))
        REFUSE(list, bad);
    struct ibv_send_wr *const wrong = wrong_send(qp, list);
    if (UNLIKELY(wrong != NULL))
        REFUSE(wrong, bad);
    batches_posting(qp);
    const uint32_t stack = note_posting_sends(qp, list, FRAME);
    CHECK_AGAIN(qp->context->cmd_fd, SENDS_OF(qp), USERDMA_POST_SEND, qp->qp_num, list, stack);
    CHECK_NEXT(qp->context->cmd_fd, SENDS_OF(qp), USERDMA_POST_SEND, qp->qp_num, list, stack);
    PROMISES_ENTER(SENDS_OF(qp), USERDMA_ORDER_CALL_POST_SEND);
    struct queue_lock *const lock = locks_enter(SENDS_OF(qp));
    note_sends(qp, list, FRAME, stack, lock != NULL);
    const int error = BY_PROVIDER(provider_post_send(original, qp, list, bad));
    struct userdma_refused_post refused;
    /* The provider sets `*bad` to NULL if it has no queue, and refuses all requests without `bad`. */
    if (UNLIKELY(error != 0))
        refused = sends_refused(qp, bad && *bad ? *bad : list, error, stack);
    locks_leave(lock);
    PROMISES_LEAVE(SENDS_OF(qp));
    if (UNLIKELY(error != 0)) {
        KEEP_REST(SENDS_OF(qp), list, bad ? *bad : NULL);
        tell_refused(qp->context->cmd_fd, &refused, stack);
    }
    return error;
}
SLOTS_OF(post_send)

/* As sends_refused. `state`: of the queue pair; an SRQ has none: 0. */
static struct userdma_refused_post receives_refused(int fd, uint32_t queue, uint32_t number, uint32_t state,
                                                    const struct ibv_recv_wr *first, int error, uint32_t stack)
{
    struct userdma_refused_post refused = {
        .queue = queue, .number = number, .error = (uint32_t)abs(error), .state = state};
    if (first) {
        refused.wr_id = first->wr_id;
        refused.elements = (uint32_t)first->num_sge;
    }
    note_refused(fd, &refused, LENGTH(first), stack);
    return refused;
}

static int post_recv(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                     struct ibv_recv_wr **bad)
{
    if (LIKELY(!recorder_is_on))
        return (UNLIKELY(requests_are_noted) ? post_noted_receives : provider_post_recv)(original, qp, list, bad);
    if (IS_GONE("ibv_post_recv", USERDMA_OBJECT_QP, qp))
        REFUSE(list, bad);
    CHECK_BAD("ibv_post_recv", bad);
    calls_note("ibv_post_recv");
    if (UNLIKELY(IS_RING("ibv_post_recv", list)))
        REFUSE(list, bad);
    struct ibv_recv_wr *const wrong = WITHOUT_ELEMENTS("ibv_post_recv", list);
    if (UNLIKELY(wrong != NULL))
        REFUSE(wrong, bad);
    const int fd = qp->context->cmd_fd;
    const uint32_t stack = note_posting_receives(fd, USERDMA_POST_RECEIVE, qp->qp_num, list, FRAME);
    CHECK_AGAIN(fd, RECEIVES_OF(qp), USERDMA_POST_RECEIVE, qp->qp_num, list, stack);
    CHECK_NEXT(fd, RECEIVES_OF(qp), USERDMA_POST_RECEIVE, qp->qp_num, list, stack);
    PROMISES_ENTER(RECEIVES_OF(qp), USERDMA_ORDER_CALL_POST_RECV);
    struct queue_lock *const lock = locks_enter(RECEIVES_OF(qp));
    note_receives(fd, USERDMA_POST_RECEIVE, qp->qp_num, list, FRAME, stack, lock != NULL);
    const int error = BY_PROVIDER(provider_post_recv(original, qp, list, bad));
    struct userdma_refused_post refused;
    if (UNLIKELY(error != 0))
        refused = receives_refused(fd, USERDMA_POST_RECEIVE, qp->qp_num, qp->state, bad && *bad ? *bad : list, error,
                                   stack);
    locks_leave(lock);
    PROMISES_LEAVE(RECEIVES_OF(qp));
    if (UNLIKELY(error != 0)) {
        KEEP_REST(RECEIVES_OF(qp), list, bad ? *bad : NULL);
        tell_refused(fd, &refused, stack);
    }
    return error;
}
SLOTS_OF(post_recv)

static int post_srq_recv(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                         struct ibv_recv_wr **bad)
{
    if (LIKELY(!recorder_is_on))
        return (UNLIKELY(requests_are_noted) ? post_noted_shared : provider_post_srq_recv)(original, srq, list, bad);
    if (IS_GONE("ibv_post_srq_recv", USERDMA_OBJECT_SRQ, srq))
        REFUSE(list, bad);
    CHECK_BAD("ibv_post_srq_recv", bad);
    calls_note("ibv_post_srq_recv");
    if (UNLIKELY(IS_RING("ibv_post_srq_recv", list)))
        REFUSE(list, bad);
    struct ibv_recv_wr *const wrong = WITHOUT_ELEMENTS("ibv_post_srq_recv", list);
    if (UNLIKELY(wrong != NULL))
        REFUSE(wrong, bad);
    const int fd = srq->context->cmd_fd;
    const uint32_t stack = note_posting_receives(fd, USERDMA_POST_SHARED, srq->handle, list, FRAME);
    CHECK_AGAIN(fd, srq, USERDMA_POST_SHARED, srq->handle, list, stack);
    CHECK_NEXT(fd, srq, USERDMA_POST_SHARED, srq->handle, list, stack);
    struct queue_lock *const lock = locks_enter(srq);
    note_receives(fd, USERDMA_POST_SHARED, srq->handle, list, FRAME, stack, lock != NULL);
    const int error = BY_PROVIDER(provider_post_srq_recv(original, srq, list, bad));
    struct userdma_refused_post refused;
    if (UNLIKELY(error != 0))
        refused = receives_refused(fd, USERDMA_POST_SHARED, srq->handle, 0, bad && *bad ? *bad : list, error, stack);
    locks_leave(lock);
    if (UNLIKELY(error != 0)) {
        KEEP_REST(srq, list, bad ? *bad : NULL);
        tell_refused(fd, &refused, stack);
    }
    return error;
}
SLOTS_OF(post_srq_recv)

/* ibv_bind_mw: the provider posts the request itself, without ops.post_send. */
FUNCTION_TYPE(bind_mw)
static int bind_mw(bind_mw_function *original, struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    const struct ibv_send_wr posted = {.wr_id = bind->wr_id,
                                       .opcode = IBV_WR_BIND_MW,
                                       .send_flags = bind->send_flags,
                                       .bind_mw = {.mw = mw, .bind_info = bind->bind_info}};
    struct queue_lock *lock = NULL;
    uint32_t stack = 0;
    if (UNLIKELY(recorder_is_on)) {
        if (IS_GONE("ibv_bind_mw", USERDMA_OBJECT_QP, qp) || object_is_garbage("ibv_bind_mw", USERDMA_OBJECT_MW, mw) ||
            object_is_garbage("ibv_bind_mw", USERDMA_OBJECT_MR, bind->bind_info.mr))
            return EINVAL;
        stack = note_posting_sends(qp, &posted, FRAME);
        lock = locks_enter(SENDS_OF(qp));
        note_sends(qp, &posted, FRAME, stack, lock != NULL);
    }
    const int refusal = provider_refusal(qp, bind->wr_id, IBV_WR_BIND_MW);
    const int error = refusal != 0 ? refusal : original(qp, mw, bind);
    const bool is_refused = UNLIKELY(recorder_is_on) && error != 0;
    struct userdma_refused_post refused;
    if (is_refused)
        refused = sends_refused(qp, &posted, error, stack);
    locks_leave(lock);
    if (is_refused)
        tell_refused(qp->context->cmd_fd, &refused, stack);
    return error;
}
SLOTS_OF(bind_mw)

void posts_wrap(struct ibv_context *context)
{
    WRAP(context->ops.post_send, post_send);
    WRAP(context->ops.post_recv, post_recv);
    WRAP(context->ops.post_srq_recv, post_srq_recv);
    WRAP(context->ops.bind_mw, bind_mw);
}

bool posts_are_wrapped(const struct ibv_context *context)
{
    return IS_WRAPPED(context->ops.post_send, post_send) || IS_WRAPPED(context->ops.post_recv, post_recv);
}
