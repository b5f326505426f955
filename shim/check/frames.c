/*
 * Memory of outstanding requests, and registered memory, in stack frames that have returned. When the program calls a
 * post or poll, all frames at lower addresses than the caller's have returned. Outstanding memory there is reported if
 * this thread posted it.
 *
 * Coroutines may have stacks within their thread's stack. The address of the outermost frame distinguishes them.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <pthread.h>
#include <unistd.h>

#include "../recorder/orders.h"

static TLS struct {
    /* From 1; 0: not known yet. */
    uint32_t id;
    /* A lower bound of outstanding and registered memory that was noted for this thread; 0: none. */
    uintptr_t lowest;
} this_thread;

/* ---- posts ---- */

__attribute__((noinline)) static void begin_thread(void)
{
    static uint32_t threads;
    uintptr_t bottom, top;
    this_thread.id = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    unwind_find_stack();
    unwind_stack(&bottom, &top);
    given_to_thread(bottom, top);
}

uintptr_t frames_outermost(const struct ibv_sge *list, int count, uintptr_t frame)
{
    if (UNLIKELY(this_thread.id == 0))
        begin_thread();
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

static pthread_key_t key;
static bool has_key;

static void thread_ends(void *id)
{
    given_by_thread((uint32_t)(uintptr_t)id);
}

/*
 * Whether the program has made the stack of this thread (pthread_attr_setstack), and may keep it: the C library puts a
 * guard before those that it makes, unless it is told not to.
 */
static bool is_own_stack(void)
{
    pthread_attr_t attributes;
    size_t guard = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return true;
    pthread_attr_getguardsize(&attributes, &guard);
    pthread_attr_destroy(&attributes);
    return guard == 0;
}

/*
 * Calls thread_ends at the end of this thread, unless it is the main one, whose stack stays, as one of the program may.
 */
static void watch_end(void)
{
    static uint32_t has_begun;
    if (!__atomic_exchange_n(&has_begun, 1, __ATOMIC_RELAXED))
        __atomic_store_n(&has_key, pthread_key_create(&key, thread_ends) == 0, __ATOMIC_RELEASE);
    if (__atomic_load_n(&has_key, __ATOMIC_ACQUIRE) && threads_own() != getpid() && !is_own_stack())
        pthread_setspecific(key, (void *)(uintptr_t)this_thread.id);
}

void frames_note_region(struct region *region)
{
    if (UNLIKELY(this_thread.id == 0))
        begin_thread();
    if (LIKELY(!unwind_is_on_stack(region->start)))
        return;
    watch_end();
    region->thread = this_thread.id;
    region->outermost = unwind_outermost();
    if (region->outermost != 0 && (this_thread.lowest == 0 || region->start < this_thread.lowest))
        this_thread.lowest = region->start;
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
            report = report_of(slot, REPORT_RETURNED);
        element_clear(slot);
    }
    this_thread.lowest = lowest;
    requests_unlock();
    const uintptr_t registered = given_by_return(this_thread.id, frame, outermost);
    if (registered != 0 && (lowest == 0 || registered < lowest))
        this_thread.lowest = registered;
    if (found == 0)
        return;
    report.element.more = found - 1;
    report_later(&report);
}

void outstanding_check_frames(uintptr_t frame)
{
    if (UNLIKELY(this_thread.lowest != 0) && this_thread.lowest < frame && unwind_is_on_stack(frame) &&
        !shim_on_signal_stack())
        report_returned(frame);
    reports_send_kept();
}
