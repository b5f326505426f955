/*
 * Interposed calls on descriptors. Device files and event descriptors behave as on Linux. Copies and closes update the
 * table of descriptors (fds.c). Programs cannot read, write or close the shim's own sockets (FD_HIDDEN). For other
 * descriptors most calls cost one lookup (fd_kind).
 */
#define _GNU_SOURCE
#include "paths.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <linux/netlink.h>
#include <sys/syscall.h>

#include "../check/check.h"
#include "../recorder/refusals.h"

#ifndef NETLINK_RDMA
#define NETLINK_RDMA 20
#endif

static int fail(int error)
{
    errno = error;
    return -1;
}

EXPORT int socket(int family, int type, int protocol)
{
    if (UNLIKELY(family == AF_NETLINK && protocol == NETLINK_RDMA)) {
        if (!shim_is_ready())
            shim_init();
        if (shim_is_active)
            return netlink_open(type);
    }
    return check_opened("socket", fd_opened(REAL(socket)(family, type, protocol)));
}

/* ---- device calls ---- */

/* The kind of a descriptor that is not in the table. A device's or event descriptor is added to the table. */
static int recognise(int fd)
{
    const int saved = errno;
    if (!shim_is_ready())
        shim_init();
    const bool is_ours = shim_is_active && received_recognise(fd, false);
    errno = saved;
    return is_ours ? fd_kind_for_use(fd) : FD_OTHER;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    const unsigned long argument = va_arg(arguments, unsigned long);
    va_end(arguments);
    int kind = fd_kind_for_use(fd);
    if (UNLIKELY(kind == FD_OTHER && (_IOC_TYPE(request) == LINUX_MAGIC || _IOC_TYPE(request) == OBJECT_MAGIC)))
        kind = recognise(fd);
    if (LIKELY(kind == FD_OTHER)) {
        const int result = REAL(ioctl)(fd, request, argument);
        if (LIKELY(result != -1 || errno != ENOTTY))
            return result;
        /* Perhaps a driver's request on a device's descriptor that the program has just received. */
        kind = recognise(fd);
        if (kind == FD_OTHER)
            return result;
    }
    if (UNLIKELY(kind == FD_RECEIVED))
        return -1; /* attaching it failed; errno is set */
    /* On Linux neither device files and event descriptors nor netlink sockets support FIONREAD. */
    if ((uint32_t)request == FIONREAD && kind != FD_HIDDEN)
        return fail(ENOTTY);
    if (kind == FD_HIDDEN || kind == FD_NETLINK ||
        ((kind == FD_EVENT || kind == FD_CM) && _IOC_TYPE(request) != OBJECT_MAGIC))
        return REAL(ioctl)(fd, request, argument);
    switch ((uint32_t)request) {
    case FIOCLEX:
    case FIONCLEX:
        fd_set_close_on_exec(fd, request == FIOCLEX);
        return REAL(ioctl)(fd, request, argument);
    case FIONBIO:
    case FIOASYNC:
        return REAL(ioctl)(fd, request, argument);
    }
    if (kind == FD_CONTEXT && arming_by_ioctl(fd, (uint32_t)request, argument))
        return 0;
    return (int)session_call(fd, USERDMA_IOCTL, (uint32_t)request, argument);
}

/* write(2) on a descriptor of ours. Event descriptors are read-only. FD_RECEIVED: attaching it failed; errno is set. */
static ssize_t write_ours(int fd, int kind, const void *buffer, size_t count)
{
    if (LIKELY(kind == FD_CONTEXT))
        return device_write(fd, buffer, count);
    if (kind == FD_DRIVER || kind == FD_UMAD)
        return session_call(fd, USERDMA_WRITE, (uintptr_t)buffer, count);
    if (kind == FD_CM)
        return cm_write(fd, buffer, count);
    if (kind == FD_RECEIVED)
        return -1;
    if (kind == FD_NETLINK)
        return netlink_write(fd, buffer, count);
    return fail(EBADF);
}

