/*
 * Tells the daemon an event of the preload library, with the stack of this number, about the context of fd. Generated
 * by scripts/generate-protocol.mjs from src/spec/preload-events.ts, which says what the arguments mean: do not edit.
 */
#ifndef USERDMA_PRELOAD_EVENTS_H
#define USERDMA_PRELOAD_EVENTS_H

#include <string.h>

static inline void event_buffer_freed(int fd, uint32_t stack, uint64_t age, uint64_t wr_id, uint64_t address, uint32_t queue, uint32_t number, uint32_t index, uint32_t more)
{
    const struct userdma_buffer_freed body = {.age = age, .wr_id = wr_id, .address = address, .queue = queue, .number = number, .index = index, .more = more};
    message_send(fd, USERDMA_BUFFER_FREED, stack, &body, sizeof body, true);
}

static inline void event_frame_returned(int fd, uint32_t stack, uint64_t age, uint64_t wr_id, uint64_t address, uint32_t queue, uint32_t number, uint32_t index, uint32_t more)
{
    const struct userdma_frame_returned body = {.age = age, .wr_id = wr_id, .address = address, .queue = queue, .number = number, .index = index, .more = more};
    message_send(fd, USERDMA_FRAME_RETURNED, stack, &body, sizeof body, true);
}

static inline void event_forked_outstanding(int fd, uint32_t stack, uint64_t wr_id, uint64_t address, uint32_t queue, uint32_t number, uint32_t index, uint32_t more)
{
    const struct userdma_forked_outstanding body = {.wr_id = wr_id, .address = address, .queue = queue, .number = number, .index = index, .more = more};
    message_send(fd, USERDMA_FORKED_OUTSTANDING, stack, &body, sizeof body, true);
}

static inline void event_used_inherited(int fd, uint32_t stack, uint32_t queue, uint32_t number)
{
    const struct userdma_used_inherited body = {.queue = queue, .number = number};
    message_send(fd, USERDMA_USED_INHERITED, stack, &body, sizeof body, true);
}

static inline void event_destroyed_inherited(int fd, uint32_t stack, uint32_t number)
{
    const struct userdma_destroyed_inherited body = {.number = number};
    message_send(fd, USERDMA_DESTROYED_INHERITED, stack, &body, sizeof body, true);
}

static inline void event_send_changed(int fd, uint32_t stack, uint32_t number, uint32_t index)
{
    const struct userdma_send_changed body = {.number = number, .index = index};
    message_send(fd, USERDMA_SEND_CHANGED, stack, &body, sizeof body, true);
}

static inline void event_overacknowledged(int fd, uint32_t stack, uint32_t number, uint32_t acknowledged, uint32_t read, uint32_t other_cq)
{
    const struct userdma_overacknowledged body = {.number = number, .acknowledged = acknowledged, .read = read, .other_cq = other_cq};
    message_send(fd, USERDMA_OVERACKNOWLEDGED, stack, &body, sizeof body, false);
}

static inline void event_async_overacknowledged(int fd, uint32_t stack, uint32_t queue, uint32_t number, uint32_t read)
{
    const struct userdma_async_overacknowledged body = {.queue = queue, .number = number, .read = read};
    message_send(fd, USERDMA_ASYNC_OVERACKNOWLEDGED, stack, &body, sizeof body, false);
}

static inline void event_gave_back(int fd, uint32_t stack, uint64_t age, uint64_t start, uint64_t end, uint32_t number, uint32_t how, uint32_t is_kept)
{
    const struct userdma_gave_back body = {.age = age, .start = start, .end = end, .number = number, .how = how, .is_kept = is_kept};
    message_send(fd, USERDMA_GAVE_BACK, stack, &body, sizeof body, true);
}

static inline void event_reusable(int fd, uint32_t stack, uint32_t number)
{
    const struct userdma_reusable body = {.number = number};
    message_send(fd, USERDMA_REUSABLE, stack, &body, sizeof body, true);
}

static inline void event_posted_dead(int fd, uint32_t stack, uint64_t wr_id, uint64_t address, uint32_t queue, uint32_t number, uint32_t part)
{
    const struct userdma_posted_dead body = {.wr_id = wr_id, .address = address, .queue = queue, .number = number, .part = part};
    message_send(fd, USERDMA_POSTED_DEAD, stack, &body, sizeof body, true);
}

static inline void event_array_too_short(int fd, uint32_t stack, uint64_t address, uint32_t number, uint32_t entries, uint32_t room)
{
    const struct userdma_array_too_short body = {.address = address, .number = number, .entries = entries, .room = room};
    message_send(fd, USERDMA_ARRAY_TOO_SHORT, stack, &body, sizeof body, true);
}

static inline void event_closed_descriptor(int fd, uint32_t stack, uint32_t descriptor)
{
    const struct userdma_closed_descriptor body = {.descriptor = descriptor};
    message_send(fd, USERDMA_CLOSED_DESCRIPTOR, stack, &body, sizeof body, false);
}

static inline void event_opened_freed(int fd, uint32_t stack, uint64_t freed_at, uint32_t freed_stack)
{
    const struct userdma_opened_freed body = {.freed_at = freed_at, .freed_stack = freed_stack};
    message_send(fd, USERDMA_OPENED_FREED, stack, &body, sizeof body, true);
}

static inline void event_shared_elements(int fd, uint32_t stack, uint64_t wr_id, uint32_t queue, uint32_t number, uint32_t count, uint32_t opcode)
{
    const struct userdma_shared_elements body = {.wr_id = wr_id, .queue = queue, .number = number, .count = count, .opcode = opcode};
    message_send(fd, USERDMA_SHARED_ELEMENTS, stack, &body, sizeof body, true);
}

