/*
 * Stacks of programs that crash or hang, for `userdma run --fault-walk`: appended to the file that USERDMA_CRASHES
 * names. Each record has a line `SIGNAL PID COMMAND`, the frames as in the message STACK, innermost first, and an empty
 * line. SIGQUIT, which the walk sends to a program that hangs, writes the stacks of all threads, and does not end the
 * program. A program that handles these signals itself has no record.
 */
#define _GNU_SOURCE
#include "../shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static char crash_file[256];

/* The address at which a signal has interrupted its thread. */
static void *interrupted_at(const void *context)
{
    const ucontext_t *interrupted = context;
#if defined(__x86_64__)
    return (void *)interrupted->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (void *)interrupted->uc_mcontext.pc;
#else
    (void)interrupted;
    return NULL;
#endif
}

static void write_record(int signal, const void *context)
{
    /* One thread at a time; a thread that crashes meanwhile is not written. */
    static char text[8192];
    static int is_writing;
    for (int attempts = 0; __atomic_exchange_n(&is_writing, 1, __ATOMIC_ACQUIRE) != 0; sched_yield())
        if (++attempts > 10000)
            return;
    struct stack stack = {0};
    stack.depth = unwind_frames(stack.frames, NULL, STACK_FRAMES);
    /* write_frames names the call before a return address. The interrupted instruction is none. */
    void *const interrupted = interrupted_at(context);
    for (unsigned i = 0; i < stack.depth; i++)
        if (stack.frames[i] == interrupted) {
            memmove(stack.frames, stack.frames + i, (stack.depth - i) * sizeof stack.frames[0]);
            stack.frames[0] = (char *)interrupted + 1;
            stack.depth -= i;
            break;
        }
    const int used = snprintf(text, sizeof text, "%d %d %s\n", signal, (int)getpid(), program_invocation_short_name);
    stack_write_frames(&stack, text + used, sizeof text - (size_t)used - 2);
    strcat(text, "\n");
    const int fd = REAL(open)(crash_file, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd >= 0) {
        const ssize_t written = REAL(write)(fd, text, strlen(text));
        (void)written;
        REAL(close)(fd);
    }
    __atomic_store_n(&is_writing, 0, __ATOMIC_RELEASE);
}

/* The action is the default one again (SA_RESETHAND): after the return a fault recurs, and ends the program. */
static void on_crash(int signal, siginfo_t *info, void *context)
{
    const int saved = errno;
    write_record(signal, context);
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
    write_record(signal, context);
    errno = saved;
}

void crashes_detect(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    const char *file = getenv(USERDMA_ENV_CRASHES);
    if (!recorder_is_on || !file || strlen(file) >= sizeof crash_file)
        return;
    memcpy(crash_file, file, strlen(file) + 1);
    const struct sigaction crash = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_RESETHAND};
    const struct sigaction quit = {.sa_sigaction = on_quit, .sa_flags = SA_SIGINFO | SA_RESTART};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &crash, NULL);
    sigaction(SIGQUIT, &quit, NULL);
}
