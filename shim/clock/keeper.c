/*
 * The keeper: a thread of the daemon, or of the player of a net, that lets the clock jump to the earliest deadline when
 * everything sleeps, and ends the waits whose time is over. It looks while there is a deadline: soon after a jump, and
 * rarely while programs work, which pay nothing. A successor goes on with timers when the keeper's process has ended.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Between looks: after a jump, and at most with a deadline and without. */
#define SHORTEST_NAP (50 * MICROSECOND)
#define LONGEST_NAP (2 * MILLISECOND)
#define IDLE_NAP (10 * MILLISECOND)
/* A shorter time passes by itself. */
#define SHORTEST_JUMP (100 * MICROSECOND)
/* A thread that was woken and does not run is woken again. */
#define WAKE_AGAIN (2 * MILLISECOND)
/* How long programs wait for the daemons that had a deadline at the same time. */
#define DAEMON_TIME (20 * MILLISECOND)

static pid_t keeper;
/* Daemons that had a deadline at the last jump, and have not slept since; whether there are any. */
static bool is_due[MAX_PROCESSES], any_is_due;
static int64_t jump_at, woken_at;

/* Jumps since any thread of a program has run, and what clock_runs() was then. */
static unsigned idle_jumps;
static uint64_t idle_runs;
/*
 * After so many, timers of daemons that look for what programs wait for are no deadlines: a wait is known after two
 * looks.
 */
#define LOOKS 3

static int64_t now_real(void)
{
    return clock_real(CLOCK_MONOTONIC);
}

/* ---- ending waits ---- */

