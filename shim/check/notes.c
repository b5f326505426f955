/*
 * What `userdma check` notes of posts and polls (../recorder/verbs.h): outstanding memory, stacks of posts, events, and
 * reports of posts that the provider or the shim (before RTS, verbs.c) refused. A refused post makes no call to the
 * daemon. From the reported fields the daemon finds the broken rule.
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../recorder/acknowledgements.h"
#include "../recorder/refusals.h"
#include "../recorder/objects.h"
#include "../recorder/batches.h"
#include "../recorder/orders.h"
#include "../recorder/verbs.h"
#include "requests.h"

/* ---- posts ---- */

/* A post or poll begins. */
static void note_use(int fd, uint32_t kind, uint32_t number, uintptr_t frame)
{
    crashes_begin_thread();
    outstanding_check_inherited(fd, kind, number);
    outstanding_check_frames(frame);
}

/* A part of a request that is in a returned stack frame: USERDMA_DEAD_PART_…, and its address; 0: none. */
struct dead {
    uint32_t part;
    uintptr_t address;
};

/* `frame`: as in verbs.h. `has_memory`: the elements are buffers. */
static struct dead dead_part(const void *request, const struct ibv_sge *list, int count, bool has_memory, uintptr_t frame)
{
    if (request && frames_is_dead((uintptr_t)request, frame))
        return (struct dead){USERDMA_DEAD_PART_LIST, (uintptr_t)request};
    if (request && count > 0 && frames_is_dead((uintptr_t)list, frame))
        return (struct dead){USERDMA_DEAD_PART_ELEMENTS, (uintptr_t)list};
    for (int i = 0; has_memory && count <= MAX_SGE && i < count; i++)
        if (frames_is_dead(list[i].addr, frame))
            return (struct dead){USERDMA_DEAD_PART_BUFFER, list[i].addr};
    return (struct dead){0};
}

void note_dead_elements(const struct ibv_qp_ex *qp, const struct ibv_sge *list, int count, uintptr_t frame, bool is_own)
{
    struct dead dead = dead_part(NULL, list, count, true, frame);
    if (is_own && UNLIKELY(frames_is_dead((uintptr_t)list, frame)))
        dead = (struct dead){USERDMA_DEAD_PART_ELEMENTS, (uintptr_t)list};
    if (UNLIKELY(dead.part != 0))
        event_posted_dead(qp->qp_base.context->cmd_fd, stack_here(), qp->wr_id, dead.address, USERDMA_POST_SEND,
                          qp->qp_base.qp_num, dead.part);
}

/* Maximum reports of each further mistake: posts in a loop repeat it. */
#define MAX_POST_REPORTS 64

/* Whether the mistake may be reported; then it is counted. */
static bool may_report(unsigned *reports)
{
    return __atomic_load_n(reports, __ATOMIC_RELAXED) < MAX_POST_REPORTS &&
           __atomic_fetch_add(reports, 1, __ATOMIC_RELAXED) < MAX_POST_REPORTS;
}

/*
 * Reports the first request of a list of which a part is in a returned frame. `has_memory`: of `at`. `is_own`: it is
 * the program's, not one of ours.
 */
#define CHECK_DEAD(fd, queue, number, list, is_own, has_memory, frame, stack)                                                  \
    do {                                                                                                               \
        for (__typeof__(list) at = (list); at; at = at->next) {                                                        \
            if (!(is_own))                                                                                             \
                continue;                                                                                              \
            const struct dead dead = dead_part(at, at->sg_list, at->num_sge, has_memory, frame);                       \
            if (LIKELY(dead.part == 0))                                                                                \
                continue;                                                                                              \
            event_posted_dead(fd, stack, at->wr_id, dead.address, queue, number, dead.part);                           \
            break;                                                                                                     \
        }                                                                                                              \
    } while (0)

/*
 * Reports requests of a list that follow each other, have different wr_ids, and the same elements: one struct ibv_sge
 * was filled for each. `is_alike`: whether `at` and the one after it are of one kind. `of`: the queue. `operation`: the
 * opcode of `list`; 0 for receives.
 */
