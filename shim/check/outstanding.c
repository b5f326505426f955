/*
 * Memory of outstanding requests, for `userdma check`. Reports to the daemon
 * - memory that is freed (shim/frees/frees.c), or in a stack frame that has returned (frames.c);
 * - requests that are outstanding when the program forks;
 * - memory of sends that has changed between the post and the poll of the completion;
 * - inherited queues that a child uses.
 *
 * The daemon knows what the device has done with the request, and decides whether a report is a finding.
 *
 * A request is outstanding until its completion is polled, or its queue is reset or destroyed. For an unsignaled send,
 * until the completion of a later send is polled.
 */
#define _GNU_SOURCE
#include "../recorder/verbs.h"
#include "../recorder/objects.h"
#include "requests.h"

#include <errno.h>
#include <stdlib.h>

/* Use by children is reported only for contexts with a lower descriptor. */
#define MAX_CONTEXTS 4096
/* Maximum reported elements of requests at a fork. */
#define MAX_FORKED 4

/* The program exits: frees are no findings. */
static bool is_exiting;

/* ---- posts ---- */

static void at_exit(void)
{
    is_exiting = true;
    reports_send_kept();
    if (recorder_is_on && !shim_is_other_process())
        message_send(-1, USERDMA_END, 0, NULL, 0, false);
}

/* A queue is unordered. */
static bool has_lost_order;

/* Without the lock: tells once of each thing that is not checked. */
static void warn(void)
{
    static bool full_is_told, order_is_told;
    if (!recorder_is_on)
        return;
    if (UNLIKELY(requests_are_full) && !full_is_told && !__atomic_exchange_n(&full_is_told, true, __ATOMIC_RELAXED))
        dprintf(STDERR_FILENO,
                "userdma check: there are more than %d queues, or %d memory ranges of outstanding requests: further "
                "requests are not checked for free() and fork()\n",
                MAX_QUEUES, MAX_RANGES);
    if (UNLIKELY(has_lost_order) && !order_is_told && !__atomic_exchange_n(&order_is_told, true, __ATOMIC_RELAXED))
        dprintf(STDERR_FILENO,
                "userdma check: the order of the requests of a queue is unknown: a signal handler has posted within a "
                "post, a thread has left or not ended a post, or there are too many queues. Their buffers are not "
                "compared with what was posted, and findings may lack the wr_id or the stack\n");
}

/* Sets the memory of a request. `slot`: the first element, or NONE if there was no free slot. */
static void add_memory(struct queue *queue, uint32_t slot, const struct ibv_sge *list, int count, uintptr_t outermost)
{
    for (int i = 0; slot != NONE && i < count; i++) {
        range_set(slot, list[i].addr, list[i].length);
        elements[slot].number = __atomic_add_fetch(&userdma_latest, 1, __ATOMIC_RELAXED);
        elements[slot].lkey = list[i].lkey;
        frames_note(slot, list[i].addr, outermost);
        if (i + 1 < count) {
            const bool is_read = elements[slot].is_read;
            slot = element_append(queue, elements[slot].wr_id, elements[slot].is_signaled);
            if (slot != NONE)
                elements[slot].is_read = is_read;
        }
    }
}

/* Earlier elements of a queue with which those of a new READ are compared. */
#define MAX_COMPARED 64
/* Maximum reports of READs that overlap. */
#define MAX_OVERLAPS 64

/* With the lock held: an address to which the queue's last request and an earlier one write what they read; 0: none. */
static uintptr_t overlap_of_reads(const struct queue *queue)
{
    unsigned compared = 0;
    for (uint32_t own = queue->last; own != NONE && elements[own].index == queue->posted; own = elements[own].previous)
        for (uint32_t slot = queue->last; slot != NONE && compared < MAX_COMPARED; slot = elements[slot].previous) {
            if (elements[slot].index == queue->posted)
                continue;
            compared++;
            if (elements[slot].is_read && ranges[slot].start < ranges[own].end && ranges[own].start < ranges[slot].end)
                return ranges[slot].start > ranges[own].start ? ranges[slot].start : ranges[own].start;
        }
    return 0;
}

