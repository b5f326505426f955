/*
 * The session with the daemon: the connection, our descriptors, and what the program's calls on them become.
 *
 *   session.c          the lock and the fork handlers; connection.h lists the files of the connection
 *   context.c          requests: open, attach, calls
 *   messages.c         messages about what the program does
 *   device.c           doorbells, reading events, calls on channels, checking that a device is alive
 *   fds.c              the table of our descriptors, updated by copies and closes
 *   netlink.c          sockets of NETLINK_RDMA
 *   adopted.c          pages of the program that it shares with a device
 *   arming.c           arms a CQ without a call
 *   response_memory.c  where a call's response may be stored; call_layout.h
 *   received.c         descriptors of ours received from another program
 *   users.c            users in error messages
 *   written.c          tells valgrind what the daemon has written
 *   peers.c            tells sanitizers what peers do with the program's memory
 *
 * requests.h: for those who send requests of their own.
 */
#ifndef USERDMA_SESSION_H
#define USERDMA_SESSION_H

#include "../loading/loading.h"
#include "../sanitizers/sanitizers.h"

/* ---- session.c, connect.c, context.c ---- */

/*
 * The thread's signal mask and cancel state before it took a lock of ours. While a lock is held, signals are blocked,
 * because a handler may call close() or ioctl(), and cancellation is off.
 */
struct shim_guard {
    sigset_t mask;
    int cancel_state;
};
void shim_guard_enter(struct shim_guard *guard);
void shim_guard_leave(const struct shim_guard *guard);
/* The process that owns this memory, updated by fork. */
extern pid_t shim_pid;
/* Whether this is a vfork child, which shares its parent's memory, or a child whose fork ran no handlers. */
static inline bool shim_is_other_process(void)
{
    return shim_pid != getpid();
}
/*
 * Whether the caller runs on a signal handler's own stack (sigaltstack), which may be within the thread's stack. Then a
 * frame at a lower address need not have returned.
 */
static inline bool shim_on_signal_stack(void)
{
    stack_t stack;
    return sigaltstack(NULL, &stack) != 0 || (stack.ss_flags & SS_ONSTACK);
}
/* CLOCK_MONOTONIC, in nanoseconds. */
static inline uint64_t shim_nanoseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}
/* Called once, before there is a session: handles forks. */
void session_own_process(void);
/*
 * Copies the path of the daemon's tree. False with errno ENOENT, EMFILE or ENFILE without a connection, EIO if this
 * thread holds the connection's lock.
 */
bool session_root(char root[sizeof(((struct userdma_hello_reply *)0)->root)]);
/* As session_root, but prints no message if there is no daemon: for programs that may not use RDMA. */
bool session_root_silently(char root[sizeof(((struct userdma_hello_reply *)0)->root)]);
/* Asks the daemon to update the files of counters. Returns the daemon's errno; 0 also without an answer. */
int session_refresh(void);
/* Opens device node `node`, with `flags` of open(2). Returns the program's descriptor, or -1 with errno. */
int session_open(unsigned node, int flags);
/*
 * Forwards a call on a descriptor of ours. Result as of the system call. `type`, then `first` and `second`:
 *
 *   USERDMA_IOCTL                 request number, argument
 *   USERDMA_WRITE, USERDMA_READ   buffer, bytes
 *   USERDMA_NETLINK               operation | extra << 32, argument (struct userdma_netlink)
 */
long session_call(int fd, uint32_t type, uint64_t first, uint64_t second);
/* mmap(2) on a driver's descriptor: the daemon answers the file and offset to map. */
void *session_map(int fd, void *address, size_t length, int protection, int flags, off64_t offset);
/*
 * mmap(2) of a range with doorbells from the memory file of a context: the daemon learns of the
 * mapping, so that stores to it can wake the daemon. Without an answer the range is mapped all the same.
 */
void *session_map_doorbells(int fd, void *address, size_t length, int protection, int flags, off64_t offset);
/* The page with the parked word, which is 1 while the daemon sleeps. Read-only. NULL before the first session. */
extern const volatile uint32_t *session_parked_page;
/* Called when the program uses a negative descriptor as a socket; NULL: nobody listens. Preserves errno. */
extern void (*session_no_descriptor)(void);
/* The event log is written (../check/events.c). */
extern bool shim_logs_events;
/* Whether the daemon searches races in it. */
extern bool shim_finds_races;
/* A umad node, or an issm node. */
static inline bool node_is_umad(unsigned node)
{
    return node >= USERDMA_UMAD_NODES && node != USERDMA_SYSTEM_NODE && node != USERDMA_CM_NODE;
}
static inline bool node_is_issm(unsigned node)
{
    return node_is_umad(node) && node >= USERDMA_ISSM_NODES;
}

/* ---- messages.c ---- */

