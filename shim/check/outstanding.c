/*
 * Memory of the requests whose completions the program has not polled, for `userdma check`: it reports to the daemon
 * when such memory is freed (shim/frees/frees.c), or when it was in a stack frame that has returned, and requests that are
 * outstanding when the program forks, and queues that a child inherited and uses. The daemon, which knows what the
 * device has done with the request, decides whether it is a finding.
 *
 * A request is outstanding from its post until its completion, or of an unsignaled send a later one, is polled, or until
 * its queue is reset or destroyed. Inside free() nothing is sent: reports wait for the next post, poll or call.
 *
 * The lock is one of our own, since free() is called with any lock of the program, and is not waited for long: a signal
 * handler may leave its holder by siglongjmp.
 */
#define _GNU_SOURCE
#include "../shim.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unwind.h>

#include "outstanding.h"

/* Ranges of memory, at least one of each request; and queues with such requests. Powers of two. */
#define MAX_RANGES 32768
#define MAX_QUEUES 4096
/* Reports that wait; further ones are not made. */
#define MAX_WAITING 64
/* Contexts with higher descriptors are not followed into children. */
#define MAX_CONTEXTS 4096
/* Requests that one fork reports. */
#define MAX_FORKED 4
/* Attempts to get the lock. */
#define MAX_ATTEMPTS 2000
/* A stack that is deeper is not followed. */
#define MAX_FRAMES 512
#define MAIN_STACK_BYTES (8u << 20)
#define NONE UINT32_MAX

/* ---- ranges and queues ---- */

/* Apart from the rest: these are scanned. An empty range is {0, 0}. */
static struct {
    uintptr_t start;
    uintptr_t end;
} ranges[MAX_RANGES];

static struct element {
    uint64_t wr_id;
    /* Neighbours in its queue; `next` also of a free one. */
    uint32_t next, before;
    uint32_t queue;
    /* Counts the queue's requests, from 1. */
    uint32_t index;
    /* Of memory on the poster's stack: its thread, 0 otherwise; and the address of its outermost frame. */
    uint32_t thread;
    uintptr_t base;
    bool is_signaled;
} elements[MAX_RANGES];

static uint32_t free_element = NONE, used_elements;

static struct queue {
    /* 0: never used. */
    uint32_t kind;
    uint32_t number;
    /* −1: free. */
    int fd;
    uint32_t first, last;
    /* Requests since its creation or RESET. */
    uint32_t posted;
    struct queue *next_shared;
} queues[MAX_QUEUES];

/* Shared receive queues, linked by `next_shared`. */
static struct queue *first_shared;

/* Ranges that are not empty: read by every free(). */
EXPORT uint32_t userdma_outstanding;

static bool is_full, is_exiting;

/* ---- lock ---- */

static uint32_t held;

static bool enter(void)
{
    for (unsigned i = 0; i < MAX_ATTEMPTS; i++) {
        if (LIKELY(!__atomic_exchange_n(&held, 1, __ATOMIC_ACQUIRE)))
            return true;
        sched_yield();
    }
    return false;
}

static void leave(void)
{
    __atomic_store_n(&held, 0, __ATOMIC_RELEASE);
}

/* ---- filter: which cells of memory have ranges, so that most frees find none without the lock ---- */

#define LEVELS 4
#define CELLS 65536
#define CELL_BITS 16
/* Cells of one range, and of one block that is freed; with more the ranges are scanned. */
#define MAX_CELLS 17
#define MAX_FREED_CELLS 64

static const unsigned shifts[LEVELS] = {10, 16, 22, 28};
static uint32_t cells[LEVELS][CELLS];
/* Ranges of each level; of the last one also those that are too long for it. */
static uint32_t at_level[LEVELS + 1];

static unsigned level_of(uintptr_t start, uintptr_t end)
{
    unsigned level = 0;
    while (level < LEVELS && ((end - 1) >> shifts[level]) - (start >> shifts[level]) >= MAX_CELLS)
        level++;
    return level;
}

static uint32_t *cell_at(unsigned level, uintptr_t number)
{
    return &cells[level][(uint32_t)(number * 0x9e3779b97f4a7c15u >> (64 - CELL_BITS))];
}