EXPORT ssize_t write(int fd, const void *buffer, size_t count)
{
    if (UNLIKELY(fd < 0))
        check_no_descriptor();
    const int kind = fd_kind_for_use(fd);
    return UNLIKELY(kind != FD_OTHER) ? write_ours(fd, kind, buffer, count) : TELLING(REAL(write)(fd, buffer, count));
}

/*
 * readv(2) or writev(2) of a file that Linux reads and writes one buffer at a time (do_loop_readv_writev). `one` is the
 * call for a buffer.
 */
static ssize_t move_vector(int fd, int kind, const struct iovec *vector, int count,
                           ssize_t one(int fd, int kind, void *buffer, size_t count))
{
    if (count < 0 || count > UIO_MAXIOV)
        return fail(EINVAL);
    if (count > 0 && !vector)
        return fail(EFAULT);
    const int saved = errno;
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        if (vector[i].iov_len == 0)
            continue;
        const ssize_t moved = one(fd, kind, vector[i].iov_base, vector[i].iov_len);
        if (moved < 0 && total == 0)
            return -1;
        errno = saved;
        total += moved > 0 ? moved : 0;
        if (moved != (ssize_t)vector[i].iov_len)
            break;
    }
    return total;
}

static ssize_t write_buffer(int fd, int kind, void *buffer, size_t count)
{
    return write_ours(fd, kind, buffer, count);
}

EXPORT ssize_t writev(int fd, const struct iovec *vector, int count)
{
    const int kind = fd_kind_for_use(fd);
    if (LIKELY(kind == FD_OTHER))
        return TELLING(REAL(writev)(fd, vector, count));
    if (kind == FD_NETLINK)
        return count < 0 || count > UIO_MAXIOV ? fail(EINVAL) : netlink_writev(fd, vector, (size_t)count);
    /* Linux checks the file before the vector: write_ours returns the error of a file without writes. */
    const bool has_writes = kind == FD_CONTEXT || kind == FD_DRIVER || kind == FD_UMAD || kind == FD_CM;
    return has_writes ? move_vector(fd, kind, vector, count, write_buffer) : write_ours(fd, kind, NULL, 0);
}

static ssize_t read_ours(int fd, int kind, void *buffer, size_t count)
{
    if (kind == FD_CONTEXT || kind == FD_CM)
        return fail(EINVAL);
    if (kind == FD_RECEIVED)
        return -1; /* attaching it failed; errno is set */
    if (kind == FD_HIDDEN)
        return fail(EBADF);
    return kind == FD_UMAD ? umad_read(fd, buffer, count) : event_read(fd, buffer, count);
}

/* Whether read_ours reads such descriptors, not the C library. */
static inline bool has_own_read(int kind)
{
    return UNLIKELY(kind != FD_OTHER) && kind != FD_NETLINK;
}

/* read(2) on a descriptor of ours. False: call the C library's function. */
static inline bool read_if_ours(int fd, void *buffer, size_t count, ssize_t *result)
{
    const int kind = fd_kind_for_use(fd);
    if (LIKELY(!has_own_read(kind)))
        return false;
    *result = read_ours(fd, kind, buffer, count);
    return true;
}

EXPORT ssize_t read(int fd, void *buffer, size_t count)
{
    ssize_t result;
    return read_if_ours(fd, buffer, count, &result) ? result : RETRIED(REAL(read)(fd, buffer, count));
}

EXPORT ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size)
{
    ssize_t result;
    if (count <= buffer_size && read_if_ours(fd, buffer, count, &result))
        return result;
    return RETRIED(REAL(__read_chk)(fd, buffer, count, buffer_size));
}

EXPORT ssize_t readv(int fd, const struct iovec *vector, int count)
{
    const int kind = fd_kind_for_use(fd);
    if (LIKELY(!has_own_read(kind)))
        return RETRIED(REAL(readv)(fd, vector, count));
    const bool has_no_reads = kind == FD_CONTEXT || kind == FD_CM || kind == FD_RECEIVED || kind == FD_HIDDEN;
    return has_no_reads ? read_ours(fd, kind, NULL, 0) : move_vector(fd, kind, vector, count, read_ours);
}

