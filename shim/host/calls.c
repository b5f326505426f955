/*
 * Calls on descriptors of RDMA: ioctl and write. The memory that a call may read is copied before it, the memory that it
 * may have written after it. The kernel copies (process_vm_readv): an invalid pointer is the kernel's to refuse.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define RDMA_MAGIC 0x1b
/* RDMA_VERBS_IOCTL, and the sizes of its header and of an attribute. */
#define VERBS_IOCTL _IOC(_IOC_READ | _IOC_WRITE, RDMA_MAGIC, 1, IOCTL_HEADER)
#define IOCTL_HEADER 24
#define IOCTL_ATTRIBUTE 16
#define IOCTL_INLINE 8
/* The bit of extended write commands, and the headers of write commands. */
#define EXTENDED 0x80000000u
#define WRITE_HEADER 8
#define EXTENDED_HEADER 16

/* By descriptor: USERDMA_FILE_, 0: another file. Higher descriptors are not observed. */
#define MAX_FD 65536
static uint8_t kinds[MAX_FD];

static uint32_t kind_of(int fd)
{
    return (unsigned)fd < MAX_FD ? __atomic_load_n(&kinds[fd], __ATOMIC_RELAXED) : 0;
}

/* ---- opens and closes ---- */

static uint32_t kind_of_path(const char *path)
{
    if ((uintptr_t)path < 4096 || strncmp(path, "/dev/", 5) != 0)
        return 0;
    const char *name = strrchr(path, '/') + 1;
    if (strcmp(name, "rdma_cm") == 0)
        return USERDMA_FILE_CM;
    if (strncmp(path, "/dev/infiniband/", 16) != 0)
        return 0;
    if (strncmp(name, "uverbs", 6) == 0)
        return USERDMA_FILE_VERBS;
    return strncmp(name, "umad", 4) == 0 ? USERDMA_FILE_MAD : 0;
}

static int opened(int fd, const char *path)
{
    if (UNLIKELY(fd >= 0 && fd < MAX_FD && host_is_active)) {
        const uint32_t kind = kind_of_path(path);
        __atomic_store_n(&kinds[fd], (uint8_t)kind, __ATOMIC_RELAXED);
        if (kind != 0)
            record_text(USERDMA_RECORD_OPEN, fd, kind, path);
    }
    return fd;
}

static void closing(int fd)
{
    if (LIKELY(kind_of(fd) == 0))
        return;
    record_text(USERDMA_RECORD_CLOSE, fd, 0, "");
    __atomic_store_n(&kinds[fd], 0, __ATOMIC_RELAXED);
}

/* The mode is read also if the program passed none: the next function ignores it. */
#define MODE(last)                                                                                                     \
    ({                                                                                                                 \
        va_list list;                                                                                                  \
        va_start(list, last);                                                                                          \
        const mode_t value = va_arg(list, mode_t);                                                                     \
        va_end(list);                                                                                                  \
        value;                                                                                                         \
    })

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

EXPORT int open(const char *path, int flags, ...)
{
    return opened(NEXT(open)(path, flags, MODE(flags)), path);
}

EXPORT int open64(const char *path, int flags, ...)
{
    return opened(NEXT(open64)(path, flags, MODE(flags)), path);
}

EXPORT int openat(int folder, const char *path, int flags, ...)
{
    return opened(NEXT(openat)(folder, path, flags, MODE(flags)), path);
}

EXPORT int openat64(int folder, const char *path, int flags, ...)
{
    return opened(NEXT(openat64)(folder, path, flags, MODE(flags)), path);
}

EXPORT int __open_2(const char *path, int flags)
{
    return opened(NEXT(__open_2)(path, flags), path);
}

EXPORT int __open64_2(const char *path, int flags)
{
    return opened(NEXT(__open64_2)(path, flags), path);
}

EXPORT int close(int fd)
{
    closing(fd);
    return NEXT(close)(fd);
}

EXPORT int dup2(int from, int to)
{
    if (from != to)
        closing(to);
    return NEXT(dup2)(from, to);
}

EXPORT int dup3(int from, int to, int flags)
{
    if (from != to)
        closing(to);
    return NEXT(dup3)(from, to, flags);
}

/* ---- calls ---- */

struct call {
    struct userdma_record record;
    struct userdma_call_record call;
    char ranges[];
};

/* A range of memory to copy into a record. */
struct range {
    uint64_t address;
    uint32_t length, direction;
};

struct ranges {
    unsigned count;
    struct range list[USERDMA_OBSERVE_MAX_RANGES];
};

static void add(struct ranges *ranges, uint64_t address, size_t length, uint32_t direction)
{
    if (length == 0 || address == 0 || ranges->count == USERDMA_OBSERVE_MAX_RANGES)
        return;
    if (length > USERDMA_OBSERVE_MAX_RANGE_BYTES)
        length = USERDMA_OBSERVE_MAX_RANGE_BYTES;
    ranges->list[ranges->count++] = (struct range){address, (uint32_t)length, direction};
}

static bool copy(void *to, uint64_t from, size_t length)
{
    struct iovec local = {to, length}, remote = {(void *)(uintptr_t)from, length};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)length;
}