static void count_range(uintptr_t start, uintptr_t end, uint32_t by)
{
    const unsigned level = level_of(start, end);
    __atomic_fetch_add(&at_level[level], by, __ATOMIC_RELAXED);
    if (level < LEVELS)
        for (uintptr_t number = start >> shifts[level]; number <= (end - 1) >> shifts[level]; number++)
            __atomic_fetch_add(cell_at(level, number), by, __ATOMIC_RELAXED);
    __atomic_fetch_add(&userdma_outstanding, by, __ATOMIC_RELAXED);
}

static bool may_have_range(uintptr_t start, uintptr_t end)
{
    if (__atomic_load_n(&at_level[LEVELS], __ATOMIC_RELAXED) != 0)
        return true;
    for (unsigned level = 0; level < LEVELS; level++) {
        if (__atomic_load_n(&at_level[level], __ATOMIC_RELAXED) == 0)
            continue;
        const uintptr_t first = start >> shifts[level], last = (end - 1) >> shifts[level];
        if (last - first >= MAX_FREED_CELLS)
            return true;
        for (uintptr_t number = first; number <= last; number++)
            if (__atomic_load_n(cell_at(level, number), __ATOMIC_RELAXED) != 0)
                return true;
    }
    return false;
}

/* ---- with the lock ---- */

static struct queue *queue_of(int fd, uint32_t kind, uint32_t number, bool is_new)
{
    uint32_t slot = ((uint32_t)fd * 31 + kind * 7 + number) * 0x9e3779b1u >> 20;
    struct queue *room = NULL;
    _Static_assert(MAX_QUEUES == 1 << 12, "the hash has 12 bits");
    for (unsigned i = 0; i < MAX_QUEUES; i++, slot = (slot + 1) % MAX_QUEUES) {
        struct queue *queue = &queues[slot];
        if (queue->kind == kind && queue->number == number && queue->fd == fd)
            return queue;
        if (!room && (queue->kind == 0 || queue->fd < 0))
            room = queue;
        if (queue->kind == 0)
            break;
    }
    if (!is_new || !room)
        return NULL;
    *room = (struct queue){.kind = kind, .number = number, .fd = fd, .first = NONE, .last = NONE};
    if (kind == USERDMA_POST_SHARED) {
        room->next_shared = first_shared;
        first_shared = room;
    }
    return room;
}

static void clear_range(uint32_t at)
{
    if (ranges[at].end != 0)
        count_range(ranges[at].start, ranges[at].end, -1u);
    ranges[at].start = ranges[at].end = 0;
    elements[at].thread = 0;
}

static void set_range(uint32_t at, uintptr_t start, uint32_t length)
{
    if (length == 0 || start + length < start)
        return;
    ranges[at].start = start;
    ranges[at].end = start + length;
    count_range(start, start + length, 1);
}

/* The last one of a queue's list; NONE if there are too many. */
static uint32_t append(struct queue *queue, uint64_t wr_id, bool is_signaled)
{
    uint32_t at = free_element;
    if (at != NONE)
        free_element = elements[at].next;
    else if (used_elements < MAX_RANGES)
        at = used_elements++;
    else {
        is_full = true;
        return NONE;
    }
    elements[at] = (struct element){.wr_id = wr_id,
                                    .next = NONE,
                                    .before = queue->last,
                                    .queue = (uint32_t)(queue - queues),
                                    .index = queue->posted,
                                    .is_signaled = is_signaled};
    if (queue->last == NONE)
        queue->first = at;
    else
        elements[queue->last].next = at;
    queue->last = at;
    return at;
}

static void drop(struct queue *queue, uint32_t at)
{
    const struct element *element = &elements[at];
    clear_range(at);
    if (element->before == NONE)
        queue->first = element->next;
    else
        elements[element->before].next = element->next;
    if (element->next == NONE)
        queue->last = element->before;
    else
        elements[element->next].before = element->before;
    elements[at].next = free_element;
    free_element = at;
}