/* Devices have no file position. The other kinds are sockets, for which the kernel returns ESPIPE. No attach needed. */
static bool has_no_position(int fd)
{
    const int kind = fd_kind(fd);
    return UNLIKELY(kind == FD_CONTEXT || kind == FD_RECEIVED);
}

EXPORT ssize_t pread(int fd, void *buffer, size_t count, off_t offset)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : RETRIED(REAL(pread)(fd, buffer, count, offset));
}

EXPORT ssize_t pread64(int fd, void *buffer, size_t count, off64_t offset)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : RETRIED(REAL(pread64)(fd, buffer, count, offset));
}

EXPORT ssize_t pwrite(int fd, const void *buffer, size_t count, off_t offset)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : TELLING(REAL(pwrite)(fd, buffer, count, offset));
}

EXPORT ssize_t pwrite64(int fd, const void *buffer, size_t count, off64_t offset)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : TELLING(REAL(pwrite64)(fd, buffer, count, offset));
}

EXPORT ssize_t __pread_chk(int fd, void *buffer, size_t count, off_t offset, size_t buffer_size)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : RETRIED(REAL(__pread_chk)(fd, buffer, count, offset, buffer_size));
}

EXPORT ssize_t __pread64_chk(int fd, void *buffer, size_t count, off64_t offset, size_t buffer_size)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : RETRIED(REAL(__pread64_chk)(fd, buffer, count, offset, buffer_size));
}

/* preadv and pwritev. */
#define VECTOR_AT(name)                                                                                                \
    EXPORT ssize_t name(int fd, const struct iovec *vector, int count, off64_t offset)                                 \
    {                                                                                                                  \
        return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : RETRIED(TELLING(REAL(name)(fd, vector, count, offset)));  \
    }

/* Flags that a socket accepts. */
#define KNOWN_FLAGS (RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND)
/*
 * preadv2 and pwritev2. With offset -1 they act as `vector_call`: readv or writev. Device files accept no flag but
 * RWF_HIPRI, which does nothing. `direct`: a further kind, beside FD_OTHER, that the C library's function serves.
 */
#define VECTOR_AT_WITH_FLAGS(name, vector_call, direct)                                                                \
    EXPORT ssize_t name(int fd, const struct iovec *vector, int count, off64_t offset, int flags)                      \
    {                                                                                                                  \
        const int kind = fd_kind(fd);                                                                                  \
        if (LIKELY(kind == FD_OTHER) || kind == direct || offset != -1)                                                \
            return has_no_position(fd) ? fail(ESPIPE) : RETRIED(TELLING(REAL(name)(fd, vector, count, offset, flags))); \
        const int known = kind == FD_NETLINK ? KNOWN_FLAGS : RWF_HIPRI;                                                \
        return flags & ~known ? fail(EOPNOTSUPP) : vector_call(fd, vector, count);                                     \
    }

VECTOR_AT(preadv)
VECTOR_AT(preadv64)
VECTOR_AT(pwritev)
VECTOR_AT(pwritev64)
VECTOR_AT_WITH_FLAGS(preadv2, readv, FD_NETLINK)
VECTOR_AT_WITH_FLAGS(preadv64v2, readv, FD_NETLINK)
VECTOR_AT_WITH_FLAGS(pwritev2, writev, FD_OTHER)
VECTOR_AT_WITH_FLAGS(pwritev64v2, writev, FD_OTHER)

EXPORT off_t lseek(int fd, off_t offset, int whence)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : REAL(lseek)(fd, offset, whence);
}

EXPORT off64_t lseek64(int fd, off64_t offset, int whence)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ESPIPE) : REAL(lseek64)(fd, offset, whence);
}

/* Devices have no length either. Punched holes would clear the context's rings. */

