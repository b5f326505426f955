/*
 * The table of our descriptors by number: contexts, event sockets, channels, netlink sockets, and hidden sockets.
 *
 * Each copy of a context's descriptor has its own copy of the doorbell socket, with the same close-on-exec flag. So the
 * kernel keeps the socket open while any process has a copy. Hidden sockets have high numbers, away from numbers that
 * programs choose. The table is a sparse mapping, created with the first descriptor of ours. Writers hold the lock.
 * Readers take no lock: an entry's kind is written last.
 *
 * A vfork child shares our memory but has its own descriptors: its closes and copies do not change the table.
 */
#define _GNU_SOURCE
#include "parts.h"
#include "requests.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4u
#endif

/* The first number of hidden sockets, if the limit of descriptors allows. */
#define HIDDEN_BASE 900
/* HIDDEN_BASE is used only if more numbers than this remain from it to the limit. */
#define HIDDEN_ROOM 100
/* After exec, this many numbers are searched for doorbell sockets. */
#define HIDDEN_SEARCHED 256

struct fd_entry *fd_table;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* The highest descriptor that the table ever had. */
static int highest_fd = -1;

static void lock_table(struct shim_guard *guard)
{
    shim_guard_enter(guard);
    pthread_mutex_lock(&lock);
}

static void unlock_table(const struct shim_guard *guard)
{
    pthread_mutex_unlock(&lock);
    shim_guard_leave(guard);
}

/* ---- entries ---- */