static void forget(struct queue *queue)
{
    while (queue->first != NONE)
        drop(queue, queue->first);
    for (struct queue **link = &first_shared; *link; link = &(*link)->next_shared)
        if (*link == queue) {
            *link = queue->next_shared;
            break;
        }
    queue->fd = -1;
    /* Free slots before an unused one lead to no other: they are unused too. */
    uint32_t slot = (uint32_t)(queue - queues);
    if (queues[(slot + 1) % MAX_QUEUES].kind == 0)
        for (; queues[slot].kind != 0 && queues[slot].fd < 0; slot = (slot + MAX_QUEUES - 1) % MAX_QUEUES)
            queues[slot].kind = 0;
}

/* Ends a request that was polled: a receive, or a send with those before it. */
static bool end_request(struct queue *queue, uint64_t wr_id)
{
    const bool is_send = queue->kind == USERDMA_POST_SEND;
    uint32_t found = NONE;
    for (uint32_t at = queue->first; at != NONE; at = elements[at].next) {
        if (elements[at].wr_id != wr_id)
            continue;
        if (found == NONE)
            found = at;
        if (!is_send || elements[at].is_signaled) {
            found = at;
            break;
        }
    }
    if (found == NONE)
        return false;
    const uint32_t index = elements[found].index;
    for (uint32_t at = is_send ? queue->first : found; at != NONE && (int32_t)(elements[at].index - index) <= 0;) {
        const uint32_t next = elements[at].next;
        drop(queue, at);
        at = next;
    }
    return true;
}

/* ---- stacks of threads ---- */

static __thread struct {
    /* Of this thread's stack; `top` 0: not known yet. */
    uintptr_t bottom, top;
    uint32_t id;
    /* At most the lowest start of its ranges that are on its stack; 0: none. */
    uintptr_t lowest;
} own __attribute__((tls_model("initial-exec")));

/* Of the unwinder that backtrace() has loaded (stacks.c), not linked: programs that are not checked do not need it. */
static __typeof__(&_Unwind_Backtrace) unwind;
static __typeof__(&_Unwind_GetCFA) address_of_frame;

static void find_unwinder(void)
{
    void *library = REAL(dlopen)("libgcc_s.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return;
    address_of_frame = (__typeof__(address_of_frame))dlsym(library, "_Unwind_GetCFA");
    unwind = (__typeof__(unwind))dlsym(library, "_Unwind_Backtrace");
}

static void know_stack(void)
{
    pthread_attr_t attributes;
    void *start;
    size_t bytes;
    static uint32_t threads;
    own.id = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    own.top = 1;
    if (own.id == 1)
        find_unwinder();
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return;
    if (pthread_attr_getstack(&attributes, &start, &bytes) == 0) {
        /* Without a limit, the main thread's stack is told as long as it is now. Nothing else is mapped so close to it. */
        if (early_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0) == getpid() && bytes < MAIN_STACK_BYTES) {
            start = (char *)start + bytes - MAIN_STACK_BYTES;
            bytes = MAIN_STACK_BYTES;
        }
        own.bottom = (uintptr_t)start;
        own.top = own.bottom + bytes;
    }
    pthread_attr_destroy(&attributes);
}

static bool is_on_stack(uintptr_t address)
{
    return address >= own.bottom && address < own.top;
}

struct depth {
    uintptr_t base;
    unsigned frames;
};

