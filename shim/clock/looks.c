/*
 * Whether all threads of all processes of the session sleep.
 *
 * /proc/PID/task/TID/syscall is the proof for one thread: the kernel writes a system call only of a thread that has
 * left its processor and was not woken since; else it writes "running". The state in /proc/PID/task/TID/stat tells a
 * stopped thread from one that waits; schedstat tells how often a thread has got a processor, and for how long. The
 * first look reads this of all threads; the second reads the system call and then this again. If nothing has changed,
 * the thread slept from the one to the other. So between the looks nobody ran who could have woken another.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum { MAX_THREADS = 8192 };
/* How far below its frame a wait of the C library may be. */
#define WAIT_STACK 65536

/* How much a thread has run so far. */
struct runs {
    char text[64];
};

struct thread {
    pid_t pid, tid;
    struct process *process;
    struct slot *slot; /* NULL: it has none */
    uint32_t sequence, acts; /* of the slot */
    struct runs runs;
};
static struct thread threads[MAX_THREADS];
static uint32_t thread_count;
/* It was not asleep at the last look: looked at first. */
static pid_t busy_pid, busy_tid;
static bool is_seen[MAX_SLOTS];
struct spinner clock_spinners[MAX_MEMBERS];
uint32_t clock_spinner_count;
int64_t clock_first_seen;

/* What keeps real time, and since when. */
static char kept_by[USERDMA_CLOCK_REASON_BYTES];
static int64_t kept_since;

void clock_count_kept(void)
{
    const int64_t now = clock_real(CLOCK_MONOTONIC);
    if (kept_by[0] != 0)
        for (uint32_t i = 0; i < MAX_REASONS; i++) {
            struct kept *const kept = &clock_page->kept[i];
            if (kept->text[0] == 0)
                memcpy(kept->text, kept_by, sizeof kept->text);
            if (strcmp(kept->text, kept_by) != 0)
                continue;
            kept->nanoseconds += now - kept_since;
            break;
        }
    kept_since = now;
}

void clock_keeps(const char *format, ...)
{
    clock_count_kept();
    kept_by[0] = 0;
    if (!format)
        return;
    va_list list;
    va_start(list, format);
    vsnprintf(kept_by, sizeof kept_by, format, list);
    va_end(list);
}

void clock_note(const char *format, ...)
{
    char text[REASON_BYTES];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    /* A program that ends notes too. One that was killed meanwhile has the last note. */
    for (int tries = 0; tries < 100 && __atomic_exchange_n(&clock_page->is_noting, 1, __ATOMIC_ACQUIRE) != 0; tries++)
        NEXT(clock_nanosleep)(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 10 * MICROSECOND}, NULL);
    const uint32_t count = clock_page->reasons;
    bool is_known = count >= MAX_REASONS;
    for (uint32_t i = 0; i < count && !is_known; i++)
        is_known = strcmp(clock_page->reason[i], text) == 0;
    if (!is_known) {
        memcpy(clock_page->reason[count], text, sizeof text);
        __atomic_store_n(&clock_page->reasons, count + 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&clock_page->is_noting, 0, __ATOMIC_RELEASE);
}

/* Reads a small file, and ends it with a 0; the length, or -1. */
static ssize_t read_file(const char *path, char *text, size_t size)
{
    const int fd = (int)NEXT(syscall)(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    const ssize_t length = NEXT(syscall)(SYS_read, fd, text, size - 1);
    NEXT(syscall)(SYS_close, fd);
    text[length > 0 ? length : 0] = 0;
    return length;
}

/* Files of a thread that each look reads. */
enum file {
    SCHEDSTAT,
    STAT,
    SYSCALL,
    FILES,
};

/*
 * Open ones, by the number of the thread: to open a file takes three times as long as to read it. Of a thread that has
 * ended they give nothing, also if another has its number now.
 */
enum { MAX_OPEN = 256 };
static struct files {
    pid_t pid, tid; /* 0: none */
    int fd[FILES]; /* -1: not open */
} files[MAX_OPEN];

/* How many threads may have open files: a sixteenth of the limit of this process for each kind. */
static uint32_t open_limit(void)
{
    static uint32_t limit;
    struct rlimit descriptors;
    if (limit == 0) {
        limit = 1;
        if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0 && descriptors.rlim_cur / 16 > limit)
            limit = descriptors.rlim_cur / 16 < MAX_OPEN ? (uint32_t)(descriptors.rlim_cur / 16) : MAX_OPEN;
    }
    return limit;
}

