/*
 * A clock that skips, for `--clock skip` (docs/decisions/clock-that-skips.md): all processes of a session and their
 * daemon, or the daemons of a net, share a page. The time of each is the machine's, plus the offset in the page.
 *
 * page.c      the page; who takes part, and what its threads wait for
 * readers.c   reads of clocks
 * sleeps.c    waits with a time limit; locks.c: those of threads for each other; calls.c: those by syscall(2)
 * counter.c   who reads the processor's counter
 * spin.c      polls, reads of clocks and waits of no time, which let the clock run while nothing else does
 * timers.c    timerfd, timer_create, setitimer and alarm
 * starts.c    processes that a program starts
 * keeper.c    a thread of the daemon, or of the player of a net, which lets the clock jump; looks.c: whether everything
 *             sleeps; network.c: whether anything is in flight; outside.c: whether a wait can end by itself
 */
#pragma once
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "../protocol.h"

/*
 * The signal that ends a wait. It is one of the C library's own, so that no program has a handler for it or blocks it
 * with the library's functions. The library's handler ignores it unless the process itself has sent it.
 */
#define WAKE_SIGNAL 33

/* The C library's own for timers that start a thread, and for pthread_cancel: programs cannot have a handler for it. */
#define NOTICE_SIGNAL 32

#define EXPORT __attribute__((visibility("default")))
/* What is farther away is on another stack, as of signal handlers. */
#define STACK_BYTES (8u << 20)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define SECOND 1000000000ll
#define MILLISECOND 1000000ll
#define MICROSECOND 1000ll
/* A wait without limit. */
#define NEVER INT64_MAX
/* A wait of a year or more counts as one without limit. */
#define LONGEST_WAIT (365 * 86400 * SECOND)

enum {
    MAX_PROCESSES = 1024,
    MAX_SLOTS = 4096, /* threads that wait with a limit */
    MAX_TIMERS = 16384,
    MAX_MEMBERS = 64, /* threads that spin at the same time */
    MAX_REASONS = USERDMA_CLOCK_MAX_REASONS,
    REASON_BYTES = USERDMA_CLOCK_REASON_BYTES,
};

/* Of a slot. */
enum {
    AWAKE,
    ASLEEP,
    WAKING, /* the keeper is about to interrupt the wait */
    WOKEN, /* the keeper has interrupted the wait: its time is over */
};

/* What one thread waits for. Times are of the skipping CLOCK_MONOTONIC, in nanoseconds. */
struct slot {
    union {
        struct {
            uint32_t tid; /* 0: free */
            uint32_t pid;
        };
        uint64_t owner; /* both: they change at once */
    };
    uint32_t state;
    uint32_t sequence; /* grows with each wait */
    int64_t deadline;
    int64_t offset; /* the clock's when the wait began */
    uint64_t frame; /* the stack pointer is below, while it waits */
    uint64_t reserved;
    /* What the C library waits until, in the machine's time. The keeper sets it to the past. */
    struct timespec until;
};

/* What the keeper may do with a process, once it is known. */
enum {
    MAY_WAKE = 1,
    MAY_TAKE = 2, /* its descriptors */
};

/* pid: 0 is free. */
struct process {
    uint32_t pid;
    uint32_t has_ended; /* the keeper has seen it */
    uint32_t is_mover; /* a daemon's (native/mover.c), or a successor of the keeper */
    uint32_t is_daemon;
    uint32_t may; /* the keeper's */
    uint64_t stack; /* clock_add_process() */
};

enum {
    TIMER_FREE,
    TIMER_NEW, /* being filled in */
    TIMER_FD, /* a timerfd: the kernel's timer is set again after a jump */
    TIMER_SIGNAL, /* the keeper sends its signal */
};

#define NOBODY UINT32_MAX

struct timer {
    uint32_t kind;
    uint32_t pid; /* NOBODY: the process that has set the timerfd has ended */
    int32_t id; /* the descriptor, or the timer's number in its process */
    uint32_t clock; /* of a timerfd. CLOCK_BOOTTIME: if it is a daemon's, it looks what programs wait for */
    int64_t deadline; /* NEVER: not set */
    int64_t interval; /* 0: once */
    int64_t offset; /* of a timerfd: the clock's when it was set */
    uint32_t signal; /* 0: none */
    uint32_t tid; /* the thread that gets the signal; 0: the process */
    int32_t code; /* si_code */
    uint32_t overruns;
    uint64_t value; /* si_value */
    uint32_t is_shared; /* a timerfd that another process has set too */
    uint32_t is_sent; /* its signal, and since then the signal was pending at each look */
};

/* Of a grant: a number, which grows by GRANT_NEXT, and flags. */
enum {
    GRANT_IS_MADE = 1,
    GRANT_IS_READY = 2, /* time may be added */
    GRANT_NEXT = 4,
};