#define CHECK_SHARED(fd, of, qpn, list, is_alike, operation, stack)                                                    \
    do {                                                                                                               \
        static unsigned reports;                                                                                       \
        uint32_t alike = 0;                                                                                            \
        for (__typeof__(list) at = (list); at && at->next; at = at->next)                                              \
            alike += at->num_sge > 0 && at->next->num_sge > 0 && at->sg_list == at->next->sg_list &&                   \
                     at->sg_list->length > 0 && at->wr_id != at->next->wr_id && (is_alike);                            \
        if (UNLIKELY(alike > 0) && may_report(&reports))                                                               \
            event_shared_elements(fd, stack, (list)->wr_id, of, qpn, alike + 1, operation);                            \
    } while (0)

/*
 * Immediate data is in network byte order. A number below 2^16 in the host's order is one of 2^16 and more there: the
 * program may lack a htonl.
 */
static void check_immediate(int fd, uint32_t number, uint64_t wr_id, uint32_t data, uint32_t stack)
{
    static unsigned reports;
    const uint32_t value = __builtin_bswap32(data);
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && UNLIKELY(data != 0 && data < 0x10000) && may_report(&reports))
        event_immediate_in_host_order(fd, stack, wr_id, number, value);
}

void note_posted_again(int fd, uint32_t queue, uint32_t number, uint64_t head, uint32_t taken, uint32_t stack)
{
    static unsigned reports;
    if (may_report(&reports))
        event_posted_again(fd, stack, head, queue, number, taken);
}

void note_posted_next(int fd, uint32_t queue, uint32_t number, uint64_t id, uint64_t head, uint32_t count,
                      uint32_t steps, uint32_t stack)
{
    static unsigned reports;
    if (may_report(&reports))
        event_posted_next(fd, stack, id, head, queue, number, count, steps);
}

/* A send of the process had elements: an unused one may be left of it. */
static bool has_sent_elements;

/*
 * A request with num_sge 0 and a list of elements, the first of which has bytes: the program may lack a num_sge. The
 * daemon knows whether the element is one. A list that is not used may be no memory.
 */
__attribute__((noinline)) static void check_unused(int fd, uint32_t queue, uint32_t number, uint64_t wr_id,
                                                   const struct ibv_sge *list, uint32_t stack)
{
    static unsigned reports;
    struct ibv_sge first;
    const struct iovec own = {&first, sizeof first}, other = {(void *)list, sizeof first};
    const int saved = errno;
    if (may_report(&reports) && process_vm_readv(getpid(), &own, 1, &other, 1, 0) == sizeof first && first.length > 0)
        event_elements_unused(fd, stack, wr_id, first.addr, queue, number, first.length, first.lkey,
                              __atomic_load_n(&has_sent_elements, __ATOMIC_RELAXED));
    errno = saved;
}

static bool is_atomic(int opcode)
{
    return opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}

/*
 * The rkey of a request is 0. The member of the union that is not its own, `wr.atomic` or `wr.rdma`, may have the one
 * that is meant: the daemon knows whether it is a key.
 */
__attribute__((noinline)) static void check_member(int fd, const struct ibv_qp *qp, const struct ibv_send_wr *request,
                                                   uint32_t stack)
{
    static unsigned reports;
    const uint32_t key = is_atomic(request->opcode) ? request->wr.rdma.rkey : request->wr.atomic.rkey;
    if (key != 0 && may_report(&reports))
        event_other_member(fd, stack, request->wr.rdma.remote_addr, qp->qp_num, key, request->opcode);
}

/* The rkey of a request; any other than 0 if it has none. */
static uint32_t rkey_of(const struct ibv_send_wr *request)
{
    const int opcode = request->opcode;
    if (is_atomic(opcode))
        return request->wr.atomic.rkey;
    return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM || opcode == IBV_WR_RDMA_READ
               ? request->wr.rdma.rkey
               : 1;
}

