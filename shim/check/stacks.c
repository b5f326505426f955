/*
 * Stacks of the program's calls and posts, for `userdma check` (USERDMA_STACKS). A stack is sent to the daemon once for
 * each connection (STACK), and then has a number. Calls have the number in their header. Posts make no call: they note
 * the number in the context's file (post log, events.c).
 */
#define _GNU_SOURCE
#include "../session/session_internal.h"
#include "python.h"
#include "unwind.h"

#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

bool shim_records_stacks;

/*
 * Slots of the table of stacks, a power of two. About half are used, so probes are short. After USERDMA_MAX_STACKS one
 * more stack is sent, by which the daemon knows that stacks are missing. Further stacks have no number.
 */
#define STACK_SLOTS (2 * USERDMA_MAX_STACKS)

/* By hash, with linear probing. Written with the session's lock held, the hash last. */
static struct {
    uint64_t hash;
    uint32_t id;
} known_stacks[STACK_SLOTS];
static uint32_t known_count;
/* Number of unloads of libraries: part of each hash. */
static uint32_t unloads;
/* The connection and the process for which the numbers are valid. */
static uint16_t known_generation;
static pid_t known_pid;

void stacks_detect(void)
{
    /* 2: also the event log (events.c). */
    const char *wanted = getenv(USERDMA_ENV_STACKS);
    shim_records_stacks = shim_is_active && wanted && (strcmp(wanted, "1") == 0 || strcmp(wanted, "2") == 0);
}

/* FNV-1a of 64 bits, a word at a time. */
#define FNV_OFFSET_BASIS 0xcbf29ce484222325u
#define FNV_PRIME 0x100000001b3u

void stack_take_native(struct stack *stack)
{
    stack->depth = unwind_frames(stack->frames, STACK_FRAMES);
    uint64_t hash = FNV_OFFSET_BASIS ^ __atomic_load_n(&unloads, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < stack->depth; i++)
        hash = (hash ^ (uintptr_t)stack->frames[i]) * FNV_PRIME;
    stack->python_depth = 0;
    stack->hash = hash | 1; /* never 0, the hash of a free slot */
}

/*
 * Takes the caller's stack, with frames of Python. The first call loads the unwinder and looks for Python, which
 * allocates. So the first call must not be inside the program's allocator, or at the program's start.
 */
static void stack_take(struct stack *stack)
{
    stack_take_native(stack);
    uint64_t hash = stack->hash;
    stack->python_depth = python_take(stack->python, PYTHON_FRAMES);
    for (unsigned i = 0; i < stack->python_depth; i++)
        hash = (hash ^ (uintptr_t)stack->python[i].code ^ (unsigned)stack->python[i].line) * FNV_PRIME;
    stack->hash = hash | 1;
}

void stacks_unloaded(void)
{
    __atomic_fetch_add(&unloads, 1, __ATOMIC_RELEASE);
}

static bool numbers_are_current(void)
{
    return known_pid == getpid() && known_generation == session_generation();
}

/* The slot of a hash, or the free slot for it. */
static unsigned slot_of(uint64_t hash)
{
    unsigned slot = (unsigned)(hash >> 20) % STACK_SLOTS;
    for (;; slot = (slot + 1) % STACK_SLOTS) {
        const uint64_t present = __atomic_load_n(&known_stacks[slot].hash, __ATOMIC_ACQUIRE);
        if (present == hash || present == 0)
            return slot;
    }
}

static bool is_own_library(const char *path)
{
    const char *name = strrchr(path, '/');
    return strncmp(name ? name + 1 : path, "libuserdma_", sizeof "libuserdma_" - 1) == 0;
}

/* Writes a native frame, `FILE+0xOFFSET SYMBOL`, and a line feed. Result as of snprintf. */
static int write_native(const char *address, const Dl_info *info, const struct link_map *map, char *text, size_t size)
{
    char path[256];
    const char *name = info->dli_fname;
    /* The main program's name in `info` may be relative. */
    if (!map->l_name || !map->l_name[0]) {
        const ssize_t length = REAL(readlink)("/proc/self/exe", path, sizeof path - 1);
        path[length < 0 ? 0 : length] = 0;
        name = path;
    }
    return snprintf(text, size, "%s+0x%lx %s\n", name, (unsigned long)((uintptr_t)address - map->l_addr),
                    info->dli_sname ? info->dli_sname : "");
}

/* A buffer of `size` bytes for frames; `used` bytes are written. */
struct frame_text {
    char *text;
    size_t size, used;
};

/* Appends the line that snprintf wrote after the text. `written`: its result. False if the line did not fit. */
static bool accept_line(struct frame_text *frames, int written)
{
    char *line = frames->text + frames->used;
    if (written < 0 || (size_t)written >= frames->size - frames->used) {
        *line = 0;
        return false;
    }
    /* A frame is one line, whatever the file's name. */
    for (char *character = line; character < line + written - 1; character++)
        if ((unsigned char)*character < ' ')
            *character = '?';
    frames->used += (size_t)written;
    return true;
}

static void write_python(const struct stack *stack, struct frame_text *frames)
{
    for (unsigned i = 0; i < stack->python_depth; i++) {
        char *line = frames->text + frames->used;
        if (!accept_line(frames, python_write(&stack->python[i], line, frames->size - frames->used)))
            return;
    }
}

/*
 * Writes the frames as text, without frames of our libraries. Python's frames replace the interpreter's and all outer
 * frames. Called without the session's lock: dladdr takes the loader's lock, and a library's constructor, which holds
 * the loader's lock, may wait for the session's.
 */
