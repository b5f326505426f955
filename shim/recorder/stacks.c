/*
 * Stacks of the program's calls and posts. The reader is told a stack once, as text; then the stack has a number.
 *
 * The unwinder takes microseconds, and most posts have the stack of the previous post. So on x86-64 each thread keeps
 * its last stack, with the locations of the return addresses. If the stack pointer and all return addresses are
 * unchanged, so is the stack. Frames of Python are not in return addresses: its programs' stacks are always taken.
 */
#define _GNU_SOURCE
#include "recorder.h"

#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "../protocol.h"

/*
 * Slots of the table of stacks, a power of two. About half are used, so probes are short. After USERDMA_MAX_STACKS one
 * more stack is told, by which the reader knows that stacks are missing. Further stacks have no number.
 */
#define STACK_SLOTS (2 * USERDMA_MAX_STACKS)

/* By hash, with linear probing. Written under the library's lock, the hash last. */
static struct {
    uint64_t hash;
    uint32_t number;
} known[STACK_SLOTS];
static uint32_t known_count;
/* Number of unloads of libraries: part of each hash. */
static uint32_t unloads;
/* Changes when kept numbers become invalid. */
static uint32_t epoch;

/* ---- numbers ---- */

/* The slot of a hash, or the free slot for it. */
static unsigned slot_of(uint64_t hash)
{
    unsigned slot = (unsigned)(hash >> 20) % STACK_SLOTS;
    for (;; slot = (slot + 1) % STACK_SLOTS) {
        const uint64_t present = __atomic_load_n(&known[slot].hash, __ATOMIC_ACQUIRE);
        if (present == hash || present == 0)
            return slot;
    }
}

uint32_t stacks_find(uint64_t hash)
{
    const unsigned slot = slot_of(hash);
    const uint32_t number = __atomic_load_n(&known[slot].number, __ATOMIC_RELAXED);
    return __atomic_load_n(&known[slot].hash, __ATOMIC_ACQUIRE) == hash ? number : 0;
}

uint32_t stacks_next(void)
{
    const uint32_t count = __atomic_load_n(&known_count, __ATOMIC_RELAXED);
    return count > USERDMA_MAX_STACKS ? 0 : count + 1;
}

void stacks_add(uint64_t hash, uint32_t number)
{
    const unsigned slot = slot_of(hash);
    known_count = number;
    __atomic_store_n(&known[slot].number, number, __ATOMIC_RELAXED);
    __atomic_store_n(&known[slot].hash, hash, __ATOMIC_RELEASE);
}

IN_CHILD void stacks_forget(void)
{
    memset(known, 0, sizeof known);
    known_count = 0;
    __atomic_fetch_add(&epoch, 1, __ATOMIC_RELAXED);
}

void stacks_unloaded(void)
{
    __atomic_fetch_add(&unloads, 1, __ATOMIC_RELEASE);
    __atomic_fetch_add(&epoch, 1, __ATOMIC_RELEASE);
}

uint32_t stacks_unloads(void)
{
    return __atomic_load_n(&unloads, __ATOMIC_ACQUIRE);
}

uint32_t stack_number(const struct stack *stack)
{
    if (stack->depth == 0)
        return 0;
    if (LIKELY(stacks_are_current())) {
        const uint32_t number = stacks_find(stack->hash);
        if (LIKELY(number != 0) || stacks_next() == 0)
            return number;
    }
    return stack_define(stack);
}

/* ---- stacks ---- */

/* FNV-1a of 64 bits, a word at a time. */
#define FNV_OFFSET_BASIS 0xcbf29ce484222325u
#define FNV_PRIME 0x100000001b3u

static void hash_frames(struct stack *stack)
{
    uint64_t hash = FNV_OFFSET_BASIS ^ __atomic_load_n(&unloads, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < stack->depth; i++)
        hash = (hash ^ (uintptr_t)stack->frames[i]) * FNV_PRIME;
    for (unsigned i = 0; i < stack->python_depth; i++)
        hash = (hash ^ (uintptr_t)stack->python[i].code ^ (unsigned)stack->python[i].line) * FNV_PRIME;
    stack->hash = hash | 1; /* never 0, the hash of a free slot */
}

void stack_take_native(struct stack *stack)
{
    stack->depth = unwind_frames(stack->frames, NULL, STACK_FRAMES);
    stack->python_depth = 0;
    hash_frames(stack);
}

/* The address at which a signal has interrupted its thread. */
static void *interrupted_at(const void *context)
{
    const ucontext_t *interrupted = context;
#if defined(__x86_64__)
    return (void *)interrupted->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (void *)interrupted->uc_mcontext.pc;
#else
    (void)interrupted;
    return NULL;
#endif
}

/*
 * A call of NULL, or of what is no function: the unwinder knows no frame there. Its return address is on the stack:
 * `context` is changed as if the call had returned. Returns whether it is.
 */
static bool leave_unknown_function(void *context)
{
#if defined(__x86_64__)
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    Dl_info info;
    struct link_map *map;
    if (dladdr1((void *)registers[REG_RIP], &info, (void **)&map, RTLD_DL_LINKMAP) ||
        !unwind_is_on_stack((uintptr_t)registers[REG_RSP]))
        return false;
    registers[REG_RIP] = *(greg_t *)registers[REG_RSP];
    registers[REG_RSP] += (greg_t)sizeof(void *);
    return true;
#else
    (void)context;
    return false;
#endif
}