static bool has_immediate(int opcode)
{
    return opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

uint32_t note_posting_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame)
{
    const int fd = qp->context->cmd_fd;
    const uint32_t stack = stack_here();
    note_use(fd, USERDMA_POST_SEND, qp->qp_num, frame);
    /* ibv_bind_mw makes a request for the note. */
    CHECK_DEAD(fd, USERDMA_POST_SEND, qp->qp_num, list, at->opcode != IBV_WR_BIND_MW,
               !(at->send_flags & IBV_SEND_INLINE) && at->opcode != IBV_WR_LOCAL_INV, frame, stack);
    CHECK_SHARED(fd, USERDMA_POST_SEND, qp->qp_num, list, at->opcode == at->next->opcode, list->opcode, stack);
    for (; list; list = list->next) {
        if (has_immediate(list->opcode))
            check_immediate(fd, qp->qp_num, list->wr_id, list->imm_data, stack);
        if (UNLIKELY(list->num_sge == 0 && list->sg_list))
            check_unused(fd, USERDMA_POST_SEND, qp->qp_num, list->wr_id, list->sg_list, stack);
        if (UNLIKELY(!__atomic_load_n(&has_sent_elements, __ATOMIC_RELAXED)) && list->num_sge > 0)
            __atomic_store_n(&has_sent_elements, true, __ATOMIC_RELAXED);
        if (UNLIKELY(rkey_of(list) == 0))
            check_member(fd, qp, list, stack);
    }
    return stack;
}

void note_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame, uint32_t stack,
                bool is_ordered)
{
    const int fd = qp->context->cmd_fd;
    outstanding_sends(qp, list, frame, stack, is_ordered);
    if (UNLIKELY(sanitizers_watch) && is_ordered)
        outstanding_given(fd, USERDMA_POST_SEND, qp->qp_num, LENGTH(list), true);
    if (!recorder_is_on)
        return;
    if (UNLIKELY(shim_logs_events) && list)
        events_note(fd, USERDMA_POST_SEND, qp->qp_num, LENGTH(list), list->wr_id, stack);
    for (; list; list = list->next)
        stack_note_post(fd, USERDMA_POST_SEND, qp->qp_num, list->wr_id, stack);
}

uint32_t note_posting_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame)
{
    const uint32_t stack = stack_here();
    note_use(fd, queue, number, frame);
    CHECK_DEAD(fd, queue, number, list, true, true, frame, stack);
    CHECK_SHARED(fd, queue, number, list, true, 0, stack);
    static unsigned reports;
    for (; list; list = list->next)
        if (UNLIKELY(list->num_sge == 0) && list->sg_list)
            check_unused(fd, queue, number, list->wr_id, list->sg_list, stack);
        else if (UNLIKELY(list->num_sge == 0) && queue == USERDMA_POST_RECEIVE && may_report(&reports))
            event_elements_unused(fd, stack, list->wr_id, 0, queue, number, 0, 0, false);
    return stack;
}

void note_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame,
                   uint32_t stack, bool is_ordered)
{
    outstanding_receives(fd, queue, number, list, frame, stack, is_ordered);
    if (UNLIKELY(sanitizers_watch) && is_ordered)
        outstanding_given(fd, queue, number, LENGTH(list), false);
    if (!recorder_is_on)
        return;
    if (UNLIKELY(shim_logs_events) && list)
        events_note(fd, queue, number, LENGTH(list), list->wr_id, stack);
    for (; list; list = list->next)
        stack_note_post(fd, queue, number, list->wr_id, stack);
}

/* ---- batches of ibv_wr_* ---- */

/* Whether the device sends the bytes of the request's elements. */
static bool sends_elements(int opcode)
{
    return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM || opcode == IBV_WR_SEND ||
           opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_SEND_WITH_INV;
}

void note_built(struct ibv_qp_ex *qp, int opcode, uint32_t rkey, uint64_t address, uint32_t immediate, bool is_ordered)
{
    (void)rkey, (void)address;
    outstanding_built(qp, opcode, sends_elements(opcode), is_ordered);
    if (UNLIKELY(immediate != 0) && immediate < 0x10000 && recorder_is_on)
        check_immediate(qp->qp_base.context->cmd_fd, qp->qp_base.qp_num, qp->wr_id, immediate, stack_here());
}

void note_destination(const struct ibv_qp_ex *qp, uint32_t qpn, uint32_t qkey)
{
    (void)qp, (void)qpn, (void)qkey;
}

void note_aborted(const struct ibv_qp_ex *qp)
{
    outstanding_refused(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, batch_size(qp));
}