void clock_forget_files(void)
{
    memset(files, 0, sizeof files);
}

static struct files *files_of(pid_t pid, pid_t tid)
{
    struct files *const own = &files[(uint32_t)tid % open_limit()];
    if (own->pid == pid && own->tid == tid)
        return own;
    for (int file = 0; file < FILES; file++) {
        if (own->tid != 0 && own->fd[file] >= 0)
            NEXT(syscall)(SYS_close, own->fd[file]);
        own->fd[file] = -1;
    }
    own->pid = pid;
    own->tid = tid;
    return own;
}

/* As read_file(), of a thread. */
static ssize_t read_of(pid_t pid, pid_t tid, enum file file, char *text, size_t size)
{
    static const char *const names[] = {"schedstat", "stat", "syscall"};
    int *const fd = &files_of(pid, tid)->fd[file];
    for (bool is_new = false; !is_new;) {
        is_new = *fd < 0;
        if (is_new) {
            char path[64];
            snprintf(path, sizeof path, "/proc/%d/task/%d/%s", pid, tid, names[file]);
            *fd = (int)NEXT(syscall)(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
            if (*fd < 0)
                return -1;
        }
        const ssize_t length = NEXT(syscall)(SYS_pread64, *fd, text, size - 1, 0);
        text[length > 0 ? length : 0] = 0;
        if (length > 0)
            return length;
        const int saved = errno;
        NEXT(syscall)(SYS_close, *fd);
        *fd = -1;
        errno = saved;
    }
    return -1;
}

/* False: the thread is gone. */
static bool runs_of(pid_t pid, pid_t tid, struct runs *runs)
{
    char path[64], text[4096];
    memset(runs, 0, sizeof *runs);
    if (read_of(pid, tid, SCHEDSTAT, runs->text, sizeof runs->text) > 0 && runs->text[0] != '0')
        return true;
    /*
     * A kernel without this statistics has others, at the end of a longer file: how often the thread has left a
     * processor.
     */
    snprintf(path, sizeof path, "/proc/%d/task/%d/status", pid, tid);
    if (read_file(path, text, sizeof text) <= 0)
        return false;
    const char *const switches = strstr(text, "\nvoluntary_ctxt_switches:");
    if (switches)
        snprintf(runs->text, sizeof runs->text, "%s", switches + sizeof "\nvoluntary_ctxt_switches:");
    return true;
}

/* From the 2nd number of a `stat`, which ends with a name in brackets, to another; NULL: there is none. */
static const char *number_in(const char *stat, int number)
{
    const char *at = strrchr(stat, ')');
    for (int i = 2; at && i < number; i++)
        at = strchr(at + 1, ' ');
    return at;
}

/* The letter of a thread's state; 0: it is gone. `blocks`: whether it blocks any signal, of the first 31. */
static char state_of(pid_t pid, pid_t tid, bool *blocks)
{
    char text[512];
    *blocks = false;
    if (read_of(pid, tid, STAT, text, sizeof text) <= 0)
        return 0;
    const char *const state = number_in(text, 3), *const blocked = number_in(text, 32);
    *blocks = blocked && strtoull(blocked, NULL, 10) != 0;
    return state ? state[1] : 'R';
}

/* Whether a signal is in a mask of a thread's `status`; `name`: of its line. */
static bool is_in_mask(pid_t pid, pid_t tid, const char *name, uint32_t signal)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/task/%d/status", pid, tid);
    const char *const mask = read_file(path, text, sizeof text) > 0 ? strstr(text, name) : NULL;
    return mask && strtoull(mask + strlen(name), NULL, 16) >> (signal - 1) & 1;
}

/* Whether a thread blocks the signal that ends its waits, as only system calls around the C library can. */
static bool blocks_wakes(pid_t pid, pid_t tid)
{
    return is_in_mask(pid, tid, "\nSigBlk:", WAKE_SIGNAL);
}

bool clock_is_pending(pid_t pid, pid_t tid, uint32_t signal)
{
    return is_in_mask(pid, tid != 0 ? tid : pid, tid != 0 ? "\nSigPnd:" : "\nShdPnd:", signal);
}

