/*
 * Calls on descriptors of RDMA: ioctl and write. The memory that a call may read is copied before it, the memory that
 * it may have written after it. The kernel copies (process_vm_readv): an invalid pointer is the kernel's to refuse.
 */
#define _GNU_SOURCE
#include "../recorder/refusals.h"
#include "host.h"

#include <errno.h>
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

struct call {
    struct userdma_record record;
    struct userdma_call_record call;
    char ranges[];
};

TLS uint32_t recorded_calls;

void add_range(struct ranges *ranges, uint64_t address, size_t length, uint32_t direction)
{
    if (length > USERDMA_OBSERVE_MAX_CALL_BYTES - ranges->bytes)
        length = USERDMA_OBSERVE_MAX_CALL_BYTES - ranges->bytes;
    if (length == 0 || address == 0 || ranges->count == USERDMA_OBSERVE_MAX_RANGES)
        return;
    ranges->list[ranges->count++] = (struct userdma_range_record){address, (uint32_t)length, direction};
    ranges->bytes += length;
}

static bool copy(void *to, uint64_t from, size_t length)
{
    struct iovec local = {to, length}, remote = {(void *)(uintptr_t)from, length};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)length;
}

void record_call(uint32_t kind, const struct userdma_call_record *facts, const struct ranges *ranges)
{
    const uint32_t stack = kind == USERDMA_RECORD_CALL ? STACK_HERE() : 0;
    size_t bytes = sizeof(struct call);
    for (unsigned i = 0; i < ranges->count; i++)
        bytes += sizeof(struct userdma_range_record) + ((ranges->list[i].length + 7) & ~7u);
    struct call *made = record_begin(kind, bytes);
    if (!made)
        return;
    made->record.stack = stack;
    made->call = *facts;
    made->call.ranges = 0;
    made->call.number = recorded_calls;
    char *at = made->ranges;
    for (unsigned i = 0; i < ranges->count; i++) {
        const struct userdma_range_record *range = &ranges->list[i];
        struct userdma_range_record *header = (struct userdma_range_record *)at;
        char *data = at + sizeof *header;
        /* No call of the system for an event: the kernel has just written to this memory. */
        if (facts->file_kind == USERDMA_FILE_COMPLETIONS || facts->file_kind == USERDMA_FILE_ASYNC)
            memcpy(data, (const void *)(uintptr_t)range->address, range->length);
        else if (!copy(data, range->address, range->length))
            continue;
        *header = *range;
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
    add_range(ranges, message, header.length < IOCTL_HEADER ? IOCTL_HEADER : header.length, direction);
    for (unsigned i = 0; i < header.count && i < USERDMA_OBSERVE_MAX_RANGES; i++) {
        struct {
            uint16_t id, length, flags, data;
            uint64_t address;
        } attribute;
        if (!copy(&attribute, message + IOCTL_HEADER + i * IOCTL_ATTRIBUTE, sizeof attribute))
            return;
        if (attribute.length > IOCTL_INLINE || direction == USERDMA_RANGE_OUT)
            add_range(ranges, attribute.length > 0 && attribute.address > 4096 ? attribute.address : 0, attribute.length,
                      direction);
    }
}

/* The command of rdma_cm files whose answer's address is not the first field of its struct, but the second. */
#define CREATE_ID 0

/* Where the kernel writes the answer to a write(2): its address and length are in the headers of the request. */
static void answer_range(struct ranges *ranges, uint32_t kind, const void *data, size_t length)
{
    struct {
        uint32_t command;
        uint16_t in, out;
        uint64_t response;
        union {
            struct {
                uint16_t driver_in, driver_out;
            };
            uint64_t second;
        };
    } header = {0};
    if (!copy(&header, (uintptr_t)data, length < sizeof header ? length : sizeof header) || length < 16)
        return;
    size_t bytes = header.out;
    if (kind == USERDMA_FILE_CM && header.command == CREATE_ID)
        header.response = header.second;
    if (kind == USERDMA_FILE_VERBS)
        bytes = header.command & EXTENDED ? (header.out + header.driver_out) * 8u : header.out * 4u;
    add_range(ranges, bytes > 0 ? header.response : 0, bytes, USERDMA_RANGE_OUT);
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
    if (LIKELY(_IOC_TYPE(request) != RDMA_MAGIC) || !recorder_is_on || is_injecting)
        return NEXT(ioctl)(fd, request, argument);
    int saved = errno;
    uint32_t kind = kind_for_call(fd);
    if (kind == 0 && request == VERBS_IOCTL) {
        descriptor_received(fd, USERDMA_RECORD_RECEIVED);
        kind = kind_of(fd);
    }
    if (kind == 0)
        return NEXT(ioctl)(fd, request, argument);
    struct userdma_call_record facts = {.request = request,
                                        .argument = (uintptr_t)argument,
                                        .fd = fd,
                                        .entry = USERDMA_ENTRY_IOCTL,
                                        .file_kind = kind};
    struct ranges ranges = {0};
    if (request == VERBS_IOCTL)
        ioctl_ranges(&ranges, facts.argument, USERDMA_RANGE_IN);
    else
        add_range(&ranges, facts.argument, _IOC_SIZE(request), USERDMA_RANGE_IN);
    record_call(USERDMA_RECORD_CALL, &facts, &ranges);
    errno = saved;
    int result = failed_call(fd);
    if (LIKELY(result == 0))
        result = NEXT(ioctl)(fd, request, argument);
    saved = errno;
    facts.result = result < 0 ? -saved : result;
    refusals_of_device += result < 0;
    ranges.count = 0;
    if (request == VERBS_IOCTL)
        ioctl_ranges(&ranges, facts.argument, USERDMA_RANGE_OUT);
    else
        add_range(&ranges, facts.argument, _IOC_SIZE(request), USERDMA_RANGE_OUT);
    record_call(USERDMA_RECORD_RETURN, &facts, &ranges);
    recorded_calls++;
    errno = saved;
    return result;
}

EXPORT ssize_t write(int fd, const void *data, size_t length)
{
    const uint32_t expected = kind_of(fd);
    if (LIKELY(expected == 0 || expected > USERDMA_FILE_MAD) || is_injecting)
        return NEXT(write)(fd, data, length);
    int saved = errno;
    const uint32_t kind = kind_for_call(fd);
    if (kind == 0)
        return NEXT(write)(fd, data, length);
    struct userdma_call_record facts = {
        .request = length, .argument = (uintptr_t)data, .fd = fd, .entry = USERDMA_ENTRY_WRITE, .file_kind = kind};
    struct ranges ranges = {0};
    add_range(&ranges, facts.argument, length, USERDMA_RANGE_IN);
    record_call(USERDMA_RECORD_CALL, &facts, &ranges);
    ranges.count = 0;
    if (kind == USERDMA_FILE_VERBS || kind == USERDMA_FILE_CM)
        answer_range(&ranges, kind, data, length);
    errno = saved;
    ssize_t result = failed_call(fd);
    if (LIKELY(result == 0))
        result = NEXT(write)(fd, data, length);
    saved = errno;
    facts.result = result < 0 ? -saved : result;
    refusals_of_device += result < 0;
    record_call(USERDMA_RECORD_RETURN, &facts, &ranges);
    recorded_calls++;
    errno = saved;
    return result;
}