uint32_t note_batch(const struct ibv_qp_ex *qp, uintptr_t frame, bool is_ordered)
{
    const int fd = qp->qp_base.context->cmd_fd;
    const uint32_t number = qp->qp_base.qp_num;
    if (UNLIKELY(sanitizers_watch) && is_ordered)
        outstanding_given(fd, USERDMA_POST_SEND, number, batch_size(qp), true);
    if (!recorder_is_on)
        return 0;
    const uint32_t stack = stack_here();
    note_use(fd, USERDMA_POST_SEND, number, frame);
    if (UNLIKELY(shim_logs_events))
        events_note(fd, USERDMA_POST_SEND, number, batch_size(qp), qp->wr_id, stack);
    if (LIKELY(is_ordered))
        outstanding_completed_batch(qp, batch_size(qp), stack);
    stack_note_post(fd, USERDMA_POST_BATCH, number, 0, stack);
    stack_note_post(fd, USERDMA_POST_SEND, number, qp->wr_id, stack);
    return stack;
}

void note_batch_mistake(int fd, const struct userdma_batch_mistaken *mistake)
{
    if (mistake->mistake == USERDMA_BATCH_MISTAKE_NO_DATA || mistake->mistake == USERDMA_BATCH_MISTAKE_NO_ADDRESS)
        outstanding_lacks_setter(fd, mistake->number);
    event_batch_mistaken(fd, stack_here(), mistake);
}

void note_batch_started(const struct ibv_qp *qp, const void *caller)
{
    waiting_batch(qp, caller);
}

void note_batch_ended(void)
{
    waiting_batch_ended();
}

void *note_wait_begins(uint32_t kind, int fd)
{
    return recorder_is_on ? userdma_wait_begins(kind, (uint32_t)fd, 0, 0, NULL, true) : NULL;
}

void note_wait_ends(void *wait)
{
    userdma_wait_ends(wait);
}

void note_order(int fd, const struct userdma_misordered *mistake)
{
    event_misordered(fd, stack_here(), mistake);
}

/* ---- polls ---- */

void note_poll_end(const struct ibv_cq_ex *cq)
{
    (void)cq;
}

/* Frames of the callers that are looked at for a signal handler, and callers' frames that were looked at. */
#define HANDLER_FRAMES 12
#define KNOWN_FRAMES 16
/* Frames of the C library from the system call to `raise`. */
#define RAISE_FRAMES 4

/* The machine's instructions to which a signal handler returns; unwinders know the handler's frame by them. */
#if defined(__x86_64__)
static const unsigned char handler_return[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}; /* mov $15, %rax; syscall */
#elif defined(__aarch64__)
static const unsigned char handler_return[] = {0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4}; /* mov x8, #139; svc #0 */
#endif

#if defined(__x86_64__) || defined(__aarch64__)
/* Whether the thread has sent the signal to itself, between two calls: `frames` are those that it has interrupted. */
static bool is_raised(void *const *frames, unsigned depth)
{
    for (unsigned i = 0; i < depth && i < RAISE_FRAMES; i++) {
        Dl_info info;
        if (dladdr(frames[i], &info) && info.dli_sname &&
            (strcmp(info.dli_sname, "raise") == 0 || strcmp(info.dli_sname, "gsignal") == 0 ||
             strcmp(info.dli_sname, "pthread_kill") == 0 || strcmp(info.dli_sname, "kill") == 0))
            return true;
    }
    return false;
}
#endif

/*
 * A poll in a signal handler waits for the lock of the CQ if the signal has interrupted a poll or post of its thread.
 */
static void check_handler(const struct ibv_cq *cq, uintptr_t frame)
{
#if defined(__x86_64__) || defined(__aarch64__)
    static unsigned reports;
    static TLS uintptr_t known[KNOWN_FRAMES];
    const unsigned slot = (unsigned)(frame >> 4) % KNOWN_FRAMES;
    if (LIKELY(known[slot] == frame))
        return;
    known[slot] = frame;
    void *frames[HANDLER_FRAMES];
    const unsigned depth = unwind_frames(frames, NULL, HANDLER_FRAMES);
    for (unsigned i = 0; i < depth; i++)
        if (memcmp(frames[i], handler_return, sizeof handler_return) == 0) {
            if (is_raised(frames + i + 1, depth - i - 1) || !may_report(&reports))
                return;
            event_polled_in_handler(cq->context->cmd_fd, stack_here(), cq->handle);
            return;
        }
#else
    (void)cq, (void)frame;
#endif
}

