/*
 * Calls on opened devices without a request to the daemon: doorbells, reading events, checking that the device is
 * alive. Also calls on channels that may have to wait.
 *
 * The doorbell is the hot path. The provider has written work requests into the send ring, and announces them by a
 * POST_SEND command without work requests. An awake daemon polls the rings. A sleeping daemon has set the parked word:
 * only then a message is sent. A full fence is needed between the provider's store into the ring and our load of the
 * parked word. Without the fence both sides can miss each other, and the program hangs. No lock and no allocation: a
 * doorbell may be in a signal handler. Doorbells of a traced program are forwarded as calls.
 *
 * A receive makes no command. Only if its queue pair may be in ERR does it ring the doorbell of a sleeping daemon.
 */
#define _GNU_SOURCE
#include "parts.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* ib_uverbs_cmd_hdr and ib_uverbs_post_send. Without work requests it is the doorbell. */
struct post_send {
    uint32_t command;
    uint16_t in_words;
    uint16_t out_words;
    uint64_t response;
    uint32_t qp_handle;
    uint32_t wr_count;
    uint32_t sge_count;
    uint32_t wqe_size;
};
_Static_assert(sizeof(struct post_send) == 32, "layout of the ABI");

/* IB_USER_VERBS_CMD_POST_SEND */
#define POST_SEND 28

/* Sent instead of a queue pair's handle: the daemon polls all queues before it sleeps again. */
#define NO_QP UINT32_MAX

/* Maximum bytes of a record of an FD_EVENT. All records of a descriptor have one size: 8, 16 or 24. */
#define MAX_RECORD_BYTES 24

