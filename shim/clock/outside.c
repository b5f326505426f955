/*
 * Whether a wait without limit can end by something outside of the session: a terminal, a process of another session, a
 * signal. Else, when everything waits, it is a deadlock.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* Descriptors of a wait that are looked at; one with more counts as a wait for the outside. */
#define MAX_FDS 1024
/* Of epoll within epoll. */
#define MAX_DEPTH 5

static uint32_t lower(uint32_t one, uint32_t other)
{
    return one < other ? one : other;
}

static bool begins_with(const char *text, const char *begin)
{
    return strncmp(text, begin, strlen(begin)) == 0;
}

/* False: it is gone. */
static bool target_of(pid_t pid, int fd, char *target, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    const ssize_t length = readlink(path, target, size - 1);
    target[length > 0 ? length : 0] = 0;
    return length > 0;
}

/* Calls `act` with each descriptor of the session's programs until it is true. `of`: the daemon's too. */
static bool any_descriptor(bool (*act)(pid_t pid, int fd, const char *target, const void *of), const void *of, bool is_daemons)
{
    for (uint32_t i = 0; i < clock_used_processes(); i++) {
        const uint32_t pid = clock_page->processes[i].pid;
        char path[64], target[64];
        snprintf(path, sizeof path, "/proc/%u/fd", pid);
        DIR *const folder = pid == 0 || (clock_page->processes[i].is_daemon && !is_daemons) ? NULL : opendir(path);
        bool found = false;
        for (const struct dirent *entry; folder && !found && (entry = readdir(folder)) != NULL;)
            if (entry->d_name[0] != '.' && target_of((pid_t)pid, atoi(entry->d_name), target, sizeof target))
                found = act((pid_t)pid, atoi(entry->d_name), target, of);
        if (folder)
            closedir(folder);
        if (found)
            return true;
    }
    return false;
}

/* What the kernel tells of a descriptor, in lines; NULL: it is gone. */
static FILE *information_of(pid_t pid, int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", pid, fd);
    return fopen(path, "re");
}

/* The flags of open(2); -1: unknown. */
static int flags_of(pid_t pid, int fd)
{
    char text[256];
    FILE *const file = information_of(pid, fd);
    int flags = -1;
    while (file && fgets(text, sizeof text, file))
        if (begins_with(text, "flags:"))
            flags = (int)strtol(text + 6, NULL, 8);
    if (file)
        fclose(file);
    return flags;
}

bool clock_read_timerfd(pid_t pid, int fd, struct timerfd *read)
{
    char text[256];
    long long left[2] = {0}, interval[2] = {0};
    FILE *const file = information_of(pid, fd);
    bool is_timer = false;
    *read = (struct timerfd){0};
    while (file && fgets(text, sizeof text, file)) {
        is_timer = sscanf(text, "clockid: %d", &read->clock) == 1 || is_timer;
        sscanf(text, "ticks: %llu", &read->ticks);
        sscanf(text, "it_value: (%lld, %lld)", &left[0], &left[1]);
        sscanf(text, "it_interval: (%lld, %lld)", &interval[0], &interval[1]);
    }
    if (file)
        fclose(file);
    read->left = left[0] * SECOND + left[1];
    read->interval = interval[0] * SECOND + interval[1];
    return is_timer;
}

/* Whether a timerfd is set. A timer that the session has noted is a deadline; others end by themselves too. */
static bool is_set(pid_t pid, int fd)
{
    struct timerfd timer;
    return clock_read_timerfd(pid, fd, &timer) && timer.left != 0;
}

struct pipe_end {
    const char *target;
    int mode;
    pid_t except; /* a process whose descriptors do not count; 0: all count */
};

static bool is_other_end(pid_t pid, int fd, const char *target, const void *of)
{
    const struct pipe_end *const end = of;
    if (pid == end->except || strcmp(target, end->target) != 0)
        return false;
    const int flags = flags_of(pid, fd);
    return flags >= 0 && ((flags & O_ACCMODE) == O_RDWR || (flags & O_ACCMODE) != end->mode);
}

static bool is_peer(pid_t pid, int fd, const char *target, const void *of)
{
    if (!begins_with(target, "socket:"))
        return false;
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof own;
    const int taken = clock_take(pid, fd);
    const bool is_same = taken >= 0 && getsockname(taken, (struct sockaddr *)&own, &size) == 0 &&
                         (own.ss_family == AF_INET || own.ss_family == AF_INET6) && memcmp(&own, of, size) == 0;
    if (taken >= 0)
        close(taken);
    return is_same;
}

struct lost {
    struct timer *timer;
    int64_t end; /* the machine's time */
};

/* How long after the kernel's timer its process may have read the time that it noted. */
#define NOTE_TIME (50 * MILLISECOND)