bool clock_is_handled(pid_t pid, uint32_t signal)
{
    return is_in_mask(pid, pid, "\nSigCgt:", signal);
}

static bool is_gone(char state)
{
    return state == 0 || state == 'Z' || state == 'X';
}

bool clock_thread_is_gone(pid_t pid, pid_t tid)
{
    bool blocks;
    return is_gone(state_of(pid, tid, &blocks));
}

/* False: the thread runs, was woken, or waits outside of a system call. */
static bool call_of(pid_t pid, pid_t tid, struct call *call)
{
    char text[256];
    if (read_of(pid, tid, SYSCALL, text, sizeof text) <= 0) {
        if (errno == EACCES || errno == EPERM)
            clock_note("process %d, which must not be looked at", pid);
        return false;
    }
    char *at = text;
    call->number = strtol(at, &at, 10);
    if (at == text || call->number < 0)
        return false;
    for (int i = 0; i < 6; i++)
        call->arguments[i] = strtoull(at, &at, 16);
    call->stack = strtoull(at, &at, 16);
    return true;
}

enum kind {
    WORKS, /* its end needs no other thread */
    LIMITED,
    ENDLESS,
};

/* Whether a read or write of this descriptor waits for another process: not for a disk. */
static bool is_stream(pid_t pid, uint64_t fd)
{
    static const char *const kinds[] = {"socket:", "anon_inode:", "/dev/pts/", "/dev/ptmx", "/dev/tty", "/dev/console"};
    char path[64], target[64] = "";
    struct statx file;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, (int)fd);
    /* What the kernel knows: another process may serve the file system. */
    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &file) == 0 && S_ISFIFO(file.stx_mode))
        return true;
    if (readlink(path, target, sizeof target - 1) <= 0)
        return false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strncmp(target, kinds[i], strlen(kinds[i])) == 0)
            return true;
    return false;
}

static bool is_unix_socket(pid_t pid, int fd)
{
    const int socket = clock_take(pid, fd);
    int family = AF_UNSPEC;
    socklen_t size = sizeof family;
    if (socket < 0)
        return false;
    getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &family, &size);
    NEXT(syscall)(SYS_close, socket);
    return family == AF_UNIX;
}

bool clock_has_limit(pid_t pid, int fd, int option)
{
    const int socket = clock_take(pid, fd);
    struct timeval limit = {0};
    socklen_t size = sizeof limit;
    if (socket < 0)
        return clock_is_refused(errno);
    const bool has_limit = getsockopt(socket, SOL_SOCKET, option, &limit, &size) == 0 && (limit.tv_sec != 0 || limit.tv_usec != 0);
    NEXT(syscall)(SYS_close, socket);
    return has_limit;
}

