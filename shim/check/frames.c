/*
 * Memory of outstanding requests in stack frames that have returned. When the program calls a post or poll, all frames
 * at lower addresses than the caller's have returned. Outstanding memory there is reported if this thread posted it.
 *
 * Coroutines may have stacks within their thread's stack. The address of the outermost frame distinguishes them.
 */
#define _GNU_SOURCE
#include "requests.h"
#include "unwind.h"

#include <pthread.h>

/* Linux's default limit of the main thread's stack, and the maximum watched part of a larger stack. */
#define MAIN_STACK_BYTES (8u << 20)
#define MAX_MAIN_STACK_BYTES (1u << 30)

static __thread struct {
    /* This thread's stack. `top` 0: not known yet. */
    uintptr_t bottom, top;
    /* From 1. */
    uint32_t id;
    /* A lower bound of outstanding memory that frames_note has noted for this thread; 0: none. */
    uintptr_t lowest;
} this_thread __attribute__((tls_model("initial-exec")));

static void find_stack(void)
{
    pthread_attr_t attributes;
    void *start;
    size_t bytes;
    static uint32_t threads;
    this_thread.id = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    this_thread.top = 1; /* if the stack is not found: no address is on it */
    if (this_thread.id == 1) /* once per process */
        unwind_find();
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return;
    if (pthread_attr_getstack(&attributes, &start, &bytes) == 0) {
        /*
         * The main thread's stack may grow beyond the answer if its limit is raised; nothing else is mapped so close to
         * the stack. Without a limit, the answer ends at the next mapping, and the heap may grow into the answer.
         */
        if (early_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0) == getpid()) {
            size_t watched = bytes;
            if (watched < MAIN_STACK_BYTES)
                watched = MAIN_STACK_BYTES;
            if (watched > MAX_MAIN_STACK_BYTES)
                watched = MAX_MAIN_STACK_BYTES;
            start = (char *)start + bytes - watched;
            bytes = watched;
        }
        this_thread.bottom = (uintptr_t)start;
        this_thread.top = this_thread.bottom + bytes;
    }
    pthread_attr_destroy(&attributes);
}

bool frames_is_on_stack(uintptr_t address)
{
    return address >= this_thread.bottom && address < this_thread.top;
}

/* ---- posts ---- */

uintptr_t frames_outermost(const struct ibv_sge *list, int count, uintptr_t frame)
{
    if (UNLIKELY(this_thread.top == 0))
        find_stack();
    for (int i = 0; i < count; i++)
        if (UNLIKELY(frames_is_on_stack(list[i].addr)) && frames_is_on_stack(frame) && list[i].addr >= frame)
            return unwind_outermost();
    return 0;
}

void frames_note(uint32_t slot, uintptr_t address, uintptr_t outermost)
{
    if (!frames_is_on_stack(address) || outermost == 0 || ranges[slot].end == 0)
        return;
    elements[slot].thread = this_thread.id;
    elements[slot].outermost = outermost;
    if (this_thread.lowest == 0 || ranges[slot].start < this_thread.lowest)
        this_thread.lowest = ranges[slot].start;
}

IN_CHILD void frames_forget_all(void)
{
    this_thread.lowest = 0;
}

/* ---- posts and polls ---- */

__attribute__((noinline)) static void report_returned(uintptr_t frame)
{
    const uintptr_t outermost = unwind_outermost();
    uintptr_t lowest = 0;
    struct report report = {.fd = -1};
    uint32_t found = 0;
    if (!requests_lock())
        return;
    for (uint32_t slot = 0; slot < used_slots; slot++) {
        if (elements[slot].thread != this_thread.id || ranges[slot].end == 0)
            continue;
        /* In a live frame, or on the stack of another coroutine. */
        if (ranges[slot].start >= frame || elements[slot].outermost != outermost) {
            if (lowest == 0 || ranges[slot].start < lowest)
                lowest = ranges[slot].start;
            continue;
        }
        if (found++ == 0)
            report = report_of(slot, USERDMA_MISUSE_RETURNED);
        element_clear(slot);
    }
    this_thread.lowest = lowest;
    requests_unlock();
    if (found == 0)
        return;
    report.misuse.more = found - 1;
    report_later(&report);
}

void outstanding_check_frames(uintptr_t frame)
{
    if (UNLIKELY(this_thread.lowest != 0) && this_thread.lowest < frame && frames_is_on_stack(frame) &&
        !shim_on_signal_stack())
        report_returned(frame);
    reports_send_kept();
}