void note_polling(const struct ibv_cq *cq, uintptr_t frame)
{
    note_use(cq->context->cmd_fd, USERDMA_EVENT_POLL, cq->handle, frame);
    pollers_note(cq);
    if (UNLIKELY(crashes_has_handlers))
        check_handler(cq, frame);
    waiting_polls(cq);
}

void note_found(uint32_t entries, uint32_t count, const void *caller)
{
    waiting_found_by(entries, count, caller);
}

/* Frames of the callers that are looked at for the end of an array. */
#define ARRAY_FRAMES 8
/* Polls whose array has been looked at, by the caller's frame. */
#define KNOWN_ARRAYS 16

/*
 * An array on the stack ends before the return address of the frame that it is in: a poll of more completions would
 * overwrite it. Each place in the program is looked at once.
 */
int note_array(const struct ibv_cq *cq, int entries, const struct ibv_wc *wc, uintptr_t frame)
{
    static TLS struct {
        uintptr_t frame, array;
        int entries, room;
    } known[KNOWN_ARRAYS];
    const uintptr_t array = (uintptr_t)wc, end = array + (uintptr_t)entries * sizeof *wc;
    if (LIKELY(!unwind_is_on_stack(array)) || array < frame)
        return entries;
    const unsigned slot = (unsigned)((frame >> 4 ^ array >> 3) % KNOWN_ARRAYS);
    if (LIKELY(known[slot].frame == frame && known[slot].array == array && known[slot].entries == entries))
        return known[slot].room;
    void *frames[ARRAY_FRAMES];
    uintptr_t locations[ARRAY_FRAMES];
    const unsigned depth = unwind_frames(frames, locations, ARRAY_FRAMES);
    int room = entries;
    for (unsigned i = 0; i < depth; i++)
        if (locations[i] >= array && locations[i] < end) {
            room = (int)((locations[i] - array) / sizeof *wc);
            event_array_too_short(cq->context->cmd_fd, stack_here(), array, cq->handle, (uint32_t)entries,
                                  (uint32_t)room);
            break;
        }
    known[slot].frame = frame;
    known[slot].array = array;
    known[slot].entries = entries;
    known[slot].room = room;
    return room;
}

static void note_taken(const struct ibv_cq *cq, uint32_t count, uint64_t wr_id)
{
    if (!recorder_is_on)
        return;
    waiting_found();
    events_taken(cq->context->cmd_fd, cq->handle, count);
    if (UNLIKELY(shim_logs_events))
        events_note(cq->context->cmd_fd, USERDMA_EVENT_POLL, cq->handle, count, wr_id, 0);
}

/* That of a failed request, which libmlx5 leaves as it was, is a hint; but memcheck reports its use. */
static bool has_opcode(enum ibv_wc_status status)
{
    return status == IBV_WC_SUCCESS || !sanitizers_valgrind;
}

static void polled(int fd, uint32_t qpn, uint64_t wr_id, enum ibv_wc_status status, enum ibv_wc_opcode opcode,
                   uint32_t length)
{
    outstanding_polled(fd, qpn, wr_id, opcode & IBV_WC_RECV, status != IBV_WC_SUCCESS,
                       opcode == IBV_WC_RECV ? length : 0);
}

void note_completions(const struct ibv_cq *cq, struct ibv_wc *wc, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        polled(cq->context->cmd_fd, wc[i].qp_num, wc[i].wr_id, wc[i].status,
               has_opcode(wc[i].status) ? wc[i].opcode : IBV_WC_SEND, wc[i].byte_len);
    note_taken(cq, count, wc[count - 1].wr_id);
}

void note_completion(struct ibv_cq_ex *cq)
{
    const enum ibv_wc_opcode opcode = has_opcode(cq->status) ? cq->read_opcode(cq) : IBV_WC_SEND;
    /* The provider has the functions that the program has asked for. */
    const uint32_t length = opcode == IBV_WC_RECV && cq->read_byte_len ? cq->read_byte_len(cq) : 0;
    polled(cq->context->cmd_fd, cq->read_qp_num(cq), cq->wr_id, cq->status, opcode, length);
    note_taken(ibv_cq_ex_to_cq(cq), 1, cq->wr_id);
}

