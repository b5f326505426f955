/*
 * Messages to the daemon for `userdma check` (USERDMA_STACKS). A stack (../recorder/stacks.c) is sent once for each
 * connection (STACK). Calls have its number in their header. Posts make no call: they note the number in the context's
 * file (post log, events.c).
 */
#define _GNU_SOURCE
#include "../session/requests.h"
#include "noted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* The connection and the process for which the numbers are valid. */
static uint16_t known_generation;
static pid_t known_pid;

void messages_detect(void)
{
    /* 2, 3: also the event log (events.c). */
    const char *wanted = getenv(USERDMA_ENV_STACKS);
    recorder_is_on = shim_is_active && wanted && *wanted >= '1' && *wanted <= '3' && wanted[1] == 0;
}

bool stacks_are_current(void)
{
    return known_pid == getpid() && known_generation == session_generation();
}

/* The message STACK. Too long for the union of `struct request`. */
struct definition {
    struct userdma_header header;
    struct userdma_stack stack;
};

/* With the lock held and a connection: sends a new stack. Returns the number; 0: none. */
static uint32_t send_definition(uint64_t hash, struct definition *definition, const struct shim_guard *guard)
{
    if (!stacks_are_current()) {
        stacks_forget();
        known_generation = session_generation();
        known_pid = getpid();
    }
    const uint32_t present = stacks_find(hash), number = stacks_next();
    if (present != 0 || number == 0)
        return present;
    definition->stack.id = number;
    struct reply reply;
    if (session_exchange((struct request *)definition, sizeof definition->stack, &reply, guard) != 0)
        return 0;
    reply_close_all(&reply);
    /* While the thread waited without the lock, another thread has connected: the stack has no number there. */
    if (reply.generation != session_generation())
        return 0;
    stacks_add(hash, number);
    return number;
}

uint32_t stack_define(const struct stack *stack)
{
    /* Not on the stack: that of a thread may be small (PTHREAD_STACK_MIN). A stack is new once. */
    struct definition *definition =
        REAL(mmap64)(NULL, sizeof *definition, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (definition == MAP_FAILED)
        return 0;
    definition->header = (struct userdma_header){.type = USERDMA_STACK, .fd = -1};
    stack_write_frames(stack, definition->stack.frames, sizeof definition->stack.frames);
    struct shim_guard guard;
    uint32_t id = 0;
    if (session_enter(&guard)) {
        if (session_ensure_connected(&guard, false))
            id = send_definition(stack->hash, definition, &guard);
        session_leave(&guard);
    }
    early_syscall(SYS_munmap, (long)definition, sizeof *definition, 0, 0, 0, 0);
    return id;
}

/* The entry of the post log for a request, as postSlot of spec/session.ts. */
static uint32_t post_slot(uint32_t queue, uint32_t number, uint64_t wr_id)
{
    const uint32_t mixed = ((uint32_t)wr_id ^ (uint32_t)(wr_id >> 32) ^ number * 31 ^ queue) * 0x9e3779b1u;
    return mixed >> (32 - __builtin_ctz(USERDMA_POST_LOG_ENTRIES));
}

void stack_note_post(int fd, uint32_t queue, uint32_t number, uint64_t wr_id, uint32_t stack)
{
    const int saved = errno;
    /* `known_pid` and not getpid(): the daemon knows `stack` as a number of the process that has sent the stack. */
    const struct userdma_post post = {
        .wr_id = wr_id, .queue = queue, .number = number, .pid = (uint32_t)known_pid, .stack = stack};
    const uint32_t slot = post_slot(queue, number, wr_id);
    struct userdma_post *log = events_post_log(fd);
    if (stack != 0 && LIKELY(log != NULL))
        log[slot] = post;
    else if (stack != 0)
        REAL(pwrite64)(fd, &post, sizeof post, (off64_t)USERDMA_POST_LOG_OFFSET + (off64_t)slot * (off64_t)sizeof post);
    errno = saved;
}

/* The set of the position log for a request, as positionSet of spec/session.ts; NULL: there is no log. */
static struct userdma_position *position_set(int fd, uint32_t queue, uint32_t number, uint32_t index)
{
    struct userdma_position *log = events_position_log(fd);
    _Static_assert(USERDMA_POSITION_LOG_SETS == 1 << 12, "the hash has 12 bits");
    const uint32_t hash = (number * 31 ^ queue) * 0x9e3779b1u >> 20;
    return log ? &log[(hash + index) % USERDMA_POSITION_LOG_SETS * USERDMA_POSITION_LOG_WAYS] : NULL;
}

static bool is_entry(const struct userdma_position *entry, uint32_t queue, uint32_t number, uint32_t index)
{
    return entry->index == index && entry->queue == queue && entry->number == number;
}

void post_note_index(int fd, uint32_t queue, uint32_t number, uint32_t index, uint64_t wr_id, uint32_t stack)
{
    static uint32_t last_age;
    struct userdma_position *const set = position_set(fd, queue, number, index);
    /* Without a log only the request's own name is missing in findings. */
    if (UNLIKELY(!set))
        return;
    /* Not exact: threads may get the same. */
    const uint32_t age = __atomic_load_n(&last_age, __ATOMIC_RELAXED) + 1;
    __atomic_store_n(&last_age, age, __ATOMIC_RELAXED);
    struct userdma_position *place = set;
    for (unsigned way = 0; way < USERDMA_POSITION_LOG_WAYS; way++) {
        struct userdma_position *entry = &set[way];
        if (is_entry(entry, queue, number, index)) {
            place = entry;
            break;
        }
        if (place->queue != 0 && (entry->queue == 0 || age - entry->age > age - place->age))
            place = entry;
    }
    *place = (struct userdma_position){.wr_id = wr_id,
                                        .index = index,
                                        .queue = queue,
                                        .number = number,
                                        .pid = (uint32_t)known_pid,
                                        .stack = stack,
                                        .age = age};
}

void post_forget_index(int fd, uint32_t queue, uint32_t number, uint32_t index)
{
    struct userdma_position *const set = position_set(fd, queue, number, index);
    for (unsigned way = 0; set && way < USERDMA_POSITION_LOG_WAYS; way++)
        if (is_entry(&set[way], queue, number, index))
            set[way].queue = 0;
}
