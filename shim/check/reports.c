/*
 * Reports of outstanding requests to the daemon (message MISUSE). Nothing is sent inside free(): reports are kept until
 * the next post, poll, call, fork without ibv_fork_init, or close of a context, or the end of the process.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <string.h>

/* Maximum kept reports. Further reports are dropped. */
#define MAX_KEPT 64

static struct report kept[MAX_KEPT];
static uint32_t kept_count;

struct report report_of(uint32_t slot, uint32_t kind)
{
    const struct queue *queue = queue_of_element(slot);
    return (struct report){
        .misuse = {.wr_id = elements[slot].wr_id,
                   .address = ranges[slot].start,
                   .kind = kind,
                   .queue = queue->kind,
                   .number = queue->number,
                   .index = elements[slot].index - 1 /* from 0 */},
        .fd = queue->fd,
        .time = shim_nanoseconds(),
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
    report->misuse.age = shim_nanoseconds() - report->time;
    const uint32_t stack = stack_number(&report->stack);
    message_send(report->fd, USERDMA_MISUSE, stack, &report->misuse, sizeof report->misuse, true);
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
}

IN_CHILD void reports_forget_all(void)
{
    kept_count = 0;
}