static _Unwind_Reason_Code deeper(struct _Unwind_Context *context, void *argument)
{
    struct depth *depth = argument;
    depth->base = address_of_frame(context);
    return ++depth->frames == MAX_FRAMES ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

/* The address of the outermost frame, which tells apart the stacks of coroutines within one; 0: unknown. */
static uintptr_t outermost_frame(void)
{
    struct depth depth = {0};
    if (unwind && address_of_frame)
        unwind(deeper, &depth);
    return depth.frames == MAX_FRAMES ? 0 : depth.base;
}

/* ---- reports ---- */

static struct waiting {
    struct userdma_misuse misuse;
    int fd;
    uint64_t time;
    struct stack stack;
} waiting[MAX_WAITING];
static uint32_t waiting_count;

/* With the lock held: what is reported of an element. */
static struct waiting about(uint32_t at, uint32_t kind)
{
    const struct queue *queue = &queues[elements[at].queue];
    return (struct waiting){
        .misuse = {.wr_id = elements[at].wr_id,
                   .address = ranges[at].start,
                   .kind = kind,
                   .queue = queue->kind,
                   .number = queue->number,
                   .index = elements[at].index - 1},
        .fd = queue->fd,
        .time = shim_nanoseconds(),
    };
}

static void wait_for_send(struct waiting *report)
{
    stack_take_native(&report->stack);
    if (!enter())
        return;
    if (waiting_count < MAX_WAITING) {
        waiting[waiting_count] = *report;
        __atomic_store_n(&waiting_count, waiting_count + 1, __ATOMIC_RELEASE);
    }
    leave();
}

static void send_report(struct waiting *report)
{
    report->misuse.age = shim_nanoseconds() - report->time;
    stack_report(report->fd, USERDMA_MISUSE, stack_number(&report->stack), &report->misuse, sizeof report->misuse);
}

/* Apart, so that the callers need no room for it. */
__attribute__((noinline)) static void send_all(void)
{
    struct waiting report;
    while (enter()) {
        const bool is_one = waiting_count > 0;
        if (is_one) {
            report = waiting[0];
            memmove(waiting, waiting + 1, --waiting_count * sizeof report);
        }
        leave();
        if (!is_one)
            return;
        send_report(&report);
    }
}

void outstanding_report(void)
{
    if (UNLIKELY(__atomic_load_n(&waiting_count, __ATOMIC_ACQUIRE) != 0)) {
        const int saved = errno;
        send_all();
        errno = saved;
    }
}

/* ---- memory that is freed ---- */

__attribute__((noinline)) static void find_freed(uintptr_t start, uintptr_t end)
{
    struct waiting report = {.fd = -1};
    uint32_t found = 0;
    if (!enter())
        return;
    for (uint32_t at = 0; at < used_elements; at++) {
        if (LIKELY(ranges[at].end <= start || ranges[at].start >= end))
            continue;
        if (found++ == 0)
            report = about(at, USERDMA_MISUSE_FREED);
        clear_range(at);
    }
    leave();
    if (found == 0)
        return;
    report.misuse.more = found - 1;
    wait_for_send(&report);
}

/* For the library that sees blocks freed (shim/frees/frees.c): before it is freed, or after it was moved. */
EXPORT void userdma_freed(void *block, size_t bytes);
void userdma_freed(void *block, size_t bytes)
{
    const uintptr_t start = (uintptr_t)block;
    if (LIKELY(!may_have_range(start, start + bytes)) || is_exiting)
        return;
    const int saved = errno;
    find_freed(start, start + bytes);
    errno = saved;
}

/* ---- stack frames that have returned ---- */

__attribute__((noinline)) static void find_returned(uintptr_t frame)
{
    const uintptr_t base = outermost_frame();
    uintptr_t lowest = 0;
    struct waiting report = {.fd = -1};
    uint32_t found = 0;
    if (!enter())
        return;
    for (uint32_t at = 0; at < used_elements; at++) {
        if (elements[at].thread != own.id || ranges[at].end == 0)
            continue;
        if (ranges[at].start >= frame || elements[at].base != base) {
            if (lowest == 0 || ranges[at].start < lowest)
                lowest = ranges[at].start;
            continue;
        }
        if (found++ == 0)
            report = about(at, USERDMA_MISUSE_RETURNED);
        clear_range(at);
    }
    own.lowest = lowest;
    leave();
    if (found == 0)
        return;
    report.misuse.more = found - 1;
    wait_for_send(&report);
}

/* `frame`: of a function that the program has called: frames below it have returned. */
void outstanding_look(uintptr_t frame)
{
    if (UNLIKELY(own.lowest != 0) && own.lowest < frame && is_on_stack(frame) && !shim_on_signal_stack())
        find_returned(frame);
    outstanding_report();
}

/* With the lock held: whether memory is on the poster's stack. */
static void mark_stack(uint32_t at, uintptr_t base)
{
    if (base == 0 || ranges[at].end == 0)
        return;
    elements[at].thread = own.id;
    elements[at].base = base;
    if (own.lowest == 0 || ranges[at].start < own.lowest)
        own.lowest = ranges[at].start;
}

/* Before the lock: the outermost frame if any of the memory is on this stack, above `frame`; else 0. */
static uintptr_t base_of_posts(const struct ibv_sge *list, int count, uintptr_t frame)
{
    if (UNLIKELY(own.top == 0))
        know_stack();
    for (int i = 0; i < count; i++)
        if (UNLIKELY(is_on_stack(list[i].addr)) && is_on_stack(frame) && list[i].addr >= frame)
            return outermost_frame();
    return 0;
}

/* ---- posts ---- */

static void exits(void)
{
    is_exiting = true;
    outstanding_report();
}

static void complain(void)
{
    static bool said;
    if (!is_full || __atomic_exchange_n(&said, true, __ATOMIC_RELAXED))
        return;
    dprintf(STDERR_FILENO,
            "userdma check: more than %d memory ranges of requests are outstanding: further ones are not checked for free() and fork()\n",
            MAX_RANGES);
}

/* The memory of a request, whose first range is `at`; NONE: there is no room for it. */
static void add_memory(struct queue *queue, uint32_t at, const struct ibv_sge *list, int count, uintptr_t base)
{
    for (int i = 0; at != NONE && i < count; i++) {
        set_range(at, list[i].addr, list[i].length);
        if (is_on_stack(list[i].addr))
            mark_stack(at, base);
        if (i + 1 < count)
            at = append(queue, elements[at].wr_id, elements[at].is_signaled);
    }
}

static void add_one(int fd, uint32_t kind, uint32_t number, uint64_t wr_id, bool is_signaled, const struct ibv_sge *list,
                    int count, uintptr_t frame)
{
    const uintptr_t base = base_of_posts(list, count, frame);
    if (!enter())
        return;
    struct queue *queue = queue_of(fd, kind, number, true);
    if (queue) {
        queue->posted++;
        add_memory(queue, append(queue, wr_id, is_signaled), list, count, base);
    } else {
        is_full = true;
    }
    leave();
    complain();
}

static void begin(void)
{
    /* Late, so that it runs before the destructors of earlier objects. */
    static bool is_known;
    if (UNLIKELY(!is_known) && !__atomic_exchange_n(&is_known, true, __ATOMIC_RELAXED))
        atexit(exits);
}

void outstanding_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame)
{
    begin();
    for (; list; list = list->next) {
        const bool has_memory = !(list->send_flags & IBV_SEND_INLINE) && list->num_sge > 0 &&
                                list->opcode != IBV_WR_BIND_MW && list->opcode != IBV_WR_LOCAL_INV;
        add_one(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, list->wr_id, list->send_flags & IBV_SEND_SIGNALED,
                list->sg_list, has_memory ? list->num_sge : 0, frame);
    }
}