/* Whether the thread opens a named pipe, and waits for the other end. */
static bool opens_pipe(pid_t pid, pid_t tid)
{
    static const char kernel_function[] = "wait_for_partner";
    char path[64], text[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/wchan", pid, tid);
    return read_file(path, text, sizeof text) > 0 && strncmp(text, kernel_function, sizeof kernel_function - 1) == 0;
}

static enum kind limit(bool has_limit)
{
    return has_limit ? LIMITED : ENDLESS;
}

/* A wait for a socket. */
static enum kind kind_of_socket(pid_t pid, uint64_t fd, int option)
{
    return limit(__atomic_load_n(&clock_page->has_limits, __ATOMIC_ACQUIRE) && clock_has_limit(pid, (int)fd, option));
}

static enum kind kind_of(const struct call *call, pid_t pid, pid_t tid)
{
    const uint64_t *const a = call->arguments;
    switch (call->number) {
    case SYS_futex:
        switch (a[1] & FUTEX_CMD_MASK) {
        case FUTEX_WAIT:
        case FUTEX_WAIT_BITSET:
        case FUTEX_LOCK_PI:
        case FUTEX_WAIT_REQUEUE_PI:
        case 13: /* FUTEX_LOCK_PI2 */
            return limit(a[3] != 0);
        default:
            return WORKS;
        }
    case 449: /* futex_waitv */
        return limit(a[3] != 0);
    case 426: /* io_uring_enter: its limit may be a request's */
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_restart_syscall:
        return LIMITED;
#ifdef SYS_poll
    case SYS_poll:
        return limit((int)a[2] >= 0);
    case SYS_select:
        return limit(a[4] != 0);
    case SYS_epoll_wait:
        return limit((int)a[3] >= 0);
    case SYS_pause:
        return ENDLESS;
    case SYS_open:
#endif
    case SYS_openat:
        return opens_pipe(pid, tid) ? ENDLESS : WORKS;
    case SYS_ppoll:
    case SYS_rt_sigtimedwait:
        return limit(a[2] != 0);
    case SYS_recvmmsg:
        return a[4] != 0 ? LIMITED : kind_of_socket(pid, a[0], SO_RCVTIMEO);
    case SYS_pselect6:
    case SYS_mq_timedreceive:
    case SYS_mq_timedsend:
        return limit(a[4] != 0);
    case SYS_epoll_pwait:
        return limit((int)a[3] >= 0);
    case 441: /* epoll_pwait2 */
    case SYS_semtimedop:
        return limit(a[3] != 0);
    case SYS_wait4:
    case SYS_waitid:
    case SYS_rt_sigsuspend:
    case SYS_flock:
    case SYS_semop:
    case SYS_msgrcv:
    case SYS_msgsnd:
        return ENDLESS;
    case SYS_fcntl:
        return (int)a[1] == F_SETLKW || (int)a[1] == 38 /* F_OFD_SETLKW */ ? ENDLESS : WORKS;
    case SYS_read:
    case SYS_readv:
    case SYS_preadv2:
        return is_stream(pid, a[0]) ? kind_of_socket(pid, a[0], SO_RCVTIMEO) : WORKS;
    case SYS_write:
    case SYS_writev:
    case SYS_pwritev2:
    case SYS_vmsplice:
        return is_stream(pid, a[0]) ? kind_of_socket(pid, a[0], SO_SNDTIMEO) : WORKS;
    case SYS_splice:
        return is_stream(pid, a[0]) && is_stream(pid, a[2]) ? ENDLESS : WORKS;
    case SYS_sendfile:
        return is_stream(pid, a[0]) ? kind_of_socket(pid, a[0], SO_SNDTIMEO) : WORKS;
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_accept:
    case SYS_accept4:
        return kind_of_socket(pid, a[0], SO_RCVTIMEO);
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
        return kind_of_socket(pid, a[0], SO_SNDTIMEO);
    case SYS_connect: /* of TCP: its segments are on their way */
        return is_unix_socket(pid, (int)a[0]) ? kind_of_socket(pid, a[0], SO_SNDTIMEO) : WORKS;
    default:
        return WORKS;
    }
}

bool clock_waits_without_limit(pid_t pid, pid_t tid)
{
    struct call call;
    bool blocks;
    return state_of(pid, tid, &blocks) == 'S' && call_of(pid, tid, &call) && kind_of(&call, pid, tid) == ENDLESS;
}

/* The slot of a thread. NULL: it has none. */
static struct slot *slot_of(pid_t pid, pid_t tid)
{
    const uint32_t used = clock_used_slots();
    for (uint32_t i = 0; i < used; i++) {
        struct slot *const slot = &clock_page->slots[i];
        if (slot->tid != (uint32_t)tid || slot->pid != (uint32_t)pid)
            continue;
        is_seen[i] = true;
        return slot;
    }
    return NULL;
}

bool clock_has_left_wait(const struct slot *slot)
{
    struct call call;
    return call_of((pid_t)slot->pid, (pid_t)slot->tid, &call) && call.stack > slot->frame && call.stack - slot->frame < STACK_BYTES;
}

/* Whether the thread is in the wait of its slot, which has not been ended. */
static bool is_in_wait(const struct slot *slot, const struct call *call)
{
    return __atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) == ASLEEP && call->stack <= slot->frame &&
           slot->frame - call->stack < WAIT_STACK;
}

struct process *clock_process_of(pid_t pid)
{
    for (uint32_t i = 0; i < clock_used_processes(); i++)
        if (clock_page->processes[i].pid == (uint32_t)pid)
            return &clock_page->processes[i];
    return NULL;
}

/* A daemon's main thread waits in its loop, whose timer is a timerfd; others work for it, or for V8. */
static bool daemon_waits(const struct call *call)
{
    return
#ifdef SYS_epoll_wait
        call->number == SYS_epoll_wait ||
#endif
        call->number == SYS_epoll_pwait || call->number == 441;
}

