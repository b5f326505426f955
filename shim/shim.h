/*
 * Common declarations of the shim, a preload library: it shows the daemon's RDMA devices to an unmodified program, and
 * forwards the program's calls to the daemon (ARCHITECTURE.md; protocol.h has the messages).
 *
 * loading/
 *   init.c             start: whether the shim is active, and the C library's own functions
 *   early.c            replacements of the C library's functions while they are looked up
 *   loading.c          dlopen with RTLD_DEEPBIND, dlmopen
 *   elf.c              the libraries that a library needs
 * session/
 *   session.c          the connection to the daemon; connection.h lists further files
 *   context.c          requests to the daemon: open, attach, calls
 *   device.c           doorbells, reading events, calls on channels, checking that a device is alive
 *   adopted.c          pages of the program that it shares with a device
 *   response_memory.c  where a call's response may be stored
 *   received.c         descriptors of ours received from another program
 *   users.c            users in error messages
 *   providers.c        says at the program's end that libibverbs lacks the provider of the devices
 * files/
 *   fds.c              the table of our descriptors, updated by copies and closes
 *   descriptors.c      interposed calls on descriptors
 *   paths.c            redirected paths
 *   files.c            interposed calls with paths; walks.c: glob and ftw; stat.c: the stat family
 *   listings.c         lists of the folders above RDMA paths, and of PCI functions
 * verbs/
 *   verbs.c            what the shim does around the provider's functions
 *   xrc.c              XRC, which rxe's provider lacks
 * check/               for `userdma check`
 *   messages.c         messages to the daemon, and where requests were posted
 *   events.c           logs in a context's file: where requests were posted, what threads did in order
 *   outstanding.c      memory of outstanding requests; requests.h lists further files
 *   notes.c            notes of posts and polls, reports of refused posts
 *   valgrind.c         reports the daemon's writes to valgrind
 * recorder/            what sees the program: recorder.h lists its files
 * netlink.c            sockets of NETLINK_RDMA
 * syscalls.c           syscall(2)
 *
 * waits/ and frees/ are separate preload libraries for `userdma check`.
 *
 * Rules for all files:
 * - Calls that have nothing to do with RDMA cost a few comparisons.
 * - Successful calls preserve errno.
 * - Memory is static, on the stack or mapped, except XRC's objects (xrc.c), the lists of scandir
 *   (listings.c), and folders that are read at the program's end (providers.c).
 * - A vfork child shares its parent's memory, so it does not change the table of descriptors.
 */
#ifndef USERDMA_SHIM_H
#define USERDMA_SHIM_H

/*
 * Undefines _FORTIFY_SOURCE and _FILE_OFFSET_BITS: either makes the C library's headers define or rename functions of
 * the shim. So this file is included first.
 */
#include "recorder/recorder.h"

#include <alloca.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"

/* Lower pointers are invalid. They are left to the kernel, which answers EFAULT. */
#define LOWEST_ADDRESS 4096
/* Whether a path is in the first or the last page: NULL, (char *)-1. */
static inline int is_invalid_path(const char *path)
{
    return (uintptr_t)path + LOWEST_ADDRESS < 2 * LOWEST_ADDRESS;
}
/* Types of ioctl requests: RDMA_IOCTL_MAGIC of Linux's RDMA, and the object dialect's. */
#define LINUX_MAGIC 0x1b
#define OBJECT_MAGIC 0xdb
/* Returns the result of a function, by a guaranteed tail call if the compiler has one. */
#if defined(__has_attribute) && __has_attribute(musttail)
#define JUMP __attribute__((musttail)) return
#else
#define JUMP return
#endif

