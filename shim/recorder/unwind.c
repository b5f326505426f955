/*
 * Walks of the caller's stack, by the unwinder of libgcc_s, which backtrace() loads. Not linked: only recorded programs
 * need it.
 */
#define _GNU_SOURCE
#include "recorder.h"

#include <execinfo.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

/* The outermost frame of a stack with this many frames is unknown. */
#define MAX_FRAMES 512
/* Linux's default limit of the main thread's stack, and the maximum watched part of a larger stack. */
#define MAIN_STACK_BYTES (8u << 20)
#define MAX_MAIN_STACK_BYTES (1u << 30)

static __typeof__(&_Unwind_GetIP) return_address_of;
static __typeof__(&_Unwind_GetCFA) address_of_frame;
static __typeof__(&_Unwind_Backtrace) unwind;

static void find_unwinder(void)
{
    void *frame;
    backtrace(&frame, 1);
    void *library = NEXT(dlopen)("libgcc_s.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return;
    return_address_of = (__typeof__(return_address_of))dlsym(library, "_Unwind_GetIP");
    address_of_frame = (__typeof__(address_of_frame))dlsym(library, "_Unwind_GetCFA");
    if (return_address_of && address_of_frame)
        __atomic_store_n(&unwind, (__typeof__(unwind))dlsym(library, "_Unwind_Backtrace"), __ATOMIC_RELEASE);
}

bool unwind_is_ready(void)
{
    return __atomic_load_n(&unwind, __ATOMIC_ACQUIRE) != NULL;
}

/* ---- this thread's stack ---- */

/* `top` 0: not known yet; 1: not found, no address is on it. */
static TLS uintptr_t bottom, top;

__attribute__((noinline)) static void find_stack(void)
{
    pthread_attr_t attributes;
    void *start;
    size_t bytes;
    top = 1;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return;
    if (pthread_attr_getstack(&attributes, &start, &bytes) == 0) {
        /*
         * The main thread's stack may grow beyond the answer if its limit is raised; nothing else is mapped so close to
         * the stack. Without a limit, the answer ends at the next mapping, and the heap may grow into the answer.
         */
        if (syscall(SYS_gettid) == getpid()) {
            size_t watched = bytes;
            if (watched < MAIN_STACK_BYTES)
                watched = MAIN_STACK_BYTES;
            if (watched > MAX_MAIN_STACK_BYTES)
                watched = MAX_MAIN_STACK_BYTES;
            start = (char *)start + bytes - watched;
            bytes = watched;
        }
        bottom = (uintptr_t)start;
        top = bottom + bytes;
    }
    pthread_attr_destroy(&attributes);
}

void unwind_find_stack(void)
{
    if (UNLIKELY(top == 0))
        find_stack();
}

void unwind_stack(uintptr_t *from, uintptr_t *to)
{
    *from = bottom;
    *to = top;
}

bool unwind_is_on_stack(uintptr_t address)
{
    return address >= bottom && address < top;
}

/* ---- walks ---- */

struct walk {
    unsigned depth, max;
    /* Address of the last visited frame. */
    uintptr_t outermost;
    void **frames;
    uintptr_t *locations;
};

static _Unwind_Reason_Code visit_outermost(struct _Unwind_Context *context, void *argument)
{
    struct walk *walk = argument;
    walk->outermost = address_of_frame(context);
    return ++walk->depth == walk->max ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

uintptr_t unwind_outermost(void)
{
    struct walk walk = {.max = MAX_FRAMES};
    if (unwind)
        unwind(visit_outermost, &walk);
    return walk.depth == MAX_FRAMES ? 0 : walk.outermost;
}

static _Unwind_Reason_Code visit_frame(struct _Unwind_Context *context, void *argument)
{
    struct walk *walk = argument;
    void *const address = (void *)return_address_of(context);
    /* On x86-64 the context has the callee's CFA. The word below is the return address. */
    const uintptr_t location = address_of_frame(context) - sizeof(void *);
    /* As backtrace(), stops at the end of the stack and at a frame that is its own caller. */
    if (!address ||
        (walk->depth > 0 && walk->frames[walk->depth - 1] == address && walk->locations[walk->depth - 1] == location))
        return _URC_NORMAL_STOP;
    walk->frames[walk->depth] = address;
    walk->locations[walk->depth] = location;
    return ++walk->depth == walk->max ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

/* Not inlined: the first frame is this function. */
__attribute__((noinline)) unsigned unwind_frames(void **frames, uintptr_t *locations, unsigned max)
{
    void *found[STACK_FRAMES + 1];
    uintptr_t found_at[STACK_FRAMES + 1];
    if (UNLIKELY(!__atomic_load_n(&unwind, __ATOMIC_ACQUIRE)))
        find_unwinder();
    struct walk walk = {.max = max < STACK_FRAMES ? max + 1 : STACK_FRAMES + 1, .frames = found, .locations = found_at};
    if (unwind)
        unwind(visit_frame, &walk);
    for (unsigned i = 1; i < walk.depth; i++) {
        frames[i - 1] = found[i];
        if (locations)
            locations[i - 1] = found_at[i];
    }
    return walk.depth == 0 ? 0 : walk.depth - 1;
}