enum {
    LACKS_PROCESSES = 1,
    LACKS_TIMERS,
};

/* Time that threads may add by spinning (spin.c). */
struct grant {
    uint32_t state;
    uint32_t members;
    int64_t until; /* of the skipping CLOCK_MONOTONIC, or NEVER */
    int64_t offset; /* the clock's when it was made */
    struct member {
        uint32_t slot;
        uint32_t reserved;
        uint64_t calls; /* when it was made */
    } member[MAX_MEMBERS];
} __attribute__((aligned(64)));

/* What the thread of a slot has done; the numbers go on with the slot's next thread. */
struct spins {
    uint64_t calls; /* without result */
    uint32_t acts; /* that may have woken another thread */
} __attribute__((aligned(64)));

/* The head of the page is ClockPage in src/spec/clock-page.ts. */
struct page {
    uint32_t magic;
    uint32_t keeper; /* the process of the keeper; before it begins, an ancestor */
    int64_t offset; /* nanoseconds that were skipped */
    uint64_t jumps;
    int64_t begin; /* of the machine's CLOCK_MONOTONIC */
    uint32_t reasons; /* used */
    uint32_t word; /* a futex: grows when the keeper should look */
    uint32_t slots_used, timers_used, processes_used;
    uint32_t lacks; /* LACKS_PROCESSES, LACKS_TIMERS: there are more than the page has places for */
    uint32_t has_tcp; /* a process has made a TCP socket */
    uint32_t is_foreign; /* a process has another PID namespace than the daemon */
    uint32_t stuck;
    uint32_t spins_not; /* spinning is working: --no-clock-spin */
    int64_t jumped; /* nanoseconds that were skipped by jumps, not by spinning */
    char reason[MAX_REASONS][REASON_BYTES];
    struct kept {
        int64_t nanoseconds;
        char text[REASON_BYTES];
    } kept[MAX_REASONS]; /* what has kept real time, and how long */
    uint32_t tells_counters; /* counter.c */
    uint32_t is_noting; /* clock_note() */
    uint64_t namespace; /* of the keeper's PIDs */
    int64_t wall; /* CLOCK_REALTIME less CLOCK_MONOTONIC when the clock began, and from then on */
    uint32_t has_filter; /* a process has got a seccomp filter of its own */
    uint32_t daemon_acts; /* how often loops of daemons have woken */
    uint32_t has_limits; /* a socket has got a time limit */
    struct grant grant;
    struct process processes[MAX_PROCESSES];
    struct timer timers[MAX_TIMERS];
    struct slot slots[MAX_SLOTS];
    struct spins spins[MAX_SLOTS];
};

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* NULL: the clock is the machine's. */
extern struct page *clock_page;
/* The waits of this process have deadlines: it is no daemon. */
extern bool clock_sleeps;

/* How many places of the page were used. A program may have written anything there. */
static inline uint32_t clock_at_most(const uint32_t *used, uint32_t limit)
{
    const uint32_t count = __atomic_load_n(used, __ATOMIC_ACQUIRE);
    return count < limit ? count : limit;
}
static inline uint32_t clock_used_slots(void)
{
    return clock_at_most(&clock_page->slots_used, MAX_SLOTS);
}
static inline uint32_t clock_used_timers(void)
{
    return clock_at_most(&clock_page->timers_used, MAX_TIMERS);
}
static inline uint32_t clock_used_processes(void)
{
    return clock_at_most(&clock_page->processes_used, MAX_PROCESSES);
}