/* Functions of the C library that its headers do not declare: fortified ones, and the stat family of old binaries. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                       socklen_t *length);
ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size);
ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags);
ssize_t __pread_chk(int fd, void *buffer, size_t count, off_t offset, size_t buffer_size);
ssize_t __pread64_chk(int fd, void *buffer, size_t count, off64_t offset, size_t buffer_size);
ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t buffer_size);
ssize_t __readlinkat_chk(int dir, const char *path, char *buffer, size_t size, size_t buffer_size);
char *__realpath_chk(const char *path, char *resolved, size_t buffer_size);
char *__getcwd_chk(char *buffer, size_t size, size_t buffer_size);
int __xstat(int version, const char *path, struct stat *out);
int __xstat64(int version, const char *path, struct stat64 *out);
int __lxstat(int version, const char *path, struct stat *out);
int __lxstat64(int version, const char *path, struct stat64 *out);
int __fxstat(int version, int fd, struct stat *out);
int __fxstat64(int version, int fd, struct stat64 *out);
int __fxstatat(int version, int dir, const char *path, struct stat *out, int flags);
int __fxstatat64(int version, int dir, const char *path, struct stat64 *out, int flags);
/* Older C libraries lack them. */
int fcntl64(int fd, int command, ...);
int close_range(unsigned int first, unsigned int last, int flags);
void closefrom(int first);
struct open_how;
int openat2(int dir, const char *path, const struct open_how *how, size_t size);

_Noreturn void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function);

/* The functions of the C library that the shim interposes. */
#define INTERPOSED(X)                                                                                                  \
    X(open) X(open64) X(openat) X(openat64) X(openat2) X(__open_2) X(__open64_2) X(__openat_2) X(__openat64_2)         \
    X(creat) X(creat64) X(fopen) X(fopen64) X(freopen) X(freopen64) X(opendir) X(readdir) X(rewinddir) X(seekdir)      \
    X(closedir) X(scandirat) X(glob) X(glob64) X(ftw) X(nftw) X(statfs) X(statfs64) X(fstatfs) X(fstatfs64) X(statvfs) \
    X(statvfs64)                                                                                                       \
    X(getcwd) X(__getcwd_chk) X(get_current_dir_name) X(fchdir) X(access) X(faccessat) X(euidaccess) X(eaccess)        \
    X(stat) X(stat64) X(lstat) X(lstat64) X(fstat) X(fstat64) X(fstatat) X(fstatat64) X(statx) X(__xstat)              \
    X(__xstat64) X(__lxstat) X(__lxstat64) X(__fxstat) X(__fxstat64) X(__fxstatat) X(__fxstatat64) X(readlink)         \
    X(readlinkat) X(__readlink_chk) X(__readlinkat_chk) X(realpath) X(__realpath_chk) X(canonicalize_file_name)        \
    X(chdir) X(inotify_add_watch) X(socket) X(ioctl) X(read) X(__read_chk) X(pread) X(pread64) X(readv) X(write)       \
    X(pwrite) X(pwrite64) X(writev) X(close) X(close_range) X(closefrom) X(dup) X(dup2) X(dup3) X(fcntl) X(fcntl64)    \
    X(lseek) X(lseek64) X(preadv) X(preadv64) X(pwritev) X(pwritev64) X(preadv2) X(preadv64v2) X(pwritev2)            \
    X(pwritev64v2) X(__pread_chk) X(__pread64_chk) X(fallocate) X(fallocate64) X(posix_fallocate)                      \
    X(posix_fallocate64) X(ftruncate) X(ftruncate64) X(fclose) X(mmap) X(mmap64) X(getxattr) X(lgetxattr)              \
    X(listxattr) X(llistxattr) X(chmod) X(fchmodat) X(chown) X(lchown) X(fchownat) X(mkdir) X(mkdirat)                 \
    X(recv) X(__recv_chk) X(recvmsg) X(recvmmsg) X(recvfrom) X(__recvfrom_chk) X(send) X(sendto) X(sendmsg) X(sendmmsg) X(bind) X(connect)   \
    X(getsockname) X(getpeername) X(setsockopt) X(getsockopt) X(shutdown) X(dlopen) X(dlmopen) X(dlclose) X(syscall)  \
    X(_exit) X(_Exit) X(abort) X(__assert_fail)

/* ---- init.c ---- */

/*
 * The next functions after the shim's: the C library's, or those of another preload library; before shim_init, early.c's.
 * Used by REAL(name).
 */
struct real {
#define X(name) __typeof__(&name) name;
    INTERPOSED(X)
#undef X
};
extern struct real shim_real;
/* 0 until init has run. */
extern int shim_ready;
static inline bool shim_is_ready(void)
{
    return LIKELY(__atomic_load_n(&shim_ready, __ATOMIC_ACQUIRE));
}
/* Whether USERDMA_SOCKET has a usable path; otherwise all calls pass through. Read it after shim_init. */
extern bool shim_is_active;
/* The daemon's socket, from the environment. 108: the size of sun_path in struct sockaddr_un. */
extern char shim_socket_path[108];
/* From the environment; empty: none. */
extern char shim_tag[sizeof(((struct userdma_hello *)0)->tag)];
/* The program is traced: all calls go to the daemon, doorbells too. */
extern bool shim_is_traced;

