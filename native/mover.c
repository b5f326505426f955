/*
 * Movers: processes that share the daemon's memory and make system calls that may have to wait for a program, such as
 * copies from and to the program's memory. So a mover waits, and not the daemon, for the program's mmap lock, for its
 * exec, or for a page that never comes (a file system that does not answer, userfaultfd).
 *
 * A thread is not enough. Only a fatal signal ends the wait for such a page, and a fatal signal ends all threads of a
 * process. Once a file system has accepted the request for the page, not even a fatal signal ends the wait, and the
 * process never ends.
 * A mover (clone(2) with CLONE_VM only) can be killed separately. A mover that cannot die keeps the address space, but
 * no descriptors except those that it uses: it has its own table of descriptors. If the last close of descriptors may
 * take long, a closer copies the table, the daemon closes its descriptors, and the closer is killed: the kernel first
 * releases its address space and its table, and then closes the files that nobody else has.
 *
 * A mover copies through its own buffer, so an abandoned mover that wakes up later changes nothing else. It shares our
 * thread-local storage, so it makes raw system calls, which do not set errno.
 *
 * Called from one thread only, by src/host/memory/mover.ts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    STACK_BYTES = 16384,
    BUFFER_BYTES = 1 << 18,
    YIELDS = 64, /* sched_yield before a futex wait */
    LONG_YIELD_US = 500, /* other threads compete for the processor */
    NO_YIELD_US = 100000, /* then no yields for so long: who sleeps runs soon after it is woken */
    MAX_EXTENSIONS = 20, /* of the time limit of a mover that is running or runnable */
    MAX_ABANDONED = 8, /* movers of one user that cannot die */
    FROZEN_PAUSE_US = 20, /* between attempts to write to a frozen page */
    MAX_KEPT_FDS = 2,
    MAX_FDS = 1 << 20, /* closed one by one where the kernel has no close_range */
    ALL_FDS = -2, /* in place of a descriptor that is kept: of a closer */
};

struct mover {
    uint32_t is_busy; /* a futex word: 1 from the daemon's call until the mover has answered */
    int32_t kept_fds[MAX_KEPT_FDS]; /* descriptors that the mover keeps, or -1; the first ALL_FDS: all, a closer */
    long number, arguments[6]; /* the system call */
    struct iovec local_part, remote_part; /* of a copy */
    int64_t result; /* of the system call, or -errno */
    uint64_t waited_us; /* microseconds of calls that slept, since the last userdma_mover_waited */
    pid_t pid, parent; /* the mover's process and the daemon's */
    int64_t user; /* the owner of the moved memory; -1: not counted for a user */
    int32_t is_abandoned; /* it may not be able to die */
    struct mover *next; /* in the list `killed` */
    uint8_t stack[STACK_BYTES] __attribute__((aligned(64)));
    uint8_t own_buffer[BUFFER_BYTES] __attribute__((aligned(4096)));
};

#if defined(__x86_64__)
static inline long raw_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long raw_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "mover.c knows x86-64 and arm64"
#endif

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* How often the calling process has slept. Preemption does not count. */
static long voluntary_switches(void)
{
    struct rusage usage;
    raw_syscall(SYS_getrusage, RUSAGE_THREAD, (long)&usage, 0, 0, 0, 0);
    return usage.ru_nvcsw;
}

static int64_t microseconds(void)
{
    struct timespec time;
    raw_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&time, 0, 0, 0, 0);
    return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

/*
 * Waits a little while for *word not to be `value`, and lets others run meanwhile; whether it is not. Whoever yields
 * while others compete for the processor waits for a time slice of each of them: longer than for a wake-up.
 * `yield_from`: of the calling process, in microseconds.
 */
static int yield_while(const uint32_t *word, uint32_t value, int64_t *yield_from)
{
    int64_t now = microseconds();
    for (int yields = 0; yields < YIELDS && now >= *yield_from; yields++) {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
            return 1;
        raw_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
        const int64_t after = microseconds();
        if (after - now > LONG_YIELD_US)
            *yield_from = after + NO_YIELD_US;
        now = after;
    }
    return __atomic_load_n(word, __ATOMIC_ACQUIRE) != value;
}