/* The next library's function; `name` without its version. */
void *clock_next(const char *name);
/* Declares next_NAME(): the next library's function of that name. */
#define NEXT(name)                                                                                                     \
    ({                                                                                                                 \
        static __typeof__(&name) next_##name;                                                                          \
        if (UNLIKELY(!__atomic_load_n(&next_##name, __ATOMIC_RELAXED)))                                                \
            __atomic_store_n(&next_##name, (__typeof__(&name))clock_next(#name), __ATOMIC_RELAXED);                    \
        next_##name;                                                                                                   \
    })

static inline int64_t to_nanoseconds(const struct timespec *time)
{
    if (time->tv_sec >= LONGEST_WAIT / SECOND * 100)
        return NEVER / 4;
    return time->tv_sec * SECOND + time->tv_nsec;
}

static inline struct timespec to_timespec(int64_t nanoseconds)
{
    if (nanoseconds < 0)
        return (struct timespec){.tv_nsec = 1};
    return (struct timespec){.tv_sec = nanoseconds / SECOND, .tv_nsec = nanoseconds % SECOND};
}

static inline bool is_valid(const struct timespec *time)
{
    return time && time->tv_sec >= 0 && time->tv_nsec >= 0 && time->tv_nsec < SECOND;
}

/* Whether jumps move this clock: CPU clocks are the machine's. */
bool clock_is_moved(clockid_t clock);
/* The machine's time. */
int64_t clock_real(clockid_t clock);
static inline int64_t clock_offset(void)
{
    return __atomic_load_n(&clock_page->offset, __ATOMIC_ACQUIRE);
}
/* The time that the program sees. Its wall clocks go on when the machine's are set. */
int64_t clock_now(clockid_t clock);
/* The machine's time at the program's time `time`, both of `clock`. */
int64_t clock_to_real(clockid_t clock, int64_t time);
/* The deadline, on CLOCK_MONOTONIC, of a time of `clock`, not before now, and of a wait of so long. */
int64_t clock_deadline(clockid_t clock, int64_t time);
static inline int64_t clock_after(int64_t nanoseconds)
{
    return nanoseconds >= LONGEST_WAIT ? NEVER : clock_now(CLOCK_MONOTONIC) + (nanoseconds > 0 ? nanoseconds : 0);
}

/* How often a periodic timer has ended whose end is past; `left`: until that end, then until the next one. */
static inline uint64_t clock_pass_ends(int64_t *left, int64_t interval)
{
    const int64_t passed = -*left / interval + 1;
    *left += passed * interval;
    return (uint64_t)passed;
}

/* A wait of the calling thread. */
struct wait {
    struct slot *slot; /* NULL: it is not noted */
    struct slot outer; /* of the wait that a signal handler has interrupted, which waits too */
    int64_t deadline;
    bool is_over; /* the keeper has ended the wait: its time is over */
};

/* Before a wait until `deadline`; `frame`: of the caller. False: the clock is the machine's. */
bool clock_wait_begins(struct wait *wait, int64_t deadline, void *frame);
/* After it. Returns `is_over`. errno stays. */
bool clock_wait_ends(struct wait *wait);
#define BEGINS(wait, deadline) clock_wait_begins(wait, deadline, __builtin_frame_address(0))

/*
 * Adds a process of the session. `stack`: where that of its first thread begins, if it loads this library, which is
 * another place after an exec; else 0. False: it is known.
 */
bool clock_add_process(pid_t pid, uint64_t stack);
extern void *__libc_stack_end;
/* Of this process, and of its forks. */
#define CLOCK_STACK ((uint64_t)(uintptr_t)__libc_stack_end)
/* Removes a process that has ended, with its timers; nothing if it has not. */
void clock_remove_process(struct process *process);
/* In the child of a fork: timers are not inherited. */
void clock_on_fork(void);
/* From now on waits of this process are the machine's: a filter may forbid what they need. */
void clock_leave_for_filter(void);
/* The PID namespace of this process. */
uint64_t clock_namespace(void);
/* Frees a slot of this owner, whose thread is gone; nothing if another thread has it meanwhile. */
void clock_free_slot(struct slot *slot, uint64_t owner);
/*
 * Before a wait without limit of the calling thread, whose caller has the frame `frame`: forgets a wait that it has
 * left by siglongjmp(3).
 */
void clock_forget_left_wait(void *frame);
/* Whether the thread waits above the wait of its slot, which it has left so. */
bool clock_has_left_wait(const struct slot *slot);
/* The index of the calling thread's slot. False: it has none. */
bool clock_own_slot(uint32_t *index);
/* The `acts` of the calling thread; NULL: it has no slot. */
uint32_t *clock_own_acts(void);
/*
 * After a call that gave nothing, and that a loop makes until something happens. True: nothing else runs, and the clock
 * runs by such calls.
 */
bool userdma_clock_spins(void);
/* After a read of a clock: so too, if the thread polls, or has done nothing else for long. */
void clock_reads(void);
/* After what may have woken another thread, and when one has woken. */
void clock_acts(void);
/* A daemon's loop has waited. */
void clock_daemon_wakes(void);
/* The keeper should look soon. */
void clock_tell_keeper(void);
/* Adds the children of this process, which need not load this library. */
void clock_add_children(void);

/* ---- the keeper's ---- */

/* What keeps real time from now on; NULL: nothing. */
void clock_count_kept(void); /* until now */
void clock_keeps(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Adds a line to the report, once. */
void clock_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
enum rest {
    RUNS,
    SPINS, /* all threads wait, and will until time passes, but those that spin */
    SLEEPS, /* all threads do */
};
/* A thread that spins, at a look. */
struct spinner {
    uint32_t slot, acts;
};
extern struct spinner clock_spinners[MAX_MEMBERS];
extern uint32_t clock_spinner_count;
/*
 * A number that changes when any thread of a program that does not spin has run between two looks; `all`: of a daemon
 * too.
 */
uint64_t clock_runs(bool all);
/* The earliest deadline of a wait that the last look has seen. */
extern int64_t clock_first_seen;
/* What all threads of all processes do. `keeper`: the thread that asks. After SPINS, who does is in clock_spinners. */
enum rest clock_look(pid_t keeper);
/* Whether any thread has spun since the last question. */
bool clock_anyone_spins(void);
bool clock_is_member(uint32_t slot);
/* Lets the threads of clock_spinners add time until then, unless one has acted since the look, or the daemon has. */
void clock_make_grant(const struct spinner *spinners, uint32_t count, uint32_t daemon_acts, int64_t until);
void clock_end_grant(void);
/* Whether a process, in the image that it has now, loads this library. */
bool clock_is_joined(const struct process *process);
/*
 * Whether a socket of another process has the time limit `option`, SO_RCVTIMEO or SO_SNDTIMEO, or it must not be known.
 */
bool clock_has_limit(pid_t pid, int fd, int option);
/* Whether the thread is in a wait without limit. */
bool clock_waits_without_limit(pid_t pid, pid_t tid);
/* Whether a signal waits for a process; `tid`: for this thread, if it is not 0. */
bool clock_is_pending(pid_t pid, pid_t tid, uint32_t signal);
/* Whether a process has a handler for a signal. */
bool clock_is_handled(pid_t pid, uint32_t signal);
/* Whether the thread has ended. */
bool clock_thread_is_gone(pid_t pid, pid_t tid);
/* The calling process has none of the open files that others know of. */
void clock_forget_files(void);
/* Maps the page at `path`; NULL after a failure. */
struct page *clock_map_page(const char *path);
/* The place of a process in the page; NULL: it has none. */
struct process *clock_process_of(pid_t pid);
/* How much all daemons have run so far. */
void clock_note_daemons(void);
/* Whether the main thread of this daemon has run since then, and waits. */
bool clock_daemon_is_done(const struct process *process);
/* As timer_create(), for an event SIGEV_THREAD, which becomes the signal of the timer. */
int clock_create_notice(clockid_t clock, struct sigevent *event, timer_t *timer);
/* Before timer_delete(). */
void clock_remove_notice(timer_t timer);

/* What a thread does in the kernel. */
struct call {
    long number;
    uint64_t arguments[6], stack;
};
/* What may end the wait of a thread: a value of `stuck` in the page. */
uint32_t clock_outside(pid_t pid, const struct call *call);

/* What the kernel tells of a timerfd. */
struct timerfd {
    int clock;
    unsigned long long ticks; /* 0: there is nothing to read; else it need not be the number that is read */
    int64_t left; /* 0: it is not set, or there is something to read */
    int64_t interval;
};
/* False: it is no timerfd. */
bool clock_read_timerfd(pid_t pid, int fd, struct timerfd *read);
/*
 * A timerfd that its process has closed may have a copy, there or in another process: finds it by when it ends, by the
 * machine's time, and makes it the timer's. False: there is none.
 */
bool clock_find_timerfd(struct timer *timer, int64_t end);
/* The least of all threads of programs, which all sleep. */
uint32_t clock_stuck(void);
/*
 * Whether anything can be on its way that no thread waits for in the kernel: on links with queues, by TCP, to a disk.
 */
bool clock_has_ways(void);
/* A copy of a descriptor of another process; -1: there is none, or errno says what forbids it (clock_is_refused()). */
int clock_take(pid_t pid, int fd);
/* Whether an error of a system call says that it is forbidden here, as by a container's filter. */
static inline bool clock_is_refused(int error)
{
    return error == EPERM || error == EACCES || error == ENOSYS;
}
/* Whether nothing is on its way between processes of the session. */
bool clock_network_is_quiet(void);

_Static_assert(offsetof(struct page, offset) == USERDMA_CLOCK_OFFSET && offsetof(struct page, jumps) == USERDMA_CLOCK_JUMPS &&
                   offsetof(struct page, begin) == USERDMA_CLOCK_BEGIN &&
                   offsetof(struct page, reasons) == USERDMA_CLOCK_REASONS &&
                   offsetof(struct page, stuck) == USERDMA_CLOCK_STUCK &&
                   offsetof(struct page, jumped) == USERDMA_CLOCK_JUMPED &&
                   offsetof(struct page, reason) == USERDMA_CLOCK_FIRST_REASON &&
                   offsetof(struct page, kept) == USERDMA_CLOCK_FIRST_KEPT &&
                   sizeof(struct kept) == USERDMA_CLOCK_KEPT_BYTES &&
                   offsetof(struct page, tells_counters) == USERDMA_CLOCK_TELLS_COUNTERS,
               "layout of the page");
