/*
 * Requests to the daemon about opened devices and channels. OPEN gives the program a descriptor. ATTACH makes a context
 * known to this process's session: after fork, after exec, and for a passed descriptor. IOCTL, WRITE, READ, NETLINK and
 * MAP forward calls. REFRESH updates the counter files.
 *
 * A context is an opened uverbsN or userdma node. The program's descriptor is the context's memory file. Each copy of
 * the descriptor has a doorbell socket at a high number, hidden from the program. The daemon has the other end, and
 * closes the context when no program has a doorbell socket or the file.
 */
#define _GNU_SOURCE
#include "../recorder/refusals.h"
#include "connection.h"

#include <errno.h>
#include <poll.h>
#include <string.h>


static ino_t inode_of(int fd)
{
    struct stat stat;
    return REAL(fstat)(fd, &stat) == 0 ? stat.st_ino : 0;
}

static bool closes_on_exec(int fd)
{
    int flags = REAL(fcntl)(fd, F_GETFD);
    return flags >= 0 && (flags & FD_CLOEXEC);
}

/* ---- open ---- */

/* The access mode of open(2) as USERDMA_OPEN_…; 0: reads and writes. */
static uint32_t wants_of(int flags)
{
    const int access = flags & O_ACCMODE;
    if (access == O_RDONLY)
        return USERDMA_OPEN_READ_ONLY;
    return access == O_WRONLY ? USERDMA_OPEN_WRITE_ONLY : 0;
}

/* Registers the descriptors of an OPEN reply: memory file and doorbell socket. Returns the file or -errno. */
static int take_context(struct reply *reply, int flags)
{
    const struct userdma_open_reply *open = &reply->message.open;
    if (reply->body < sizeof *open)
        return -EIO;
    if (open->error)
        return -open->error;
    if (reply->fd_count != 2)
        return -EIO;
    int fd = reply->fds[0];
    bool close_on_exec = (flags & O_CLOEXEC) != 0;
    fd_mark(reply->fds[1], inode_of(fd));
    reply->fd_count = 1;
    int doorbell = fd_hide(reply->fds[1], fd, close_on_exec);
    if (doorbell < 0)
        return -errno;
    struct fd_entry entry = {
        .kind = FD_CONTEXT,
        .generation = reply->generation,
        .partner = doorbell,
        .context = open->context,
        .rdev = (uint32_t)open->rdev,
    };
    if (fd_add(fd, &entry) != 0) {
        int error = -errno;
        fd_forget_hidden(doorbell);
        REAL(close)(doorbell);
        return error;
    }
    if (!close_on_exec)
        REAL(fcntl)(fd, F_SETFD, 0);
    if (flags & O_NONBLOCK)
        REAL(fcntl)(fd, F_SETFL, REAL(fcntl)(fd, F_GETFL) | O_NONBLOCK);
    /* At the maximum position, reads by the C library itself (stdio) fail with EINVAL, as on a device. */
    REAL(lseek64)(fd, INT64_MAX, SEEK_SET);
    reply->fd_count = 0;
    session_has_opened = true;
    return fd;
}