EXPORT int ftruncate(int fd, off_t length)
{
    return UNLIKELY(has_no_position(fd)) ? fail(EINVAL) : REAL(ftruncate)(fd, length);
}

EXPORT int ftruncate64(int fd, off64_t length)
{
    return UNLIKELY(has_no_position(fd)) ? fail(EINVAL) : REAL(ftruncate64)(fd, length);
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ENODEV) : REAL(fallocate)(fd, mode, offset, length);
}

EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return UNLIKELY(has_no_position(fd)) ? fail(ENODEV) : REAL(fallocate64)(fd, mode, offset, length);
}

EXPORT int posix_fallocate(int fd, off_t offset, off_t length)
{
    return UNLIKELY(has_no_position(fd)) ? ENODEV : REAL(posix_fallocate)(fd, offset, length);
}

EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    return UNLIKELY(has_no_position(fd)) ? ENODEV : REAL(posix_fallocate64)(fd, offset, length);
}

/* ---- mapping ---- */

static void *map(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    if (UNLIKELY(!(flags & MAP_ANONYMOUS) && fd_kind(fd) != FD_OTHER)) {
        const int kind = fd_kind_for_use(fd);
        if (kind == FD_DRIVER)
            return session_map(fd, address, length, protection, flags, offset);
        if (kind == FD_RECEIVED)
            return MAP_FAILED; /* attaching it failed; errno is set */
        /* FD_CONTEXT is a memory file, whose pages the kernel maps. */
        if (kind == FD_CONTEXT && offset >= (off64_t)USERDMA_CONTEXT_FILE_DOORBELLS)
            return session_map_doorbells(fd, address, length, protection, flags, offset);
    }
    if (UNLIKELY((flags & MAP_FIXED) && userdma_registered != 0))
        unmaps_before(address, length);
    /* A sanitizer calls mmap before the C library has the environment, which shim_init reads. */
    if (UNLIKELY(!shim_is_ready()))
        return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    return shim_real.mmap(address, length, protection, flags, fd, offset);
}

EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return map(address, length, protection, flags, fd, offset);
}

EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    return map(address, length, protection, flags, fd, offset);
}

/* ---- closing ---- */

/* Sends the kept reports of `userdma check` before descriptors are closed: reports name their context by descriptor. */
static void send_reports(bool may_be_context)
{
    if (UNLIKELY(recorder_is_on) && may_be_context && !shim_is_other_process())
        reports_send_kept();
}

/* Whether libibverbs closes it: for a provider whose function opens a device, and fails (mlx5dv_open_device). */
static bool is_of_libibverbs(const void *caller)
{
    Dl_info found;
    return dladdr(caller, &found) && found.dli_fname && strstr(found.dli_fname, "/libibverbs.so");
}

/* The program closes the descriptor of a context, not ibv_close_device. */
static void note_close(int fd, const void *caller)
{
    if (LIKELY(!recorder_is_on) || shim_is_other_process() || calls_are_running() || !outstanding_is_own(fd) ||
        is_of_libibverbs(caller))
        return;
    event_closed_descriptor(fd, stack_here(), (uint32_t)fd);
}

static void note_close_range(unsigned first, unsigned last, const void *caller)
{
    if (LIKELY(!recorder_is_on))
        return;
    for (unsigned fd = first; fd <= last && fd < FD_TABLE_SIZE; fd++)
        if (fd_kind((int)fd) == FD_CONTEXT)
            note_close((int)fd, caller);
}

EXPORT int close(int fd)
{
    const int kind = fd_kind(fd);
    if (LIKELY(kind == FD_OTHER))
        return TELLING(REAL(close)(fd));
    if (kind == FD_HIDDEN)
        return fail(EBADF);
    send_reports(kind == FD_CONTEXT);
    if (kind == FD_CONTEXT)
        note_close(fd, __builtin_return_address(0));
    if (UNLIKELY(recorder_is_on) && kind == FD_CONTEXT && !shim_is_other_process())
        message_send(fd, USERDMA_END, 0, NULL, 0, false);
    if (UNLIKELY(sanitizers_watch) && kind == FD_CONTEXT && !shim_is_other_process())
        outstanding_closed(fd);
    fd_forget(fd);
    return REAL(close)(fd);
}

