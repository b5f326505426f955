/*
 * Walks of the caller's stack. The unwinder takes microseconds, and most posts have the stack of the previous post. So
 * on x86-64 each thread keeps its last stack, with the locations of the return addresses. If the stack pointer and all
 * return addresses are unchanged, the stack is unchanged.
 */
#define _GNU_SOURCE
#include "unwind.h"

#include "../shim.h"
#include "requests.h"

#include <execinfo.h>
#include <string.h>
#include <unwind.h>

/* The outermost frame of a stack with this many frames is unknown. */
#define MAX_FRAMES 512

/* Functions of the unwinder that backtrace() has loaded. Not linked: only checked programs need it. */
static __typeof__(&_Unwind_GetIP) return_address_of;
static __typeof__(&_Unwind_GetCFA) address_of_frame;
static __typeof__(&_Unwind_Backtrace) unwind;

void unwind_find(void)
{
    void *library = REAL(dlopen)("libgcc_s.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return;
    return_address_of = (__typeof__(return_address_of))dlsym(library, "_Unwind_GetIP");
    address_of_frame = (__typeof__(address_of_frame))dlsym(library, "_Unwind_GetCFA");
    if (return_address_of && address_of_frame)
        unwind = (__typeof__(unwind))dlsym(library, "_Unwind_Backtrace");
}

struct walk {
    unsigned depth, max;
    /* Address of the last visited frame. */
    uintptr_t outermost;
    /* Return addresses, and their locations. */
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

#ifdef __x86_64__

static __thread struct {
    /* 0: no stack was kept (keep_stack). */
    unsigned depth;
    /* A signal handler must not use a stack that is being written. */
    bool is_written;
    void *frames[STACK_FRAMES];
    uintptr_t locations[STACK_FRAMES];
} last_stack __attribute__((tls_model("initial-exec")));

static _Unwind_Reason_Code visit_frame(struct _Unwind_Context *context, void *argument)
{
    struct walk *walk = argument;
    void *const address = (void *)return_address_of(context);
    /* The context has the callee's CFA. The word below is the return address. */
    const uintptr_t location = address_of_frame(context) - sizeof(void *);
    /* As backtrace(), stops at the end of the stack and at a frame that is its own caller. */
    if (!address ||
        (walk->depth > 0 && walk->frames[walk->depth - 1] == address && walk->locations[walk->depth - 1] == location))
        return _URC_NORMAL_STOP;
    walk->frames[walk->depth] = address;
    walk->locations[walk->depth] = location;
    return ++walk->depth == walk->max ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

/* Keeps the stack if its return addresses are on this thread's stack, which stays mapped while the thread runs. */
static void keep_stack(void *const *frames, const uintptr_t *locations, unsigned depth)
{
    last_stack.is_written = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    last_stack.depth = depth;
    for (unsigned i = 0; i < depth; i++) {
        last_stack.frames[i] = frames[i];
        last_stack.locations[i] = locations[i];
        /* For a frame that a signal has interrupted, the kernel has stored the return address elsewhere. */
        if (!frames_is_on_stack(locations[i]) || *(void *const *)locations[i] != frames[i] ||
            (i > 0 && locations[i] <= locations[i - 1]))
            last_stack.depth = 0;
        if (last_stack.depth == 0)
            break;
    }
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    last_stack.is_written = false;
}

static bool is_last_stack(uintptr_t location)
{
    if (last_stack.is_written || last_stack.depth == 0 || last_stack.locations[0] != location)
        return false;
    for (unsigned i = 0; i < last_stack.depth; i++)
        if (*(void *const *)last_stack.locations[i] != last_stack.frames[i])
            return false;
    return true;
}

/* Not inlined: the first return address is this function's. */
__attribute__((noinline)) unsigned unwind_frames(void **frames, unsigned max)
{
    void *found[STACK_FRAMES + 1];
    uintptr_t locations[STACK_FRAMES + 1];
    const uintptr_t location = (uintptr_t)__builtin_frame_address(0) + sizeof(void *);
    if (max > STACK_FRAMES)
        max = STACK_FRAMES;
    if (LIKELY(is_last_stack(location)) && last_stack.depth <= max) {
        memcpy(frames, last_stack.frames, last_stack.depth * sizeof frames[0]);
        return last_stack.depth;
    }
    struct walk walk = {.max = max + 1, .frames = found, .locations = locations};
    if (unwind) {
        unwind(visit_frame, &walk);
    } else {
        const int depth = backtrace(found, (int)max + 1);
        walk.depth = depth < 0 ? 0 : (unsigned)depth;
    }
    /* The first frame is this function. */
    const unsigned depth = walk.depth == 0 ? 0 : walk.depth - 1;
    memcpy(frames, found + 1, depth * sizeof frames[0]);
    if (unwind && !last_stack.is_written)
        keep_stack(found + 1, locations + 1, depth);
    return depth;
}

#else

unsigned unwind_frames(void **frames, unsigned max)
{
    const int depth = backtrace(frames, (int)max);
    return depth < 0 ? 0 : (unsigned)depth;
}

#endif
