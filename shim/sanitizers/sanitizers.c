/* What is told all sanitizers of the process. */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool sanitizers_watch, sanitizers_look, sanitizers_order, sanitizers_valgrind;

/* Contexts with a lower descriptor have a name of their device. */
#define NAMED 1024
static char names[NAMED][16];

void sanitizers_opened(int fd, const char *device)
{
    /* Not by functions that TSan replaces: other threads read it. */
    for (size_t i = 0; (unsigned)fd < NAMED && i < sizeof names[fd] && (i == 0 || names[fd][i - 1]); i++)
        names[fd][i] = i + 1 < sizeof names[fd] ? device[i] : 0;
    if (sanitizers_order)
        tsan_opened();
}

const char *sanitizers_device(int fd)
{
    return (unsigned)fd < NAMED && names[fd][0] ? names[fd] : "device";
}

void sanitizers_detect(void)
{
    sanitizers_valgrind = memcheck_detect();
    sanitizers_order = tsan_detect();
    sanitizers_look = sanitizers_valgrind || asan_detect();
    sanitizers_watch = sanitizers_look || sanitizers_order;
    if (sanitizers_order)
        atexit(tsan_end);
}

void sanitizers_takes(struct device_queue queue, const struct device_memory *list, uint32_t count, bool has_message)
{
    const int saved = errno;
    if (sanitizers_order)
        tsan_takes(queue, list, count, has_message);
    /* What a request sends must be the program's from now on; what arrives, when it does. */
    for (uint32_t i = 0; sanitizers_look && i < count; i++)
        if (!list[i].is_written) {
            sanitizers_used(queue, &list[i]);
            if (sanitizers_valgrind)
                memcheck_sent(list[i].start, list[i].bytes);
        }
    errno = saved;
}

void sanitizers_takes_receives(const struct device_memory *list, uint32_t count)
{
    if (sanitizers_order)
        tsan_takes_receives(list, count);
}

void sanitizers_arrives(struct device_queue queue, const struct device_memory *list, uint32_t count)
{
    if (sanitizers_order)
        tsan_arrives(queue, list, count);
}

void sanitizers_returns(const void *token)
{
    if (sanitizers_order)
        tsan_returns(token);
}

void sanitizers_receives(struct device_queue queue)
{
    if (sanitizers_order)
        tsan_receives(queue);
}

void sanitizers_used(struct device_queue queue, const struct device_memory *memory)
{
    const uintptr_t start = memory->start, end = start + memory->bytes;
    if (start == end)
        return;
    const uintptr_t foreign =
        sanitizers_valgrind ? memcheck_report(start, memory->bytes) : asan_first_foreign(start, memory->bytes);
    if (LIKELY(foreign == 0))
        return;
    char sentence[256];
    snprintf(sentence, sizeof sentence,
             "userdma: %s %s %zu bytes at 0x%lx for a %s of %s 0x%x; from 0x%lx on they are not the program's:\n",
             sanitizers_device(queue.fd), memory->is_written ? "writes" : "reads", memory->bytes, (unsigned long)start,
             queue.is_peer ? "peer" : "request", queue.is_shared ? "SRQ" : "QP", queue.number, (unsigned long)foreign);
    dprintf(STDERR_FILENO, "%s", sentence);
    /* The daemon waits for this thread if it tells of a peer. ASan may end the program. */
    told_say(sentence, queue.is_peer);
    if (!sanitizers_valgrind)
        asan_report(foreign, end - foreign, memory->is_written);
}

/* By number. Of those with the same place the last one is known. */
#define PAIRS 4096
static struct device_pair pairs[PAIRS];

void sanitizers_connected(struct device_queue queue, uint32_t peer)
{
    pairs[queue.number % PAIRS] = (struct device_pair){.fd = queue.fd, .number = queue.number, .peer = peer};
}

const struct device_pair *sanitizers_pair(uint32_t number)
{
    const struct device_pair *const pair = &pairs[number % PAIRS];
    return number != 0 && pair->number == number ? pair : NULL;
}

void sanitizers_peer(uint32_t number, uint32_t access, uintptr_t start, size_t bytes)
{
    const struct device_pair *const pair = sanitizers_pair(number);
    const struct device_queue queue = {.fd = pair ? pair->fd : -1, .is_peer = true, .number = number};
    const struct device_memory memory = {
        .start = start, .bytes = bytes, .is_written = access != IBV_ACCESS_REMOTE_READ};
    if (sanitizers_order)
        tsan_peer(queue, access, start, bytes);
    if (sanitizers_look)
        sanitizers_used(queue, &memory);
}

void sanitizers_accessed(struct device_queue queue)
{
    if (sanitizers_order)
        tsan_accessed(queue);
}

void sanitizers_written(uintptr_t start, size_t bytes, bool is_peers)
{
    if (!sanitizers_valgrind)
        return;
    if (is_peers)
        memcheck_report(start, bytes);
    memcheck_written(start, bytes);
}

void sanitizers_ignore(bool is_ignored)
{
    if (sanitizers_valgrind)
        memcheck_ignore(is_ignored);
}

void sanitizers_bypassed(void)
{
    sanitizers_order = false;
}

void sanitizers_before_fork(void)
{
    if (sanitizers_order)
        tsan_before_fork();
}

void sanitizers_after_fork(void)
{
    if (sanitizers_order)
        tsan_after_fork();
}
