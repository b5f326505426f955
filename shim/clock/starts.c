/*
 * Processes that a program starts take part in the clock before their own copy of this library has run, or if they have
 * none, as static ones.
 */
#define _GNU_SOURCE
#include "clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child has its place before its parent can wait for it: it may not have run yet. */
EXPORT pid_t fork(void)
{
    const pid_t child = NEXT(fork)();
    if (child > 0 && clock_page)
        clock_add_process(child, CLOCK_STACK);
    return child;
}

/* What the C library's do not call for their child. */
pid_t _Fork(void);
EXPORT pid_t _Fork(void)
{
    const pid_t child = NEXT(_Fork)();
    if (child > 0 && clock_page)
        clock_add_process(child, CLOCK_STACK);
    else if (child == 0)
        clock_on_fork();
    return child;
}

struct start {
    int (*function)(void *);
    void *value;
};

/* In a child that has a copy of the memory, also of its parent's stack. */
static int begin(void *start)
{
    const struct start *const own = start;
    clock_on_fork();
    return own->function(own->value);
}

/* The process of a daemon's clone copies memory of programs (native/mover.c). */
static void add_clone(pid_t child)
{
    clock_add_process(child, CLOCK_STACK);
    const struct process *const own = clock_process_of(getpid());
    struct process *const added = clock_process_of(child);
    if (own && own->is_daemon && added)
        added->is_mover = 1;
}

EXPORT int clone(int (*function)(void *), void *stack, int flags, void *value, ...)
{
    va_list list;
    va_start(list, value);
    pid_t *const parent_tid = va_arg(list, pid_t *);
    void *const local = va_arg(list, void *);
    pid_t *const child_tid = va_arg(list, pid_t *);
    va_end(list);
    struct start start = {function, value};
    const bool is_fork = clock_page && function && !(flags & (CLONE_VM | CLONE_THREAD));
    const int child = is_fork ? NEXT(clone)(begin, stack, flags, &start, parent_tid, local, child_tid)
                              : NEXT(clone)(function, stack, flags, value, parent_tid, local, child_tid);
    if (child > 0 && clock_page && !(flags & CLONE_THREAD))
        add_clone(child);
    return child;
}

/* A vfork would change what this library knows of its parent. POSIX lets it be a fork. */
EXPORT pid_t vfork(void)
{
    return fork();
}

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    pid_t child = 0;
    const int result = NEXT(posix_spawn)(&child, path, actions, attributes, arguments, environment);
    if (result == 0) {
        if (pid)
            *pid = child;
        if (clock_page)
            clock_add_process(child, 0);
    }
    return result;
}

EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    pid_t child = 0;
    const int result = NEXT(posix_spawnp)(&child, file, actions, attributes, arguments, environment);
    if (result == 0) {
        if (pid)
            *pid = child;
        if (clock_page)
            clock_add_process(child, 0);
    }
    return result;
}

EXPORT pid_t forkpty(int *terminal, char *name, const struct termios *settings, const struct winsize *size)
{
    const pid_t child = NEXT(forkpty)(terminal, name, settings, size);
    if (child > 0 && clock_page)
        clock_add_process(child, CLOCK_STACK);
    return child;
}

/* The fourth field of /proc/PID/stat, the parent; 0: unknown. */
static pid_t parent_of(const char *pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    const int fd = (int)NEXT(syscall)(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    const ssize_t length = NEXT(syscall)(SYS_read, fd, text, sizeof text - 1);
    NEXT(syscall)(SYS_close, fd);
    if (length <= 0)
        return 0;
    text[length] = 0;
    const char *const end = strrchr(text, ')');
    int parent = 0;
    return end && sscanf(end + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

void clock_add_children(void)
{
    DIR *const folder = opendir("/proc");
    if (!folder)
        return;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && parent_of(entry->d_name) == getpid())
            clock_add_process(atoi(entry->d_name), 0);
    closedir(folder);
}

EXPORT FILE *popen(const char *command, const char *mode)
{
    FILE *const file = NEXT(popen)(command, mode);
    const int saved = errno;
    if (file && clock_page)
        clock_add_children();
    errno = saved;
    return file;
}

/* Of all shells that run: the first ignores the signals, and the last restores them. */
static pthread_mutex_t shells_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned shells;
static struct sigaction interrupt, quit;

/* As the C library's, which does not tell its child. */
static int run_shell(const char *command)
{
    const struct sigaction ignored = {.sa_handler = SIG_IGN};
    sigset_t child, before, defaults;
    NEXT(pthread_mutex_lock)(&shells_lock);
    if (shells++ == 0) {
        sigaction(SIGINT, &ignored, &interrupt);
        sigaction(SIGQUIT, &ignored, &quit);
    }
    NEXT(pthread_mutex_unlock)(&shells_lock);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);
    sigemptyset(&defaults);
    if (interrupt.sa_handler != SIG_IGN)
        sigaddset(&defaults, SIGINT);
    if (quit.sa_handler != SIG_IGN)
        sigaddset(&defaults, SIGQUIT);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &before);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    extern char **environ;
    char *const arguments[] = {(char *)"sh", (char *)"-c", (char *)"--", (char *)command, NULL};
    pid_t pid = -1;
    int status = W_EXITCODE(127, 0);
    const int error = posix_spawn(&pid, "/bin/sh", NULL, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    if (error == 0)
        while (waitpid(pid, &status, 0) < 0)
            if (errno != EINTR) {
                status = -1;
                break;
            }
    NEXT(pthread_mutex_lock)(&shells_lock);
    if (--shells == 0) {
        sigaction(SIGINT, &interrupt, NULL);
        sigaction(SIGQUIT, &quit, NULL);
    }
    NEXT(pthread_mutex_unlock)(&shells_lock);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        errno = error;
    return status;
}

EXPORT int system(const char *command)
{
    return clock_page && command ? run_shell(command) : NEXT(system)(command);
}