/* ---- refused posts ---- */

/* Maximum reports of a process. Bounded: some programs always post until the queue is full. */
#define MAX_REPORTS 1000
static unsigned refusals_told;

void note_refused(int fd, struct userdma_refused_post *refused, uint32_t count, uint32_t stack)
{
    (void)stack;
    refused->taken = outstanding_refused(fd, refused->queue, refused->number, count);
    if (UNLIKELY(shim_logs_events) && count > 0)
        events_note(fd, USERDMA_EVENT_REFUSED | refused->queue, refused->number, count, 0, 0);
    if (recorder_is_on && refused->queue == USERDMA_POST_SEND &&
        __atomic_load_n(&refusals_told, __ATOMIC_RELAXED) < MAX_REPORTS)
        refused->unsignaled = outstanding_unsignaled(fd, refused->number);
}

void tell_refused(int fd, const struct userdma_refused_post *refused, uint32_t stack)
{
    if (__atomic_load_n(&refusals_told, __ATOMIC_RELAXED) < MAX_REPORTS &&
        __atomic_fetch_add(&refusals_told, 1, __ATOMIC_RELAXED) < MAX_REPORTS)
        event_refused_post(fd, stack, refused);
}

/* ---- calls ---- */

/* Calls that signals have ended are told up to this number. */
#define MAX_INTERRUPTED 1024

void note_refusal(int fd, const struct userdma_refused_by_library *refusal)
{
    static unsigned interrupted;
    if (refusal->error == EINTR && __atomic_fetch_add(&interrupted, 1, __ATOMIC_RELAXED) >= MAX_INTERRUPTED)
        return;
    event_refused_by_library(fd, stack_here(), refusal);
}

void userdma_interrupted(const char *function)
{
    const int saved = errno;
    struct userdma_refused_by_library refusal = {.error = EINTR};
    strncpy(refusal.function, function, sizeof refusal.function - 1);
    if (recorder_is_on)
        note_refusal(-1, &refusal);
    errno = saved;
}

/* The function that has failed last, if the program had no descriptors left; else NULL. */
static const char *without_descriptor;

void check_not_opened(const char *function)
{
    __atomic_store_n(&without_descriptor, errno == EMFILE ? function : NULL, __ATOMIC_RELAXED);
}

void check_no_descriptor(void)
{
    const char *function = __atomic_exchange_n(&without_descriptor, NULL, __ATOMIC_RELAXED);
    const int saved = errno;
    if (function && recorder_is_on) {
        struct userdma_refused_by_library refusal = {.error = EMFILE, .object = UINT64_MAX};
        strncpy(refusal.function, function, sizeof refusal.function - 1);
        note_refusal(-1, &refusal);
    }
    errno = saved;
}

void note_overacknowledged(int fd, uint32_t cq, uint32_t acknowledged, uint32_t read, uint32_t other)
{
    event_overacknowledged(fd, stack_here(), cq, acknowledged, read, other);
}

void note_async_overacknowledged(int fd, uint32_t queue, uint32_t number, uint32_t read)
{
    event_async_overacknowledged(fd, stack_here(), queue, number, read);
}

void note_direct(const char *name)
{
    sanitizers_bypassed();
    if (recorder_is_on)
        event_posts_directly(0, name);
}

/* ---- destroyed objects ---- */

void note_call(const void *context, struct object_use use, bool destroys)
{
    /* Other objects a child may have created itself, with what it has inherited. */
    if (destroys && use.kind == USERDMA_OBJECT_QP)
        outstanding_check_destroyer(((const struct ibv_context *)context)->cmd_fd, USERDMA_POST_SEND,
                                    object_number(use));
}

void note_destroyed(struct object_use use)
{
    if (use.kind == USERDMA_OBJECT_CQ)
        pollers_destroyed(use.object);
    if (use.kind == USERDMA_OBJECT_DEVICES)
        devices_freed(use.object);
}

void note_gone(const struct gone_use *use, uint32_t stack)
{
    event_used_gone(stack, use->value, use->age, use->destroyed, use->kind, use->number, use->use, use->is_owner,
                    use->function);
}