/*
 * Initialises the shim unless it is ready. Several threads may call it at once. A recursive call does nothing: REAL then
 * gives early.c's versions.
 */
void shim_init(void);

/* The function that the program would call without the shim. */
#define REAL(name) (shim_is_ready() ? (void)0 : shim_init(), shim_real.name)

/* ---- valgrind.c ---- */

/* The program runs under valgrind, which is told what the daemon has written into our memory. */
extern bool shim_under_valgrind;
void valgrind_detect(void);

/* ---- verbs.c ---- */

/* Whether the program has called ibv_fork_init, need not call it, or has set the environment variable for it. */
bool verbs_is_fork_safe(void);

/* ---- messages.c ---- */

/* Sets recorder_is_on, from the environment. */
void messages_detect(void);
/* After messages_detect: tells the daemon of crashes, and writes their stacks to the file of USERDMA_CRASHES. */
void crashes_detect(void);
/*
 * Notes the stack of a post in the post log. Called before the post, so the note exists when the request fails.
 * `queue`: USERDMA_POST_…. `number`: the QPN, or the SRQ's handle. Preserves errno.
 */
void stack_note_post(int fd, uint32_t queue, uint32_t number, uint64_t wr_id, uint32_t stack);
/* Notes the wr_id and the stack of the request at `index` of its queue, from 0, in the position log. */
void post_note_index(int fd, uint32_t queue, uint32_t number, uint32_t index, uint64_t wr_id, uint32_t stack);
/* What was noted of the request at `index`, or of an earlier one of the queue's time before a RESET, is not valid. */
void post_forget_index(int fd, uint32_t queue, uint32_t number, uint32_t index);
/*
 * Sends a message of this type, about the context of `fd` or with fd -1 about the process, with a body of `size` bytes.
 * Returns `ret` of the reply; 0 without one. Preserves errno. `connects`: false if the message is lost without a
 * connection.
 */
int64_t message_send(int fd, uint32_t type, uint32_t stack, const void *body, size_t size, bool connects);
#include "preload_events.h"

/* ---- events.c ---- */

/* The event log is written. */
extern bool shim_logs_events;
/* Whether the daemon searches races in it. */
extern bool shim_finds_races;
/* After messages_detect. */
void events_detect(void);
/* Maps the logs of a context, unless they are mapped. */
void events_open(int fd);
/* Counts completions that a poll of a CQ has returned (taken counts). */
void events_taken(int fd, uint32_t cq, uint32_t count);
/* The post log; NULL: not mapped. */
struct userdma_post *events_post_log(int fd);
struct userdma_position *events_position_log(int fd);
/* As events_post_log, for the hash log (hashes.c). */
struct userdma_hash *events_hash_log(int fd);
/* Read the environment. */
void hashes_detect(void);
void slots_detect(void);
/* Sends are refused as by adapters that free slots at polls (slots.c). Only if recorder_is_on. */
extern bool shim_frees_at_poll;
/* Appends an entry to the event log (struct userdma_event). Called before the device can see a post. */
void events_note(int fd, uint32_t kind, uint32_t number, uint32_t count, uint64_t wr_id, uint32_t stack);
/* Notes that this thread has waited for another. Not for polls of completions. */
void events_waited(void);

/* ---- early.c ---- */

/* A system call, as syscall(2). */
long early_syscall(long number, long a, long b, long c, long d, long e, long f);

/* ---- syscalls.c ---- */

/* The next syscall() after the shim's; before shim_init, early_syscall. */
extern __typeof__(&syscall) shim_next_syscall __attribute__((visibility("hidden")));

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
 * Makes a received context (FD_RECEIVED) known to this program's session. Returns 0 or -errno: ENODEV if the daemon
 * does not know the context, EACCES if the daemon does not serve us, EIO without a daemon, EMFILE or ENFILE.
 */
int session_attach(int fd);