/* Without the lock. `stack`: of the post; 0: the caller's. */
__attribute__((noinline)) static void report_overlap(int fd, uint32_t qpn, uint64_t wr_id, uintptr_t address,
                                                     uint32_t stack)
{
    static unsigned reports;
    if (!recorder_is_on || __atomic_fetch_add(&reports, 1, __ATOMIC_RELAXED) >= MAX_OVERLAPS)
        return;
    event_reads_overlap(fd, stack ? stack : stack_here(), wr_id, address, qpn);
}

/* A request was not counted: nothing is known of its queue's positions, nor which queue it was. */
static bool has_missed;

/* With the lock held: what was noted of a request by its position (from 0) is not valid. */
static void forget_notes(const struct queue *queue, uint32_t index)
{
    post_forget_index(queue->fd, queue->kind, queue->number, index);
    if (queue->kind == USERDMA_POST_SEND)
        hashes_note(queue->fd, queue->number, index, false, 0);
}

/* With the lock held: the order of the queue is lost, perhaps also of requests that the device has not fetched yet. */
static void lose_order(struct queue *queue)
{
    queue->is_unordered = true;
    for (uint32_t slot = queue->first; slot != NONE; slot = elements[slot].next) {
        elements[slot].is_hashed = false;
        forget_notes(queue, elements[slot].index - 1);
    }
}

/* The queue of a post. `is_ordered`: as in check.h. `is_built`: its position is noted when its batch is complete. */
struct place {
    int fd;
    uint32_t kind, number;
    bool is_ordered, is_built;
};

/* What is known of a request. `is_sent`: as in struct element. */
struct request_kind {
    bool is_signaled, is_sent, is_read, is_remote, is_revoking;
};

/*
 * `stack`: of the post; 0: unknown. Returns the position of the request in the device's queue, from 0; UINT32_MAX:
 * unknown.
 */
static uint32_t add_request(struct place place, uint64_t wr_id, struct request_kind request,
                            const struct ibv_sge *list, int num_sge, uintptr_t frame, uint32_t stack)
{
    const int count = num_sge > MAX_SGE ? 0 : num_sge;
    const uintptr_t outermost = recorder_is_on ? frames_outermost(list, count, frame) : 0;
    uint32_t index = UINT32_MAX;
    uintptr_t overlap = 0;
    if (!requests_lock()) {
        __atomic_store_n(&has_missed, true, __ATOMIC_RELAXED);
        return index;
    }
    struct queue *queue = queue_of(place.fd, place.kind, place.number, true);
    if (queue) {
        index = queue->posted++;
        if (UNLIKELY(!place.is_ordered || __atomic_load_n(&has_missed, __ATOMIC_RELAXED)) && !queue->is_unordered) {
            has_lost_order = true;
            lose_order(queue);
        }
        if (UNLIKELY(queue->is_unordered)) {
            forget_notes(queue, index);
            index = UINT32_MAX;
        } else if (!place.is_built) {
            post_note_index(place.fd, place.kind, place.number, index, wr_id, stack);
        }
        const uint32_t first = element_append(queue, wr_id, request.is_signaled);
        if (first != NONE) {
            elements[first].is_sent = request.is_sent;
            elements[first].is_read = request.is_read;
            elements[first].is_remote = request.is_remote;
            elements[first].is_revoking = request.is_revoking;
        }
        add_memory(queue, first, list, count, outermost);
        if (request.is_read && count > 0)
            overlap = overlap_of_reads(queue);
    } else {
        requests_are_full = true;
    }
    requests_unlock();
    if (UNLIKELY(overlap != 0))
        report_overlap(place.fd, place.number, wr_id, overlap, stack);
    warn();
    return index;
}

/* At the first context and post: at_exit runs before the destructors of objects that existed before. */
static void register_at_exit(void)
{
    static bool is_registered;
    if (UNLIKELY(!is_registered) && !__atomic_exchange_n(&is_registered, true, __ATOMIC_RELAXED)) {
        atexit(at_exit);
        at_quick_exit(at_exit);
    }
}