/* The first look at a thread. False: it has ended. */
static bool look_at(struct thread *thread, struct process *process, pid_t tid)
{
    const pid_t pid = (pid_t)process->pid;
    *thread = (struct thread){.pid = pid, .tid = tid, .process = process, .slot = slot_of(pid, tid)};
    if (thread->slot) {
        thread->sequence = __atomic_load_n(&thread->slot->sequence, __ATOMIC_ACQUIRE);
        thread->acts = __atomic_load_n(&clock_page->spins[thread->slot - clock_page->slots].acts, __ATOMIC_SEQ_CST);
    }
    return runs_of(pid, tid, &thread->runs);
}

/*
 * Whether a process that has ended has woken its parent. The kernel does so after its state has changed, under a lock
 * that each look takes before it begins: at the second look at most.
 */
static bool has_told_parent(struct process *process)
{
    const bool is_known = process->has_ended;
    process->has_ended = 1;
    return is_known;
}

/* Reads the name of a thread. */
static void name_of(pid_t pid, pid_t tid, char name[32])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/comm", pid, tid);
    name[0] = 0;
    read_file(path, name, 32);
    name[strcspn(name, "\n")] = 0;
}

/*
 * A wait with a time limit that the library does not know, such as that of a static program, or that cannot be ended.
 */
static void note_wait(const struct thread *thread, const struct call *call, bool is_blocked)
{
    char name[32];
    name_of(thread->pid, thread->pid, name);
    if (is_blocked)
        clock_note("a wait of %s, which blocks the C library's signals", name);
    else
        clock_note("a wait of %s (system call %ld)", name, call->number);
}

/* A call that is not known to wait, and does: for the disk of another machine, for example. */
#define LONG_CALL (200 * MILLISECOND)

static void note_long_call(const struct thread *thread, const struct call *call)
{
    static pid_t tid;
    static long number;
    static int64_t since;
    const int64_t now = clock_real(CLOCK_MONOTONIC);
    if (tid != thread->tid || number != call->number) {
        tid = thread->tid;
        number = call->number;
        since = now;
    } else if (now - since > LONG_CALL) {
        note_wait(thread, call, false);
    }
}

/* That this thread keeps real time. */
static void tell_kept(const struct thread *thread)
{
    char name[32];
    struct call call;
    bool blocks;
    const char state = state_of(thread->pid, thread->tid, &blocks);
    if (thread->process->is_daemon || thread->process->is_mover) {
        clock_keeps("the daemon works");
        return;
    }
    name_of(thread->pid, thread->tid, name);
    if (state == 'S' && call_of(thread->pid, thread->tid, &call) && kind_of(&call, thread->pid, thread->tid) != ENDLESS)
        clock_keeps("%s (process %d, thread %d) is in a wait that is not covered (system call %ld)", name, thread->pid,
                    thread->tid, call.number);
    else
        clock_keeps("%s (process %d, thread %d) %s", name, thread->pid, thread->tid,
                    state == 'T' || state == 't' ? "is stopped"
                    : state == 'D'               ? "waits for a disk or a page"
                                                 : "runs");
}

/* The second: whether it has slept since the first. */
static bool has_slept(const struct thread *thread)
{
    const struct slot *const slot = thread->slot;
    struct call call;
    bool blocks;
    const char state = state_of(thread->pid, thread->tid, &blocks);
    if (is_gone(state))
        return thread->tid != thread->pid || has_told_parent(thread->process);
    struct runs runs;
    if (state != 'S' || !call_of(thread->pid, thread->tid, &call) || !runs_of(thread->pid, thread->tid, &runs) ||
        strcmp(runs.text, thread->runs.text) != 0 || (slot && slot->sequence != thread->sequence))
        return false;
    if (thread->process->is_daemon)
        return thread->tid != thread->pid || daemon_waits(&call);
    const enum kind kind = kind_of(&call, thread->pid, thread->tid);
    const bool is_blocked = kind == LIMITED && blocks && blocks_wakes(thread->pid, thread->tid);
    const bool is_noted = !is_blocked && slot && is_in_wait(slot, &call);
    /* A thread that was new at the first look may have got its slot, and slept, while it was looked at. */
    if (kind == LIMITED && !slot && slot_of(thread->pid, thread->tid))
        return false;
    /* A thread of ThreadSanitizer, which looks after its memory. */
    if (blocks && !slot && call.number == SYS_nanosleep && is_in_mask(thread->pid, thread->tid, "\nSigBlk:", SIGTERM))
        return true;
    if (kind == LIMITED && !is_noted)
        note_wait(thread, &call, is_blocked);
    if (kind == WORKS && !thread->process->is_mover)
        note_long_call(thread, &call);
    if (is_noted && slot->deadline < clock_first_seen)
        clock_first_seen = slot->deadline;
    return kind == ENDLESS || (kind == LIMITED && is_noted);
}

