/*
 * Sleeps for half a second where a clock that skips cannot end the sleep, and prints how long it was. For tests of that clock.
 *
 * confined blocked: all signals are blocked by the system call itself, in which the C library's own are too.
 * confined filtered: a seccomp filter allows hardly more than the sleep.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int filter(void)
{
#define ALLOW(call, rest) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, rest, 0)
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(write, 5),
        ALLOW(clock_nanosleep, 4),
        ALLOW(clock_gettime, 3),
        ALLOW(fstat, 2),
        ALLOW(exit_group, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int count, char **arguments)
{
    const char *const way = count == 2 ? arguments[1] : "";
    const unsigned long all = ~0ul;
    char line[64];
    if (strcmp(way, "blocked") != 0 && strcmp(way, "filtered") != 0) {
        fprintf(stderr, "usage: %s blocked|filtered\n", arguments[0]);
        return 1;
    }
    const double begin = now();
    if (strcmp(way, "blocked") == 0)
        syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof all);
    else if (filter() != 0) {
        perror("seccomp");
        return 1;
    }
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    const int length = snprintf(line, sizeof line, "%.1f s\n", now() - begin);
    const ssize_t written = write(STDOUT_FILENO, line, (size_t)length);
    _exit(written != length);
}
