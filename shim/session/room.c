/*
 * The memory in which a call's answer may be stored. The shim itself writes only the numbers of new descriptors (the
 * daemon writes everything else); a reply may refer only to memory that the call passed.
 *
 * A write(2) command names one range in its header. An ioctl passes what its request number declares, its message if it
 * is one of Linux's or of the object dialect, and the memory that the message's attributes point to. The layouts are
 * those of rdma_user_ioctl_cmds.h, ib_user_verbs.h and src/uapi/object/format.ts.
 */
#define _GNU_SOURCE
#include "../shim.h"

#include <errno.h>
#include <linux/ioctl.h>
#include <stddef.h>
#include <string.h>

struct span {
    uint64_t address;
    uint64_t length;
};

static bool contains(struct span room, struct span wanted)
{
    const uint64_t offset = wanted.address - room.address;
    return wanted.length <= room.length && offset <= room.length - wanted.length;
}

/* Read by the kernel: the memory that the program passed may not exist. */
static bool load(uint64_t address, void *to, size_t length)
{
    const struct iovec local = {.iov_base = to, .iov_len = length};
    const struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = length};
    const ssize_t moved = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    if (moved == (ssize_t)length)
        return true;
    if (moved >= 0 || errno == EFAULT)
        return false;
    /* In a sandbox without that call: the daemon has read the memory. */
    memcpy(to, (const void *)(uintptr_t)address, length);
    return true;
}

/* ---- write(2) ---- */

#define EXTENDED 0x80000000u

struct command {
    uint32_t number;
    uint16_t in_words;
    uint16_t out_words;
    uint64_t response;
    /* For extended commands only. */
    uint16_t driver_in_words;
    uint16_t driver_out_words;
    uint32_t reserved;
};
_Static_assert(sizeof(struct command) == 24, "layout of the ABI");

static bool command_passes(uint64_t buffer, uint64_t length, struct span wanted)
{
    struct command command = {0};
    const size_t plain = offsetof(struct command, driver_in_words);
    if (length < plain || !load(buffer, &command, plain))
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

#define VERBS_MAGIC 0x1b
#define OBJECT_MAGIC 0xdb

struct verbs_header {
    uint16_t length;
    uint16_t object;
    uint16_t method;
    uint16_t attributes;
    uint64_t reserved1;
    uint32_t driver;
    uint32_t reserved2;
};
_Static_assert(sizeof(struct verbs_header) == 24, "layout of the ABI");

struct verbs_attribute {
    uint16_t id;
    uint16_t length;
    uint16_t flags;
    uint16_t more;
    uint64_t data;
};
_Static_assert(sizeof(struct verbs_attribute) == 16, "layout of the ABI");

static bool verbs_attribute_passes(struct span message, struct span wanted)
{
    struct verbs_attribute attribute;
    for (uint64_t at = sizeof(struct verbs_header); at + sizeof attribute <= message.length; at += sizeof attribute) {
        if (!load(message.address + at, &attribute, sizeof attribute))
            return false;
        if (contains((struct span){attribute.data, attribute.length}, wanted))
            return true;
    }
    return false;
}

#define OBJECT_HEADER 16
#define INDIRECT 0x8u

struct object_attribute {
    uint16_t length;
    uint16_t id;
    uint32_t flags;
};

static bool object_attribute_passes(struct span message, struct span wanted)
{
    struct object_attribute attribute;
    struct span target;
    for (uint64_t at = OBJECT_HEADER; at + sizeof attribute <= message.length; at += (attribute.length + 7u) & ~7u) {
        if (!load(message.address + at, &attribute, sizeof attribute) || attribute.length < sizeof attribute)
            return false;
        if (!(attribute.flags & INDIRECT) || attribute.length != sizeof attribute + sizeof target)
            continue;
        if (!load(message.address + at + sizeof attribute, &target, sizeof target))
            return false;
        if (contains(target, wanted))
            return true;
    }
    return false;
}

static bool ioctl_passes(uint64_t request, uint64_t argument, struct span wanted)
{
    uint16_t length;
    if (contains((struct span){argument, _IOC_SIZE(request)}, wanted))
        return true;
    const bool verbs = _IOC_TYPE(request) == VERBS_MAGIC;
    if ((!verbs && _IOC_TYPE(request) != OBJECT_MAGIC) || !load(argument, &length, sizeof length))
        return false;
    const struct span message = {argument, length};
    return contains(message, wanted) ||
           (verbs ? verbs_attribute_passes(message, wanted) : object_attribute_passes(message, wanted));
}

bool call_passes(uint32_t type, uint64_t first, uint64_t second, uint64_t address, uint32_t width)
{
    const struct span wanted = {address, width};
    return type == USERDMA_WRITE ? command_passes(first, second, wanted) : ioctl_passes(first, second, wanted);
}