void fd_before_stream_close(FILE *stream)
{
    if (LIKELY(fd_table == NULL) || !stream)
        return;
    const int saved = errno, fd = fileno(stream); /* a stream in memory has none */
    send_reports(fd_kind(fd) == FD_CONTEXT);
    if (fd_kind(fd) != FD_HIDDEN)
        fd_forget(fd);
    else if (fd_vacate(fd))
        REAL(close)(fd); /* the socket was moved; fclose's write of buffered bytes then fails with EBADF */
    errno = saved;
}

EXPORT int fclose(FILE *stream)
{
    fd_before_stream_close(stream);
    return TELLING(REAL(fclose)(stream));
}

EXPORT int close_range(unsigned int first, unsigned int last, int flags)
{
    send_reports(true);
    note_close_range(first, last, __builtin_return_address(0));
    return fd_close_range(first, last, flags);
}

EXPORT void closefrom(int first)
{
    send_reports(true);
    note_close_range(first < 0 ? 0 : (unsigned)first, FD_TABLE_SIZE, __builtin_return_address(0));
    if (LIKELY(fd_table == NULL))
        REAL(closefrom)(first);
    else
        fd_close_from(first < 0 ? 0 : (unsigned)first);
}

/* ---- copying ---- */

EXPORT int dup(int fd)
{
    const int copy = REAL(dup)(fd);
    if (UNLIKELY(fd_table != NULL) && copy >= 0) {
        fd_opened(copy);
        fd_copied(fd, copy, false);
    }
    return copy;
}

/* Before dup2 or dup3 make `new_fd` a copy of `old_fd`. Result: see fd_vacate: whether a hidden socket was moved. */
static bool before_replacing(int old_fd, int new_fd)
{
    send_reports(fd_kind(new_fd) == FD_CONTEXT);
    return UNLIKELY(fd_table != NULL) && old_fd != new_fd && fd_vacate(new_fd);
}

static int after_replacing(int result, int old_fd, int new_fd, bool close_on_exec, bool is_vacated)
{
    if (UNLIKELY(is_vacated) && result < 0) {
        const int error = errno;
        REAL(close)(new_fd);
        errno = error;
    }
    if (UNLIKELY(fd_table != NULL) && result >= 0 && old_fd != new_fd) {
        fd_forget(new_fd);
        fd_copied(old_fd, new_fd, close_on_exec);
    }
    return result;
}

EXPORT int dup2(int old_fd, int new_fd)
{
    const bool is_vacated = before_replacing(old_fd, new_fd);
    return after_replacing(REAL(dup2)(old_fd, new_fd), old_fd, new_fd, false, is_vacated);
}

EXPORT int dup3(int old_fd, int new_fd, int flags)
{
    const bool is_vacated = before_replacing(old_fd, new_fd);
    const int result = REAL(dup3)(old_fd, new_fd, flags);
    return after_replacing(result, old_fd, new_fd, (flags & O_CLOEXEC) != 0, is_vacated);
}

static int after_fcntl(int result, int fd, int command, unsigned long argument)
{
    if (LIKELY(fd_table == NULL) || result < 0)
        return result;
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) {
        fd_opened(result);
        fd_copied(fd, result, command == F_DUPFD_CLOEXEC);
    } else if (command == F_SETFD) {
        fd_set_close_on_exec(fd, argument & FD_CLOEXEC);
    }
    return result;
}

EXPORT int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    const unsigned long argument = va_arg(arguments, unsigned long);
    va_end(arguments);
    return after_fcntl(REAL(fcntl)(fd, command, argument), fd, command, argument);
}

EXPORT int fcntl64(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    const unsigned long argument = va_arg(arguments, unsigned long);
    va_end(arguments);
    return after_fcntl(REAL(fcntl64)(fd, command, argument), fd, command, argument);
}
