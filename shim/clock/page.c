/*
 * The page of the clock, and what the calling thread waits for.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/futex.h>

#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#endif

struct page *clock_page;
bool clock_sleeps;
static bool is_filtered;

static __thread struct slot *own_slot __attribute__((tls_model("initial-exec")));
static pthread_key_t slot_key;

void *clock_next(const char *name)
{
    static const char *const versioned[] = {"pthread_cond_timedwait", "timer_create", "timer_settime", "timer_gettime",
                                            "timer_delete", "timer_getoverrun", "pthread_cond_signal",
                                            "pthread_cond_broadcast"};
    for (size_t i = 0; i < sizeof versioned / sizeof *versioned; i++) {
        if (strcmp(name, versioned[i]) != 0)
            continue;
        /* Before glibc 2.36, dlsym finds the first version. */
        const char *const newer[] = {"GLIBC_2.3.2", "GLIBC_2.3.3", "GLIBC_2.34"};
        for (size_t v = 0; v < sizeof newer / sizeof *newer; v++) {
            void *found = dlvsym(RTLD_NEXT, name, newer[v]);
            if (found)
                return found;
        }
    }
    return dlsym(RTLD_NEXT, name);
}

static void futex_wake(uint32_t *word)
{
    const int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    errno = saved;
}

void clock_tell_keeper(void)
{
    __atomic_add_fetch(&clock_page->word, 1, __ATOMIC_SEQ_CST);
    futex_wake(&clock_page->word);
}