/* Creates the table unless it exists. With the lock held. False with errno if there is no memory. */
static bool create_table(void)
{
    if (fd_table)
        return true;
    void *memory = mmap(NULL, FD_TABLE_SIZE * sizeof(struct fd_entry), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    madvise(memory, FD_TABLE_SIZE * sizeof(struct fd_entry), MADV_NOHUGEPAGE);
    __atomic_store_n(&fd_table, memory, __ATOMIC_RELEASE);
    return true;
}

static void clear_entry(int fd)
{
    const bool is_context = fd_table[fd].kind == FD_CONTEXT;
    __atomic_store_n(&fd_table[fd].kind, FD_OTHER, __ATOMIC_RELEASE);
    if (is_context)
        arming_forget(fd);
}

/* With the lock held. 0, or -1 with EMFILE or ENOMEM. */
static int put_entry(int fd, const struct fd_entry *entry)
{
    if ((unsigned)fd >= FD_TABLE_SIZE) {
        errno = EMFILE;
        return -1;
    }
    if (!create_table())
        return -1;
    struct fd_entry *slot = fd_table + fd;
    clear_entry(fd);
    slot->record_bytes = entry->record_bytes; /* and is_inherited */
    slot->generation = entry->generation;
    slot->partner = entry->partner;
    slot->context = entry->context;
    slot->rdev = entry->rdev;
    if (fd > highest_fd)
        highest_fd = fd;
    __atomic_store_n(&slot->kind, entry->kind, __ATOMIC_RELEASE);
    return 0;
}

/* Whether `hidden` is the doorbell socket of the context `fd`. */
static bool is_doorbell_of(int hidden, int fd)
{
    return hidden >= 0 && fd_kind(hidden) == FD_HIDDEN && fd_table[hidden].partner == fd;
}

/*
 * fork copies the descriptors before the memory, so the child has the entry of a descriptor that another thread opened
 * in between, and not the descriptor. The child's next file of that number must not be taken for it.
 */
IN_CHILD static void clear_absent(void)
{
    for (int fd = 0; fd <= highest_fd; fd++)
        if (fd_kind(fd) != FD_OTHER && REAL(fcntl)(fd, F_GETFD) < 0)
            clear_entry(fd);
    for (int fd = 0; fd <= highest_fd; fd++)
        if (fd_kind(fd) == FD_CONTEXT && !is_doorbell_of(fd_table[fd].partner, fd))
            fd_table[fd].partner = -1;
}

IN_CHILD void fd_after_fork(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    lock = fresh;
    clear_absent();
}

static int lock_and_put_entry(int fd, const struct fd_entry *entry)
{
    struct shim_guard guard;
    lock_table(&guard);
    int result = put_entry(fd, entry);
    unlock_table(&guard);
    return result;
}

int fd_add(int fd, const struct fd_entry *entry)
{
    fd_opened(fd);
    return lock_and_put_entry(fd, entry);
}

int fd_add_event(int fd, enum fd_kind kind)
{
    const struct fd_entry entry = {.kind = kind};
    return fd_add(fd, &entry);
}

int fd_add_received(int fd, bool is_inherited)
{
    struct stat file = {0};
    is_inherited = is_inherited && REAL(fstat)(fd, &file) == 0;
    const struct fd_entry entry = {
        .kind = FD_RECEIVED, .is_inherited = is_inherited, .partner = -1, .context = (uint32_t)file.st_ino};
    return lock_and_put_entry(fd, &entry);
}

/* ---- hidden sockets ---- */

/* The first number of hidden sockets: HIDDEN_BASE, or 7/8 of the limit of descriptors if the limit is low. */
static int hidden_base(void)
{
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur > HIDDEN_BASE + HIDDEN_ROOM ? HIDDEN_BASE : (int)(limit.rlim_cur / 8 * 7);
}

/* A copy of `fd` from number hidden_base on. If all are in use, from half of hidden_base on. -1 with errno. */
static int copy_high(int fd, bool close_on_exec)
{
    const int command = close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD, base = hidden_base();
    const int copy = REAL(fcntl)(fd, command, base);
    return copy >= 0 ? copy : REAL(fcntl)(fd, command, base / 2);
}

int fd_hide(int fd, int owner, bool close_on_exec)
{
    struct shim_guard guard;
    lock_table(&guard);
    int hidden = copy_high(fd, close_on_exec);
    int saved = errno;
    REAL(close)(fd);
    const struct fd_entry entry = {.kind = FD_HIDDEN, .partner = owner};
    if (hidden >= 0 && put_entry(hidden, &entry) != 0) {
        saved = errno;
        REAL(close)(hidden);
        hidden = -1;
    }
    unlock_table(&guard);
    errno = saved;
    return hidden;
}

int fd_of_memory(const char *name, size_t bytes, void **memory)
{
    const int fd = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    *memory = MAP_FAILED;
    if (REAL(ftruncate)(fd, (off_t)bytes) == 0 &&
        REAL(fcntl)(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        *memory = REAL(mmap64)(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*memory != MAP_FAILED)
        return fd;
    REAL(close)(fd);
    return -1;
}

void fd_forget_hidden(int hidden)
{
    struct shim_guard guard;
    lock_table(&guard);
    if (fd_kind(hidden) == FD_HIDDEN)
        clear_entry(hidden);
    unlock_table(&guard);
}

/* With the locks of the session, of shared pages and of the table held. As fd_vacate. */
static bool vacate(int fd)
{
    struct fd_entry entry = fd_table[fd];
    const int flags = REAL(fcntl)(fd, F_GETFD);
    if (entry.kind != FD_HIDDEN)
        return false;
    const int moved = copy_high(fd, flags >= 0 && (flags & FD_CLOEXEC));
    clear_entry(fd);
    if (moved >= 0)
        put_entry(moved, &entry);
    if (entry.partner < 0) {
        session_moved(fd, moved);
        adopted_moved(fd, moved);
        waiting_moved(fd, moved);
    } else if (fd_kind(entry.partner) == FD_CONTEXT)
        __atomic_store_n(&fd_table[entry.partner].partner, moved, __ATOMIC_RELEASE);
    return true;
}

bool fd_vacate(int fd)
{
    if (fd_kind(fd) != FD_HIDDEN || shim_is_other_process())
        return false;
    struct shim_guard session_guard, guard;
    const int saved = errno;
    /* Threads with the session's lock use these numbers. */
    const bool is_locked = session_enter(&session_guard);
    adopted_before_fork();
    lock_table(&guard);
    const bool is_vacated = vacate(fd);
    unlock_table(&guard);
    adopted_after_fork();
    if (is_locked)
        session_leave(&session_guard);
    errno = saved;
    return is_vacated;
}

/*
 * The send timeout that marks a doorbell socket with the inode of its context's file. The daemon's marks have the same
 * microseconds, and more seconds (USERDMA_MARK_FIRST).
 */
static struct timeval mark_of(ino_t inode)
{
    return (struct timeval){.tv_sec = (time_t)(inode & 0x7fffffff) + 1, .tv_usec = USERDMA_MARK_MICROSECONDS};
}

void fd_mark(int hidden, ino_t inode)
{
    const struct timeval mark = mark_of(inode);
    early_syscall(SYS_setsockopt, hidden, SOL_SOCKET, SO_SNDTIMEO, (long)&mark, sizeof mark, 0);
}

bool fd_has_mark(int fd, ino_t inode)
{
    const struct timeval mark = mark_of(inode);
    struct timeval found = {0};
    socklen_t length = sizeof found;
    return fd_socket_option(fd, SO_SNDTIMEO, &found, &length) == 0 && found.tv_sec == mark.tv_sec &&
           found.tv_usec == mark.tv_usec;
}

/* Closes one inherited doorbell socket of the context with this inode. */
static void drop_inherited(ino_t inode)
{
    const int base = hidden_base();
    for (int fd = base; fd < base + HIDDEN_SEARCHED; fd++)
        if (fd_kind(fd) == FD_OTHER && fd_has_mark(fd, inode)) {
            REAL(close)(fd);
            return;
        }
}

/* ---- changes of the program's descriptors ---- */

/* Removes a descriptor of the program and its doorbell socket from the table. Returns the doorbell socket or -1. */
static int remove_entry(int fd)
{
    struct fd_entry entry = fd_table[fd];
    clear_entry(fd);
    if (entry.kind != FD_CONTEXT || entry.partner < 0)
        return -1;
    if (!is_doorbell_of(entry.partner, fd))
        return -1;
    clear_entry(entry.partner);
    return entry.partner;
}

int fd_of_context(uint32_t context, int first)
{
    for (int fd = first; fd <= highest_fd; fd++)
        if (fd_kind(fd) == FD_CONTEXT && fd_table[fd].context == context)
            return fd;
    return -1;
}

void fd_forget(int fd)
{
    if (fd_kind(fd) == FD_OTHER)
        return;
    int saved = errno;
    if (shim_is_other_process()) {
        /* Closes only our copy of the doorbell socket: the entry is the parent's. */
        if (fd_table[fd].kind == FD_CONTEXT && fd_table[fd].partner >= 0)
            REAL(close)(fd_table[fd].partner);
        errno = saved;
        return;
    }
    struct shim_guard guard;
    lock_table(&guard);
    /*
     * An inherited context that was never used: its inherited doorbell socket is not in the table. `fd` may already be
     * another file (dup2).
     */
    const bool has_inherited_doorbell = fd_table[fd].kind == FD_RECEIVED && fd_table[fd].is_inherited;
    const bool is_context = fd_table[fd].kind == FD_CONTEXT;
    const uint32_t inode = fd_table[fd].context, context = inode;
    int hidden = remove_entry(fd);
    unlock_table(&guard);
    if (is_context)
        adopted_close(context);
    if (hidden >= 0)
        REAL(close)(hidden);
    if (has_inherited_doorbell)
        drop_inherited(inode);
    errno = saved;
}

void fd_reused(int fd)
{
    if (shim_is_other_process())
        return;
    if (fd_kind(fd) != FD_HIDDEN) {
        fd_forget(fd);
        return;
    }
    struct shim_guard guard;
    lock_table(&guard);
    int owner = fd_table[fd].partner;
    clear_entry(fd);
    if (owner >= 0 && fd_kind(owner) == FD_CONTEXT && fd_table[owner].partner == fd)
        fd_table[owner].partner = -1;
    unlock_table(&guard);
}

void fd_copied(int old_fd, int new_fd, bool close_on_exec)
{
    if (fd_kind(old_fd) == FD_OTHER || fd_kind(old_fd) == FD_HIDDEN)
        return;
    struct shim_guard guard;
    int saved = errno;
    lock_table(&guard);
    struct fd_entry entry = fd_table[old_fd];
    int hidden = -1;
    if (entry.kind == FD_CONTEXT && entry.partner >= 0)
        hidden = copy_high(entry.partner, close_on_exec);
    if (!shim_is_other_process()) {
        entry.partner = hidden;
        if (entry.kind == FD_RECEIVED)
            entry.is_inherited = false;
        const struct fd_entry partner = {.kind = FD_HIDDEN, .partner = new_fd};
        if (put_entry(new_fd, &entry) == 0 && hidden >= 0)
            put_entry(hidden, &partner);
    }
    unlock_table(&guard);
    errno = saved;
}

void fd_set_close_on_exec(int fd, bool close_on_exec)
{
    int saved = errno;
    if (fd_kind(fd) == FD_CONTEXT && fd_table[fd].partner >= 0)
        REAL(fcntl)(fd_table[fd].partner, F_SETFD, close_on_exec ? FD_CLOEXEC : 0);
    errno = saved;
}

int fd_close_range(unsigned first, unsigned last, int flags)
{
    if (!fd_table || highest_fd < 0 || first > last)
        return REAL(close_range)(first, last, flags);
    /* Does the kernel accept the flags? The range has no descriptors. */
    if (REAL(close_range)(~0u, ~0u, flags) != 0)
        return -1;
    const unsigned last_fd = last < (unsigned)highest_fd ? last : (unsigned)highest_fd;
    for (unsigned fd = first; fd <= last_fd; fd++) {
        const int kind = fd_kind((int)fd);
        if (kind == FD_OTHER || kind == FD_HIDDEN)
            continue;
        if ((unsigned)flags & CLOSE_RANGE_CLOEXEC)
            fd_set_close_on_exec((int)fd, true);
        else
            fd_forget((int)fd);
    }
    /* The kernel closes the ranges between hidden sockets. */
    unsigned range_start = first;
    for (unsigned fd = first; fd <= last_fd; fd++) {
        if (fd_kind((int)fd) != FD_HIDDEN)
            continue;
        if (range_start < fd && REAL(close_range)(range_start, fd - 1, flags) != 0)
            return -1;
        range_start = fd + 1;
    }
    return range_start > last ? 0 : REAL(close_range)(range_start, last, flags);
}

void fd_close_from(unsigned first)
{
    const int saved = errno;
    if (fd_close_range(first, ~0u, 0) != 0) {
        /* The kernel lacks close_range(2), or a sandbox forbids it. */
        const unsigned end = (unsigned)highest_fd + 1;
        for (unsigned fd = first; fd < end; fd++)
            close((int)fd);
        REAL(closefrom)((int)(first > end ? first : end));
    }
    errno = saved;
}

bool path_of_fd(int fd, char *path, size_t size)
{
    const int saved = errno;
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const long length = early_syscall(SYS_readlinkat, AT_FDCWD, (long)link, (long)path, (long)size - 1, 0, 0);
    errno = saved;
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}