void stack_take_interrupted(struct stack *stack, const void *context)
{
    memset(stack, 0, sizeof *stack);
    ucontext_t *own = (ucontext_t *)(uintptr_t)context;
    const ucontext_t saved = *own;
    const bool has_left = leave_unknown_function(own);
    stack->depth = unwind_frames(stack->frames, NULL, STACK_FRAMES);
    /* stack_write_frames names the call before a return address. The interrupted instruction is none. */
    void *const interrupted = interrupted_at(context);
    own->uc_mcontext = saved.uc_mcontext;
    for (unsigned i = 0; i < stack->depth; i++)
        if (stack->frames[i] == interrupted) {
            memmove(stack->frames, stack->frames + i, (stack->depth - i) * sizeof stack->frames[0]);
            stack->frames[0] = (char *)interrupted + (has_left ? 0 : 1);
            stack->depth -= i;
            break;
        }
    hash_frames(stack);
}

bool stack_is_ours(const void *context)
{
    Dl_info interrupted, own;
    return dladdr(interrupted_at(context), &interrupted) && dladdr((void *)&known_count, &own) &&
           interrupted.dli_fbase == own.dli_fbase;
}

uint32_t stack_at(void *return_address)
{
    struct stack stack = {.frames = {return_address}, .depth = 1};
    hash_frames(&stack);
    return stack_number(&stack);
}

/* The last stack of this thread. */
static TLS struct {
    /* 0: no stack is kept. */
    unsigned depth;
    /* A signal handler must not use a stack that is being written. */
    bool is_written;
    uint32_t number, epoch;
    void *frames[STACK_FRAMES];
    uintptr_t locations[STACK_FRAMES];
} last;

/*
 * Keeps the stack if its return addresses are on this thread's stack, which stays mapped while the thread runs.
 * `number_epoch`: from before `number` was found. Another thread may have made the number invalid since.
 */
static void keep(const struct stack *stack, const uintptr_t *locations, uint32_t number, uint32_t number_epoch)
{
    if (last.is_written)
        return;
    last.is_written = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    last.number = number;
    last.epoch = number_epoch;
    last.depth = number == 0 || stack->python_depth != 0 ? 0 : stack->depth;
    /* The first frame, in stack_here, is not compared: its return address was overwritten by later calls. */
    for (unsigned i = 1; i < last.depth; i++) {
        last.frames[i] = stack->frames[i];
        last.locations[i] = locations[i];
        /* For a frame that a signal has interrupted, the kernel has stored the return address elsewhere. */
        if (!unwind_is_on_stack(locations[i]) || *(void *const *)locations[i] != stack->frames[i] ||
            locations[i] <= locations[i - 1])
            last.depth = 0;
    }
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    last.is_written = false;
}

/*
 * Whether the stack is the last one, and its number still valid. `location`: where the return address of stack_here is.
 */
static bool is_last(uintptr_t location)
{
#ifdef __x86_64__
    if (last.is_written || last.depth < 2 || last.locations[1] != location ||
        last.epoch != __atomic_load_n(&epoch, __ATOMIC_RELAXED) || python_base() || !stacks_are_current())
        return false;
    for (unsigned i = 1; i < last.depth; i++)
        if (*(void *const *)last.locations[i] != last.frames[i])
            return false;
    return true;
#else
    (void)location;
    return false;
#endif
}

/* Not inlined: a stack that is kept needs little stack. */
__attribute__((noinline)) static uint32_t number_of_new(struct stack *stack, const uintptr_t *locations)
{
    stack->python_depth = python_take(stack->python, PYTHON_FRAMES);
    hash_frames(stack);
    const uint32_t number_epoch = __atomic_load_n(&epoch, __ATOMIC_ACQUIRE);
    const uint32_t number = stack_number(stack);
    keep(stack, locations, number, number_epoch);
    return number;
}

/* Not inlined: is_last compares its return address. */
__attribute__((noinline)) uint32_t stack_here(void)
{
    struct stack stack;
    uintptr_t locations[STACK_FRAMES];
    if (LIKELY(is_last((uintptr_t)__builtin_frame_address(0) + sizeof(void *))))
        return last.number;
    const int saved = errno;
    unwind_find_stack();
    stack.depth = unwind_frames(stack.frames, locations, STACK_FRAMES);
    const uint32_t number = number_of_new(&stack, locations);
    errno = saved;
    return number;
}

/* ---- text ---- */

static bool is_own_library(const char *path)
{
    const char *name = strrchr(path, '/');
    return strncmp(name ? name + 1 : path, "libuserdma_", sizeof "libuserdma_" - 1) == 0;
}

/* Writes a native frame, `FILE+0xOFFSET SYMBOL`, and a line feed. Result: see snprintf(3). */
static int write_native(const char *address, const Dl_info *info, const struct link_map *map, char *text, size_t size)
{
    char path[256];
    const char *name = info->dli_fname;
    /* The main program's name in `info` may be relative. */
    if (!map->l_name || !map->l_name[0]) {
        const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
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
 * Without frames of our libraries. Python's frames replace the interpreter's and all outer frames. Called without a
 * lock of the library: dladdr takes the loader's lock, and a library's constructor, which holds the loader's lock, may
 * wait for the library's.
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