/* Makes `used` at least `count`. */
static void note_used(uint32_t *used, uint32_t count)
{
    uint32_t known = __atomic_load_n(used, __ATOMIC_RELAXED);
    while (known < count && !__atomic_compare_exchange_n(used, &known, count, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        ;
}

void clock_remove_process(struct process *process)
{
    const uint32_t pid = process->pid;
    if (pid == 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
        return;
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        struct timer *const timer = &clock_page->timers[i];
        if (timer->pid != pid)
            continue;
        /* Another process may have the timerfd too. */
        if (timer->kind == TIMER_FD && timer->deadline != NEVER)
            timer->pid = NOBODY;
        else
            __atomic_store_n(&timer->kind, TIMER_FREE, __ATOMIC_RELEASE);
    }
    uint32_t known = pid;
    __atomic_compare_exchange_n(&process->pid, &known, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* False: there is no place. */
static bool take_process(uint32_t pid, uint64_t stack)
{
    for (uint32_t i = 0; i < MAX_PROCESSES; i++) {
        struct process *const process = &clock_page->processes[i];
        uint32_t none = 0;
        if (__atomic_load_n(&process->pid, __ATOMIC_RELAXED) != 0 ||
            !__atomic_compare_exchange_n(&process->pid, &none, pid, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        process->has_ended = 0;
        process->is_mover = 0;
        process->is_daemon = 0;
        process->may = 0;
        __atomic_store_n(&process->stack, stack, __ATOMIC_RELEASE);
        note_used(&clock_page->processes_used, i + 1);
        return true;
    }
    return false;
}

bool clock_add_process(pid_t pid, uint64_t stack)
{
    for (uint32_t i = 0; i < clock_used_processes(); i++) {
        if (__atomic_load_n(&clock_page->processes[i].pid, __ATOMIC_ACQUIRE) != (uint32_t)pid)
            continue;
        if (pid == getpid())
            __atomic_store_n(&clock_page->processes[i].stack, stack, __ATOMIC_RELEASE);
        return false;
    }
    const int saved = errno;
    if (!take_process((uint32_t)pid, stack)) {
        for (uint32_t i = 0; i < MAX_PROCESSES; i++)
            clock_remove_process(&clock_page->processes[i]);
        /* The keeper then cannot know that everything sleeps. */
        if (!take_process((uint32_t)pid, stack))
            __atomic_store_n(&clock_page->lacks, LACKS_PROCESSES, __ATOMIC_SEQ_CST);
    }
    clock_acts();
    errno = saved;
    return true;
}

void clock_free_slot(struct slot *slot, uint64_t owner)
{
    if (slot->owner == owner)
        __atomic_store_n(&slot->state, AWAKE, __ATOMIC_RELAXED);
    __atomic_compare_exchange_n(&slot->owner, &owner, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* At the end of a thread. */
static void free_slot(void *slot)
{
    struct slot *const own = slot;
    own_slot = NULL;
    clock_free_slot(own, own->owner);
    clock_acts();
}

/* NULL: there is none. */
static struct slot *take_slot(void)
{
    const struct slot own = {.tid = (uint32_t)syscall(SYS_gettid), .pid = (uint32_t)getpid()};
    for (uint32_t i = 0; i < MAX_SLOTS; i++) {
        struct slot *const slot = &clock_page->slots[i];
        uint64_t none = 0;
        if (__atomic_load_n(&slot->owner, __ATOMIC_RELAXED) != 0 ||
            !__atomic_compare_exchange_n(&slot->owner, &none, own.owner, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        __atomic_store_n(&slot->state, AWAKE, __ATOMIC_RELEASE);
        note_used(&clock_page->slots_used, i + 1);
        own_slot = slot;
        pthread_setspecific(slot_key, slot);
        return slot;
    }
    return NULL;
}

bool clock_own_slot(uint32_t *index)
{
    const int saved = errno;
    const struct slot *const slot = own_slot ? own_slot : take_slot();
    errno = saved;
    if (slot)
        *index = (uint32_t)(slot - clock_page->slots);
    return slot != NULL;
}

uint32_t *clock_own_acts(void)
{
    return own_slot ? &clock_page->spins[own_slot - clock_page->slots].acts : NULL;
}

void clock_forget_left_wait(void *frame)
{
    struct slot *const slot = own_slot;
    const uint64_t own = (uint64_t)(uintptr_t)frame;
    stack_t handlers = {0};
    if (!slot || __atomic_load_n(&slot->state, __ATOMIC_RELAXED) == AWAKE || own < slot->frame ||
        own - slot->frame >= STACK_BYTES || (sigaltstack(NULL, &handlers) == 0 && handlers.ss_flags & SS_ONSTACK))
        return;
    struct wait left = {.slot = slot};
    clock_wait_ends(&left);
}

bool clock_wait_begins(struct wait *wait, int64_t deadline, void *frame)
{
    wait->slot = NULL;
    wait->is_over = false;
    if (!clock_sleeps)
        return false;
    const int saved = errno;
    struct slot *const slot = own_slot ? own_slot : take_slot();
    errno = saved;
    if (!slot)
        return false;
    clock_forget_left_wait(frame);
    wait->outer = *slot;
    wait->slot = slot;
    wait->deadline = deadline;
    __atomic_store_n(&slot->state, AWAKE, __ATOMIC_RELEASE);
    slot->sequence++;
    slot->deadline = deadline;
    slot->frame = (uint64_t)(uintptr_t)frame;
    slot->offset = clock_offset();
    __atomic_store_n(&slot->state, ASLEEP, __ATOMIC_SEQ_CST);
    clock_acts();
    return true;
}

bool clock_wait_ends(struct wait *wait)
{
    struct slot *const slot = wait->slot;
    if (!slot)
        return false;
    const int saved = errno;
    for (;;) {
        uint32_t state = ASLEEP;
        if (__atomic_compare_exchange_n(&slot->state, &state, AWAKE, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
            break;
        /* The keeper took the wait for left. */
        if (state == AWAKE)
            break;
        wait->is_over = state == WOKEN &&
                        __atomic_compare_exchange_n(&slot->state, &state, AWAKE, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
        /* The signal is about to come: it must not interrupt anything later. A system call, at whose end it comes. */
        const struct timespec limit = {.tv_nsec = 20 * MILLISECOND};
        if (state == WAKING && syscall(SYS_futex, &slot->state, FUTEX_WAIT, WAKING, &limit, NULL, 0) != 0 &&
            errno == ETIMEDOUT && kill((pid_t)clock_page->keeper, 0) != 0)
            __atomic_compare_exchange_n(&slot->state, &state, AWAKE, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
        else
            futex_wake(&slot->state);
        if (wait->is_over)
            break;
    }
    clock_acts();
    errno = saved;
    if (UNLIKELY(wait->outer.state != AWAKE)) {
        slot->deadline = wait->outer.deadline;
        slot->offset = wait->outer.offset;
        slot->frame = wait->outer.frame;
        slot->until = wait->outer.until;
        slot->sequence++;
        __atomic_store_n(&slot->state, wait->outer.state == ASLEEP ? ASLEEP : WOKEN, __ATOMIC_SEQ_CST);
    }
    return wait->is_over;
}

uint64_t clock_namespace(void)
{
    char text[64] = "";
    /* pid:[4026531836] */
    if (readlink("/proc/self/ns/pid", text, sizeof text - 1) <= 0)
        return 0;
    return strtoull(text + strcspn(text, "0123456789"), NULL, 10);
}

/* Adds this process, which has begun. */
static void add_self(void)
{
    static uint64_t known;
    const uint64_t namespace = clock_namespace();
    /* A fork may have no /proc, after a chroot. */
    known = namespace != 0 ? namespace : known;
    const bool is_near = known == clock_page->namespace;
    clock_sleeps = is_near && !is_filtered;
    if (is_near)
        clock_add_process(getpid(), CLOCK_STACK);
    else /* the numbers of its threads are not those that the keeper knows */
        __atomic_store_n(&clock_page->is_foreign, 1, __ATOMIC_SEQ_CST);
}

void clock_leave_for_filter(void)
{
    if (!clock_page)
        return;
    __atomic_store_n(&clock_page->has_filter, 1, __ATOMIC_SEQ_CST);
    is_filtered = true;
    clock_sleeps = false;
}

EXPORT int prctl(int option, ...)
{
    va_list list;
    va_start(list, option);
    const unsigned long b = va_arg(list, unsigned long), c = va_arg(list, unsigned long), d = va_arg(list, unsigned long),
                        e = va_arg(list, unsigned long);
    va_end(list);
    const int result = NEXT(prctl)(option, b, c, d, e);
    if (option == PR_SET_SECCOMP && result == 0)
        clock_leave_for_filter();
    return result;
}

void clock_on_fork(void)
{
    const struct process *const parent = clock_page ? clock_process_of(getppid()) : NULL;
    if (!clock_page || (parent && parent->is_daemon))
        return;
    const int saved = errno;
    own_slot = NULL;
    pthread_setspecific(slot_key, NULL);
    add_self();
    errno = saved;
}

static void ignore(int signal)
{
    (void)signal;
}

/* The kernel's: the C library refuses its own signals. */
struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* The handler returns to it: rt_sigreturn. */
#if defined(__x86_64__)
void clock_restore(void) __attribute__((visibility("hidden")));
__asm__(".text\n.hidden clock_restore\n.globl clock_restore\n.type clock_restore, @function\n"
        /* what unwinders and debuggers know as the frame of a signal */
        "clock_restore: movq $15, %rax\n syscall\n.size clock_restore, . - clock_restore\n");
#define SA_RESTORER 0x04000000
#define RESTORER SA_RESTORER, .restorer = clock_restore
#else
#define RESTORER 0
#endif

/*
 * A handler for the signal, if the C library has none yet. It may replace ours. Processes of posix_spawn begin with the
 * signal ignored.
 */
static void handle_signal(void)
{
    struct kernel_action known;
    const struct kernel_action action = {.handler = ignore, .flags = SA_RESTART | SA_ONSTACK | RESTORER};
    if (syscall(SYS_rt_sigaction, WAKE_SIGNAL, NULL, &known, sizeof known.mask) == 0 &&
        (known.handler == SIG_DFL || known.handler == SIG_IGN))
        syscall(SYS_rt_sigaction, WAKE_SIGNAL, &action, NULL, sizeof action.mask);
}

struct page *clock_map_page(const char *path)
{
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (page == MAP_FAILED)
        return NULL;
    if (page->magic != USERDMA_CLOCK_MAGIC) {
        munmap(page, sizeof *page);
        return NULL;
    }
    return page;
}

/* Waits of the image that this process had before an exec. */
static void forget_earlier(void)
{
    for (uint32_t i = 0; i < clock_used_slots(); i++)
        if (clock_page->slots[i].pid == (uint32_t)getpid())
            clock_free_slot(&clock_page->slots[i], clock_page->slots[i].owner);
    for (uint32_t i = 0; i < clock_used_timers(); i++) {
        struct timer *const timer = &clock_page->timers[i];
        /* An alarm outlives an exec, other timers do not; a timerfd may. */
        if (timer->pid == (uint32_t)getpid() && timer->kind == TIMER_SIGNAL && timer->id >= 0)
            __atomic_store_n(&timer->kind, TIMER_FREE, __ATOMIC_RELEASE);
    }
}

__attribute__((constructor(101))) static void join_clock(void)
{
    const char *const path = getenv(USERDMA_ENV_CLOCK);
    if (!path || pthread_key_create(&slot_key, free_slot) != 0)
        return;
    struct page *const page = clock_map_page(path);
    if (!page)
        return;
    handle_signal();
    prctl(PR_SET_PTRACER, (unsigned long)page->keeper, 0, 0, 0);
    clock_page = page;
    forget_earlier();
    add_self();
    pthread_atfork(NULL, NULL, clock_on_fork);
}