/* Registers the descriptor of an OPEN reply as a channel, FD_CM or FD_UMAD. Returns the descriptor or -errno. */
static int take_channel(struct reply *reply, enum fd_kind kind, int flags)
{
    const struct userdma_open_reply *open = &reply->message.open;
    if (reply->body < sizeof *open)
        return -EIO;
    if (open->error)
        return -open->error;
    if (reply->fd_count != 1)
        return -EIO;
    const int fd = reply->fds[0];
    const struct fd_entry entry = {.kind = kind, .context = open->context, .rdev = (uint32_t)open->rdev};
    if (fd_add(fd, &entry) != 0)
        return -errno;
    reply->fd_count = 0;
    if (!(flags & O_CLOEXEC))
        REAL(fcntl)(fd, F_SETFD, 0);
    if (flags & O_NONBLOCK)
        REAL(fcntl)(fd, F_SETFL, REAL(fcntl)(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

int session_open(unsigned node, int flags)
{
    struct shim_guard guard;
    int saved = errno;
    if (!session_enter(&guard))
        return -1;
    int result;
    if (!session_ensure_connected(&guard, true))
        result = -session_no_device_errno();
    else {
        struct request request = {.header = {.type = USERDMA_OPEN, .fd = -1},
                                  .open = {.node = node, .wants = wants_of(flags)}};
        struct reply reply;
        result = session_exchange(&request, sizeof request.open, &reply, &guard);
        if (result == 0) {
            if (node == USERDMA_CM_NODE)
                result = take_channel(&reply, FD_CM, flags);
            else if (node_is_umad(node))
                result = take_channel(&reply, FD_UMAD, flags);
            else
                result = take_context(&reply, flags);
            reply_close_all(&reply);
        }
    }
    errno = result < 0 ? -result : saved;
    session_leave(&guard);
    return result < 0 ? -1 : result;
}

int session_refresh(void)
{
    struct shim_guard guard;
    int saved = errno, error = 0;
    /* A vfork child must not use its parent's connection. */
    if (shim_is_other_process())
        return 0;
    if (session_enter(&guard)) {
        if (session_ensure_connected(&guard, true)) {
            struct request request = {.header = {.type = USERDMA_REFRESH, .fd = -1}};
            struct reply reply;
            if (session_exchange(&request, 0, &reply, &guard) == 0) {
                if (reply.body >= sizeof reply.message.call && reply.message.call.ret < 0)
                    error = (int)-reply.message.call.ret;
                reply_close_all(&reply);
            }
        }
        session_leave(&guard);
    }
    errno = saved;
    return error;
}

/* ---- attach ---- */

/*
 * Sends ATTACH for the context of `fd`. Fills `entry`; its partner is a new doorbell socket that is not hidden yet.
 * Returns 0 or -errno. If `context`, the daemon's number, is 0, the daemon finds the context by its file.
 */
static int request_attach(int fd, uint32_t context, struct fd_entry *entry, const struct shim_guard *guard)
{
    struct request request = {.header = {.type = USERDMA_ATTACH, .fd = fd, .context = context}};
    struct reply reply;
    int error = session_exchange(&request, 0, &reply, guard);
    if (error)
        return error;
    const struct userdma_open_reply *open = &reply.message.open;
    if (reply.body < sizeof *open)
        error = -EIO;
    else if (open->error)
        error = -open->error;
    else if (reply.fd_count != 1)
        error = -EIO;
    if (error) {
        reply_close_all(&reply);
        return error;
    }
    fd_mark(reply.fds[0], inode_of(fd));
    *entry = (struct fd_entry){
        .kind = FD_CONTEXT,
        .generation = reply.generation,
        .partner = reply.fds[0],
        .context = open->context,
        .rdev = (uint32_t)open->rdev,
    };
    return 0;
}

/*
 * Makes a copy of `socket` the doorbell socket of a context, and closes `socket`. The copy replaces the old doorbell
 * socket, at the same number. It gets another number if the program has closed the old one by a raw system call (the
 * number may be another file's), or has lowered its limit of descriptors. Returns 0 or -errno.
 */
static int replace_doorbell(int fd, struct fd_entry *known, int socket)
{
    const int old = known->partner;
    const bool is_open = fd_has_mark(old, inode_of(fd));
    if (is_open && REAL(dup3)(socket, old, closes_on_exec(fd) ? O_CLOEXEC : 0) >= 0) {
        REAL(close)(socket);
        return 0;
    }
    if (fd_kind(old) == FD_HIDDEN && fd_lookup(old)->partner == fd)
        fd_forget_hidden(old);
    const int hidden = fd_hide(socket, fd, closes_on_exec(fd)), error = hidden < 0 ? -errno : 0;
    __atomic_store_n(&known->partner, hidden, __ATOMIC_RELEASE);
    if (is_open)
        REAL(close)(old);
    return error;
}

/* Attaches a context that was opened or attached on another connection, such as before a fork. 0 or -errno. */
static int attach_again(int fd, const struct shim_guard *guard)
{
    struct fd_entry *known = fd_lookup(fd);
    struct fd_entry fresh;
    const uint32_t context = known->context;
    int error = request_attach(fd, context, &fresh, guard);
    if (error)
        return error == -EMFILE ? error : -EIO;
    if (fd_kind(fd) != FD_CONTEXT || known->context != context) {
        /* The program has closed `fd` while the daemon did not answer, and may have opened another context. */
        REAL(close)(fresh.partner);
        return -EBADF;
    }
    error = replace_doorbell(fd, known, fresh.partner);
    if (error)
        return error;
    known->context = fresh.context;
    known->generation = fresh.generation;
    return 0;
}

int session_attach(int fd)
{
    struct shim_guard guard;
    if (!session_enter(&guard))
        return -EIO;
    struct fd_entry entry;
    int error = 0;
    /* Another thread may have attached `fd` first. */
    if (fd_kind(fd) != FD_CONTEXT) {
        error = session_ensure_connected(&guard, true) ? request_attach(fd, 0, &entry, &guard) : session_refusal();
        if (error == 0 && fd_kind(fd) != FD_RECEIVED) {
            /* Another thread has attached or closed `fd` while the daemon did not answer. */
            REAL(close)(entry.partner);
            error = fd_kind(fd) == FD_CONTEXT ? 0 : -EBADF;
        } else if (error == 0) {
            /* fd_add removes the entry FD_RECEIVED and closes a doorbell socket inherited by exec. */
            entry.partner = fd_hide(entry.partner, fd, closes_on_exec(fd));
            error = entry.partner >= 0 && fd_add(fd, &entry) == 0 ? 0 : -errno;
            if (error && entry.partner >= 0) {
                fd_forget_hidden(entry.partner);
                REAL(close)(entry.partner);
            }
        }
    }
    session_leave(&guard);
    return error;
}

/* ---- calls ---- */

/* Closes the descriptors that a reply still has, registered or not. */
static void close_descriptors(struct reply *reply)
{
    for (unsigned i = 0; i < reply->fd_count; i++)
        fd_forget(reply->fds[i]);
    reply_close_all(reply);
}

/*
 * Registers the new descriptors of the reply to a call on `fd`, and stores their numbers where the reply says. `type`,
 * `first` and `second`: as in session_call. 0 or -errno.
 */
static int install_descriptors(struct reply *reply, int fd, uint32_t type, uint64_t first, uint64_t second)
{
    unsigned count = reply->message.call.install_count;
    /* Only a write on a context is a verbs command, whose response may contain descriptors. */
    if (count > 0 && type == USERDMA_WRITE && fd_kind(fd) != FD_CONTEXT)
        return -EIO;
    if (count != reply->fd_count || count > USERDMA_MESSAGE_DESCRIPTORS ||
        reply->body < sizeof reply->message.call + count * sizeof reply->message.installs[0])
        return -EIO;
    for (unsigned i = 0; i < count; i++) {
        const struct userdma_install *target = &reply->message.installs[i];
        if (!call_may_store(type, first, second, target->address, target->width))
            return -EIO;
        const enum fd_kind kind = fd_kind_installed(target->kind);
        if (fd_add_event(reply->fds[i], kind == FD_OTHER ? FD_EVENT : kind) != 0)
            return -errno;
        int error = shim_store(target->address, target->width, reply->fds[i]);
        if (error)
            return error;
    }
    reply->fd_count = 0;
    return 0;
}

/* Does what the mappings of a reply to a call on `fd` say (adopted.c). 0 or -errno. */
static int apply_mappings(const struct reply *reply, int fd)
{
    const struct userdma_call_reply *call = &reply->message.call;
    struct userdma_mapping mappings[2 * USERDMA_MESSAGE_MAPPINGS];
    if (LIKELY(call->mapping_count == 0))
        return 0;
    const size_t installs = call->install_count * sizeof reply->message.installs[0];
    const size_t bytes = call->mapping_count * sizeof mappings[0];
    if (call->install_count > USERDMA_MESSAGE_DESCRIPTORS || call->mapping_count > 2 * USERDMA_MESSAGE_MAPPINGS ||
        reply->body < sizeof *call + installs + bytes)
        return -EIO;
    memcpy(mappings, (const char *)reply->message.installs + installs, bytes);
    return adopted_apply(fd, mappings, call->mapping_count);
}

/* Memory of the last call, which was on `fd`, could not be mapped: the daemon undoes the call. */
static void send_not_mapped(int fd, int error, const struct shim_guard *guard)
{
    struct request request = {.header = {.type = USERDMA_NOT_MAPPED, .fd = fd},
                              .not_mapped = {.error = (uint32_t)error}};
    struct reply reply;
    if (session_exchange(&request, sizeof request.not_mapped, &reply, guard) != 0)
        return;
    if (reply.body >= sizeof reply.message.call)
        apply_mappings(&reply, fd);
    reply_close_all(&reply);
}

static bool is_visible_socket(enum fd_kind kind)
{
    return kind == FD_EVENT || kind == FD_DRIVER || kind == FD_CM || kind == FD_UMAD || kind == FD_NETLINK;
}

int session_prepare(int fd, const struct shim_guard *guard)
{
    const struct fd_entry *entry = fd_lookup(fd);
    if (entry && is_visible_socket(entry->kind)) {
        struct pollfd hung = {.fd = fd};
        if (!session_is_connected() && poll(&hung, 1, 0) > 0 && (hung.revents & POLLHUP))
            return -EIO; /* the daemon of `fd` has ended */
        return session_ensure_connected(guard, false) ? 0 : session_refusal();
    }
    while (fd_kind(fd) == FD_CONTEXT) {
        if (!session_is_connected() && device_is_dead(fd))
            return -EIO; /* the daemon of `fd` has ended; another daemon at the same socket does not know the context */
        if (!session_ensure_connected(guard, false))
            return session_refusal() == -EACCES ? -EIO : session_refusal();
        if (entry->generation == session_generation())
            return 0;
        /* If the reply is late, another thread may open another connection: the context is attached to that one too. */
        const int error = attach_again(fd, guard);
        if (error)
            return error;
    }
    return -EBADF; /* another thread has closed `fd` */
}

/* The daemon's number of the context or channel behind `fd`; 0: none. */
static uint32_t number_of(int fd)
{
    const int kind = fd_kind(fd);
    return kind == FD_CONTEXT || kind == FD_CM || kind == FD_UMAD ? fd_lookup(fd)->context : 0;
}

long session_call(int fd, uint32_t type, uint64_t first, uint64_t second)
{
    struct shim_guard guard;
    int saved = errno;
    const uint32_t stack = UNLIKELY(recorder_is_on) ? stack_here() : 0;
    if (UNLIKELY(recorder_is_on))
        reports_send_kept();
    if (!session_enter(&guard))
        return -1;
    struct reply reply;
    long result = session_prepare(fd, &guard);
    if (result == 0) {
        struct request request = {
            .header = {.type = type,
                       .fd = fd,
                       .context = number_of(fd),
                       .stack = stack},
        };
        _Static_assert(sizeof request.write == sizeof request.ioctl, "calls have one size");
        _Static_assert(sizeof request.netlink == sizeof request.ioctl, "calls have one size");
        if (type == USERDMA_WRITE || type == USERDMA_READ)
            request.write = (struct userdma_write){.buffer = first, .length = second};
        else if (type == USERDMA_NETLINK)
            request.netlink = (struct userdma_netlink){
                .operation = (uint32_t)first, .extra = (uint32_t)(first >> 32), .argument = second};
        else
            request.ioctl = (struct userdma_ioctl){.request = (uint32_t)first, .argument = second};
        result = session_exchange(&request, sizeof request.ioctl, &reply, &guard);
    }
    if (result == 0) {
        int unmapped = 0;
        if (reply.body < sizeof reply.message.call)
            result = -EIO;
        else {
            result = reply.message.call.ret;
            unmapped = apply_mappings(&reply, fd);
        }
        if ((type == USERDMA_WRITE || type == USERDMA_READ) && result > 0 && (uint64_t)result > second)
            result = -EIO;
        if (result >= 0) {
            int error = unmapped ? unmapped : install_descriptors(&reply, fd, type, first, second);
            if (error)
                result = error;
        }
        close_descriptors(&reply);
        /* On another connection, which a late reply leaves behind, there is nothing to undo. */
        if (UNLIKELY(unmapped) && session_is_connected() && reply.generation == session_generation())
            send_not_mapped(fd, -unmapped, &guard);
    }
    if (UNLIKELY(sanitizers_valgrind))
        session_tell_written(&guard);
    /* The call may have returned an event: the peer's earlier accesses are ordered before this thread's next ones. */
    if (UNLIKELY(shim_logs_events) && fd_kind(fd) == FD_CM)
        events_waited();
    errno = result < 0 ? (int)-result : saved;
    session_leave(&guard);
    /* EMFILE: the device has refused nothing, this process may not have the reply's descriptor. */
    if (result < 0 && result != -EMFILE)
        refusals_of_device++;
    return result < 0 ? -1 : result;
}

/* Takes the only descriptor of the reply to a call. Returns the descriptor or -errno. */
static int take_descriptor(struct reply *reply)
{
    if (reply->body < sizeof reply->message.call)
        return -EIO;
    if (reply->message.call.ret < 0)
        return (int)reply->message.call.ret;
    if (reply->fd_count != 1)
        return -EIO;
    reply->fd_count = 0;
    return reply->fds[0];
}

int session_netlink(unsigned type)
{
    struct shim_guard guard;
    int saved = errno;
    if (!session_enter(&guard))
        return -1;
    int fd = -ENOENT;
    if (session_ensure_connected(&guard, true)) {
        struct request request = {
            .header = {.type = USERDMA_NETLINK, .fd = -1},
            .netlink = {.operation = USERDMA_NETLINK_OPEN, .extra = type},
        };
        struct reply reply;
        fd = session_exchange(&request, sizeof request.netlink, &reply, &guard);
        if (fd == 0) {
            fd = take_descriptor(&reply);
            reply_close_all(&reply);
        }
    }
    errno = fd < 0 ? -fd : saved;
    session_leave(&guard);
    return fd < 0 ? -1 : fd;
}

void *session_map(int fd, void *address, size_t length, int protection, int flags, off64_t offset)
{
    struct shim_guard guard;
    int saved = errno;
    if (!session_enter(&guard))
        return MAP_FAILED;
    struct reply reply;
    /* The descriptor of the file to map, or -errno. */
    int file = session_prepare(fd, &guard);
    if (file == 0) {
        struct request request = {
            .header = {.type = USERDMA_MAP, .fd = fd},
            .map = {.offset = offset, .length = length, .protection = protection},
        };
        file = session_exchange(&request, sizeof request.map, &reply, &guard);
        if (file == 0) {
            file = take_descriptor(&reply);
            if (file >= 0)
                offset = reply.message.call.ret;
            reply_close_all(&reply);
        }
    }
    void *mapped = MAP_FAILED;
    if (file >= 0) {
        mapped = REAL(mmap)(address, length, protection, flags, file, offset);
        if (mapped == MAP_FAILED)
            saved = errno;
        REAL(close)(file);
    }
    errno = file < 0 ? -file : saved;
    session_leave(&guard);
    return mapped;
}

void *session_map_doorbells(int fd, void *address, size_t length, int protection, int flags, off64_t offset)
{
    void *mapped = REAL(mmap)(address, length, protection, flags, fd, offset);
    if (mapped == MAP_FAILED || !(protection & PROT_WRITE) || shim_is_other_process())
        return mapped;
    struct shim_guard guard;
    const int saved = errno;
    if (session_enter(&guard)) {
        struct reply reply;
        if (session_prepare(fd, &guard) == 0) {
            const size_t page = (size_t)sysconf(_SC_PAGESIZE);
            struct request request = {
                .header = {.type = USERDMA_DOORBELLS, .fd = fd, .context = fd_lookup(fd)->context},
                .doorbells = {.address = (uintptr_t)mapped,
                              .length = (length + page - 1) / page * page,
                              .refusal = session_userfaultfd_refusal},
            };
            if (session_exchange(&request, sizeof request.doorbells, &reply, &guard) == 0)
                reply_close_all(&reply);
        }
        session_leave(&guard);
    }
    errno = saved;
    return mapped;
}
