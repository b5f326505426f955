/*
 * What posts and polls of the machine's own devices show to a sanitizer of the program: what a request sends must be
 * the program's at the post, and is the device's until a completion was polled. Coarse: each completion, or end of a
 * queue pair or region, ends all that was posted before. So races are missed, and none is reported falsely.
 */
#define _GNU_SOURCE
#include "host.h"

#include "../recorder/locks.h"
#include "../sanitizers/sanitizers.h"

#include <pthread.h>

/* Memory of others is left out. */
#define MAX_REGIONS 1024
/* Elements of requests that are looked at. */
#define MAX_SGE 16

static struct region {
    const struct ibv_mr *mr;
    uintptr_t start;
    uint64_t iova;
    size_t length;
    uint32_t lkey;
    int fd;
} regions[MAX_REGIONS];
static uint32_t used, holder;
/* By which posts and polls are ordered. */
static const char order;

void sanitizers_begin(void)
{
    sanitizers_detect();
    if (sanitizers_watch)
        pthread_atfork(sanitizers_before_fork, sanitizers_after_fork, sanitizers_after_fork);
}

/* Nothing is told but to the sanitizer. */
void told_say(const char *sentence, bool is_later)
{
    (void)sentence, (void)is_later;
}

void sanitizers_registered(const struct ibv_mr *mr, uint64_t iova)
{
    if (LIKELY(!sanitizers_watch) || !mr || !holder_take(&holder))
        return;
    struct region *free = used < MAX_REGIONS ? &regions[used] : NULL;
    for (uint32_t i = 0; i < used; i++)
        if (regions[i].mr == mr || !regions[i].mr)
            free = &regions[i];
    if (free)
        *free = (struct region){mr, (uintptr_t)mr->addr, iova, mr->length, mr->lkey, mr->context->cmd_fd};
    used += free == &regions[used];
    holder_release(&holder);
}

void sanitizers_deregistered(const struct ibv_mr *mr)
{
    if (LIKELY(!sanitizers_watch) || !holder_take(&holder))
        return;
    for (uint32_t i = 0; i < used; i++)
        if (regions[i].mr == mr)
            regions[i].mr = NULL;
    holder_release(&holder);
    sanitizers_polled();
}

/* The memory of an element. False: it is unknown. */
static bool memory_of(int fd, uint64_t address, uint32_t length, uint32_t lkey, struct device_memory *memory)
{
    bool is_known = false;
    if (length == 0 || !holder_take(&holder))
        return false;
    for (uint32_t i = 0; i < used && !is_known; i++) {
        const struct region *const region = &regions[i];
        const uint64_t offset = address - region->iova;
        is_known = region->mr && region->fd == fd && region->lkey == lkey && offset <= region->length &&
                   length <= region->length - offset;
        if (is_known)
            *memory = (struct device_memory){
                .token = &order, .region = &order, .start = region->start + offset, .bytes = length};
    }
    holder_release(&holder);
    return is_known;
}

void sanitizers_posts(int fd, uint32_t number, const struct userdma_request_record *request,
                      const struct userdma_element_record *elements)
{
    struct device_memory list[MAX_SGE];
    uint32_t count = 0;
    if (LIKELY(!sanitizers_watch))
        return;
    const bool reads = request->opcode == IBV_WR_RDMA_READ || request->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
                       request->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    for (uint32_t i = 0; i < request->elements && !reads && !(request->flags & IBV_SEND_INLINE); i++)
        if (count < MAX_SGE &&
            memory_of(fd, elements[i].address, elements[i].length, elements[i].lkey, &list[count]))
            count++;
    sanitizers_takes((struct device_queue){.fd = fd, .number = number}, list, count, true);
}

void sanitizers_polled(void)
{
    if (UNLIKELY(sanitizers_watch))
        sanitizers_returns(&order);
}