/*
 * Sends a message of this type, about the context of `fd` or with fd -1 about the process, with a body of `size` bytes.
 * Returns `ret` of the reply; 0 without one. Preserves errno. `connects`: false if the message is lost without a
 * connection.
 */
int64_t message_send(int fd, uint32_t type, uint32_t stack, const void *body, size_t size, bool connects);

/* ---- arming.c ---- */

/* Arms the CQ of an ioctl or write on a context, if the call does only that. False: the caller forwards the call. */
bool arming_by_ioctl(int fd, uint32_t request, uintptr_t argument);
bool arming_by_write(int fd, const void *buffer, size_t count);

/* ---- fds.c ---- */

enum fd_kind {
    FD_OTHER = 0, /* not ours */
    FD_CONTEXT,   /* an opened device: the context's memory file */
    FD_RECEIVED,  /* a context from another program, not known to our session yet */
    FD_EVENT,     /* an event socket: completion channel, asynchronous events or event queue */
    FD_DRIVER,    /* an event socket of class driver_ops */
    FD_CM,        /* a channel of the connection manager: an opened rdma_cm node */
    FD_UMAD,      /* a channel of management datagrams: an opened umad node */
    FD_NETLINK,   /* a socket of NETLINK_RDMA */
    FD_HIDDEN,    /* a socket of ours that the program must not see */
};
struct fd_entry {
    uint8_t kind;
    union {
        /* FD_EVENT: bytes of a record; 0 until known. */
        uint8_t record_bytes;
        /* FD_RECEIVED: inherited by exec, with a doorbell socket. */
        bool is_inherited;
        /* FD_CONTEXT: its provider has XRC of its own. */
        bool has_xrc;
    };
    /* FD_CONTEXT: `session_generation` of the session that knows `context`. */
    uint16_t generation;
    /* FD_CONTEXT: the doorbell socket. FD_HIDDEN: a doorbell socket's context descriptor; -1 for a session's socket. */
    int32_t partner;
    /*
     * FD_CONTEXT, FD_CM, FD_UMAD: the daemon's number, or 0 of a passed channel. FD_RECEIVED, if `is_inherited`: low
     * bits of the file's inode.
     */
    uint32_t context;
    /* FD_CONTEXT, FD_UMAD: st_rdev as fstat shows it. */
    uint32_t rdev;
};
_Static_assert(sizeof(struct fd_entry) == 16, "the table is indexed on the fast path");
#define FD_TABLE_SIZE (1u << 20)
/* NULL until the first descriptor of ours exists. */
extern struct fd_entry *fd_table;
static inline struct fd_entry *fd_lookup(int fd)
{
    struct fd_entry *table = __atomic_load_n(&fd_table, __ATOMIC_ACQUIRE);
    return LIKELY(table == NULL) || (unsigned)fd >= FD_TABLE_SIZE ? NULL : table + fd;
}
static inline int fd_kind(int fd)
{
    struct fd_entry *entry = fd_lookup(fd);
    return LIKELY(entry == NULL) ? FD_OTHER : __atomic_load_n(&entry->kind, __ATOMIC_ACQUIRE);
}
/*
 * Moves a descriptor to a high number, registers it as hidden, and closes `fd`. Returns the new number, or -1 with
 * errno. `owner`: for a doorbell socket the context's descriptor, else -1.
 */
int fd_hide(int fd, int owner, bool close_on_exec);
/* A new memory file of a fixed size, close-on-exec. Stores where it is mapped. -1: there is none. */
int fd_of_memory(const char *name, size_t bytes, void **memory);
/* Removes a hidden socket from the table. The socket stays open. */
void fd_forget_hidden(int hidden);
/* Removes a descriptor from the table and closes its doorbell socket. The descriptor stays open. */
void fd_forget(int fd);
/* Registers `new_fd`, a new copy of `old_fd`. */
void fd_copied(int old_fd, int new_fd, bool close_on_exec);
/*
 * Moves a hidden socket away from number `fd`, because the program wants the number. The caller closes or replaces
 * `fd`. False if there is no hidden socket.
 */
bool fd_vacate(int fd);
/* The program changed close-on-exec of `fd`: the doorbell socket gets the same flag. */
void fd_set_close_on_exec(int fd, bool close_on_exec);
/* Before the C library closes or replaces the descriptor of a stream. Preserves errno. */
void fd_before_stream_close(FILE *stream);
/* close_range(2) and closefrom(3) without our hidden sockets. */
int fd_close_range(unsigned first, unsigned last, int flags);
void fd_close_from(unsigned first);
/* The kernel has assigned a number that is still in the table: a raw system call has closed the descriptor. */
void fd_reused(int fd);
/* A call has returned `fd` (or -1): removes a stale entry. Returns `fd`. */
static inline int fd_opened(int fd)
{
    if (UNLIKELY(fd_kind(fd) != FD_OTHER))
        fd_reused(fd);
    return fd;
}
/*
 * getsockopt(2) of SOL_SOCKET by the system call: the function of another preload library may not work before the
 * program has created a socket (librspreload).
 */