/*
 * Forwards a call on a descriptor of ours. Result as of the system call. `type`, then `first` and `second`:
 *
 *   USERDMA_IOCTL                 request number, argument
 *   USERDMA_WRITE, USERDMA_READ   buffer, bytes
 *   USERDMA_NETLINK               operation | extra << 32, argument (struct userdma_netlink)
 */
long session_call(int fd, uint32_t type, uint64_t first, uint64_t second);

/*
 * Opens a NETLINK_RDMA socket. Returns the program's end, close-on-exec, or -1 with errno: ENOENT without a daemon.
 * `type`: SOCK_RAW or SOCK_DGRAM.
 */
int session_netlink(unsigned type);

/* mmap(2) on a driver's descriptor: the daemon answers the file and offset to map. */
void *session_map(int fd, void *address, size_t length, int protection, int flags, off64_t offset);

/*
 * mmap(2) of a range with doorbells from the memory file of a context: the daemon learns of the
 * mapping, so that stores to it can wake the daemon. Without an answer the range is mapped all the same.
 */
void *session_map_doorbells(int fd, void *address, size_t length, int protection, int flags, off64_t offset);

/* The socket of a connection has another number. With the session's lock held. */
void session_moved(int old_fd, int new_fd);

/* The page with the parked word, which is 1 while the daemon sleeps. Read-only. NULL before the first session. */
extern const volatile uint32_t *session_parked_page;

/* ---- arming.c ---- */

/* Arms the CQ of an ioctl or write on a context, if the call does only that. False: the caller forwards the call. */
bool arming_by_ioctl(int fd, uint32_t request, uintptr_t argument);
bool arming_by_write(int fd, const void *buffer, size_t count);
/* The context's descriptor was closed. */
void arming_forget(int fd);

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
    /* FD_CONTEXT, FD_CM, FD_UMAD: the daemon's number, or 0 of a passed channel. FD_RECEIVED, if `is_inherited`: low bits of the file's inode. */
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
/* Removes a hidden socket from the table. The socket stays open. */
void fd_forget_hidden(int hidden);
/* Registers a descriptor. 0, or -1 with errno: EMFILE if the number is too high for the table. */
int fd_add(int fd, const struct fd_entry *entry);
/* `kind` FD_EVENT, FD_DRIVER, FD_CM, FD_UMAD or FD_NETLINK. */
int fd_add_event(int fd, enum fd_kind kind);
/* The kind for a USERDMA_INSTALL_…; FD_OTHER: unknown. */
static inline enum fd_kind fd_kind_installed(uint64_t install)
{
    return install == USERDMA_INSTALL_EVENT     ? FD_EVENT
           : install == USERDMA_INSTALL_DRIVER  ? FD_DRIVER
           : install == USERDMA_INSTALL_NETLINK ? FD_NETLINK
           : install == USERDMA_INSTALL_CM      ? FD_CM
           : install == USERDMA_INSTALL_UMAD    ? FD_UMAD
                                                : FD_OTHER;
}
/* Registers an FD_RECEIVED. `is_inherited`: by exec, not over a socket. */
int fd_add_received(int fd, bool is_inherited);
/* Removes a descriptor from the table and closes its doorbell socket. The descriptor stays open. */
void fd_forget(int fd);
/* The first descriptor from `first` on of the context with this number; -1: none. */
int fd_of_context(uint32_t context, int first);
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
/* After fork, in the child. */
void fd_after_fork(void);
/*
 * getsockopt(2) of SOL_SOCKET by the system call: the function of another preload library may not work before the
 * program has created a socket (librspreload).
 */
static inline int fd_socket_option(int fd, int option, void *value, socklen_t *length)
{
    return (int)early_syscall(SYS_getsockopt, fd, SOL_SOCKET, option, (long)value, (long)length, 0);
}
/* Marks a doorbell socket with the inode of its context's file, for programs that inherit both. */
void fd_mark(int hidden, ino_t inode);
/* Whether a descriptor has the mark of this inode. Changes errno. */
bool fd_has_mark(int fd, ino_t inode);

/* ---- netlink.c ---- */

/* Opens a NETLINK_RDMA socket; -1 with errno: EPROTONOSUPPORT without a daemon. `type` as for socket(2). */
int netlink_open(int type);
/* write(2) and writev(2) of requests on a NETLINK_RDMA socket. */
ssize_t netlink_write(int fd, const void *buffer, size_t count);
ssize_t netlink_writev(int fd, const struct iovec *vector, size_t count);
/* After a receive: the sender on a NETLINK_RDMA socket is the kernel. `address_size`: of the program's buffer. */
void netlink_received(int fd, struct msghdr *message, socklen_t address_size);

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