static inline void event_immediate_in_host_order(int fd, uint32_t stack, uint64_t wr_id, uint32_t number, uint32_t data)
{
    const struct userdma_immediate_in_host_order body = {.wr_id = wr_id, .number = number, .data = data};
    message_send(fd, USERDMA_IMMEDIATE_IN_HOST_ORDER, stack, &body, sizeof body, true);
}

static inline void event_reads_overlap(int fd, uint32_t stack, uint64_t wr_id, uint64_t address, uint32_t number)
{
    const struct userdma_reads_overlap body = {.wr_id = wr_id, .address = address, .number = number};
    message_send(fd, USERDMA_READS_OVERLAP, stack, &body, sizeof body, true);
}

static inline void event_posted_again(int fd, uint32_t stack, uint64_t wr_id, uint32_t queue, uint32_t number, uint32_t taken)
{
    const struct userdma_posted_again body = {.wr_id = wr_id, .queue = queue, .number = number, .taken = taken};
    message_send(fd, USERDMA_POSTED_AGAIN, stack, &body, sizeof body, true);
}

static inline void event_posted_next(int fd, uint32_t stack, uint64_t wr_id, uint64_t head_id, uint32_t queue, uint32_t number, uint32_t count, uint32_t steps)
{
    const struct userdma_posted_next body = {.wr_id = wr_id, .head_id = head_id, .queue = queue, .number = number, .count = count, .steps = steps};
    message_send(fd, USERDMA_POSTED_NEXT, stack, &body, sizeof body, true);
}

static inline void event_elements_unused(int fd, uint32_t stack, uint64_t wr_id, uint64_t address, uint32_t queue, uint32_t number, uint32_t bytes, uint32_t lkey, uint32_t is_left)
{
    const struct userdma_elements_unused body = {.wr_id = wr_id, .address = address, .queue = queue, .number = number, .bytes = bytes, .lkey = lkey, .is_left = is_left};
    message_send(fd, USERDMA_ELEMENTS_UNUSED, stack, &body, sizeof body, true);
}

static inline void event_other_member(int fd, uint32_t stack, uint64_t address, uint32_t number, uint32_t rkey, uint32_t opcode)
{
    const struct userdma_other_member body = {.address = address, .number = number, .rkey = rkey, .opcode = opcode};
    message_send(fd, USERDMA_OTHER_MEMBER, stack, &body, sizeof body, true);
}

static inline void event_polled_in_handler(int fd, uint32_t stack, uint32_t number)
{
    const struct userdma_polled_in_handler body = {.number = number};
    message_send(fd, USERDMA_POLLED_IN_HANDLER, stack, &body, sizeof body, true);
}

static inline void event_polled_gone(int fd, uint32_t stack, uint64_t wr_id, uint32_t queue, uint32_t number)
{
    const struct userdma_polled_gone body = {.wr_id = wr_id, .queue = queue, .number = number};
    message_send(fd, USERDMA_POLLED_GONE, stack, &body, sizeof body, true);
}

static inline void event_refused_post(int fd, uint32_t stack, const struct userdma_refused_post *body)
{
    message_send(fd, USERDMA_REFUSED_POST, stack, body, sizeof *body, true);
}

static inline void event_refused_by_library(int fd, uint32_t stack, const struct userdma_refused_by_library *body)
{
    message_send(fd, USERDMA_REFUSED_BY_LIBRARY, stack, body, sizeof *body, false);
}

static inline void event_used_gone(uint32_t stack, uint64_t value, uint64_t destroyed_at, uint32_t destroyed_stack, uint32_t kind, uint32_t number, uint32_t use, uint32_t is_owner, const char *function)
{
    struct userdma_used_gone body = {.value = value, .destroyed_at = destroyed_at, .destroyed_stack = destroyed_stack, .kind = kind, .number = number, .use = use, .is_owner = is_owner};
    strncpy(body.function, function, sizeof body.function - 1);
    message_send(-1, USERDMA_USED_GONE, stack, &body, sizeof body, true);
}

static inline void event_died(uint32_t stack, uint64_t address, uint32_t signal, uint32_t is_in_ours, uint32_t fault, uint32_t poll_stack, const char *last_call)
{
    struct userdma_died body = {.address = address, .signal = signal, .is_in_ours = is_in_ours, .fault = fault, .poll_stack = poll_stack};
    strncpy(body.last_call, last_call, sizeof body.last_call - 1);
    message_send(-1, USERDMA_DIED, stack, &body, sizeof body, false);
}

static inline void event_batch_mistaken(int fd, uint32_t stack, const struct userdma_batch_mistaken *body)
{
    message_send(fd, USERDMA_BATCH_MISTAKEN, stack, body, sizeof *body, true);
}

static inline void event_misordered(int fd, uint32_t stack, const struct userdma_misordered *body)
{
    message_send(fd, USERDMA_MISORDERED, stack, body, sizeof *body, true);
}

static inline void event_forked(uint32_t stack)
{
    const struct userdma_forked body = {0};
    message_send(-1, USERDMA_FORKED, stack, &body, sizeof body, false);
}

static inline void event_posts_directly(uint32_t stack, const char *name)
{
    struct userdma_posts_directly body = {0};
    strncpy(body.name, name, sizeof body.name - 1);
    message_send(-1, USERDMA_POSTS_DIRECTLY, stack, &body, sizeof body, true);
}

#endif