static inline int fd_socket_option(int fd, int option, void *value, socklen_t *length)
{
    return (int)early_syscall(SYS_getsockopt, fd, SOL_SOCKET, option, (long)value, (long)length, 0);
}
/*
 * Writes the path of a descriptor's file to `path`, at most `size` - 1 characters. False, with an empty path, if there
 * is none. Preserves errno.
 */
bool path_of_fd(int fd, char *path, size_t size);

/* ---- netlink.c ---- */

/* Opens a NETLINK_RDMA socket; -1 with errno: EPROTONOSUPPORT without a daemon. `type` as for socket(2). */
int netlink_open(int type);
/* write(2) and writev(2) of requests on a NETLINK_RDMA socket. */
ssize_t netlink_write(int fd, const void *buffer, size_t count);
ssize_t netlink_writev(int fd, const struct iovec *vector, size_t count);

/* ---- received.c ---- */

/* Registers inherited descriptors of ours. */
void received_at_start(void);
/* Registers an unknown descriptor if it is ours. Returns whether it is. One or two system calls. Changes errno. */
bool received_recognise(int fd, bool is_inherited);
/*
 * Attaches an FD_RECEIVED to our session. Returns FD_CONTEXT; FD_OTHER if the descriptor is not ours; FD_RECEIVED with
 * errno as of session_attach after a failure.
 */
int received_learn(int fd);
/* The kind of a descriptor for its use. Attaches a received context first. */
static inline int fd_kind_for_use(int fd)
{
    const int kind = fd_kind(fd);
    return LIKELY(kind != FD_RECEIVED) ? kind : received_learn(fd);
}

/* ---- adopted.c ---- */

/* A system call that stores to the program's memory: errno before it, and how often pages had been frozen. */
struct frozen_call {
    int saved_errno;
    unsigned freezes;
};
/* Whether pages are being replaced. */
extern bool adopted_is_replacing;
/* Waits until no pages are being replaced, but not for long. */
void adopted_wait(void);
/*
 * After a call has failed: whether to make it again, because it may have failed with EFAULT while pages were replaced.
 * Waits as adopted_wait.
 */
bool adopted_froze(struct frozen_call *call);
/* The result of `call`, which begins when no pages are being replaced, and is made again as adopted_froze says. */
#define RETRIED(call)                                                                                                  \
    ({                                                                                                                 \
        struct frozen_call frozen_ = {.saved_errno = errno};                                                           \
        if (UNLIKELY(__atomic_load_n(&adopted_is_replacing, __ATOMIC_RELAXED)))                                        \
            adopted_wait();                                                                                            \
        __typeof__(call) result_;                                                                                      \
        while ((result_ = (call)) < 0 && UNLIKELY(adopted_froze(&frozen_)))                                            \
            ;                                                                                                          \
        sanitizers_hears();                                                                                            \
        result_;                                                                                                       \
    })

/* ---- peers.c ---- */

/* The program has registered memory for peers; it has a sanitizer. */
void peers_watch(void);
/* The process ends: it is told no more. */
void peers_end(void);

/* ---- device.c ---- */

/* write(2) on a context: a doorbell, or a forwarded command. */
ssize_t device_write(int fd, const void *buffer, size_t count);
/* read(2) on an event descriptor: one record. */
ssize_t event_read(int fd, void *buffer, size_t count);
/* write(2) on a channel of the connection manager: a command. It may wait for an event. */
ssize_t cm_write(int fd, const void *buffer, size_t count);
/* read(2) on a channel of management datagrams. Waits for a message unless the descriptor has O_NONBLOCK. */
ssize_t umad_read(int fd, void *buffer, size_t count);
/* After posts to the receive queue of a queue pair: wakes the daemon if it sleeps and the queue pair may be in ERR. */
void device_receive_posted(int fd, uint32_t qp_handle, uint32_t qpn);
/* Wakes the daemon if it sleeps. */
void device_wake(int fd);
/* Whether the daemon's end of the doorbell socket is shut: the daemon has ended, or the device was removed. */
bool device_is_dead(int fd);

/* ---- of the folders above ---- */

/* The descriptor of the wait table's file; -1: none. The libraries that are loaded now are described in it. */
int waiting_file(void);
/* The hidden descriptor of the wait table has another number. */
void waiting_moved(int old_fd, int new_fd);
/* Sends the reports that were kept because nothing is sent inside free(). Preserves errno. */
void reports_send_kept(void);
/* Notes that this thread has waited for another. Not for polls of completions. */
void events_waited(void);
/* Before a fork of a recorded program, and in its child. */
void program_forks(void);
void outstanding_child(void);

#endif