static bool change(struct slot *slot, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(&slot->state, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/*
 * Sends a thread the signal that ends its wait, or none (0). 0, or an error. The C library's handler ignores the signal
 * by its code, or by its sender if that is another process.
 */
static int send_wake(uint32_t pid, uint32_t tid, int signal)
{
    siginfo_t info = {.si_signo = signal, .si_code = SI_QUEUE};
    info.si_pid = getpid();
    info.si_uid = getuid();
    if (NEXT(syscall)(SYS_rt_tgsigqueueinfo, pid, tid, signal, &info) == 0)
        return 0;
    if (!clock_is_refused(errno) || pid == (uint32_t)getpid())
        return errno;
    return NEXT(syscall)(SYS_tgkill, pid, tid, signal) == 0 ? 0 : errno;
}

/*
 * Ends a wait that is in the state `from`, if its time is over: since the caller looked, its thread may have begun
 * another. While the state is WAKING, the thread does not leave the wait.
 */
static void wake(struct slot *slot, uint32_t from)
{
    const uint64_t owner = slot->owner;
    if (!change(slot, from, WAKING))
        return;
    if (slot->deadline > clock_now(CLOCK_MONOTONIC)) {
        change(slot, WAKING, from);
        return;
    }
    slot->until = (struct timespec){.tv_nsec = 1};
    const int error = send_wake(slot->pid, slot->tid, WAKE_SIGNAL);
    woken_at = now_real();
    if (error == ESRCH)
        clock_free_slot(slot, owner);
    change(slot, WAKING, WOKEN);
    NEXT(syscall)(SYS_futex, &slot->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Ends the waits until `now` that a jump has shortened, in the order of their deadlines. */
static void end_waits(int64_t now)
{
    for (int64_t last = INT64_MIN;;) {
        int64_t next = NEVER;
        for (uint32_t i = 0; i < clock_used_slots(); i++) {
            const struct slot *const slot = &clock_page->slots[i];
            if (slot->tid != 0 && slot->state == ASLEEP && slot->deadline > last && slot->deadline < next)
                next = slot->deadline;
        }
        if (next > now)
            return;
        for (uint32_t i = 0; i < clock_used_slots(); i++) {
            struct slot *const slot = &clock_page->slots[i];
            if (slot->tid == 0 || slot->state != ASLEEP || slot->deadline != next)
                continue;
            const struct slot seen = {.owner = slot->owner};
            if (clock_thread_is_gone((pid_t)seen.pid, (pid_t)seen.tid))
                clock_free_slot(slot, seen.owner);
            else if (clock_has_left_wait(slot))
                change(slot, ASLEEP, AWAKE);
            else if (slot->offset != clock_page->offset)
                wake(slot, ASLEEP);
        }
        last = next;
    }
}

/*
 * Threads that were woken, and do not run yet. Not those that a signal of the program has interrupted, whose handler
 * waits.
 */
static bool is_anyone_woken(void)
{
    bool found = false;
    const bool again = now_real() - woken_at > WAKE_AGAIN;
    for (uint32_t i = 0; i < clock_used_slots(); i++) {
        struct slot *const slot = &clock_page->slots[i];
        if (slot->tid == 0 || slot->state == ASLEEP || slot->state == AWAKE)
            continue;
        if (!again) {
            found = true;
            continue;
        }
        const struct slot seen = {.owner = slot->owner};
        if (clock_thread_is_gone((pid_t)seen.pid, (pid_t)seen.tid))
            clock_free_slot(slot, seen.owner);
        else if (clock_waits_without_limit((pid_t)slot->pid, (pid_t)slot->tid))
            continue;
        else
            wake(slot, WOKEN);
        found = true;
    }
    return found;
}

/* ---- timers ---- */

/* The next deadline of a timer after `now`. */
static int64_t following(const struct timer *timer, int64_t deadline, int64_t now, uint32_t *overruns)
{
    if (timer->interval <= 0)
        return NEVER;
    const int64_t missed = (now - deadline) / timer->interval;
    *overruns = (uint32_t)missed;
    return deadline + (missed + 1) * timer->interval;
}

static void send_signal(const struct timer *timer)
{
    /* Never to a group of processes, or to all. */
    if (timer->signal == 0 || (pid_t)timer->pid <= 0)
        return;
    if (timer->code == SI_USER) {
        kill((pid_t)timer->pid, (int)timer->signal);
        return;
    }
    siginfo_t info = {.si_signo = (int)timer->signal, .si_code = timer->code};
    info.si_timerid = timer->id;
    info.si_overrun = (int)timer->overruns;
    info.si_value.sival_ptr = (void *)(uintptr_t)timer->value;
    if (timer->tid != 0)
        NEXT(syscall)(SYS_rt_tgsigqueueinfo, timer->pid, timer->tid, timer->signal, &info);
    else
        NEXT(syscall)(SYS_rt_sigqueueinfo, timer->pid, timer->signal, &info);
}

static bool set_to(int fd, int64_t left, int64_t interval)
{
    struct itimerspec known;
    /* The keeper may be late: a timer that has ended already, by the machine's time, ends once. */
    if (left <= 0 && interval == 0 && NEXT(timerfd_gettime)(fd, &known) == 0 && known.it_value.tv_sec == 0 && known.it_value.tv_nsec == 0)
        return true;
    const struct itimerspec value = {.it_value = to_timespec(left > 0 ? left : 1), .it_interval = to_timespec(interval)};
    return NEXT(timerfd_settime)(fd, 0, &value, NULL) == 0;
}

/*
 * A timerfd that ends again and again may have ended and not been read, and forgets this when it is set. A kernel that
 * cannot be told it (CONFIG_CHECKPOINT_RESTORE) is left alone until it was read. False: it is no timerfd any more.
 */
static bool set_periodic(int fd, int64_t left, int64_t interval)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    struct itimerspec value;
    struct timerfd known = {0};
    /* timerfd_gettime() counts. */
    if (NEXT(poll)(&ready, 1, 0) > 0 && NEXT(timerfd_gettime)(fd, &value) == 0)
        clock_read_timerfd(getpid(), fd, &known);
    if (known.ticks == 0)
        return set_to(fd, left, interval);
    if (left <= 0)
        known.ticks += clock_pass_ends(&left, interval);
    if (ioctl(fd, TFD_IOC_SET_TICKS, &known.ticks) == 0 && set_to(fd, left, interval))
        ioctl(fd, TFD_IOC_SET_TICKS, &known.ticks);
    return true;
}

/* False: there is no such timerfd any more. */
static bool set_kernel_timer(const struct timer *timer, int64_t left)
{
    const bool is_own = timer->pid == (uint32_t)getpid();
    const int fd = is_own ? timer->id : clock_take((pid_t)timer->pid, timer->id);
    const bool is_set = fd >= 0 && (timer->interval > 0 ? set_periodic(fd, left, timer->interval) : set_to(fd, left, 0));
    if (!is_own && fd >= 0)
        close(fd);
    return is_set;
}

/* How many timerfds a jump may look for. */
enum { MAX_LOST = 16 };
static uint32_t lost_count;

/*
 * Sets a timerfd to what is left until its deadline, which the caller has read: meanwhile a process that runs may set
 * the timer itself. The descriptor may be another file's now.
 */
static void set_again(struct timer *timer, int64_t deadline, int64_t offset)
{
    const int64_t end_before = deadline - timer->offset;
    timer->offset = offset;
    if (set_kernel_timer(timer, deadline - offset - now_real()))
        return;
    if (lost_count++ >= MAX_LOST || !clock_find_timerfd(timer, end_before) ||
        !set_kernel_timer(timer, deadline - offset - now_real()))
        __atomic_store_n(&timer->kind, TIMER_FREE, __ATOMIC_RELEASE);
}

/* The time of a jump: from now on daemons may run. */
static void begin_turn(void)
{
    jump_at = now_real();
    clock_note_daemons();
}

/* The daemon that has a timer; NULL: it is a program's. */
static const struct process *daemon_of(const struct timer *timer)
{
    const struct process *const process = clock_process_of((pid_t)timer->pid);
    return process && process->is_daemon ? process : NULL;
}

/* The daemon of a timer, which sleeps, has something to do now. Nothing for a program's. */
static void expect_daemon(const struct timer *timer)
{
    const struct process *const process = daemon_of(timer);
    if (!process)
        return;
    if (!any_is_due && now_real() - jump_at > DAEMON_TIME)
        begin_turn();
    is_due[process - clock_page->processes] = any_is_due = true;
}

/*
 * Whether the last signal of a timer still waits, as it is blocked. Of several timers with one signal it is not known
 * whose waits: each has had one, since none waited.
 */
static bool is_pending(struct timer *timer)
{
    if (timer->kind != TIMER_SIGNAL || timer->signal == 0)
        return false;
    const bool is_any = clock_is_pending((pid_t)timer->pid, (pid_t)timer->tid, timer->signal);
    for (uint32_t i = 0; !is_any && i < clock_used_timers(); i++) {
        struct timer *const other = &clock_page->timers[i];
        if (other->kind == TIMER_SIGNAL && other->pid == timer->pid && other->signal == timer->signal)
            other->is_sent = 0;
    }
    const bool was_sent = timer->is_sent;
    timer->is_sent = 1;
    return was_sent;
}

/* An alarm and a timerfd outlive an exec, other timers do not; the new image need not load this library, and say so. */
static bool has_outlived_exec(const struct timer *timer)
{
    const struct process *const process =
        timer->kind == TIMER_SIGNAL && timer->id >= 0 ? clock_process_of((pid_t)timer->pid) : NULL;
    return !process || clock_is_joined(process);
}

/* Timers whose time is over: the keeper's fire. True: there were any. */
static bool end_timers(int64_t now)
{
    bool any = false;
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        struct timer *const timer = &clock_page->timers[i];
        int64_t deadline = __atomic_load_n(&timer->deadline, __ATOMIC_ACQUIRE);
        if ((timer->kind != TIMER_FD && timer->kind != TIMER_SIGNAL) || deadline > now)
            continue;
        /* Spinning has passed the deadline, of which the kernel does not know. */
        if (timer->kind == TIMER_FD && timer->offset != clock_offset())
            set_again(timer, deadline, clock_offset());
        uint32_t overruns = 0;
        const int64_t next = following(timer, deadline, now, &overruns);
        if (!__atomic_compare_exchange_n(&timer->deadline, &deadline, next, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        any = true;
        if (!has_outlived_exec(timer)) {
            __atomic_store_n(&timer->kind, TIMER_FREE, __ATOMIC_RELEASE);
            continue;
        }
        /* As the kernel, which has one signal of a timer at a time. */
        if (timer->interval > 0 && is_pending(timer)) {
            timer->overruns += 1 + overruns;
            continue;
        }
        timer->overruns = overruns;
        if (timer->kind == TIMER_SIGNAL)
            send_signal(timer);
        else
            expect_daemon(timer);
    }
    return any;
}

/* ---- jumps ---- */

/* Whether a timer only looks, and what it looks for has not changed. */
static bool is_passed_over(const struct timer *timer)
{
    return timer->kind == TIMER_FD && timer->clock == CLOCK_BOOTTIME && idle_jumps >= LOOKS && daemon_of(timer);
}

static int64_t earliest_of_timers(uint32_t kind)
{
    int64_t earliest = NEVER;
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        const struct timer *const timer = &clock_page->timers[i];
        if (timer->kind == kind && timer->deadline < earliest && !is_passed_over(timer))
            earliest = timer->deadline;
    }
    return earliest;
}

static int64_t earliest_of_all_timers(void)
{
    const int64_t of_files = earliest_of_timers(TIMER_FD), of_signals = earliest_of_timers(TIMER_SIGNAL);
    return of_files < of_signals ? of_files : of_signals;
}

static int64_t earliest(void)
{
    int64_t found = earliest_of_all_timers();
    for (uint32_t i = 0; i < clock_used_slots(); i++) {
        const struct slot *const slot = &clock_page->slots[i];
        if (slot->tid != 0 && slot->state == ASLEEP && slot->deadline < found)
            found = slot->deadline;
    }
    return found;
}

static void jump(int64_t to)
{
    const int64_t offset = to - now_real();
    if (offset <= clock_page->offset)
        return;
    clock_page->jumped += offset - clock_page->offset;
    __atomic_store_n(&clock_page->offset, offset, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&clock_page->jumps, 1, __ATOMIC_RELAXED);
    idle_jumps++;
    lost_count = 0;
    begin_turn();
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        struct timer *const timer = &clock_page->timers[i];
        const int64_t deadline = __atomic_load_n(&timer->deadline, __ATOMIC_ACQUIRE);
        if (timer->kind == TIMER_FD && deadline != NEVER)
            set_again(timer, deadline, offset);
    }
}

/* Whether the daemons have done what was due at the last jump. */
static bool daemons_are_done(void)
{
    const bool is_late = now_real() - jump_at > DAEMON_TIME;
    bool any = false;
    for (uint32_t i = 0; any_is_due && i < clock_used_processes(); i++) {
        is_due[i] = is_due[i] && !is_late && !clock_daemon_is_done(&clock_page->processes[i]);
        any = any || is_due[i];
    }
    any_is_due = any;
    return !any;
}

/* Processes that have ended are removed at one look in so many. */
#define SWEEP 64

static bool has_programs(void)
{
    static unsigned looks;
    if (looks++ % SWEEP == 0)
        for (uint32_t i = 0; i < clock_used_processes(); i++)
            clock_remove_process(&clock_page->processes[i]);
    for (uint32_t i = 0; i < clock_used_processes(); i++)
        if (clock_page->processes[i].pid != 0 && !clock_page->processes[i].is_daemon && !clock_page->processes[i].is_mover)
            return true;
    return false;
}

/* Without a deadline: whether anything can still happen, at one look in so many. */
#define IDLE_LOOKS 10

static void note_runs(void)
{
    const uint64_t runs = clock_runs(false);
    if (runs != idle_runs)
        idle_jumps = 0;
    idle_runs = runs;
}

static void look_for_deadlock(void)
{
    static unsigned looks;
    if (looks++ % IDLE_LOOKS != 0)
        return;
    const bool sleeps = clock_look(keeper) == SLEEPS;
    if (sleeps)
        note_runs();
    uint32_t stuck = sleeps && clock_network_is_quiet() ? clock_stuck() : 0;
    if (stuck != 0 && clock_look(keeper) != SLEEPS)
        stuck = 0;
    __atomic_store_n(&clock_page->stuck, stuck, __ATOMIC_RELEASE);
}

static bool network_is_quiet(void)
{
    const bool is_quiet = clock_network_is_quiet();
    clock_keeps(is_quiet ? NULL : "data is on its way in a TCP connection, in the kernel, or to a disk");
    return is_quiet;
}

/* Whether the waits of a process can be ended. */
static bool may_wake(struct process *process)
{
    if (process->pid == 0 || process->is_daemon || process->is_mover || process->may & MAY_WAKE)
        return true;
    if (clock_is_refused(send_wake(process->pid, process->pid, 0))) {
        clock_note("process %u, whose threads may not be woken", process->pid);
        clock_keeps("process %u may not be woken", process->pid);
        return false;
    }
    process->may |= MAY_WAKE;
    return true;
}

/* Whether a timerfd can be set again. */
static bool may_set(const struct timer *timer)
{
    if (timer->kind != TIMER_FD || timer->deadline == NEVER || timer->pid == (uint32_t)getpid())
        return true;
    struct process *const process = clock_process_of((pid_t)timer->pid);
    if (!process || process->may & MAY_TAKE)
        return true;
    const int fd = clock_take((pid_t)timer->pid, timer->id);
    if (fd < 0 && clock_is_refused(errno)) {
        clock_note("timerfds: the system call pidfd_getfd is forbidden here");
        clock_keeps("process %u has a timerfd, which may not be set", timer->pid);
        return false;
    }
    if (fd >= 0) {
        process->may |= MAY_TAKE;
        close(fd);
    }
    return true;
}

/* Whether nothing forbids what a jump needs. */
static bool may_jump(void)
{
    for (uint32_t i = 0; i < clock_used_processes(); i++)
        if (!may_wake(&clock_page->processes[i]))
            return false;
    for (uint32_t i = 0; i < clock_used_timers(); i++)
        if (!may_set(&clock_page->timers[i]))
            return false;
    return true;
}

/* After a look: whether nothing that was on its way at it has reached a thread before the network was looked at. */
static bool nobody_was_reached(enum rest rest)
{
    if (!clock_has_ways())
        return true;
    const uint64_t runs = clock_runs(true);
    return clock_look(keeper) == rest && clock_runs(true) == runs;
}

/* Looks once. Returns how long the next look may wait; `nap`: how long this one did. */
static int64_t look(int64_t nap)
{
    clock_count_kept();
    if (!has_programs()) {
        clock_page->stuck = 0;
        clock_keeps(NULL);
        return IDLE_NAP;
    }
    const int64_t longer = nap * 3 / 2 < LONGEST_NAP ? nap * 3 / 2 : LONGEST_NAP;
    const int64_t now = clock_now(CLOCK_MONOTONIC);
    const bool have_ended = end_timers(now);
    if (is_anyone_woken())
        return have_ended ? SHORTEST_NAP : longer;
    if (have_ended) {
        /* A timer may end at each look. */
        if (daemons_are_done())
            end_waits(now);
        return SHORTEST_NAP;
    }
    const int64_t next = earliest();
    if (next <= now) {
        clock_end_grant();
        if (daemons_are_done())
            end_waits(now);
        return SHORTEST_NAP;
    }
    if (next == NEVER && !clock_anyone_spins()) {
        clock_end_grant();
        look_for_deadlock();
        return IDLE_NAP;
    }
    clock_page->stuck = 0;
    const uint32_t daemon_acts = __atomic_load_n(&clock_page->daemon_acts, __ATOMIC_SEQ_CST);
    const enum rest rest = next - now < SHORTEST_JUMP ? RUNS : clock_look(keeper);
    /* Acts count from the first look on. */
    struct spinner spinners[MAX_MEMBERS];
    const uint32_t spinner_count = rest == SPINS ? clock_spinner_count : 0;
    memcpy(spinners, clock_spinners, spinner_count * sizeof *spinners);
    const bool is_quiet = rest != RUNS && may_jump() && network_is_quiet() && nobody_was_reached(rest);
    if (!is_quiet || rest != SPINS)
        clock_end_grant();
    if (!is_quiet || (rest == SLEEPS && next == NEVER))
        return longer;
    if (rest == SLEEPS)
        note_runs();
    else
        idle_jumps = 0;
    /* A wait may have begun before the look, and ended since. */
    if (earliest() != next || clock_first_seen < next)
        return SHORTEST_NAP;
    if (rest == SPINS) {
        clock_make_grant(spinners, spinner_count, daemon_acts, next);
        return longer;
    }
    jump(next);
    return SHORTEST_NAP / 5;
}

static void *keep(void *unused)
{
    (void)unused;
    keeper = (pid_t)NEXT(syscall)(SYS_gettid);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    prctl(PR_SET_NAME, "userdma-clock", 0, 0, 0);
    for (int64_t nap = SHORTEST_NAP;;) {
        const uint32_t word = __atomic_load_n(&clock_page->word, __ATOMIC_ACQUIRE);
        nap = look(nap);
        /* A timer of the keeper's must not be late. */
        const int64_t left = earliest_of_all_timers() - clock_now(CLOCK_MONOTONIC);
        const struct timespec limit = to_timespec(left < nap ? (left > 0 ? left : 1) : nap);
        if (NEXT(syscall)(SYS_futex, &clock_page->word, FUTEX_WAIT, word, &limit, NULL, 0) == 0)
            nap = SHORTEST_NAP;
    }
    return NULL;
}

/* ---- after the keeper's end ---- */

#define SUCCESSOR_NAP (1 * SECOND)
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static uint8_t successor_stack[1 << 16] __attribute__((aligned(64)));

static bool any_program_is_left(void)
{
    bool any = false;
    for (uint32_t i = 0; i < clock_used_processes(); i++) {
        struct process *const process = &clock_page->processes[i];
        clock_remove_process(process);
        const pid_t pid = (pid_t)process->pid;
        any = any || (pid != 0 && !process->is_daemon && !process->is_mover && !clock_thread_is_gone(pid, pid));
    }
    return any;
}

/*
 * A process that shares the memory of the keeper's, `parent`, and outlives it, however it ends: timers with signals
 * would never end then. The clock goes on as the machine's until no program is left. While the parent lives it only
 * waits, by system calls that succeed: it has the thread-local storage of its first thread. It keeps no descriptors.
 */
static int succeed(void *parent)
{
    const uint64_t all_signals = ~0ull;
    NEXT(syscall)(SYS_close_range, 0, ~0u, 0);
    NEXT(syscall)(SYS_prctl, PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    NEXT(syscall)(SYS_prctl, PR_SET_NAME, "userdma-clock", 0, 0, 0);
    while (NEXT(syscall)(SYS_getppid) == (pid_t)(intptr_t)parent)
        NEXT(syscall)(SYS_rt_sigtimedwait, &all_signals, NULL, NULL, sizeof all_signals);
    clock_forget_files();
    clock_end_grant();
    clock_page->keeper = (uint32_t)getpid();
    for (uint32_t i = 0; i < clock_used_slots(); i++)
        if (clock_page->slots[i].state == WAKING)
            wake(&clock_page->slots[i], WAKING);
    while (any_program_is_left()) {
        const uint32_t word = __atomic_load_n(&clock_page->word, __ATOMIC_ACQUIRE);
        const int64_t now = clock_now(CLOCK_MONOTONIC);
        end_timers(now);
        end_waits(now);
        const int64_t left = earliest_of_all_timers() - clock_now(CLOCK_MONOTONIC);
        const struct timespec limit = to_timespec(left < SUCCESSOR_NAP ? (left > 0 ? left : 1) : SUCCESSOR_NAP);
        NEXT(syscall)(SYS_futex, &clock_page->word, FUTEX_WAIT, word, &limit, NULL, 0);
    }
    _exit(0);
}

/* Of the keeper's process: whether no program is left in the clock, and none has changed what it covers. */
EXPORT int userdma_clock_is_clean(void)
{
    return clock_page && clock_page->reasons == 0 && clock_page->lacks == 0 && !clock_page->has_filter &&
           !clock_page->is_foreign && !any_program_is_left();
}

/* Makes the page at `path`. `spins`: spinning lets time go on. Its clock begins to skip with a keeper. 0, or -errno. */
EXPORT int userdma_clock_make(const char *path, int spins)
{
    char new_path[4096];
    if (snprintf(new_path, sizeof new_path, "%s.%d", path, getpid()) >= (int)sizeof new_path)
        return -ENAMETOOLONG;
    /* The folder may be open to others: the file must not be theirs. */
    unlink(new_path);
    const int fd = open(new_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    struct page *page = MAP_FAILED;
    /* With its space: without it, programs would get SIGBUS once the file system is full. */
    int error = posix_fallocate(fd, 0, sizeof *page);
    if (error == 0) {
        page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        error = page == MAP_FAILED ? errno : 0;
    }
    if (error == 0) {
        page->magic = USERDMA_CLOCK_MAGIC;
        page->keeper = (uint32_t)getpid();
        page->begin = now_real();
        page->wall = clock_real(CLOCK_REALTIME) - page->begin;
        page->spins_not = !spins;
        page->namespace = clock_namespace();
        if (rename(new_path, path) != 0)
            error = errno;
        munmap(page, sizeof *page);
    }
    close(fd);
    if (error != 0)
        unlink(new_path);
    return -error;
}

/* Of a daemon: takes part in the clock of the page at `path`. 0, or -errno. */
EXPORT int userdma_clock_serve(const char *path)
{
    if (!clock_page && !(clock_page = clock_map_page(path)))
        return -EINVAL;
    clock_sleeps = false;
    clock_add_process(getpid(), CLOCK_STACK);
    struct process *const own = clock_process_of(getpid());
    if (!own)
        return -ENOSPC;
    own->is_daemon = 1;
    return 0;
}

/* Of a process that takes part in a clock: starts its keeper, and its successor where this is allowed. 0, or -errno. */
EXPORT int userdma_clock_keep(void)
{
    if (!clock_page)
        return -EINVAL;
    clock_page->keeper = (uint32_t)getpid();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_t thread;
    const int error = NEXT(pthread_create)(&thread, NULL, keep, NULL);
    const pid_t successor =
        NEXT(clone)(succeed, successor_stack + sizeof successor_stack, CLONE_VM, (void *)(intptr_t)getpid());
    if (successor > 0)
        clock_add_process(successor, 0);
    struct process *const added = successor > 0 ? clock_process_of(successor) : NULL;
    if (added)
        added->is_mover = 1;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        NEXT(pthread_detach)(thread);
    return -error;
}
