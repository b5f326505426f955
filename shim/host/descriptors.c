/*
 * Which descriptors are RDMA's. The table is kept by the calls that open, duplicate, pass and close descriptors. A
 * descriptor that was closed unseen, by a system call of the program's own, is noticed at its next call: the table has
 * the file's identity.
 */
#define _GNU_SOURCE
#include "host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Higher descriptors are not observed. */
#define MAX_FD 65536
static uint8_t kinds[MAX_FD];
static struct identity {
    dev_t device, node;
    ino_t number;
} identities[MAX_FD];

uint32_t kind_of(int fd)
{
    return (unsigned)fd < MAX_FD ? __atomic_load_n(&kinds[fd], __ATOMIC_RELAXED) : 0;
}

static struct identity identity_of(int fd)
{
    struct stat found;
    if (syscall(SYS_fstat, fd, &found) != 0)
        return (struct identity){0};
    return (struct identity){.device = found.st_dev, .node = found.st_rdev, .number = found.st_ino};
}

static void set_kind(int fd, uint32_t kind)
{
    const int saved = errno;
    identities[fd] = identity_of(fd);
    __atomic_store_n(&kinds[fd], (uint8_t)kind, __ATOMIC_RELAXED);
    errno = saved;
}

static void closing(int fd)
{
    if (LIKELY(kind_of(fd) == 0) || !is_own_memory())
        return;
    record_text(USERDMA_RECORD_CLOSE, fd, 0, "");
    __atomic_store_n(&kinds[fd], 0, __ATOMIC_RELAXED);
}

uint32_t kind_for_call(int fd)
{
    const uint32_t kind = kind_of(fd);
    if (LIKELY(kind == 0))
        return 0;
    const int saved = errno;
    const struct identity current = identity_of(fd), *known = &identities[fd];
    errno = saved;
    if (LIKELY(current.number == known->number && current.device == known->device && current.node == known->node))
        return kind;
    closing(fd);
    return 0;
}

int descriptor_opened(int fd, uint32_t kind, const char *path)
{
    if ((unsigned)fd >= MAX_FD || !recorder_is_on)
        return fd;
    closing(fd);
    if (kind != 0) {
        set_kind(fd, kind);
        record_text(USERDMA_RECORD_OPEN, fd, kind, path);
    }
    return fd;
}

/* ---- opens ---- */

static uint32_t kind_of_name(const char *name)
{
    if (strcmp(name, "rdma_cm") == 0)
        return USERDMA_FILE_CM;
    if (strncmp(name, "uverbs", 6) == 0)
        return USERDMA_FILE_VERBS;
    return strncmp(name, "umad", 4) == 0 ? USERDMA_FILE_MAD : 0;
}

static int opened(int fd, const char *path)
{
    if (LIKELY(fd < 0 || !recorder_is_on))
        return fd;
    uint32_t kind = 0;
    if ((uintptr_t)path >= 4096 && strncmp(path, "/dev/", 5) == 0)
        kind = strncmp(path, "/dev/infiniband/", 16) == 0 || strcmp(path, "/dev/rdma_cm") == 0
                   ? kind_of_name(strrchr(path, '/') + 1)
                   : 0;
    return descriptor_opened(fd, kind, path);
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

EXPORT int socket(int family, int type, int protocol)
{
    const int fd = NEXT(socket)(family, type, protocol);
    const bool is_rdma = family == AF_NETLINK && protocol == NETLINK_RDMA;
    return fd < 0 ? fd : descriptor_opened(fd, is_rdma ? USERDMA_FILE_NETLINK : 0, "NETLINK_RDMA");
}

/* ---- descriptors of other processes ---- */

/* The file of a descriptor in /dev/infiniband, by its device number. Returns its kind, or 0. */
static uint32_t find_node(int fd, char *path, size_t size)
{
    struct statx found;
    char link[48], target[256];
    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &found) != 0 || !S_ISCHR(found.stx_mode))
        return 0;
    snprintf(link, sizeof link, "/sys/dev/char/%u:%u", found.stx_rdev_major, found.stx_rdev_minor);
    const ssize_t length = readlink(link, target, sizeof target - 1);
    if (length <= 0)
        return 0;
    target[length] = 0;
    const char *name = strrchr(target, '/');
    const uint32_t kind = name ? kind_of_name(name + 1) : 0;
    snprintf(path, size, "/dev/infiniband%s", name ? name : "");
    return kind;
}