/* With the lock held: the first element of the send with this position (from 0); NONE: unknown. */
static uint32_t find_send(const struct queue *queue, uint32_t index)
{
    uint32_t slot = queue->last, first = NONE;
    for (; slot != NONE && (int32_t)(elements[slot].index - (index + 1)) >= 0; slot = elements[slot].previous)
        first = elements[slot].index == index + 1 ? slot : NONE;
    return first;
}

/*
 * With the lock held: copies the memory of the request with the first element `slot` to `list` of MAX_SGE elements.
 * Returns their number; 0: the device does not send them, or they are not all known.
 */
static int copy_memory(uint32_t slot, struct ibv_sge *list)
{
    const uint32_t index = elements[slot].index;
    int count = 0;
    if (!elements[slot].is_sent)
        return 0;
    for (; slot != NONE && elements[slot].index == index; slot = elements[slot].next) {
        if (elements[slot].number == 0 || ranges[slot].end == 0 || count == MAX_SGE)
            return 0;
        const uint32_t length = (uint32_t)(ranges[slot].end - ranges[slot].start);
        list[count++] = (struct ibv_sge){.addr = ranges[slot].start, .length = length};
    }
    return count;
}

/* Before the post: hashes the buffer of a send. */
static void hash_send(int fd, uint32_t qpn, uint32_t index, const struct ibv_sge *list, int count)
{
    const int saved = errno;
    uint32_t hash;
    const bool is_known = hashes_take(index, list, count, &hash);
    if (requests_lock()) {
        const struct queue *queue = queue_of(fd, USERDMA_POST_SEND, qpn, false);
        /* A signal handler may have posted to the queue meanwhile. */
        const bool is_ordered = queue && !queue->is_unordered;
        const uint32_t slot = is_ordered && is_known ? find_send(queue, index) : NONE;
        hashes_note(fd, qpn, index, is_ordered && is_known, hash);
        if (slot != NONE) {
            elements[slot].is_hashed = true;
            elements[slot].hash = hash;
        }
        requests_unlock();
    }
    errno = saved;
}

static bool reads(int opcode)
{
    return opcode == IBV_WR_RDMA_READ || opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
}

static bool is_remote(int opcode)
{
    return reads(opcode) || opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

static bool is_revoking(int opcode)
{
    return opcode == IBV_WR_LOCAL_INV || opcode == IBV_WR_BIND_MW;
}

void outstanding_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame, uint32_t stack,
                       bool is_ordered)
{
    const int fd = qp->context->cmd_fd;
    register_at_exit();
    for (; list; list = list->next) {
        const bool has_memory = !(list->send_flags & IBV_SEND_INLINE) && list->num_sge > 0 &&
                                !is_revoking(list->opcode);
        const bool is_read = reads(list->opcode);
        const bool is_sent =
            has_memory && !is_read && list->num_sge <= MAX_SGE && !(list->send_flags & IBV_SEND_FENCE);
        const uint32_t index =
            add_request((struct place){fd, USERDMA_POST_SEND, qp->qp_num, is_ordered, false}, list->wr_id,
                        (struct request_kind){list->send_flags & IBV_SEND_SIGNALED, is_sent, has_memory && is_read,
                                              is_remote(list->opcode), is_revoking(list->opcode)},
                        list->sg_list, has_memory ? list->num_sge : 0, frame, stack);
        if (is_sent && recorder_is_on && LIKELY(index != UINT32_MAX) && hashes_are_wanted(index))
            hash_send(fd, qp->qp_num, index, list->sg_list, list->num_sge);
    }
}

void outstanding_receives(int fd, uint32_t kind, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame,
                          uint32_t stack, bool is_ordered)
{
    register_at_exit();
    for (; list; list = list->next)
        add_request((struct place){fd, kind, number, is_ordered, false}, list->wr_id,
                    (struct request_kind){.is_signaled = true}, list->sg_list, list->num_sge, frame, stack);
}

void outstanding_built(const struct ibv_qp_ex *qp, int opcode, bool sends, bool is_ordered)
{
    register_at_exit();
    const struct place place = {qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, is_ordered, true};
    add_request(place, qp->wr_id,
                (struct request_kind){qp->wr_flags & IBV_SEND_SIGNALED, sends && !(qp->wr_flags & IBV_SEND_FENCE),
                                      reads(opcode), is_remote(opcode), is_revoking(opcode)},
                NULL, 0, 0, 0);
}

