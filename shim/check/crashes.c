/*
 * Programs that a signal ends, for `userdma check`: kept reports (reports.c) are sent, also those of a program that the
 * C library's allocator aborts, and the daemon is told the signal and the stack (DIED in spec/session.ts). A program
 * with a handler of its own is left alone. The handler runs on a stack of its own, and a fault while it walks the
 * program's stack ends the walk: so an overflow of the stack, and a stack that was overwritten, are told too.
 *
 * For walks, and for deadlocks with `--clock skip`, stacks are also appended to the file that USERDMA_CRASHES names.
 * Each record has a line `SIGNAL PID COMMAND`, the frames as in the message STACK, innermost first, and an empty line.
 * SIGQUIT, which the command sends to a program that hangs, writes the stacks of all threads, and does not end the
 * program.
 */
#define _GNU_SOURCE
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static char crash_file[256];

/* Bytes of the stack of the handler. A program's own must have as many; else nothing is sent on it. */
#define STACK_BYTES 65536
/* Where a fault in a walk of the stack goes on. */
static TLS sigjmp_buf after_walk;
static TLS volatile sig_atomic_t is_walking;

static pthread_key_t key;
static bool has_key;

static void thread_ends(void *memory)
{
    const stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    munmap(memory, STACK_BYTES);
}

/* Gives this thread a stack for the handler, unless it has one. */
void crashes_begin_thread(void)
{
    static TLS bool has_begun;
    stack_t present;
    if (LIKELY(has_begun) || !has_key)
        return;
    has_begun = true;
    if (sigaltstack(NULL, &present) != 0 || !(present.ss_flags & SS_DISABLE))
        return;
    void *memory = REAL(mmap64)(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return;
    const stack_t own = {.ss_sp = memory, .ss_size = STACK_BYTES};
    if (pthread_setspecific(key, memory) != 0 || sigaltstack(&own, NULL) != 0)
        munmap(memory, STACK_BYTES);
}

/* Whether the handler has enough stack to send something. */
static bool has_space(void)
{
    stack_t stack;
    return sigaltstack(NULL, &stack) == 0 && (!(stack.ss_flags & SS_ONSTACK) || stack.ss_size >= STACK_BYTES);
}

void crashes_take_stack(struct stack *stack, const void *context)
{
    is_walking = 1;
    if (sigsetjmp(after_walk, 1) == 0)
        stack_take_interrupted(stack, context);
    else
        memset(stack, 0, sizeof *stack);
    is_walking = 0;
}

static void write_record(int signal, const struct stack *stack)
{
    /* One thread at a time; a thread that crashes meanwhile is not written. */
    static char text[8192];
    static int is_writing;
    for (int attempts = 0; __atomic_exchange_n(&is_writing, 1, __ATOMIC_ACQUIRE) != 0; sched_yield())
        if (++attempts > 10000)
            return;
    const int used = snprintf(text, sizeof text, "%d %d %s\n", signal, (int)getpid(), program_invocation_short_name);
    stack_write_frames(stack, text + used, sizeof text - (size_t)used - 2);
    strcat(text, "\n");
    const int fd = REAL(open)(crash_file, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0) {
        const ssize_t written = REAL(write)(fd, text, strlen(text));
        (void)written;
        REAL(close)(fd);
    }
    __atomic_store_n(&is_writing, 0, __ATOMIC_RELEASE);
}

/* The address whose access has ended the program; a signal that was sent has none. */
static uint32_t address_fault(const siginfo_t *info, uint64_t *address)
{
    if ((info->si_signo != SIGSEGV && info->si_signo != SIGBUS) || info->si_code <= 0)
        return USERDMA_FAULT_NONE;
    if (info->si_code == SI_KERNEL)
        return USERDMA_FAULT_WIDE;
    *address = (uintptr_t)info->si_addr;
    return info->si_signo == SIGSEGV && info->si_code == SEGV_MAPERR ? USERDMA_FAULT_UNMAPPED : USERDMA_FAULT_PROTECTED;
}

/* Tells the daemon, once, if this process uses a device. */
static void tell(const siginfo_t *info, const struct stack *stack, const void *context)
{
    static int is_told;
    if (shim_is_other_process() || !has_space() || __atomic_exchange_n(&is_told, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    reports_send_kept();
    uint64_t address = 0;
    const uint32_t fault = address_fault(info, &address);
    void *const poll = waiting_last_found();
    event_died(stack_number(stack), address, (uint32_t)info->si_signo, stack_is_ours(context), fault,
               poll ? stack_at(poll) : 0, calls_last.function ? calls_last.function : "");
}

static void on_crash(int signal, siginfo_t *info, void *context)
{
    static const struct sigaction end = {.sa_handler = SIG_DFL};
    const int saved = errno;
    struct stack stack;
    if (is_walking)
        siglongjmp(after_walk, 1);
    /* A program that has used no device has taken no stack: it is not told, since that would allocate. */
    if (unwind_is_ready() || crash_file[0]) {
        crashes_take_stack(&stack, context);
        tell(info, &stack, context);
        if (crash_file[0])
            write_record(signal, &stack);
    }
    /* After the return a fault recurs, and ends the program. The handler of a language's runtime may have called us. */
    sigaction(signal, &end, NULL);
    if (info->si_code <= 0) /* a signal that was sent, as by abort(3), does not recur */
        raise(signal);
    errno = saved;
}

struct thread_entry {
    uint64_t inode, offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* Sends SIGQUIT to all other threads. */
static void interrupt_threads(void)
{
    char entries[2048];
    const pid_t self = (pid_t)syscall(SYS_gettid);
    const int folder = REAL(open)("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (long bytes; folder >= 0 && (bytes = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0;)
        for (long at = 0; at < bytes; at += ((struct thread_entry *)(entries + at))->length) {
            const int thread = atoi(((struct thread_entry *)(entries + at))->name);
            if (thread > 0 && thread != self)
                syscall(SYS_tgkill, getpid(), thread, SIGQUIT);
        }
    if (folder >= 0)
        REAL(close)(folder);
}

static void on_quit(int signal, siginfo_t *info, void *context)
{
    const int saved = errno;
    /* Not from interrupt_threads. */
    if (info->si_code == SI_USER)
        interrupt_threads();
    struct stack stack;
    stack_take_interrupted(&stack, context);
    write_record(signal, &stack);
    errno = saved;
}

bool crashes_has_handlers;

void crashes_look_for_handlers(void)
{
    for (int i = 1; i < SIGSYS && !crashes_has_handlers; i++) {
        struct sigaction action;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN &&
            action.sa_sigaction != on_crash && action.sa_sigaction != on_quit)
            crashes_has_handlers = true;
    }
}

void crashes_watch(void)
{
    if (!has_key)
        has_key = pthread_key_create(&key, thread_ends) == 0;
    crashes_begin_thread();
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    const struct sigaction crash = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction action;
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler == SIG_DFL)
            sigaction(signals[i], &crash, NULL);
    }
}

void crashes_detect(void)
{
    const char *file = getenv(USERDMA_ENV_CRASHES);
    if (file && strlen(file) < sizeof crash_file) {
        memcpy(crash_file, file, strlen(file) + 1);
        const struct sigaction quit = {.sa_sigaction = on_quit, .sa_flags = SA_SIGINFO | SA_RESTART};
        sigaction(SIGQUIT, &quit, NULL);
    }
    if (recorder_is_on)
        crashes_watch();
}
