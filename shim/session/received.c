/*
 * Descriptors of ours from another program: inherited across exec, or passed over a socket (SCM_RIGHTS). They work from
 * the first call (R28, R37 of docs/reference/requirements.md).
 *
 * They are recognised on arrival, without a request: sockets (event descriptors, channels, NETLINK_RDMA) by the
 * daemon's mark, contexts by the name of their memory file. A context is attached to our session on first use, because
 * a program that only passes the context on needs no session. Descriptors that arrive in other ways (a raw system call,
 * pidfd_getfd) are recognised at their first RDMA or driver ioctl.
 */
#define _GNU_SOURCE
#include "parts.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>

/* The entry of a socket with the daemon's mark in its send timeout; FD_OTHER: no mark. */
static struct fd_entry entry_of_socket(int fd)
{
    struct timeval mark = {0};
    socklen_t length = sizeof mark;
    /* A mark has fixed microseconds, and its value in the seconds. Marks of doorbells have fewer seconds. */
    if (fd_socket_option(fd, SO_SNDTIMEO, &mark, &length) != 0 || mark.tv_usec != USERDMA_MARK_MICROSECONDS ||
        mark.tv_sec < (time_t)USERDMA_MARK_FIRST)
        return (struct fd_entry){.kind = FD_OTHER};
    const uint64_t value = (uint64_t)mark.tv_sec - USERDMA_MARK_FIRST;
    return (struct fd_entry){.kind = fd_kind_installed(value % USERDMA_MARK_RDEV),
                             .rdev = (uint32_t)(value / USERDMA_MARK_RDEV)};
}

/* Whether the link of `fd` in /proc is that of a context: "/memfd:userdma-context (deleted)". */
static bool is_context_file(int fd)
{
    static const char name[] = "/memfd:userdma-context ";
    char start[sizeof name];
    return path_of_fd(fd, start, sizeof start) && strcmp(start, name) == 0;
}

bool received_recognise(int fd, bool is_inherited)
{
    if (fd < 0 || fd_kind(fd) != FD_OTHER)
        return false;
    errno = 0;
    const struct fd_entry entry = entry_of_socket(fd);
    if (entry.kind != FD_OTHER)
        return fd_add(fd, &entry) == 0;
    return errno == ENOTSOCK && is_context_file(fd) && fd_add_received(fd, is_inherited) == 0;
}

int received_learn(int fd)
{
    const int saved = errno;
    const int error = session_attach(fd);
    if (error == -ENODEV) {
        /* The file has the name of a context, but is no context of the daemon. */
        fd_forget(fd);
        errno = saved;
        return FD_OTHER;
    }
    errno = error ? -error : saved;
    return error ? FD_RECEIVED : FD_CONTEXT;
}

/* ---- across exec ---- */

/* struct linux_dirent64 of getdents64(2). */
struct directory_entry {
    uint64_t inode;
    int64_t next;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* Before the program's main. Makes raw system calls, because opendir would call the program's allocator. */
void received_at_start(void)
{
    const int folder = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return;
    char entries[1024] __attribute__((aligned(8)));
    long length;
    while ((length = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0)
        for (long offset = 0; offset < length;) {
            const struct directory_entry *entry = (const void *)(entries + offset);
            offset += entry->length;
            int fd = 0;
            const char *digit = entry->name;
            for (; *digit >= '0' && *digit <= '9'; digit++)
                fd = fd * 10 + (*digit - '0');
            if (digit > entry->name && fd != folder)
                received_recognise(fd, true);
        }
    syscall(SYS_close, folder);
}

/* ---- over a socket ---- */

/* Registers the descriptors of ours in a message. */
static void register_passed(struct msghdr *message)
{
    const int saved = errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t offset = CMSG_LEN(0); offset + sizeof(int) <= c->cmsg_len; offset += sizeof(int)) {
            int fd;
            memcpy(&fd, (const char *)c + offset, sizeof fd);
            received_recognise(fd_opened(fd), false);
        }
    }
    errno = saved;
}

EXPORT ssize_t recv(int socket, void *buffer, size_t count, int flags)
{
    return RETRIED(REAL(recv)(socket, buffer, count, flags));
}

EXPORT ssize_t __recv_chk(int socket, void *buffer, size_t count, size_t buffer_size, int flags)
{
    return RETRIED(REAL(__recv_chk)(socket, buffer, count, buffer_size, flags));
}

EXPORT ssize_t recvmsg(int socket, struct msghdr *message, int flags)
{
    /* The size of the program's buffer: the kernel overwrites it with the size of the address. */
    const socklen_t address_size = fd_kind(socket) == FD_NETLINK ? message->msg_namelen : 0;
    const ssize_t length = RETRIED(REAL(recvmsg)(socket, message, flags));
    if (LIKELY(!shim_is_active) || length < 0)
        return length;
    if (message->msg_controllen > 0)
        register_passed(message);
    netlink_received(socket, message, address_size);
    return length;
}

EXPORT int recvmmsg(int socket, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout)
{
    /* As in recvmsg, before the kernel overwrites the sizes. It receives at most UIO_MAXIOV messages. */
    socklen_t *address_sizes = NULL;
    if (UNLIKELY(fd_kind(socket) == FD_NETLINK)) {
        address_sizes = alloca(UIO_MAXIOV * sizeof address_sizes[0]);
        for (unsigned int i = 0; i < count && i < UIO_MAXIOV; i++)
            address_sizes[i] = messages[i].msg_hdr.msg_namelen;
    }
    const int received = RETRIED(REAL(recvmmsg)(socket, messages, count, flags, timeout));
    if (UNLIKELY(shim_is_active))
        for (int i = 0; i < received; i++) {
            struct msghdr *message = &messages[i].msg_hdr;
            if (message->msg_controllen > 0)
                register_passed(message);
            netlink_received(socket, message, address_sizes ? address_sizes[i] : 0);
        }
    return received;
}
