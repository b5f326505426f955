/*
 * Memory of outstanding requests in stack frames that have returned. When the program calls a post or poll, all frames
 * at lower addresses than the caller's have returned. Outstanding memory there is reported if this thread posted it.
 *
 * Coroutines may have stacks within their thread's stack. The address of the outermost frame distinguishes them.
 */
#define _GNU_SOURCE
#include "requests.h"

static TLS struct {
    /* From 1; 0: not known yet. */
    uint32_t id;
    /* A lower bound of outstanding memory that frames_note has noted for this thread; 0: none. */
    uintptr_t lowest;
} this_thread;

/* ---- posts ---- */

uintptr_t frames_outermost(const struct ibv_sge *list, int count, uintptr_t frame)
{
    static uint32_t threads;
    if (UNLIKELY(this_thread.id == 0)) {
        this_thread.id = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
        unwind_find_stack();
    }
    for (int i = 0; i < count; i++)
        if (UNLIKELY(unwind_is_on_stack(list[i].addr)) && unwind_is_on_stack(frame) && list[i].addr >= frame)
            return unwind_outermost();
    return 0;
}

bool frames_is_dead(uintptr_t address, uintptr_t frame)
{
    return UNLIKELY(address < frame && unwind_is_on_stack(address)) && unwind_is_on_stack(frame) &&
           !shim_on_signal_stack();
}

void frames_note(uint32_t slot, uintptr_t address, uintptr_t outermost)
{
    if (!unwind_is_on_stack(address) || outermost == 0 || ranges[slot].end == 0)
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
    if (UNLIKELY(this_thread.lowest != 0) && this_thread.lowest < frame && unwind_is_on_stack(frame) &&
        !shim_on_signal_stack())
        report_returned(frame);
    reports_send_kept();
}