void note_elements(const struct ibv_qp_ex *qp, const struct ibv_sge *list, size_t num_sge, uintptr_t frame, bool is_own)
{
    const int count = num_sge > MAX_SGE ? 0 : (int)num_sge;
    const uintptr_t outermost = recorder_is_on ? frames_outermost(list, count, frame) : 0;
    if (recorder_is_on)
        note_dead_elements(qp, list, count, frame, is_own);
    if (!requests_lock())
        return;
    struct queue *queue = queue_of(qp->qp_base.context->cmd_fd, USERDMA_POST_SEND, qp->qp_base.qp_num, false);
    /* If there was no free slot for the request, the last element is of an earlier request. */
    if (queue && queue->last != NONE && elements[queue->last].index == queue->posted && ranges[queue->last].end == 0)
        add_memory(queue, queue->last, list, count, outermost);
    const uintptr_t overlap =
        queue && queue->last != NONE && elements[queue->last].is_read ? overlap_of_reads(queue) : 0;
    requests_unlock();
    if (UNLIKELY(overlap != 0))
        report_overlap(qp->qp_base.context->cmd_fd, qp->qp_base.qp_num, qp->wr_id, overlap, 0);
}

/* Notes the last `count` requests of a queue by their positions, if they have elements: a table may have been full. */
static void note_last(int fd, uint32_t qpn, uint32_t count, uint32_t stack)
{
    if (!requests_lock())
        return;
    const struct queue *queue = queue_of(fd, USERDMA_POST_SEND, qpn, false);
    if (queue && !queue->is_unordered) {
        uint32_t index = queue->posted - count, slot = NONE;
        for (uint32_t at = queue->last; at != NONE && (int32_t)(elements[at].index - index) > 0;
             at = elements[at].previous)
            slot = at;
        for (; index != queue->posted; index++) {
            if (slot == NONE || elements[slot].index != index + 1) {
                post_forget_index(fd, USERDMA_POST_SEND, qpn, index);
                continue;
            }
            post_note_index(fd, USERDMA_POST_SEND, qpn, index, elements[slot].wr_id, stack);
            while (slot != NONE && elements[slot].index == index + 1)
                slot = elements[slot].next;
        }
    }
    requests_unlock();
}

void outstanding_completed_batch(const struct ibv_qp_ex *qp, uint32_t count, uint32_t stack)
{
    const int fd = qp->qp_base.context->cmd_fd;
    struct ibv_sge list[MAX_SGE];
    note_last(fd, qp->qp_base.qp_num, count, stack);
    for (; count > 0 && !requests_are_full; count--) {
        int found = 0;
        if (!requests_lock())
            return;
        const struct queue *queue = queue_of(fd, USERDMA_POST_SEND, qp->qp_base.qp_num, false);
        const uint32_t index = queue ? queue->posted - count : 0;
        const bool is_wanted = queue && !queue->is_unordered && hashes_are_wanted(index);
        const uint32_t slot = is_wanted ? find_send(queue, index) : NONE;
        if (slot != NONE)
            found = copy_memory(slot, list);
        requests_unlock();
        if (found > 0)
            hash_send(fd, qp->qp_base.qp_num, index, list, found);
    }
}

uint32_t outstanding_refused(int fd, uint32_t kind, uint32_t number, uint32_t count)
{
    if (count == 0)
        return 0;
    if (!requests_lock()) {
        __atomic_store_n(&has_missed, true, __ATOMIC_RELAXED);
        return 0;
    }
    struct queue *queue = queue_of(fd, kind, number, false);
    for (; queue && count > 0; count--) {
        const uint32_t index = queue->posted--;
        while (queue->last != NONE && elements[queue->last].index == index)
            element_remove(queue, queue->last);
    }
    const uint32_t taken = queue && !queue->is_unordered ? queue->posted : 0;
    requests_unlock();
    return taken;
}

