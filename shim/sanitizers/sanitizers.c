/* What is told all sanitizers of the process. */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool sanitizers_watch, sanitizers_look, sanitizers_valgrind;

static bool has_tsan, has_asan;

/* Contexts with a lower descriptor have a name of their device. */
#define NAMED 1024
static char names[NAMED][16];

void sanitizers_opened(int fd, const char *device)
{
    if ((unsigned)fd < NAMED)
        snprintf(names[fd], sizeof names[fd], "%s", device);
    if (has_tsan)
        tsan_opened();
}

const char *sanitizers_device(int fd)
{
    return (unsigned)fd < NAMED && names[fd][0] ? names[fd] : "device";
}

void sanitizers_detect(void)
{
    sanitizers_valgrind = memcheck_detect();
    has_tsan = tsan_detect();
    has_asan = asan_detect();
    sanitizers_look = sanitizers_valgrind || has_asan;
    sanitizers_watch = sanitizers_look || has_tsan;
    if (has_tsan)
        atexit(tsan_end);
}

void sanitizers_takes(struct device_queue queue, const struct device_memory *list, uint32_t count, bool has_message)
{
    const int saved = errno;
    if (has_tsan)
        tsan_takes(queue, list, count, has_message);
    /* What a request sends must be the program's from now on; what arrives, when it does. */
    for (uint32_t i = 0; sanitizers_look && i < count; i++)
        if (!list[i].is_written)
            sanitizers_used(queue, &list[i]);
    errno = saved;
}

void sanitizers_takes_receives(const struct device_memory *list, uint32_t count)
{
    if (has_tsan)
        tsan_takes_receives(list, count);
}

void sanitizers_arrives(struct device_queue queue, const struct device_memory *list, uint32_t count)
{
    if (has_tsan)
        tsan_arrives(queue, list, count);
}

void sanitizers_returns(const void *token)
{
    if (has_tsan)
        tsan_returns(token);
}

void sanitizers_receives(struct device_queue queue)
{
    if (has_tsan)
        tsan_receives(queue);
}

void sanitizers_used(struct device_queue queue, const struct device_memory *memory)
{
    if (memory->bytes == 0)
        return;
    if (has_asan)
        asan_used(queue, memory);
    if (sanitizers_valgrind)
        memcheck_used(memory->start, memory->bytes);
}

void sanitizers_written(uintptr_t start, size_t bytes)
{
    if (sanitizers_valgrind)
        memcheck_written(start, bytes);
}

void sanitizers_ignore(bool is_ignored)
{
    if (sanitizers_valgrind)
        memcheck_ignore(is_ignored);
}

void sanitizers_bypassed(void)
{
    has_tsan = false;
}

void sanitizers_before_fork(void)
{
    if (has_tsan)
        tsan_before_fork();
}

void sanitizers_after_fork(void)
{
    if (has_tsan)
        tsan_after_fork();
}
