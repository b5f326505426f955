/*
 * Where a call's response may be stored. The shim stores the numbers of new descriptors, at addresses in the reply.
 * This file checks that the program passed the memory in its call, so a daemon cannot make the shim write elsewhere.
 *
 * The program passes
 * - in a write(2) command, the response buffer in the header;
 * - in an ioctl, the argument, with the size in the request number;
 * - in an ioctl of Linux's verbs or the object dialect, also the message that the argument begins, and the memory to
 *   which its attributes point.
 */
#define _GNU_SOURCE
#include "call_layout.h"

#include <errno.h>
#include <linux/ioctl.h>
#include <stddef.h>
#include <string.h>

static bool contains(struct span outer, struct span inner)
{
    const uint64_t offset = inner.address - outer.address;
    return inner.length <= outer.length && offset <= outer.length - inner.length;
}

/* Copies `length` bytes of the program's memory, by the kernel; false if they are not mapped. */
static bool load(uint64_t address, void *buffer, size_t length)
{
    const struct iovec local = {.iov_base = buffer, .iov_len = length};
    const struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = length};
    const ssize_t moved = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    if (moved == (ssize_t)length)
        return true;
    if (moved >= 0 || errno == EFAULT)
        return false;
    /* In a sandbox that forbids process_vm_readv. A correct daemon has read the same memory, so it is mapped. */
    memcpy(buffer, (const void *)(uintptr_t)address, length);
    return true;
}

/* ---- write(2) ---- */

/* IB_USER_VERBS_CMD_FLAG_EXTENDED */
#define EXTENDED 0x80000000u

/*
 * ib_uverbs_cmd_hdr, then in extended commands ib_uverbs_ex_cmd_hdr, in others the response address, if they have a
 * response (out_words is not 0). Words have 4 bytes, in extended commands 8 bytes.
 */
struct command {
    uint32_t number;
    uint16_t in_words;
    uint16_t out_words;
    uint64_t response;
    /* Extended commands only. */
    uint16_t driver_in_words;
    uint16_t driver_out_words;
    uint32_t reserved;
};
_Static_assert(sizeof(struct command) == 24, "layout of the ABI");

static bool command_may_store(uint64_t buffer, uint64_t length, struct span wanted)
{
    struct command command = {0};
    const size_t plain_bytes = offsetof(struct command, driver_in_words);
    if (length < plain_bytes || !load(buffer, &command, plain_bytes))
        return false;
    struct span response = {.address = command.response, .length = 4ull * command.out_words};
    if (command.number & EXTENDED) {
        if (length < sizeof command || !load(buffer, &command, sizeof command))
            return false;
        response.length = 8ull * (command.out_words + command.driver_out_words);
    }
    return contains(response, wanted);
}

/* ---- ioctl(2) ---- */

static bool verbs_attribute_may_store(struct span message, struct span wanted)
{
    struct verbs_attribute attribute;
    for (uint64_t offset = sizeof(struct verbs_header); offset + sizeof attribute <= message.length;
         offset += sizeof attribute) {
        if (!load(message.address + offset, &attribute, sizeof attribute))
            return false;
        /* A value in `data` itself cannot be distinguished from the address of an output. */
        if (contains((struct span){attribute.data, attribute.length}, wanted))
            return true;
    }
    return false;
}

static bool object_attribute_may_store(struct span message, struct span wanted)
{
    struct object_attribute attribute;
    struct span target;
    for (uint64_t offset = OBJECT_HEADER_BYTES; offset + sizeof attribute <= message.length;
         offset += (attribute.length + 7u) & ~7u) {
        if (!load(message.address + offset, &attribute, sizeof attribute) || attribute.length < sizeof attribute)
            return false;
        if (!(attribute.flags & INDIRECT) || attribute.length != sizeof attribute + sizeof target)
            continue;
        if (!load(message.address + offset + sizeof attribute, &target, sizeof target))
            return false;
        if (contains(target, wanted))
            return true;
    }
    return false;
}

static bool ioctl_may_store(uint64_t request, uint64_t argument, struct span wanted)
{
    uint16_t length;
    if (contains((struct span){argument, _IOC_SIZE(request)}, wanted))
        return true;
    const bool is_verbs = _IOC_TYPE(request) == LINUX_MAGIC;
    if ((!is_verbs && _IOC_TYPE(request) != OBJECT_MAGIC) || !load(argument, &length, sizeof length))
        return false;
    const struct span message = {argument, length};
    return contains(message, wanted) ||
           (is_verbs ? verbs_attribute_may_store(message, wanted) : object_attribute_may_store(message, wanted));
}

bool call_may_store(uint32_t type, uint64_t first, uint64_t second, uint64_t address, uint32_t width)
{
    const struct span wanted = {address, width};
    if (type == USERDMA_WRITE)
        return command_may_store(first, second, wanted);
    return type == USERDMA_IOCTL && ioctl_may_store(first, second, wanted);
}