/*
 * A thread that has spun in this time may do so, and wait for a processor: with ten programs on one, it waits for some
 * 30 ms.
 */
#define SPIN_TIME (100 * MILLISECOND)

/*
 * Whether a thread that runs spins: then it is one of clock_spinners. If it works too, time does not go on meanwhile.
 */
static bool is_spinning(const struct thread *thread)
{
    static uint64_t calls_before[MAX_SLOTS];
    static int64_t spun_at[MAX_SLOTS];
    if (!thread->slot)
        return false;
    const uint32_t slot = (uint32_t)(thread->slot - clock_page->slots);
    const uint64_t calls = __atomic_load_n(&clock_page->spins[slot].calls, __ATOMIC_ACQUIRE);
    const int64_t now = clock_real(CLOCK_MONOTONIC);
    if (calls != calls_before[slot])
        spun_at[slot] = now;
    calls_before[slot] = calls;
    if (spun_at[slot] == 0 || (now - spun_at[slot] > SPIN_TIME && !clock_is_member(slot)) ||
        clock_spinner_count == MAX_MEMBERS)
        return false;
    clock_spinners[clock_spinner_count++] = (struct spinner){.slot = slot, .acts = thread->acts};
    return true;
}

static enum rest is_busy(const struct thread *thread)
{
    busy_pid = thread->pid;
    busy_tid = thread->tid;
    tell_kept(thread);
    return RUNS;
}

bool clock_is_joined(const struct process *process)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%u/stat", process->pid);
    if (read_file(path, text, sizeof text) <= 0)
        return true;
    /* The 28th number, where the stack begins; 0 if this must not be known. */
    const char *const at = number_in(text, 28);
    const uint64_t stack = at ? strtoull(at, NULL, 10) : 0;
    return stack == 0 || stack == __atomic_load_n(&process->stack, __ATOMIC_ACQUIRE);
}

/* Adds the children of a thread whose process does not do this. True: there were new ones. */
static bool add_children(const struct process *process, pid_t tid)
{
    char path[64], text[4096];
    bool any = false;
    snprintf(path, sizeof path, "/proc/%u/task/%d/children", process->pid, tid);
    if (read_file(path, text, sizeof text) <= 0)
        return false;
    for (char *at = text, *end; strtol(at, &end, 10) > 0; at = end) {
        const pid_t child = (pid_t)strtol(at, NULL, 10);
        if (!clock_add_process(child, 0))
            continue;
        any = true;
        struct process *const added = clock_process_of(child);
        if (process->is_daemon && added)
            added->is_mover = 1;
    }
    return any;
}

/* The first look at all threads of a process, which is removed if it has ended. False: there is more to look at. */
static bool look_at_process(struct process *process, pid_t keeper)
{
    const pid_t pid = (pid_t)process->pid;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *const folder = opendir(path);
    if (!folder) {
        if (errno != ENOENT && errno != ESRCH)
            return false;
        clock_remove_process(process);
        return true;
    }
    bool all = true;
    const bool has_children = process->is_daemon || !clock_is_joined(process);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const pid_t tid = atoi(entry->d_name);
        if (tid <= 0 || tid == keeper)
            continue;
        if (thread_count == MAX_THREADS) {
            clock_note("more than %d threads", MAX_THREADS);
            all = false;
            break;
        }
        if (look_at(&threads[thread_count], process, tid))
            thread_count++;
        /* Movers are children of the daemon's main thread. */
        if (has_children && (!process->is_daemon || tid == pid) && add_children(process, tid))
            all = false;
    }
    closedir(folder);
    return all;
}