/* Whether a timer with so much left, which was read between two times, ends at another. */
static bool ends_at(int64_t end, int64_t left, int64_t begun, int64_t read)
{
    return left == 0 ? end <= read + NOTE_TIME : left + begun <= end + NOTE_TIME && left + read >= end - NOTE_TIME;
}

static bool is_lost(pid_t pid, int fd, const char *target, const void *of)
{
    const struct lost *const lost = of;
    struct timerfd found;
    const int64_t begun = clock_real(CLOCK_MONOTONIC);
    if (strcmp(target, "anon_inode:[timerfd]") != 0 || !clock_read_timerfd(pid, fd, &found) ||
        found.interval != lost->timer->interval || !ends_at(lost->end, found.left, begun, clock_real(CLOCK_MONOTONIC)))
        return false;
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        const struct timer *const other = &clock_page->timers[i];
        if (other->kind == TIMER_FD && other->pid == (uint32_t)pid && other->id == fd && other != lost->timer)
            return false;
    }
    lost->timer->pid = (uint32_t)pid;
    lost->timer->id = fd;
    return true;
}

bool clock_find_timerfd(struct timer *timer, int64_t end)
{
    const struct lost lost = {timer, end};
    return any_descriptor(is_lost, &lost, false);
}

static bool is_of_session(uint32_t pid)
{
    for (uint32_t i = 0; i < clock_used_processes(); i++)
        if (pid != 0 && clock_page->processes[i].pid == pid)
            return true;
    return false;
}

/*
 * Whether a handler of this process ends its wait for itself, by a pipe, when somebody ends the program. Signals that
 * runtimes handle for themselves do not count.
 */
static bool handles_end(pid_t pid)
{
    return clock_is_handled(pid, SIGTERM) || clock_is_handled(pid, SIGHUP);
}

static uint32_t outside_of_socket(pid_t pid, int fd)
{
    int family = 0, type = 0, listens = 0;
    socklen_t size = sizeof family;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    if (listens)
        return USERDMA_CLOCK_WORLD;
    if (family == AF_UNIX) {
        struct ucred peer = {0};
        socklen_t peer_size = sizeof peer;
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size);
        return is_of_session((uint32_t)peer.pid) && !(peer.pid == pid && handles_end(pid)) ? USERDMA_CLOCK_NOTHING
                                                                                         : USERDMA_CLOCK_WORLD;
    }
    struct sockaddr_storage peer = {0};
    socklen_t peer_size = sizeof peer;
    if (type != SOCK_STREAM || getpeername(fd, (struct sockaddr *)&peer, &peer_size) != 0)
        return USERDMA_CLOCK_WORLD;
    return any_descriptor(is_peer, &peer, false) ? USERDMA_CLOCK_NOTHING : USERDMA_CLOCK_WORLD;
}

static uint32_t outside_of_fd(pid_t pid, int fd, int depth);

static uint32_t outside_of_epoll(pid_t pid, int fd, int depth)
{
    char text[256];
    uint32_t found = USERDMA_CLOCK_NOTHING;
    FILE *const file = information_of(pid, fd);
    while (file && fgets(text, sizeof text, file))
        if (begins_with(text, "tfd:"))
            found = lower(found, outside_of_fd(pid, atoi(text + 4), depth + 1));
    if (file)
        fclose(file);
    return file ? found : USERDMA_CLOCK_WORLD;
}

static uint32_t outside_of_fd(pid_t pid, int fd, int depth)
{
    char target[64];
    if (depth > MAX_DEPTH || !target_of(pid, fd, target, sizeof target))
        return USERDMA_CLOCK_WORLD;
    if (begins_with(target, "/dev/pts/") || begins_with(target, "/dev/tty") || begins_with(target, "/dev/console"))
        return USERDMA_CLOCK_TERMINAL;
    if (begins_with(target, "pipe:")) {
        struct pipe_end end = {.target = target, .mode = flags_of(pid, fd) & O_ACCMODE};
        end.except = handles_end(pid) ? pid : 0;
        return any_descriptor(is_other_end, &end, true) ? USERDMA_CLOCK_NOTHING : USERDMA_CLOCK_WORLD;
    }
    if (strcmp(target, "anon_inode:[eventpoll]") == 0)
        return outside_of_epoll(pid, fd, depth);
    if (strcmp(target, "anon_inode:[timerfd]") == 0)
        return is_set(pid, fd) ? USERDMA_CLOCK_TERMINAL : USERDMA_CLOCK_NOTHING;
    if (strcmp(target, "anon_inode:[eventfd]") == 0)
        return USERDMA_CLOCK_NOTHING;
    const int socket = begins_with(target, "socket:") ? clock_take(pid, fd) : -1;
    const uint32_t found = socket >= 0 ? outside_of_socket(pid, socket) : USERDMA_CLOCK_WORLD;
    if (socket >= 0)
        close(socket);
    return found;
}