void outstanding_lacks_setter(int fd, uint32_t number)
{
    if (!requests_lock())
        return;
    struct queue *queue = queue_of(fd, USERDMA_POST_SEND, number, false);
    if (queue && !queue->is_unordered)
        lose_order(queue);
    requests_unlock();
}

uint32_t outstanding_unsignaled(int fd, uint32_t number)
{
    if (!requests_lock())
        return 0;
    const struct queue *queue = queue_of(fd, USERDMA_POST_SEND, number, false);
    uint32_t count = 0, index = 0;
    for (uint32_t slot = queue ? queue->last : NONE; slot != NONE && !elements[slot].is_signaled;
         slot = elements[slot].previous) {
        if (count == 0 || elements[slot].index != index) /* all elements of a request have one index */
            count++;
        index = elements[slot].index;
    }
    requests_unlock();
    return count;
}

/* ---- sanitizers ---- */

static bool is_written(uint32_t slot)
{
    return queue_of_element(slot)->kind != USERDMA_POST_SEND || elements[slot].is_read;
}

/* With the lock held: an element is given. Elements of other requests that use its memory, too, are marked with it. */
static void give(uint32_t slot)
{
    elements[slot].is_given = true;
    for (uint32_t other = 0; other < used_slots; other++)
        if (UNLIKELY(ranges[other].end > ranges[slot].start && ranges[other].start < ranges[slot].end) &&
            (elements[other].queue != elements[slot].queue || elements[other].index != elements[slot].index) &&
            (is_written(slot) || is_written(other)))
            elements[slot].is_shared = elements[other].is_shared = true;
}

/* With the lock held: the memory of an element, if it is in a known region. */
static bool memory_of(uint32_t slot, struct device_memory *memory)
{
    const struct region *region =
        ranges[slot].end == 0 ? NULL : region_named(queue_of_element(slot)->fd, elements[slot].lkey);
    if (!region)
        return false;
    const uint64_t offset = ranges[slot].start - region->iova, bytes = ranges[slot].end - ranges[slot].start;
    *memory = (struct device_memory){.token = &elements[slot],
                                     .region = region,
                                     .start = region->start + offset,
                                     .bytes = bytes,
                                     .is_written = is_written(slot),
                                     .is_shared = elements[slot].is_shared};
    return offset <= region->end - region->start && bytes <= region->end - region->start - offset;
}

/* With the queue's lock held: `count` requests that are not posted yet stay in the queue. */
void outstanding_given(int fd, uint32_t kind, uint32_t number, uint32_t count, bool has_message)
{
    struct device_memory list[MAX_SGE];
    uint32_t found, slot = NONE;
    bool is_first = true;
    do {
        found = 0;
        if (!requests_lock())
            return;
        const struct queue *queue = queue_of(fd, kind, number, false);
        if (!queue || queue->is_unordered) {
            requests_unlock();
            return;
        }
        if (is_first)
            for (uint32_t at = queue->last; at != NONE && queue->posted - elements[at].index < count;
                 at = elements[at].previous)
                slot = at;
        for (; slot != NONE && found < MAX_SGE; slot = elements[slot].next) {
            give(slot);
            found += memory_of(slot, &list[found]);
        }
        requests_unlock();
        if (kind == USERDMA_POST_SEND)
            sanitizers_takes((struct device_queue){.fd = fd, .number = number}, list, found, is_first && has_message);
        else
            sanitizers_takes_receives(list, found);
        is_first = false;
    } while (slot != NONE);
}

/* What a device has used for a completed request. */
struct used {
    struct device_queue queue;
    struct device_memory memory[MAX_SGE];
    uint32_t count;
};

/* With the lock held: that of the request with the first element `slot`, of which the device has used `bytes`. */
static void note_used(struct used *used, const struct queue *queue, uint32_t slot, size_t bytes)
{
    const uint32_t index = elements[slot].index;
    if (queue->is_unsure)
        return;
    used->queue = (struct device_queue){.fd = queue->fd,
                                         .is_shared = queue->kind == USERDMA_POST_SHARED,
                                         .number = queue->number};
    for (; slot != NONE && elements[slot].index == index && bytes > 0 && used->count < MAX_SGE;
         slot = elements[slot].next) {
        struct device_memory *const memory = &used->memory[used->count];
        if (!elements[slot].is_given || !memory_of(slot, memory))
            continue;
        if (memory->bytes > bytes)
            memory->bytes = bytes;
        bytes -= memory->bytes;
        used->count++;
    }
}