/*
 * Does what the mappings of an answer say, in their order; `fd`: the context of the call. 0 or -errno: then the ranges
 * to adopt are as before.
 */
int adopted_apply(int fd, const struct userdma_mapping *mappings, size_t mapping_count);
/* A descriptor of a context is no longer in the table. After the last one, the context's pages are ordinary memory. */
void adopted_close(uint32_t context);

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
 * After a call has failed: whether to make it again, because it may have failed with EFAULT while pages were replaced. Waits as
 * adopted_wait.
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
        result_;                                                                                                       \
    })

/* Around a fork, and in a child whose fork ran no handlers. */
void adopted_before_fork(void);
/* A hidden descriptor has another number; -1: it is closed. With the lock of adopted_before_fork held. */
void adopted_moved(int old_fd, int new_fd);
void adopted_in_parent(void);
void adopted_in_child(void);

/* ---- response_memory.c ---- */

/* Whether `width` bytes of a call's response may be stored at `address`. Other parameters: as of session_call. */
bool call_may_store(uint32_t type, uint64_t first, uint64_t second, uint64_t address, uint32_t width);

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
/* Stores a descriptor number of `width` (4 or 8) bytes at an address of the program. 0 or -EFAULT. */
int shim_store(uint64_t address, uint32_t width, int value);

/* ---- elf.c ---- */

/* Bytes of buffers for paths. */
#define PATH_SIZE 1024
/* Bytes of a library's name with NUL. Longer names are truncated. */
#define LIBRARY_NAME_SIZE 128
/*
 * Calls `visit` with the name of each needed library (DT_NEEDED), until a call returns false. Stores the folders,
 * separated by colons, in which the loader searches needed libraries (DT_RUNPATH, DT_RPATH); "" if there are none.
 * 64-bit files only.
 */
void elf_needed(int fd, bool (*visit)(void *context, const char *name), void *context, char folders[PATH_SIZE]);

/* ---- paths.c ---- */

/*
 * IB_UMAD_NUM_FIXED_MINOR and IB_UVERBS_BASE_MINOR: minor numbers of umadN begin at 0, of issmN at 64, of uverbsN at 192.
 */
#define UMAD_MINORS 64
#define ISSM_MINOR 64
#define UVERBS_MINOR 192

/* Whether an absolute path is an RDMA path. Preserves errno. */
bool path_matches(const char *path);

/* The current folder may be in the daemon's tree: a relative path may lead to a counter file. */
extern bool shim_may_be_in_tree;
/* The program has changed its current folder. Sets shim_may_be_in_tree. */
void path_folder_changed(void);

/*
 * Makes a path absolute and resolves each "..", in `path_buffer`. A relative path begins at folder `dir`, as in
 * openat(2). NULL if the path leads neither to nor from an RDMA path, or is absolute without "..". NULL also if a
 * relative path does not begin, after "./" and "../", like a part of an RDMA path, unless "../" leaves the tree.
 */
const char *path_absolute(int dir, const char *path, char path_buffer[PATH_SIZE]);

/* Whether an absolute path may be an RDMA path, by the first characters: /sys, /dev, also after more slashes or ".". */
static inline bool path_may_match(const char *path)
{
    return path[1] == 's' || path[1] == 'd' || path[1] == '/' || path[1] == '.';
}

/* Whether a path begins like a PCI address, with a domain: `0000:`. */
static inline bool path_begins_with_domain(const char *path)
{
    return path[1] && path[2] && path[3] && path[4] == ':';
}

/* Whether path_absolute may change the path, by the first characters and "..". */
static inline bool path_absolute_may_change(const char *path)
{
    if (UNLIKELY(is_invalid_path(path)))
        return false;
    switch (*path) {
    case 'b': /* bus */
    case 'c': /* class, char */
    case 'd': /* dev, devices */
    case 'i': /* infiniband, issm */
    case 'm': /* misc */
    case 'p': /* pci */
    case 'r': /* rdma_cm */
    case 's': /* sys */
    case 'u': /* umad, userdma, uverbs */
    case 'v': /* virtual */
    case '2': /* 231:N */
    case '.':
        return shim_is_active;
    case '/': /* with "..": /sys/class/net/../infiniband, /proc/../dev/infiniband */
        return shim_is_active && (path_may_match(path) || UNLIKELY(strstr(path, "/..") != NULL));
    default:
        return *path && UNLIKELY(path_begins_with_domain(path)) && shim_is_active;
    }
}