void stack_write_frames(const struct stack *stack, char *text, size_t size)
{
    struct frame_text frames = {.text = text, .size = size};
    text[0] = 0;
    for (unsigned i = 0; i < stack->depth; i++) {
        /* The call, not the instruction after it. */
        const char *address = (const char *)stack->frames[i] - 1;
        Dl_info info;
        struct link_map *map = NULL;
        if (!dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) || !map || is_own_library(info.dli_fname))
            continue;
        if (stack->python_depth != 0 && info.dli_fbase == python_base())
            break;
        if (!accept_line(&frames, write_native(address, &info, map, text + frames.used, size - frames.used)))
            return;
    }
    write_python(stack, &frames);
}

/* The message STACK. Too long for the union of `struct request`. */
struct definition {
    struct userdma_header header;
    struct userdma_stack stack;
};

/* With the lock held and a connection: sends a new stack. Returns the number; 0: none. */
static uint32_t send_definition(uint64_t hash, struct definition *definition, const struct shim_guard *guard)
{
    if (!numbers_are_current()) {
        memset(known_stacks, 0, sizeof known_stacks);
        known_count = 0;
        known_generation = session_generation();
        known_pid = getpid();
    }
    const unsigned slot = slot_of(hash);
    if (known_stacks[slot].id != 0)
        return known_stacks[slot].id;
    if (known_count > USERDMA_MAX_STACKS)
        return 0;
    definition->stack.id = known_count + 1;
    struct reply reply;
    if (session_exchange((struct request *)definition, sizeof definition->stack, &reply, guard) != 0)
        return 0;
    reply_close_all(&reply);
    /* While the thread waited without the lock, another thread has connected: the stack has no number there. */
    if (reply.generation != session_generation())
        return 0;
    __atomic_store_n(&known_stacks[slot].id, ++known_count, __ATOMIC_RELAXED);
    __atomic_store_n(&known_stacks[slot].hash, hash, __ATOMIC_RELEASE);
    return known_count;
}

/* Not inlined: stack_number of a known stack needs little stack. */
__attribute__((noinline)) static uint32_t number_of_new(const struct stack *stack)
{
    struct definition definition = {.header = {.type = USERDMA_STACK, .fd = -1}};
    stack_write_frames(stack, definition.stack.frames, sizeof definition.stack.frames);
    struct shim_guard guard;
    if (!session_enter(&guard))
        return 0;
    const uint32_t id = session_ensure_connected(&guard, false) ? send_definition(stack->hash, &definition, &guard) : 0;
    session_leave(&guard);
    return id;
}

uint32_t stack_number(const struct stack *stack)
{
    if (stack->depth == 0)
        return 0;
    if (LIKELY(numbers_are_current())) {
        const unsigned slot = slot_of(stack->hash);
        const uint32_t id = __atomic_load_n(&known_stacks[slot].id, __ATOMIC_RELAXED);
        if (LIKELY(__atomic_load_n(&known_stacks[slot].hash, __ATOMIC_ACQUIRE) == stack->hash && id != 0))
            return id;
        if (__atomic_load_n(&known_count, __ATOMIC_RELAXED) > USERDMA_MAX_STACKS)
            return 0;
    }
    return number_of_new(stack);
}

uint32_t stack_here(void)
{
    struct stack stack;
    const int saved = errno;
    stack_take(&stack);
    const uint32_t id = stack_number(&stack);
    errno = saved;
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

void stack_fork(void)
{
    struct shim_guard guard;
    const int saved = errno;
    const uint32_t stack = stack_here();
    if (session_enter(&guard)) {
        struct request request = {.header = {.type = USERDMA_FORK, .fd = -1, .stack = stack}};
        struct reply reply;
        /* Without a connection the process has no registered memory that a fork could harm. */
        if (session_is_connected() && session_exchange(&request, 0, &reply, &guard) == 0)
            reply_close_all(&reply);
        session_leave(&guard);
    }
    errno = saved;
}

void stack_end(int fd)
{
    struct shim_guard guard;
    const int saved = errno;
    if (session_enter(&guard)) {
        struct request request = {
            .header = {.type = USERDMA_END, .fd = fd, .context = fd < 0 ? 0 : fd_lookup(fd)->context}};
        struct reply reply;
        if (session_is_connected() && session_exchange(&request, 0, &reply, &guard) == 0)
            reply_close_all(&reply);
        session_leave(&guard);
    }
    errno = saved;
}

int64_t stack_ask(int fd, uint32_t type, uint32_t stack, const void *body, size_t size)
{
    struct shim_guard guard;
    const int saved = errno;
    int64_t answer = 0;
    if (session_enter(&guard)) {
        if (fd_kind(fd) == FD_CONTEXT && session_prepare(fd, &guard) == 0) {
            struct request request = {
                .header = {.type = type, .fd = fd, .context = fd_lookup(fd)->context, .stack = stack}};
            memcpy((char *)&request + sizeof request.header, body, size);
            struct reply reply;
            if (session_exchange(&request, size, &reply, &guard) == 0) {
                answer = reply.message.call.ret;
                reply_close_all(&reply);
            }
        }
        session_leave(&guard);
    }
    errno = saved;
    return answer;
}

void stack_report(int fd, uint32_t type, uint32_t stack, const void *body, size_t size)
{
    stack_ask(fd, type, stack, body, size);
}