/* Without the lock. */
static void tell_used(const struct used *used)
{
    for (uint32_t i = 0; sanitizers_look && i < used->count; i++)
        sanitizers_used(used->queue, &used->memory[i]);
}

/* ---- completions ---- */

/* With the lock held: the SRQ of a completed receive. `receives`: those of the queue pair. NULL: unknown. */
static struct queue *shared_of(int fd, const struct queue *receives, uint64_t wr_id)
{
    if (receives && receives->has_shared)
        return queue_of(fd, USERDMA_POST_SHARED, receives->shared, false);
    /* A target of XRC takes receives of any SRQ, which a completion does not name. */
    struct queue *found = NULL;
    for (struct queue *queue = first_shared; queue && (!found || sanitizers_watch); queue = queue->next_shared) {
        if (queue->fd != fd || receive_find(queue, wr_id) == NONE)
            continue;
        if (found)
            found->is_unsure = queue->is_unsure = true;
        else
            found = queue;
    }
    return found;
}

/* Tells sanitizers what has arrived. With the lock of the CQ held, the receive stays where it is. */
static void tell_arrived(int fd, uint32_t qpn, uint64_t wr_id, uint32_t bytes)
{
    struct used used;
    used.count = 0; /* not all of it: this is in each poll */
    if (bytes == 0 || !requests_lock())
        return;
    const struct queue *queue = queue_of(fd, USERDMA_POST_RECEIVE, qpn, false);
    uint32_t slot = queue ? receive_find(queue, wr_id) : NONE;
    if (slot == NONE && (queue = shared_of(fd, queue, wr_id)))
        slot = receive_find(queue, wr_id);
    if (slot != NONE)
        note_used(&used, queue, slot, bytes);
    requests_unlock();
    sanitizers_arrives((struct device_queue){.fd = fd, .number = qpn}, used.memory, used.count);
    tell_used(&used);
}

/* Reports of polled completions of queue pairs without requests. */
#define MAX_POLLED_GONE 100

/*
 * A completion was polled whose queue has no requests: its queue pair was destroyed, or this process has not posted to
 * it.
 */
static void polled_gone(int fd, uint32_t kind, uint32_t qpn, uint64_t wr_id)
{
    static unsigned reports;
    if (!recorder_is_on || __atomic_load_n(&reports, __ATOMIC_RELAXED) >= MAX_POLLED_GONE)
        return;
    __atomic_fetch_add(&reports, 1, __ATOMIC_RELAXED);
    event_polled_gone(fd, stack_here(), wr_id, kind, qpn);
}

/*
 * A completion of a send was polled, and the program does not know it yet: removes the send and all sends before it,
 * and reports those whose buffers have changed since the post.
 *
 * Buffers are hashed without the lock. If another thread polls a completion of the queue meanwhile, the program may
 * already use the buffer again: then nothing is reported.
 */