static bool is_netlink(int fd)
{
    int domain = 0, protocol = 0;
    socklen_t length = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 || domain != AF_NETLINK)
        return false;
    length = sizeof protocol;
    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 && protocol == NETLINK_RDMA;
}

void descriptor_received(int fd, uint32_t record)
{
    if ((unsigned)fd >= MAX_FD || !recorder_is_on || !is_own_memory())
        return;
    const int saved = errno;
    char path[64] = "NETLINK_RDMA";
    uint32_t kind = find_node(fd, path, sizeof path);
    if (kind == 0 && is_netlink(fd))
        kind = USERDMA_FILE_NETLINK;
    closing(fd);
    if (kind != 0) {
        set_kind(fd, kind);
        record_text(record, fd, kind, path);
    }
    errno = saved;
}

void descriptor_passed(int fd)
{
    if (UNLIKELY(kind_of(fd) != 0))
        record_text(USERDMA_RECORD_PASSED, fd, 0, "");
}

void descriptors_begin(uint32_t record)
{
    /* Without the program's allocator, which may not be ready. */
    const int folder = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char buffer[1024] __attribute__((aligned(8)));
    for (long length; folder >= 0 && (length = syscall(SYS_getdents64, folder, buffer, sizeof buffer)) > 0;)
        for (long at = 0; at < length;) {
            const struct dirent64 *entry = (const struct dirent64 *)(buffer + at);
            const int fd = atoi(entry->d_name);
            if (fd > STDERR_FILENO && fd != folder)
                descriptor_received(fd, record);
            at += entry->d_reclen;
        }
    syscall(SYS_close, folder);
}

/* ---- duplicates and closes ---- */

static int duplicated(int from, int to)
{
    if (LIKELY(to < 0 || to >= MAX_FD || from == to || (kind_of(from) == 0 && kind_of(to) == 0)) || !is_own_memory())
        return to;
    closing(to);
    const uint32_t kind = kind_of(from);
    if (kind != 0) {
        set_kind(to, kind);
        record_text(USERDMA_RECORD_DUPLICATE, to, (uint32_t)from, "");
    }
    return to;
}

EXPORT int dup(int from)
{
    return duplicated(from, NEXT(dup)(from));
}

EXPORT int dup2(int from, int to)
{
    return duplicated(from, NEXT(dup2)(from, to));
}

EXPORT int dup3(int from, int to, int flags)
{
    return duplicated(from, NEXT(dup3)(from, to, flags));
}

#define FCNTL(name)                                                                                                    \
    EXPORT int name(int fd, int command, ...)                                                                          \
    {                                                                                                                  \
        va_list list;                                                                                                  \
        va_start(list, command);                                                                                       \
        void *argument = va_arg(list, void *);                                                                         \
        va_end(list);                                                                                                  \
        const int result = NEXT(name)(fd, command, argument);                                                          \
        return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? duplicated(fd, result) : result;                     \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

EXPORT int close(int fd)
{
    closing(fd);
    return NEXT(close)(fd);
}

EXPORT int fclose(FILE *file)
{
    closing(fileno(file));
    return NEXT(fclose)(file);
}

static void closing_all(unsigned first, unsigned last)
{
    for (unsigned fd = first; fd <= last && fd < MAX_FD; fd++)
        closing((int)fd);
}

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif

/* Not in every C library. */
EXPORT int close_range(unsigned first, unsigned last, int flags);
int close_range(unsigned first, unsigned last, int flags)
{
    if (!(flags & CLOSE_RANGE_CLOEXEC))
        closing_all(first, last);
    int (*next)(unsigned, unsigned, int) = dlsym(RTLD_NEXT, "close_range");
    return next ? next(first, last, flags) : (int)syscall(SYS_close_range, first, last, flags);
}

EXPORT void closefrom(int first);
void closefrom(int first)
{
    closing_all(first < 0 ? 0 : (unsigned)first, ~0u);
    void (*next)(int) = dlsym(RTLD_NEXT, "closefrom");
    if (next)
        next(first);
    else
        syscall(SYS_close_range, first, ~0u, 0);
}
