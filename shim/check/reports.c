/*
 * Reports of outstanding requests to the daemon (preload_events.h). Nothing is sent inside free(): reports are kept
 * until the next post, poll, call, fork without ibv_fork_init, or close of a context, or the end of the process.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <string.h>

/* Maximum kept reports. Further reports are dropped. */
#define MAX_KEPT 64

static struct report kept[MAX_KEPT];
static uint32_t kept_count;

struct report report_of(uint32_t slot, enum report_kind kind)
{
    const struct queue *queue = queue_of_element(slot);
    return (struct report){
        .kind = kind,
        .fd = queue->fd,
        .time = shim_nanoseconds(),
        .element = {.wr_id = elements[slot].wr_id,
                    .address = ranges[slot].start,
                    .queue = queue->kind,
                    .number = queue->number,
                    .index = elements[slot].index - 1 /* from 0 */},
    };
}

void report_later(struct report *report)
{
    stack_take_native(&report->stack);
    if (!requests_lock())
        return;
    const bool is_first = kept_count == 0;
    if (kept_count < MAX_KEPT) {
        kept[kept_count] = *report;
        __atomic_store_n(&kept_count, kept_count + 1, __ATOMIC_RELEASE);
    }
    requests_unlock();
    if (is_first)
        crashes_watch();
}

void report_send(struct report *report)
{
    const uint64_t age = shim_nanoseconds() - report->time;
    const uint32_t stack = stack_number(&report->stack);
    const uint64_t wr_id = report->element.wr_id, address = report->element.address;
    const uint32_t queue = report->element.queue, number = report->element.number, index = report->element.index;
    switch (report->kind) {
    case REPORT_FREED:
        event_buffer_freed(report->fd, stack, age, wr_id, address, queue, number, index, report->element.more);
        break;
    case REPORT_RETURNED:
        event_frame_returned(report->fd, stack, age, wr_id, address, queue, number, index, report->element.more);
        break;
    case REPORT_FORKED:
        event_forked_outstanding(report->fd, stack, wr_id, address, queue, number, index, report->element.more);
        break;
    case REPORT_GAVE_BACK:
        event_gave_back(report->fd, stack, age, report->given.start, report->given.end, report->given.region,
                        report->given.how, report->given.is_kept);
        break;
    }
}

/* Not inlined: the callers' frames stay small. */
__attribute__((noinline)) static void send_kept(void)
{
    struct report report;
    while (requests_lock()) {
        const bool has_report = kept_count > 0;
        if (has_report) {
            report = kept[0];
            memmove(kept, kept + 1, --kept_count * sizeof report);
        }
        requests_unlock();
        if (!has_report)
            return;
        report_send(&report);
    }
}

void reports_send_kept(void)
{
    if (UNLIKELY(__atomic_load_n(&kept_count, __ATOMIC_ACQUIRE) != 0)) {
        const int saved = errno;
        send_kept();
        errno = saved;
    }
    if (UNLIKELY(sanitizers_watch))
        told_send_kept();
}

IN_CHILD void reports_forget_all(void)
{
    kept_count = 0;
}
