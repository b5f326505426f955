/*
 * Stacks of calls and posts. A stack is recorded once as text, and then has a number. On x86-64 each thread keeps its
 * last stack with the places of the return addresses: if the stack pointer and all these words are unchanged, so is the
 * stack, and no unwinder runs.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unwind.h>

#define FRAMES 24
/* A power of two; at most half of the slots are used. */
#define SLOTS 8192

static bool records_stacks;
/* By hash of the frames, with linear probing; `number` is written last. */
static struct {
    uint64_t hash;
    uint32_t number;
} known[SLOTS];
static uint32_t known_count;
/* A thread that finds it set goes without a number: nothing waits. */
static bool is_adding;

/* Functions of the unwinder, which backtrace() loads. */
static __typeof__(&_Unwind_Backtrace) unwind;
static __typeof__(&_Unwind_GetIP) address_of;
static __typeof__(&_Unwind_GetCFA) frame_of;

void stacks_begin(void)
{
    records_stacks = getenv(USERDMA_ENV_OBSERVE_STACKS) != NULL;
    if (!records_stacks)
        return;
    void *frame;
    backtrace(&frame, 1);
    void *library = NEXT(dlopen)("libgcc_s.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library) {
        records_stacks = false;
        return;
    }
    address_of = (__typeof__(address_of))dlsym(library, "_Unwind_GetIP");
    frame_of = (__typeof__(frame_of))dlsym(library, "_Unwind_GetCFA");
    unwind = (__typeof__(unwind))dlsym(library, "_Unwind_Backtrace");
    records_stacks = address_of && frame_of && unwind;
}

/* The child's stacks have their own numbers: it is another process for the observer. */
void stacks_in_child(void)
{
    memset(known, 0, sizeof known);
    known_count = 0;
    is_adding = false;
}

struct stack {
    unsigned depth;
    void *frames[FRAMES];
    uintptr_t places[FRAMES];
    uint64_t hash;
};

/* The context has the callee's CFA: the word below is the return address. */
static _Unwind_Reason_Code visit(struct _Unwind_Context *context, void *argument)
{
    struct stack *stack = argument;
    void *const address = (void *)address_of(context);
    const uintptr_t place = frame_of(context) - sizeof(void *);
    /* The end of the stack, also of one whose last frame is its own caller. */
    if (!address || (stack->depth > 0 && place <= stack->places[stack->depth - 1]))
        return _URC_END_OF_STACK;
    stack->frames[stack->depth] = address;
    stack->places[stack->depth] = place;
    return ++stack->depth == FRAMES ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* Writes the frames as STACK of src/spec/session.ts, without those of our libraries. Returns the length. */
static size_t write_frames(const struct stack *stack, char *text, size_t size)
{
    size_t used = 0;
    for (unsigned i = 0; i < stack->depth; i++) {
        const char *address = (const char *)stack->frames[i] - 1;
        Dl_info info;
        struct link_map *map = NULL;
        if (!dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) || !map)
            continue;
        char path[256];
        const char *name = info.dli_fname;
        const char *base = strrchr(name, '/');
        if (strncmp(base ? base + 1 : name, "libuserdma_", sizeof "libuserdma_" - 1) == 0)
            continue;
        if (!map->l_name || !map->l_name[0]) {
            const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
            path[length < 0 ? 0 : length] = 0;
            name = path;
        }
        const int written = snprintf(text + used, size - used, "%s+0x%lx %s\n", name,
                                     (unsigned long)((uintptr_t)address - map->l_addr),
                                     info.dli_sname ? info.dli_sname : "");
        if (written < 0 || (size_t)written >= size - used)
            break;
        used += (size_t)written;
    }
    return used;
}

static uint32_t slot_of(uint64_t hash)
{
    uint32_t slot = (uint32_t)(hash >> 20) % SLOTS;
    for (;; slot = (slot + 1) % SLOTS) {
        const uint64_t present = __atomic_load_n(&known[slot].hash, __ATOMIC_ACQUIRE);
        if (present == hash || present == 0)
            return slot;
    }
}

/* Not inlined: its buffer is large. */
__attribute__((noinline)) static uint32_t add(const struct stack *stack)
{
    char text[USERDMA_OBSERVE_MAX_TEXT_BYTES];
    const size_t length = write_frames(stack, text, sizeof text);
    struct {
        struct userdma_record record;
        char text[];
    } *made = NULL;
    if (__atomic_exchange_n(&is_adding, true, __ATOMIC_ACQUIRE))
        return 0;
    const uint32_t slot = slot_of(stack->hash);
    uint32_t number = known[slot].number;
    if (number == 0 && known_count < SLOTS / 2 && (made = record_begin(USERDMA_RECORD_STACK, sizeof *made + length))) {
        number = ++known_count;
        made->record.stack = number;
        memcpy(made->text, text, length);
        record_end(made, sizeof *made + length);
        known[slot].number = number;
        __atomic_store_n(&known[slot].hash, stack->hash, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&is_adding, false, __ATOMIC_RELEASE);
    return number;
}

/* The last stack of this thread. `last_number` 0: none is kept. The first frame, of stack_here, is not compared. */
static TLS struct stack last;
static TLS uint32_t last_number;

/* Not inlined: the first frame is this function's. */
__attribute__((noinline)) uint32_t stack_here(void)
{
    if (!records_stacks)
        return 0;
#ifdef __x86_64__
    if (last_number != 0 && last.places[1] == (uintptr_t)__builtin_frame_address(0) + sizeof(void *)) {
        unsigned i = 1;
        while (i < last.depth && *(void *const *)last.places[i] == last.frames[i])
            i++;
        if (LIKELY(i == last.depth))
            return last_number;
    }
#endif
    const int saved = errno;
    struct stack stack = {0};
    unwind(visit, &stack);
    for (unsigned i = 1; i < stack.depth; i++)
        stack.hash = (stack.hash ^ (uintptr_t)stack.frames[i]) * 0x100000001b3u;
    stack.hash |= 1;
    const uint32_t slot = slot_of(stack.hash);
    const bool is_known = __atomic_load_n(&known[slot].hash, __ATOMIC_ACQUIRE) == stack.hash;
    const uint32_t number = is_known ? known[slot].number : add(&stack);
    last_number = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    last = stack;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    last_number = stack.depth > 1 ? number : 0;
    errno = saved;
    return number;
}