static uint32_t outside_of_poll(pid_t pid, uint64_t address, uint64_t count)
{
    static struct pollfd fds[MAX_FDS];
    const struct iovec here = {fds, count * sizeof *fds}, there = {(void *)(uintptr_t)address, count * sizeof *fds};
    /* Without descriptors only a signal ends it. */
    if (count == 0 || count > MAX_FDS || process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)here.iov_len)
        return USERDMA_CLOCK_WORLD;
    uint32_t found = USERDMA_CLOCK_NOTHING;
    for (uint64_t i = 0; i < count; i++)
        if (fds[i].fd >= 0)
            found = lower(found, outside_of_fd(pid, fds[i].fd, 0));
    return found;
}

static uint32_t outside_of_select(pid_t pid, const uint64_t *arguments)
{
    const uint64_t count = arguments[0];
    uint64_t sets[3][MAX_FDS / 64] = {{0}};
    if (count == 0 || count > MAX_FDS)
        return USERDMA_CLOCK_WORLD;
    for (int i = 0; i < 3; i++) {
        const size_t size = (count + 63) / 64 * 8;
        const struct iovec here = {sets[i], size}, there = {(void *)(uintptr_t)arguments[1 + i], size};
        if (arguments[1 + i] && process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)size)
            return USERDMA_CLOCK_WORLD;
    }
    uint32_t found = USERDMA_CLOCK_NOTHING;
    for (uint64_t fd = 0; fd < count; fd++)
        if ((sets[0][fd / 64] | sets[1][fd / 64] | sets[2][fd / 64]) >> (fd % 64) & 1)
            found = lower(found, outside_of_fd(pid, (int)fd, 0));
    return found;
}

/*
 * Whether an address is in memory that a process of another session may map: of a file that has a name, or with a key
 * of System V.
 */
static bool is_in_named_memory(pid_t pid, uint64_t address)
{
    char path[64], text[512], shared;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *const file = fopen(path, "re");
    bool found = false;
    while (file && fgets(text, sizeof text, file)) {
        unsigned long long start, end;
        int name = 0;
        if (sscanf(text, "%llx-%llx %*c%*c%*c%c %*s %*s %*s %n", &start, &end, &shared, &name) < 3 || address >= end)
            continue;
        const bool has_key = begins_with(text + name, "/SYSV") && !begins_with(text + name, "/SYSV00000000");
        found = address >= start && shared == 's' && text[name] == '/' && (has_key || !strstr(text + name, " (deleted)"));
        break;
    }
    if (file)
        fclose(file);
    return found;
}

/* Whether a thread waits for no signal but that of timers that start a thread, which are deadlines. */
static bool waits_for_timers(pid_t pid, uint64_t address)
{
    uint64_t signals = 0;
    const struct iovec here = {&signals, sizeof signals}, there = {(void *)(uintptr_t)address, sizeof signals};
    return process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof signals && signals == UINT64_C(1) << (NOTICE_SIGNAL - 1);
}

uint32_t clock_outside(pid_t pid, const struct call *call)
{
    const uint64_t *const a = call->arguments;
    switch (call->number) {
    case SYS_futex:
        return !(a[1] & FUTEX_PRIVATE_FLAG) && is_in_named_memory(pid, a[0]) ? USERDMA_CLOCK_WORLD : USERDMA_CLOCK_NOTHING;
    case 449: /* futex_waitv */
    case SYS_wait4:
    case SYS_waitid:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_restart_syscall:
        return USERDMA_CLOCK_NOTHING;
#ifdef SYS_poll
    case SYS_poll:
        return outside_of_poll(pid, a[0], a[1]);
    case SYS_select:
        return outside_of_select(pid, a);
    case SYS_epoll_wait:
#endif
    case SYS_epoll_pwait:
    case 441: /* epoll_pwait2 */
        return outside_of_epoll(pid, (int)a[0], 0);
    case SYS_ppoll:
        return outside_of_poll(pid, a[0], a[1]);
    case SYS_pselect6:
        return outside_of_select(pid, a);
    case SYS_read:
    case SYS_readv:
    case SYS_preadv2:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_accept:
    case SYS_accept4:
        return clock_has_limit(pid, (int)a[0], SO_RCVTIMEO) ? USERDMA_CLOCK_TERMINAL : outside_of_fd(pid, (int)a[0], 0);
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
    case SYS_pwritev2:
    case SYS_vmsplice:
        return clock_has_limit(pid, (int)a[0], SO_SNDTIMEO) ? USERDMA_CLOCK_TERMINAL : outside_of_fd(pid, (int)a[0], 0);
    case SYS_rt_sigtimedwait:
        return waits_for_timers(pid, a[0]) ? USERDMA_CLOCK_NOTHING : USERDMA_CLOCK_WORLD;
    default: /* a signal, a lock of a file, a message of System V */
        return USERDMA_CLOCK_WORLD;
    }
}