void outstanding_receives(int fd, uint32_t kind, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame)
{
    begin();
    for (; list; list = list->next)
        add_one(fd, kind, number, list->wr_id, true, list->sg_list, list->num_sge, frame);
}

void outstanding_built(const struct ibv_qp_ex *qp)
{
    begin();
    add_one(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, qp->wr_id,
            qp->wr_flags & IBV_SEND_SIGNALED, NULL, 0, 0);
}

void outstanding_elements(const struct ibv_qp_ex *qp, const struct ibv_sge *list, size_t count, uintptr_t frame)
{
    const uintptr_t base = base_of_posts(list, (int)count, frame);
    if (!enter())
        return;
    struct queue *queue = queue_of(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, false);
    /* Unless there was no room for the request: the last one is an earlier one then. */
    if (queue && queue->last != NONE && elements[queue->last].index == queue->posted && ranges[queue->last].end == 0)
        add_memory(queue, queue->last, list, (int)count, base);
    leave();
}

void outstanding_refused(int fd, uint32_t kind, uint32_t number, uint32_t count)
{
    if (count == 0 || !enter())
        return;
    struct queue *queue = queue_of(fd, kind, number, false);
    for (; queue && count > 0; count--) {
        const uint32_t index = queue->posted--;
        while (queue->last != NONE && elements[queue->last].index == index)
            drop(queue, queue->last);
    }
    leave();
}