/*
 * Whether a path, after ABSOLUTE, is redirected. If the current folder may be in the tree, a relative path may lead to
 * a counter file: then the counter files are updated.
 */
static inline bool path_is_ours(const char *path)
{
    if (UNLIKELY(is_invalid_path(path)))
        return false;
    if (path[0] != '/') {
        if (UNLIKELY(shim_may_be_in_tree))
            session_refresh();
        return false;
    }
    if (LIKELY(!path_may_match(path)))
        return false;
    if (UNLIKELY(!shim_is_ready()))
        shim_init();
    return shim_is_active && path_matches(path);
}

/*
 * The redirected path of an RDMA path, in `path_buffer`. Updates the counter files for a path of counters. NULL with
 * errno: as session_root, ENOENT for a too long path, or the error of the update.
 */
const char *path_rewrite(const char *path, char path_buffer[PATH_SIZE]);
/*
 * The node number of a device file, also by its link in /dev/char: N of /dev/infiniband/uverbsN, USERDMA_UMAD_NODES + N
 * of umadN, USERDMA_ISSM_NODES + N of issmN, USERDMA_SYSTEM_NODE, USERDMA_CM_NODE; -1 for another path.
 */
int path_device_node(const char *path);
/* A umad node, or an issm node. */
static inline bool node_is_umad(unsigned node)
{
    return node >= USERDMA_UMAD_NODES && node != USERDMA_SYSTEM_NODE && node != USERDMA_CM_NODE;
}
static inline bool node_is_issm(unsigned node)
{
    return node_is_umad(node) && node >= USERDMA_ISSM_NODES;
}
/* st_rdev of a device file, from the file `dev` in the tree; 0: none. Preserves errno. */
dev_t path_node_rdev(unsigned node);
/* Replaces `path` by path_absolute. Uses stack only if the path may change. */
#define ABSOLUTE(dir, path)                                                                                            \
    do {                                                                                                               \
        if (UNLIKELY(path_absolute_may_change(path))) {                                                                \
            char *path_buffer = alloca(PATH_SIZE);                                                                     \
            const char *absolute = path_absolute(dir, path, path_buffer);                                              \
            if (absolute)                                                                                              \
                path = absolute;                                                                                       \
        }                                                                                                              \
    } while (0)

/*
 * Replaces an RDMA path. If path_rewrite fails, returns `failure` from the function, with errno. Uses stack only for
 * RDMA paths: handlers on small signal stacks call open() and stat() too.
 */
#define REWRITE(path, failure)                                                                                         \
    do {                                                                                                               \
        if (UNLIKELY(path_is_ours(path))) {                                                                            \
            char *path_buffer = alloca(PATH_SIZE);                                                                     \
            path = path_rewrite(path, path_buffer);                                                                    \
            if (!path)                                                                                                 \
                return failure;                                                                                        \
        }                                                                                                              \
    } while (0)

/* Like REWRITE, for a path relative to folder `dir`. */
#define REWRITE_AT(dir, path, failure)                                                                                 \
    do {                                                                                                               \
        ABSOLUTE(dir, path);                                                                                           \
        REWRITE(path, failure);                                                                                        \
    } while (0)

/* Whether the list of a folder is continued in the tree: /dev, /sys/class, /sys/bus/pci/devices. */
bool path_is_parent(const char *folder);
/*
 * Writes the path of a descriptor's file to `path`, at most `size` - 1 characters. False, with an empty path, if there
 * is none. Preserves errno.
 */
bool path_of_fd(int fd, char *path, size_t size);
/* Length of the tree's folder in a path in the daemon's tree; 0 for another path. */
size_t path_root_length(const char *path);
/* Removes the tree's folder from a path, in place. */
void path_strip_root(char *path);

/* ---- stat.c ---- */

/* If `path` (absolute, not redirected) is a device file, changes the result of stat to the device file's. */
void stat_show_node(const char *path, struct stat *out);

#endif