/* Slots of threads that have ended without saying so, by a signal. */
static void free_unseen(void)
{
    for (uint32_t i = 0; i < clock_used_slots(); i++) {
        struct slot *const slot = &clock_page->slots[i];
        const struct slot seen = {.owner = __atomic_load_n(&slot->owner, __ATOMIC_ACQUIRE)};
        if (seen.tid != 0 && !is_seen[i] && clock_thread_is_gone((pid_t)seen.pid, (pid_t)seen.tid))
            clock_free_slot(slot, seen.owner);
    }
}

enum rest clock_look(pid_t keeper)
{
    const uint32_t lacks = __atomic_load_n(&clock_page->lacks, __ATOMIC_ACQUIRE);
    if (lacks == LACKS_PROCESSES)
        clock_note("more than %d processes", MAX_PROCESSES);
    if (lacks == LACKS_TIMERS)
        clock_note("more than %d timers: nothing is skipped from then on", MAX_TIMERS);
    if (lacks != 0)
        return RUNS;
    if (__atomic_load_n(&clock_page->has_filter, __ATOMIC_ACQUIRE))
        clock_note("a process with a seccomp filter of its own");
    if (__atomic_load_n(&clock_page->is_foreign, __ATOMIC_ACQUIRE)) {
        clock_note("a process in a PID namespace of its own: nothing is skipped from its start on");
        return RUNS;
    }
    if (busy_pid != 0) {
        struct thread busy;
        struct process *const process = clock_process_of(busy_pid);
        clock_spinner_count = 0;
        if (process && look_at(&busy, process, busy_tid) && !has_slept(&busy) && !is_spinning(&busy))
            return RUNS;
        busy_pid = 0;
    }
    thread_count = 0;
    clock_spinner_count = 0;
    clock_first_seen = NEVER;
    kill(-getpgrp(), 0); /* no signal: it takes the lock */
    memset(is_seen, 0, sizeof is_seen);
    for (uint32_t i = 0; i < clock_used_processes(); i++)
        if (clock_page->processes[i].pid != 0 && !look_at_process(&clock_page->processes[i], keeper))
            return RUNS;
    for (uint32_t i = 0; i < thread_count; i++)
        if (!has_slept(&threads[i]) && !is_spinning(&threads[i]))
            return is_busy(&threads[i]);
    free_unseen();
    return clock_spinner_count == 0 ? SLEEPS : SPINS;
}

static bool has_spun(const struct thread *thread)
{
    for (uint32_t i = 0; i < clock_spinner_count; i++)
        if (thread->slot == &clock_page->slots[clock_spinners[i].slot])
            return true;
    return false;
}

uint64_t clock_runs(bool all)
{
    uint64_t hash = 14695981039346656037u;
    for (uint32_t i = 0; i < thread_count; i++) {
        if ((!all && (threads[i].process->is_daemon || threads[i].process->is_mover)) || has_spun(&threads[i]))
            continue;
        for (const char *at = threads[i].runs.text; *at; at++)
            hash = (hash ^ (uint8_t)*at) * 1099511628211u;
    }
    return hash;
}

uint32_t clock_stuck(void)
{
    uint32_t stuck = 0;
    for (uint32_t i = 0; i < thread_count; i++) {
        struct call call;
        if (threads[i].process->is_daemon || threads[i].process->is_mover ||
            !call_of(threads[i].pid, threads[i].tid, &call))
            continue;
        const uint32_t one = clock_outside(threads[i].pid, &call);
        stuck = stuck == 0 || one < stuck ? one : stuck;
    }
    return stuck;
}

static struct runs noted[MAX_PROCESSES];

void clock_note_daemons(void)
{
    for (uint32_t i = 0; i < clock_used_processes(); i++)
        if (clock_page->processes[i].is_daemon)
            runs_of((pid_t)clock_page->processes[i].pid, (pid_t)clock_page->processes[i].pid, &noted[i]);
}

bool clock_daemon_is_done(const struct process *process)
{
    const pid_t pid = (pid_t)process->pid;
    struct runs runs;
    struct call call;
    if (!runs_of(pid, pid, &runs))
        return true;
    return strcmp(runs.text, noted[process - clock_page->processes].text) != 0 && call_of(pid, pid, &call) &&
           daemon_waits(&call);
}