static void complete_sends(int fd, uint32_t qpn, uint64_t wr_id, bool has_failed)
{
    struct ibv_sge list[MAX_SGE];
    if (!requests_lock())
        return;
    struct queue *queue = queue_of(fd, USERDMA_POST_SEND, qpn, false);
    bool has_accessed = false, has_revoked = false;
    if (UNLIKELY(!queue)) {
        requests_unlock();
        polled_gone(fd, USERDMA_POST_SEND, qpn, wr_id);
        return;
    }
    const uint32_t life = queue->life, polled = ++queue->polled;
    const uint32_t found = send_find(queue, wr_id);
    const uint32_t last = found == NONE ? 0 : elements[found].index;
    /* Sends complete in order. */
    while (found != NONE && queue && queue->life == life && queue->first != NONE &&
           (int32_t)(elements[queue->first].index - last) <= 0) {
        const struct element first = elements[queue->first];
        const int count = first.is_hashed && queue->polled == polled ? copy_memory(queue->first, list) : 0;
        struct used used;
        used.count = 0;
        /* What the peer has answered, the program may have freed before this completion. */
        if (UNLIKELY(sanitizers_look) && !has_failed && (first.is_read || (int32_t)(first.index - queue->answered) > 0))
            note_used(&used, queue, queue->first, SIZE_MAX);
        has_accessed |= first.is_remote;
        has_revoked |= first.is_revoking;
        request_remove_first(queue);
        if (count == 0 && used.count == 0)
            continue;
        requests_unlock();
        tell_used(&used);
        const uint32_t index = first.index - 1; /* from 0 */
        const int saved = errno;
        uint32_t hash;
        const bool is_changed = count > 0 && hashes_take(index, list, count, &hash) && hash != first.hash;
        errno = saved;
        if (!requests_lock())
            return;
        queue = queue_of(fd, USERDMA_POST_SEND, qpn, false);
        if (is_changed && queue && queue->life == life && queue->polled == polled) {
            requests_unlock();
            event_send_changed(fd, 0, qpn, index);
            if (!requests_lock())
                return;
            queue = queue_of(fd, USERDMA_POST_SEND, qpn, false);
        }
    }
    requests_unlock();
    if (UNLIKELY(sanitizers_watch) && has_accessed)
        sanitizers_accessed((struct device_queue){.fd = fd, .number = qpn});
    if (has_revoked)
        sanitizers_hears();
}

/* Whether the failed request is a receive: by the queue that has an outstanding request with this wr_id. */
static bool was_receive(int fd, uint32_t qpn, uint64_t wr_id, bool by_opcode)
{
    if (!requests_lock())
        return by_opcode;
    const struct queue *sends = queue_of(fd, USERDMA_POST_SEND, qpn, false);
    const struct queue *receives = queue_of(fd, USERDMA_POST_RECEIVE, qpn, false);
    const bool is_send = sends && send_find(sends, wr_id) != NONE;
    bool is_receive = receives && receive_find(receives, wr_id) != NONE;
    const bool has_shared = receives && receives->has_shared;
    for (const struct queue *shared = first_shared; shared && !is_receive && !is_send; shared = shared->next_shared)
        is_receive = shared->fd == fd && (!has_shared || shared->number == receives->shared) &&
                     receive_find(shared, wr_id) != NONE;
    requests_unlock();
    return is_send == is_receive ? by_opcode : is_receive;
}

/* With the lock held: the peer of a queue pair has sent something. */
static void note_answer(int fd, uint32_t qpn)
{
    struct queue *sends = queue_of(fd, USERDMA_POST_SEND, qpn, false);
    if (sends)
        sends->answered = sends->posted;
    sanitizers_receives((struct device_queue){.fd = fd, .number = qpn});
}

void outstanding_polled(int fd, uint32_t qpn, uint64_t wr_id, bool is_receive, bool has_failed, uint32_t arrived)
{
    if (UNLIKELY(has_failed))
        is_receive = was_receive(fd, qpn, wr_id, is_receive);
    if (!is_receive) {
        complete_sends(fd, qpn, wr_id, has_failed);
        return;
    }
    if (UNLIKELY(sanitizers_watch))
        tell_arrived(fd, qpn, wr_id, has_failed ? 0 : arrived);
    if (!requests_lock())
        return;
    struct queue *const queue = queue_of(fd, USERDMA_POST_RECEIVE, qpn, false);
    if (!queue || !receive_complete(queue, wr_id)) {
        struct queue *const shared = shared_of(fd, queue, wr_id);
        if (shared)
            receive_complete(shared, wr_id);
    }
    if (UNLIKELY(sanitizers_watch) && !has_failed)
        note_answer(fd, qpn);
    requests_unlock();
    if (UNLIKELY(!queue))
        polled_gone(fd, USERDMA_POST_RECEIVE, qpn, wr_id);
}

void outstanding_forget(int fd, uint32_t kind, uint32_t number)
{
    if (!requests_lock())
        return;
    struct queue *queue = queue_of(fd, kind, number, false);
    if (queue)
        queue_forget(queue);
    sanitizers_hears();
    requests_unlock();
}