/* Sends the doorbell message of a context. Result: that of the write(2) of a doorbell command. */
static ssize_t ring_doorbell(int fd, uint32_t qp_handle)
{
    const int saved = errno;
    const int doorbell = __atomic_load_n(&fd_table[fd].partner, __ATOMIC_ACQUIRE);
    ssize_t sent;
    if (doorbell < 0) {
        /* A copy (dup) of the descriptor without a doorbell socket: the copy took the last free number. */
        uint32_t bad_wr;
        const struct post_send command = {POST_SEND, sizeof command / 4, 1, (uintptr_t)&bad_wr, qp_handle, 0, 0, 0};
        return session_call(fd, USERDMA_WRITE, (uintptr_t)&command, sizeof command);
    }
    do
        /* Not by our own send, which tells peers something to sanitizers: the post has, and a poll does not. */
        sent = REAL(send)(doorbell, &qp_handle, sizeof qp_handle, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    /* A full socket (EAGAIN) wakes the daemon too, and the daemon polls all queues before it sleeps again. */
    if (sent < 0 && errno != EAGAIN) {
        errno = EIO;
        return -1;
    }
    errno = saved;
    return sizeof(struct post_send);
}

/* Whether the bytes are a doorbell, which is copied to `command`. */
static bool is_doorbell(const void *buffer, size_t count, struct post_send *command)
{
    if (UNLIKELY(count != sizeof *command || (uintptr_t)buffer < LOWEST_ADDRESS))
        return false;
    memcpy(command, buffer, sizeof *command);
    return command->command == POST_SEND && command->in_words == sizeof *command / 4 && command->out_words == 1 &&
           command->response >= LOWEST_ADDRESS && command->wr_count == 0 && command->sge_count == 0;
}

ssize_t device_write(int fd, const void *buffer, size_t count)
{
    struct post_send command;
    const bool rings = is_doorbell(buffer, count, &command);
    if (LIKELY(rings && !shim_is_traced)) {
        const uint32_t bad_wr = 0; /* the response: no request was refused */
        memcpy((void *)(uintptr_t)command.response, &bad_wr, sizeof bad_wr);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        const volatile uint32_t *page = __atomic_load_n(&session_parked_page, __ATOMIC_ACQUIRE);
        if (page && page[USERDMA_PARKED_PAGE_PARKED] == 0)
            return sizeof command;
        return ring_doorbell(fd, command.qp_handle);
    }
    if (arming_by_write(fd, buffer, count))
        return (ssize_t)count;
    if ((REAL(fcntl)(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
        errno = EBADF;
        return -1;
    }
    const ssize_t result = session_call(fd, USERDMA_WRITE, (uintptr_t)buffer, count);
    /*
     * The requests are in the ring, and an awake daemon executes them whatever the handle is: so must one that sleeps.
     */
    return rings && result < 0 && errno == ENOENT ? ring_doorbell(fd, NO_QP) : result;
}

/* Whether a record of an event descriptor may have more than `count` bytes. */
static bool may_exceed(const struct fd_entry *entry, size_t count)
{
    if (entry->kind == FD_DRIVER)
        return count < USERDMA_DRIVER_RECORD_BYTES;
    return count < MAX_RECORD_BYTES && (entry->record_bytes == 0 || count < entry->record_bytes);
}

ssize_t event_read(int fd, void *buffer, size_t count)
{
    struct fd_entry *entry = fd_table + fd;
    const bool is_driver = entry->kind == FD_DRIVER; /* another thread may close `fd` during recv */
    if (may_exceed(entry, count)) {
        /* A small buffer would truncate the record: peeks the length first, and blocks like read. */
        char first;
        ssize_t length = recv(fd, &first, sizeof first, MSG_PEEK | MSG_TRUNC);
        if (length > 0 && !is_driver)
            entry->record_bytes = length > UINT8_MAX ? UINT8_MAX : (uint8_t)length;
        if (length <= 0 || (size_t)length > count) {
            if (length >= 0)
                errno = length == 0 ? EIO : EINVAL;
            return -1;
        }
    }
    ssize_t length = REAL(read)(fd, buffer, count);
    if (length == 0) {
        errno = EIO; /* the daemon has ended, or the device was removed */
        return -1;
    }
    return length;
}

/* rdma_ucm_cmd_hdr: bytes of the command after this header, and of the response buffer. */
struct cm_header {
    uint32_t command;
    uint16_t in_bytes;
    uint16_t out_bytes;
};
/* RDMA_USER_CM_CMD_GET_EVENT, bytes of struct rdma_ucm_get_event, and minimum bytes of the response buffer. */
#define CM_GET_EVENT 12
#define CM_GET_EVENT_BYTES 8
#define CM_GET_EVENT_RESPONSE_BYTES 324
/* The smallest page of all processors that we support. */
#define MIN_PAGE_BYTES 4096

/*
 * Waits for data on a channel of this kind, or for the end of the daemon. False with errno after a signal whose handler
 * lacks SA_RESTART; not with poll, which returns after each handler. If another thread closes the channel, only a
 * signal ends the wait, as on Linux, where the call holds a reference to the file.
 */
static bool channel_wait(int fd, int kind)
{
    char first;
    if (fd_kind(fd) != kind)
        return poll(NULL, 0, -1) > 0;
    return recv(fd, &first, sizeof first, MSG_PEEK) >= 0;
}

/*
 * Makes the call `type` that takes a record of a channel of this kind. Waits for a record unless the descriptor has
 * O_NONBLOCK: the daemon does not wait, but answers EAGAIN.
 */
static ssize_t channel_take(int fd, int kind, uint32_t type, const void *buffer, size_t count)
{
    const int flags = REAL(fcntl)(fd, F_GETFL), saved = errno;
    for (;;) {
        const ssize_t taken = session_call(fd, type, (uintptr_t)buffer, count);
        if (taken >= 0) {
            sanitizers_hears();
            errno = saved;
            return taken;
        }
        const bool is_closed = errno == EBADF && flags >= 0 && fd_kind(fd) != kind;
        if (errno != EAGAIN && !is_closed)
            return -1;
        errno = EAGAIN;
        if (flags & O_NONBLOCK || !channel_wait(fd, kind))
            return -1;
    }
}

ssize_t umad_read(int fd, void *buffer, size_t count)
{
    return channel_take(fd, FD_UMAD, USERDMA_READ, buffer, count);
}

/*
 * Whether Linux would find no error in the command before it waits. False also if the command reaches into the next
 * page, which may not be mapped: the daemon then decides.
 */
static bool cm_get_event_is_valid(const void *buffer, size_t count, const struct cm_header *header)
{
    const uintptr_t first = (uintptr_t)buffer, last = first + sizeof *header + CM_GET_EVENT_BYTES - 1;
    return header->in_bytes >= CM_GET_EVENT_BYTES && header->out_bytes >= CM_GET_EVENT_RESPONSE_BYTES &&
           count >= sizeof *header + header->in_bytes && first / MIN_PAGE_BYTES == last / MIN_PAGE_BYTES;
}

/* RDMA_USER_CM_CMD_GET_EVENT. A blocking descriptor waits here first: that saves a call without a result. */
static ssize_t cm_get_event(int fd, const void *buffer, size_t count, const struct cm_header *header)
{
    const bool is_blocking = !(REAL(fcntl)(fd, F_GETFL) & O_NONBLOCK);
    if (is_blocking && cm_get_event_is_valid(buffer, count, header) && !channel_wait(fd, FD_CM))
        return -1;
    return channel_take(fd, FD_CM, USERDMA_WRITE, buffer, count);
}

ssize_t cm_write(int fd, const void *buffer, size_t count)
{
    struct cm_header header = {0};
    if (count >= sizeof header && (uintptr_t)buffer >= LOWEST_ADDRESS)
        memcpy(&header, buffer, sizeof header);
    if (header.command == CM_GET_EVENT)
        return cm_get_event(fd, buffer, count, &header);
    return session_call(fd, USERDMA_WRITE, (uintptr_t)buffer, count);
}

void device_receive_posted(int fd, uint32_t qp_handle, uint32_t qpn)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    const volatile uint32_t *page = __atomic_load_n(&session_parked_page, __ATOMIC_ACQUIRE);
    if (LIKELY(!page || page[USERDMA_PARKED_PAGE_PARKED] == 0 ||
               page[USERDMA_PARKED_PAGE_FAILED + qpn % USERDMA_PARKED_PAGE_FAILED_COUNTS] == 0))
        return;
    const int saved = errno;
    if (fd_kind(fd) == FD_CONTEXT)
        ring_doorbell(fd, qp_handle);
    errno = saved;
}

void device_wake(int fd)
{
    const volatile uint32_t *page = __atomic_load_n(&session_parked_page, __ATOMIC_ACQUIRE);
    if (fd_kind(fd) == FD_CONTEXT && page && page[USERDMA_PARKED_PAGE_PARKED])
        ring_doorbell(fd, NO_QP);
}

bool device_is_dead(int fd)
{
    if (fd_kind(fd) != FD_CONTEXT)
        return false;
    struct pollfd doorbell = {.fd = __atomic_load_n(&fd_table[fd].partner, __ATOMIC_ACQUIRE), .events = POLLRDHUP};
    const int saved = errno;
    /* POLLNVAL: the program has closed the socket. */
    const bool is_shut = poll(&doorbell, 1, 0) > 0 && !(doorbell.revents & POLLNVAL);
    errno = saved;
    return is_shut;
}

int shim_store(uint64_t address, uint32_t width, int value)
{
    const int64_t number = value;
    if (width != 4 && width != 8)
        return -EFAULT;
    const struct iovec local = {.iov_base = (void *)&number, .iov_len = width};
    const struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = width};
    /* Written by the kernel: a bad address of the program is an error and not a crash. */
    const ssize_t moved = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
    if (moved == (ssize_t)width)
        return 0;
    if (moved >= 0 || errno == EFAULT)
        return -EFAULT;
    /* In a sandbox that forbids process_vm_writev: the daemon has checked the address. */
    memcpy((void *)(uintptr_t)address, &number, width);
    return 0;
}