/* Closes the caller's descriptors from `first` to `end` - 1; one by one before Linux 5.9. */
static void close_between(unsigned first, unsigned end)
{
    struct rlimit limit = {0};
    if (raw_syscall(SYS_close_range, first, end - 1, 0, 0, 0, 0) == 0)
        return;
    raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit, 0, 0);
    for (unsigned fd = first; fd < end && fd < limit.rlim_cur && fd < MAX_FDS; fd++)
        raw_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* Closes all of the caller's descriptors except these, range by range from the highest down. -1: none. */
static void close_all_but(const int32_t kept_fds[MAX_KEPT_FDS])
{
    unsigned end = ~0u;
    while (end > 0) {
        int highest = -1; /* kept descriptor below `end` */
        for (int i = 0; i < MAX_KEPT_FDS; i++)
            if (kept_fds[i] > highest && (unsigned)kept_fds[i] < end)
                highest = kept_fds[i];
        const unsigned first = (unsigned)(highest + 1);
        if (first < end)
            close_between(first, end);
        end = highest < 0 ? 0 : (unsigned)highest;
    }
}

/* The mover's process: makes the system calls that the daemon stores in `argument`, until the daemon ends. */
static int serve(void *argument)
{
    struct mover *m = argument;
    raw_syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    raw_syscall(SYS_prctl, PR_SET_NAME, (long)"userdma-mover", 0, 0, 0, 0);
    if (m->kept_fds[0] != ALL_FDS)
        close_all_but(m->kept_fds);
    int64_t yield_from = 0;
    while (raw_syscall(SYS_getppid, 0, 0, 0, 0, 0, 0) == m->parent) {
        if (!yield_while(&m->is_busy, 0, &yield_from))
            while (__atomic_load_n(&m->is_busy, __ATOMIC_ACQUIRE) == 0)
                raw_syscall(SYS_futex, (long)&m->is_busy, FUTEX_WAIT, 0, 0, 0, 0);
        const long switches = voluntary_switches();
        const int64_t begin = microseconds();
        const long *const a = m->arguments;
        m->result = raw_syscall(m->number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (voluntary_switches() != switches)
            m->waited_us += (uint64_t)(microseconds() - begin);
        __atomic_store_n(&m->is_busy, 0, __ATOMIC_RELEASE);
        raw_syscall(SYS_futex, (long)&m->is_busy, FUTEX_WAKE, 1, 0, 0, 0);
    }
    return 0;
}

/* Killed movers whose memory is not freed yet, linked by `next`. */
static struct mover *killed;

/* Frees the memory of killed movers that have died since. */
static void reap(void)
{
    for (struct mover **at = &killed; *at;) {
        struct mover *m = *at;
        if (waitpid(m->pid, NULL, __WCLONE | WNOHANG) == 0) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        munmap(m, sizeof *m);
    }
}

/*
 * Starts a mover that keeps our descriptors `first` and `second` (-1: none), or, if `first` is ALL_FDS, a closer, which
 * makes no calls: its end makes the last closes of descriptors that we have closed meanwhile. Returns the mover or
 * -errno: -ETIMEDOUT if MAX_ABANDONED movers of this user cannot die. `user` -1: without this limit.
 */
EXPORT int64_t userdma_mover_start(int first, int second, int64_t user)
{
    int stuck = 0;
    reap();
    for (const struct mover *m = killed; m; m = m->next)
        stuck += m->is_abandoned && m->user == user;
    if (user >= 0 && stuck >= MAX_ABANDONED)
        return -ETIMEDOUT;
    struct mover *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        return -errno;
    m->kept_fds[0] = first;
    m->kept_fds[1] = second;
    m->user = user;
    m->parent = getpid();
    /* The mover starts with all signals blocked: signals to our process group must not run our handlers in it. */
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    m->pid = clone(serve, m->stack + STACK_BYTES, CLONE_VM, m);
    const int error = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (m->pid >= 0)
        return (int64_t)(uintptr_t)m;
    munmap(m, sizeof *m);
    return -error;
}

/* Kills a mover. `is_abandoned`: the mover may not be able to die. Until it has died, it counts for MAX_ABANDONED. */
EXPORT void userdma_mover_end(struct mover *m, int is_abandoned)
{
    m->is_abandoned = is_abandoned;
    kill(m->pid, SIGKILL);
    m->next = killed;
    killed = m;
    reap();
}

/* How many closers of a user have been killed, and have not ended yet. */
EXPORT int userdma_closers_ending(int64_t user)
{
    int ending = 0;
    reap();
    for (const struct mover *m = killed; m; m = m->next)
        ending += m->kept_fds[0] == ALL_FDS && m->user == user;
    return ending;
}

/* Microseconds of the mover's calls that have slept, since the last call of this function. */
EXPORT uint64_t userdma_mover_waited(struct mover *m)
{
    const uint64_t waited_us = m->waited_us;
    m->waited_us = 0;
    return waited_us;
}

/* Whether the mover is running or runnable. */
static int is_running(const struct mover *m)
{
    char path[32], text[128];
    snprintf(path, sizeof path, "/proc/%d/stat", m->pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    const ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return 0;
    text[length] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] && name_end[2] == 'R';
}

/*
 * Waits for the answer. Returns 0, -ETIMEDOUT after `timeout_us` microseconds, or -ECHILD if the mover has ended. While
 * the mover runs or waits for the processor, the time is extended, up to MAX_EXTENSIONS times.
 */
static int64_t await_answer(struct mover *m, uint64_t timeout_us)
{
    static int64_t yield_from;
    if (yield_while(&m->is_busy, 1, &yield_from))
        return 0;
    uint64_t due = (uint64_t)microseconds() + timeout_us;
    for (int extensions = 0; __atomic_load_n(&m->is_busy, __ATOMIC_ACQUIRE);) {
        const uint64_t now = (uint64_t)microseconds();
        if (now >= due) {
            siginfo_t gone = {0};
            if (waitid(P_PID, (id_t)m->pid, &gone, WEXITED | WNOHANG | WNOWAIT | __WCLONE) < 0 || gone.si_pid != 0)
                return -ECHILD;
            if (!is_running(m) || extensions++ == MAX_EXTENSIONS)
                return __atomic_load_n(&m->is_busy, __ATOMIC_ACQUIRE) ? -ETIMEDOUT : 0;
            due = now + timeout_us;
        }
        const uint64_t wait_us = due - now;
        const struct timespec limit = {(time_t)(wait_us / 1000000), (long)(wait_us % 1000000) * 1000};
        syscall(SYS_futex, &m->is_busy, FUTEX_WAIT, 1, &limit, NULL, 0);
    }
    return 0;
}

/* Makes a system call in the mover. Returns the result or -errno; -ETIMEDOUT and -ECHILD as await_answer. */
static int64_t call(struct mover *m, uint64_t timeout_us, long number, long a, long b, long c, long d, long e, long f)
{
    m->number = number;
    memcpy(m->arguments, (const long[]){a, b, c, d, e, f}, sizeof m->arguments);
    __atomic_store_n(&m->is_busy, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &m->is_busy, FUTEX_WAKE, 1, NULL, NULL, 0);
    const int64_t error = await_answer(m, timeout_us);
    return error ? error : m->result;
}

/* Lets other processes run; counted as the mover's waiting time. */
static void pause_for(struct mover *m, long pause_us)
{
    const int64_t begin = microseconds();
    const struct timespec time = {0, pause_us * 1000};
    nanosleep(&time, NULL);
    m->waited_us += (uint64_t)(microseconds() - begin);
}

/* In native.c. */
void userdma_copy(uint8_t *to, uint64_t to_stride, const uint8_t *from, uint64_t from_stride, uint64_t chunk,
                  uint64_t total);

/*
 * Copies `total` bytes, at least one, between `remote` in a program and our memory: chunks of `chunk` bytes, `stride`
 * bytes apart, the first at `local`. `is_write`: to the program. `pid` -1: `remote` is an offset in file `fd`, a
 * descriptor of the mover. Each system call copies at most BUFFER_BYTES, and may wait `timeout_us` microseconds for a
 * page. `is_frozen`: a page may permit no writes for a moment (docs/decisions/adopted-pages.md), so a write to it is
 * tried for `timeout_us`. Returns
 *
 *   the number of bytes copied; fewer than `total` if a later page does not permit the access
 *   -errno if the first page does not permit the access
 *   -ETIMEDOUT, whatever was copied: the mover must be ended
 *   -ECHILD, whatever was copied: the mover has ended
 *   -EINVAL if chunks with gaps are longer than BUFFER_BYTES
 */
EXPORT int64_t userdma_mover_move(struct mover *m, int is_write, int pid, int fd, uint64_t remote, uint8_t *local,
                                  uint64_t chunk, uint64_t stride, uint64_t total, uint64_t timeout_us, int is_frozen)
{
    const int64_t due = microseconds() + (int64_t)timeout_us;
    const int is_contiguous = stride == chunk || total <= chunk;
    if (is_contiguous)
        chunk = stride = total < BUFFER_BYTES ? total : BUFFER_BYTES;
    if (chunk > BUFFER_BYTES)
        return -EINVAL;
    const uint64_t max_bytes = BUFFER_BYTES / chunk * chunk;
    int64_t done = 0;
    while ((uint64_t)done < total) {
        const uint64_t remaining = total - (uint64_t)done;
        const uint64_t bytes = remaining < max_bytes ? remaining : max_bytes;
        uint8_t *const local_chunks = local + (uint64_t)done / chunk * stride;
        if (is_write)
            userdma_copy(m->own_buffer, chunk, local_chunks, stride, chunk, bytes);
        const long remote_address = (long)(remote + (uint64_t)done);
        m->local_part = (struct iovec){m->own_buffer, bytes};
        m->remote_part = (struct iovec){(void *)remote_address, bytes};
        int64_t moved;
        if (pid < 0)
            moved = call(m, timeout_us, is_write ? SYS_pwrite64 : SYS_pread64, fd, (long)m->own_buffer, (long)bytes,
                         remote_address, 0, 0);
        else
            moved = call(m, timeout_us, is_write ? SYS_process_vm_writev : SYS_process_vm_readv, pid,
                         (long)&m->local_part, 1, (long)&m->remote_part, 1, 0);
        if (moved == -ETIMEDOUT || moved == -ECHILD)
            return moved;
        const int is_fault = moved == -EFAULT || moved == -EIO || (moved > 0 && (uint64_t)moved < bytes);
        if (is_fault && is_frozen && microseconds() < due) {
            if (moved > 0)
                done += moved / (int64_t)chunk * (int64_t)chunk;
            pause_for(m, FROZEN_PAUSE_US);
            continue;
        }
        if (moved <= 0)
            return done > 0 ? done : moved;
        if (!is_write)
            userdma_copy(local_chunks, stride, m->own_buffer, chunk, chunk, (uint64_t)moved);
        done += moved;
        if ((uint64_t)moved < bytes)
            return done;
    }
    return done;
}

/* Operations of userdma_mover_call, as in src/host/memory/mover.ts. */
enum { OPEN, IOCTL, READ, PIDFD_GETFD, SEALS, STAT };

/*
 * Makes one of these system calls in the mover. The buffer is copied to the mover before, and back after a success.
 * Returns the system call's result or -errno: the kernel's, -ETIMEDOUT, -ECHILD, or -EINVAL if `length` is too large.
 *
 *   OPEN         the path in the buffer, with flags `value`: a descriptor of the mover
 *   IOCTL        of `fd`, request `value` with the buffer
 *   READ         from `fd` at offset `value` into the buffer
 *   PIDFD_GETFD  descriptor `value` of the process of pidfd `fd`: a descriptor of the mover
 *   SEALS        the seals of the memory file `fd`
 *   STAT         statx(2) of `fd` with mask `value` into the buffer
 */
EXPORT int64_t userdma_mover_call(struct mover *m, int operation, int fd, int64_t value, uint8_t *buffer,
                                  uint64_t length, uint64_t timeout_us)
{
    const long address = (long)m->own_buffer, empty_path = address + (long)length;
    if (length >= BUFFER_BYTES)
        return -EINVAL;
    if (length)
        memcpy(m->own_buffer, buffer, length);
    m->own_buffer[length] = 0; /* ends the path of OPEN, and is the empty path of STAT */
    const int64_t answer =
        operation == OPEN          ? call(m, timeout_us, SYS_openat, AT_FDCWD, address, (long)value, 0, 0, 0)
        : operation == IOCTL       ? call(m, timeout_us, SYS_ioctl, fd, (long)value, address, 0, 0, 0)
        : operation == READ        ? call(m, timeout_us, SYS_pread64, fd, address, (long)length, (long)value, 0, 0)
        : operation == PIDFD_GETFD ? call(m, timeout_us, SYS_pidfd_getfd, fd, (long)value, 0, 0, 0, 0)
        : operation == SEALS       ? call(m, timeout_us, SYS_fcntl, fd, F_GET_SEALS, 0, 0, 0, 0)
        : operation == STAT
            ? call(m, timeout_us, SYS_statx, fd, empty_path, AT_EMPTY_PATH, (long)value, address, 0)
                                   : -EINVAL;
    if (answer >= 0 && length)
        memcpy(buffer, m->own_buffer, length);
    return answer;
}

/* In a mover's buffer. */
struct receiving {
    struct msghdr message;
    struct iovec part;
    union {
        struct cmsghdr header;
        uint8_t bytes[CMSG_SPACE(253 * sizeof(int))]; /* Linux's SCM_MAX_FD */
    } control;
    uint8_t body[];
};

/*
 * Receives a message from socket `fd` of the mover, without waiting. Returns the length or -errno as `call`; -EMSGSIZE
 * if the message or its descriptors are truncated. Passed descriptors become the mover's. `passed` gets their count, at
 * most `max_fds`, then their numbers, also with -EMSGSIZE. Further descriptors stay open until the mover ends.
 */
EXPORT int64_t userdma_mover_receive(struct mover *m, int fd, uint8_t *buffer, uint64_t length, int32_t *passed,
                                     int32_t max_fds, uint64_t timeout_us)
{
    struct receiving *const r = (void *)m->own_buffer;
    if (length > BUFFER_BYTES - sizeof *r)
        return -EINVAL;
    memset(r, 0, sizeof *r);
    r->part = (struct iovec){r->body, length};
    r->message = (struct msghdr){
        .msg_iov = &r->part, .msg_iovlen = 1, .msg_control = &r->control, .msg_controllen = sizeof r->control};
    const int64_t answer =
        call(m, timeout_us, SYS_recvmsg, fd, (long)&r->message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, 0, 0, 0);
    if (answer < 0)
        return answer;
    passed[0] = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&r->message); c; c = CMSG_NXTHDR(&r->message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof *passed;
        for (size_t i = 0; i < count && passed[0] < max_fds; i++)
            memcpy(&passed[++passed[0]], CMSG_DATA(c) + i * sizeof *passed, sizeof *passed);
    }
    if (r->message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return -EMSGSIZE;
    memcpy(buffer, r->body, (size_t)answer);
    return answer;
}

/* Copies a descriptor of the mover into our process. Returns the number or -errno. */
EXPORT int64_t userdma_mover_take(struct mover *m, int fd)
{
    const int pidfd = (int)syscall(SYS_pidfd_open, m->pid, 0);
    if (pidfd < 0)
        return -errno;
    const int64_t copy = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    const int error = errno;
    close(pidfd);
    return copy < 0 ? -error : copy;
}