/* ---- frees ---- */

bool outstanding_is_exiting(void)
{
    return is_exiting;
}

void outstanding_freed(uintptr_t start, uintptr_t end, uint64_t latest)
{
    struct report report = {.fd = -1};
    uint32_t found = 0;
    if (is_exiting || !requests_lock())
        return;
    for (uint32_t slot = 0; slot < used_slots; slot++) {
        if (LIKELY(ranges[slot].end <= start || ranges[slot].start >= end) || elements[slot].number > latest)
            continue;
        if (found++ == 0)
            report = report_of(slot, REPORT_FREED);
        element_clear(slot);
    }
    requests_unlock();
    if (found == 0)
        return;
    report.element.more = found - 1;
    report_later(&report);
}

/* ---- contexts and children ---- */

/* By descriptor: whether this process opened the context, or inherited it by fork. */
static enum { OTHER, OWN, INHERITED } contexts[MAX_CONTEXTS];
static bool has_inherited;
/* This process has created a queue pair since it was forked. */
static bool has_created;

void outstanding_created(void)
{
    has_created = true;
}

void outstanding_shares(const struct ibv_qp *qp)
{
    if (!qp->srq || !requests_lock())
        return;
    struct queue *queue = queue_of(qp->context->cmd_fd, USERDMA_POST_RECEIVE, qp->qp_num, true);
    if (queue) {
        queue->has_shared = true;
        queue->shared = qp->srq->handle;
    }
    requests_unlock();
}

void outstanding_opened(int fd)
{
    register_at_exit();
    if ((unsigned)fd < MAX_CONTEXTS)
        contexts[fd] = OWN;
    if (!requests_lock())
        return;
    queues_forget(fd);
    requests_unlock();
}

void outstanding_closed(int fd)
{
    if (!requests_lock())
        return;
    queues_forget(fd);
    requests_unlock();
}

void outstanding_fork(void)
{
    struct report found[MAX_FORKED];
    unsigned count = 0;
    reports_send_kept();
    if (__atomic_load_n(&userdma_outstanding, __ATOMIC_RELAXED) == 0 || !requests_lock())
        return;
    for (uint32_t slot = 0; slot < used_slots && count < MAX_FORKED; slot++)
        if (ranges[slot].end != 0)
            found[count++] = report_of(slot, REPORT_FORKED);
    requests_unlock();
    for (unsigned i = 0; i < count; i++) {
        stack_take_native(&found[i].stack);
        report_send(&found[i]);
    }
}

IN_CHILD void outstanding_child(void)
{
    requests_forget_all();
    ranges_forget_all();
    reports_forget_all();
    frames_forget_all();
    unmaps_forget_all();
    objects_in_child();
    waiting_in_child();
    lends_in_child();
    has_created = false;
    for (unsigned fd = 0; fd < MAX_CONTEXTS; fd++)
        if (contexts[fd] == OWN) {
            contexts[fd] = INHERITED;
            has_inherited = true;
        }
}

__attribute__((noinline)) static void report_inherited(int fd, uint32_t kind, uint32_t number, bool destroys)
{
    /* Reported once for each context. */
    contexts[fd] = OTHER;
    struct stack stack;
    const int saved = errno;
    stack_take_native(&stack);
    if (destroys)
        event_destroyed_inherited(fd, stack_number(&stack), number);
    else
        event_used_inherited(fd, stack_number(&stack), kind, number);
    errno = saved;
}

void outstanding_check_inherited(int fd, uint32_t kind, uint32_t number)
{
    if (UNLIKELY(has_inherited) && (unsigned)fd < MAX_CONTEXTS && contexts[fd] == INHERITED)
        report_inherited(fd, kind, number, false);
}

void outstanding_check_destroyer(int fd, uint32_t kind, uint32_t number)
{
    if (UNLIKELY(has_inherited) && !has_created && (unsigned)fd < MAX_CONTEXTS && contexts[fd] == INHERITED)
        report_inherited(fd, kind, number, true);
}

bool outstanding_is_own(int fd)
{
    return (unsigned)fd < MAX_CONTEXTS && contexts[fd] == OWN;
}