uint32_t outstanding_unsignaled(int fd, uint32_t number)
{
    if (!enter())
        return 0;
    const struct queue *queue = queue_of(fd, USERDMA_POST_SEND, number, false);
    uint32_t count = 0, index = 0;
    for (uint32_t at = queue ? queue->last : NONE; at != NONE && !elements[at].is_signaled; at = elements[at].before) {
        count += count == 0 || elements[at].index != index;
        index = elements[at].index;
    }
    leave();
    return count;
}

/* ---- ends ---- */

/* With the lock held: a completion of a receive of a shared queue, which does not name it. */
static void end_shared(int fd, uint64_t wr_id)
{
    for (struct queue *queue = first_shared; queue; queue = queue->next_shared)
        if (queue->fd == fd && end_request(queue, wr_id))
            return;
}

void outstanding_polled(int fd, uint32_t qpn, uint64_t wr_id, bool is_receive)
{
    if (!enter())
        return;
    struct queue *queue = queue_of(fd, is_receive ? USERDMA_POST_RECEIVE : USERDMA_POST_SEND, qpn, false);
    const bool is_found = queue && end_request(queue, wr_id);
    if (!is_found && is_receive)
        end_shared(fd, wr_id);
    leave();
}

void outstanding_forget(int fd, uint32_t kind, uint32_t number)
{
    if (!enter())
        return;
    struct queue *queue = queue_of(fd, kind, number, false);
    if (queue)
        forget(queue);
    leave();
}

/* ---- contexts and children ---- */

/* By descriptor: of this process, or of the parent. */
static enum { OTHER, OWN, INHERITED } contexts[MAX_CONTEXTS];
static bool has_inherited;

void outstanding_opened(int fd)
{
    if ((unsigned)fd < MAX_CONTEXTS)
        contexts[fd] = OWN;
    if (!enter())
        return;
    for (struct queue *queue = queues; queue < queues + MAX_QUEUES; queue++)
        if (queue->kind != 0 && queue->fd == fd)
            forget(queue);
    leave();
}

void outstanding_fork(void)
{
    struct waiting found[MAX_FORKED];
    unsigned count = 0;
    outstanding_report();
    if (__atomic_load_n(&userdma_outstanding, __ATOMIC_RELAXED) == 0 || !enter())
        return;
    for (uint32_t at = 0; at < used_elements && count < MAX_FORKED; at++)
        if (ranges[at].end != 0)
            found[count++] = about(at, USERDMA_MISUSE_FORKED);
    leave();
    for (unsigned i = 0; i < count; i++) {
        stack_take_native(&found[i].stack);
        send_report(&found[i]);
    }
}

IN_CHILD void outstanding_child(void)
{
    /* Queues have had elements, unless one is being made. */
    if (held != 0 || used_elements != 0)
        memset(queues, 0, sizeof queues);
    first_shared = NULL;
    held = 0;
    waiting_count = 0;
    own.lowest = 0;
    if (userdma_outstanding != 0) {
        memset(cells, 0, sizeof cells);
        memset(at_level, 0, sizeof at_level);
        memset(ranges, 0, sizeof ranges);
    }
    userdma_outstanding = used_elements = 0;
    free_element = NONE;
    for (unsigned fd = 0; fd < MAX_CONTEXTS; fd++)
        if (contexts[fd] == OWN) {
            contexts[fd] = INHERITED;
            has_inherited = true;
        }
}

__attribute__((noinline)) static void report_inherited(int fd, uint32_t kind, uint32_t number)
{
    /* Once for each context: the program may go on. */
    contexts[fd] = OTHER;
    struct waiting report = {
        .misuse = {.kind = USERDMA_MISUSE_INHERITED, .queue = kind, .number = number}, .fd = fd, .time = shim_nanoseconds()};
    const int saved = errno;
    stack_take_native(&report.stack);
    send_report(&report);
    errno = saved;
}

void outstanding_use(int fd, uint32_t kind, uint32_t number)
{
    if (UNLIKELY(has_inherited) && (unsigned)fd < MAX_CONTEXTS && contexts[fd] == INHERITED)
        report_inherited(fd, kind, number);
}