static void record(uint32_t kind, const struct userdma_call_record *facts, const struct ranges *ranges)
{
    const uint32_t stack = kind == USERDMA_RECORD_CALL ? stack_here() : 0;
    size_t bytes = sizeof(struct call);
    for (unsigned i = 0; i < ranges->count; i++)
        bytes += sizeof(struct userdma_range_record) + ((ranges->list[i].length + 7) & ~7u);
    struct call *made = record_begin(kind, bytes);
    if (!made)
        return;
    made->record.stack = stack;
    made->call = *facts;
    made->call.ranges = 0;
    char *at = made->ranges;
    for (unsigned i = 0; i < ranges->count; i++) {
        const struct range *range = &ranges->list[i];
        struct userdma_range_record *header = (struct userdma_range_record *)at;
        char *data = at + sizeof *header;
        if (!copy(data, range->address, range->length))
            continue;
        *header = (struct userdma_range_record){range->address, range->length, range->direction};
        memset(data + range->length, 0, -range->length & 7);
        at = data + ((range->length + 7) & ~7u);
        made->call.ranges++;
    }
    record_end(made, (size_t)(at - (char *)made));
}

/* The message of an ioctl, and the memory of its attributes: what the kernel reads, and what it writes. */
static void ioctl_ranges(struct ranges *ranges, uint64_t message, uint32_t direction)
{
    struct {
        uint16_t length, object, method, count;
    } header;
    if (!copy(&header, message, sizeof header))
        return;
    add(ranges, message, header.length < IOCTL_HEADER ? IOCTL_HEADER : header.length, direction);
    for (unsigned i = 0; i < header.count && i < USERDMA_OBSERVE_MAX_RANGES; i++) {
        struct {
            uint16_t id, length, flags, data;
            uint64_t address;
        } attribute;
        if (!copy(&attribute, message + IOCTL_HEADER + i * IOCTL_ATTRIBUTE, sizeof attribute))
            return;
        if (attribute.length > IOCTL_INLINE || direction == USERDMA_RANGE_OUT)
            add(ranges, attribute.length > 0 && attribute.address > 4096 ? attribute.address : 0, attribute.length,
                direction);
    }
}

/* Where the kernel writes the answer to a write(2): its address and length are in the headers of the request. */
static void answer_range(struct ranges *ranges, uint32_t kind, const void *data, size_t length)
{
    struct {
        uint32_t command;
        uint16_t in, out;
        uint64_t response;
        uint16_t driver_in, driver_out;
    } header = {0};
    if (!copy(&header, (uintptr_t)data, length < sizeof header ? length : sizeof header) || length < 16)
        return;
    size_t bytes = header.out;
    if (kind == USERDMA_FILE_VERBS)
        bytes = header.command & EXTENDED ? (header.out + header.driver_out) * 8u : header.out * 4u;
    add(ranges, bytes > 0 ? header.response : 0, bytes, USERDMA_RANGE_OUT);
}

/* −1, with errno: a fault rule fails the recorded call. 0: it is executed. */
static int failed_call(int fd)
{
    const int error = MUST_ASK(USERDMA_ASK_CALL) ? fault_of_call(fd) : 0;
    if (LIKELY(error == 0))
        return 0;
    errno = error;
    return -1;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    const uint32_t kind = kind_of(fd);
    const bool is_rdma = _IOC_TYPE(request) == RDMA_MAGIC && (kind != 0 || request == VERBS_IOCTL);
    if (LIKELY(!is_rdma) || !host_is_active || is_injecting)
        return NEXT(ioctl)(fd, request, argument);
    int saved = errno;
    struct userdma_call_record facts = {.request = request,
                                        .argument = (uintptr_t)argument,
                                        .fd = fd,
                                        .entry = USERDMA_ENTRY_IOCTL,
                                        .file_kind = kind != 0 ? kind : USERDMA_FILE_VERBS};
    struct ranges ranges = {0};
    if (request == VERBS_IOCTL)
        ioctl_ranges(&ranges, facts.argument, USERDMA_RANGE_IN);
    else
        add(&ranges, facts.argument, _IOC_SIZE(request), USERDMA_RANGE_IN);
    record(USERDMA_RECORD_CALL, &facts, &ranges);
    errno = saved;
    int result = failed_call(fd);
    if (LIKELY(result == 0))
        result = NEXT(ioctl)(fd, request, argument);
    saved = errno;
    facts.result = result < 0 ? -saved : result;
    ranges.count = 0;
    if (request == VERBS_IOCTL)
        ioctl_ranges(&ranges, facts.argument, USERDMA_RANGE_OUT);
    else
        add(&ranges, facts.argument, _IOC_SIZE(request), USERDMA_RANGE_OUT);
    record(USERDMA_RECORD_RETURN, &facts, &ranges);
    recorded_calls++;
    errno = saved;
    return result;
}

EXPORT ssize_t write(int fd, const void *data, size_t length)
{
    const uint32_t kind = kind_of(fd);
    if (LIKELY(kind == 0) || is_injecting)
        return NEXT(write)(fd, data, length);
    int saved = errno;
    struct userdma_call_record facts = {
        .request = length, .argument = (uintptr_t)data, .fd = fd, .entry = USERDMA_ENTRY_WRITE, .file_kind = kind};
    struct ranges ranges = {0};
    add(&ranges, facts.argument, length, USERDMA_RANGE_IN);
    record(USERDMA_RECORD_CALL, &facts, &ranges);
    ranges.count = 0;
    if (kind != USERDMA_FILE_MAD)
        answer_range(&ranges, kind, data, length);
    errno = saved;
    ssize_t result = failed_call(fd);
    if (LIKELY(result == 0))
        result = NEXT(write)(fd, data, length);
    saved = errno;
    facts.result = result < 0 ? -saved : result;
    record(USERDMA_RECORD_RETURN, &facts, &ranges);
    recorded_calls++;
    errno = saved;
    return result;
}
