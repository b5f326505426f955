/*
 * Sleeps for half a second where a clock that skips cannot end the sleep, and prints how long it was. For tests of that
 * clock.
 *
 * confined blocked: all signals are blocked by the system call itself, in which the C library's own are too.
 * confined filtered: a seccomp filter allows hardly more than the sleep.
 * confined timerfd: it waits for a timerfd.
 * confined stream: the C library reads from a socket with a time limit.
 * confined ring: it waits by io_uring; status 77 if that is forbidden.
 * confined without NUMBER COMMAND…: runs a command for which a seccomp filter forbids a system call, as containers do.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int set_filter(struct sock_filter *rules, unsigned short count)
{
    const struct sock_fprog program = {.len = count, .filter = rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
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
    return set_filter(rules, sizeof rules / sizeof *rules);
}

static int run_without(unsigned number, char **command)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1 /* EPERM */),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (set_filter(rules, sizeof rules / sizeof *rules) == 0)
        execvp(command[0], command);
    perror(command[0]);
    return 1;
}

static void wait_for_timer(void)
{
    const struct itimerspec half = {.it_value = {.tv_nsec = 500000000}};
    uint64_t expirations;
    const int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    if (timerfd_settime(fd, 0, &half, NULL) != 0 || read(fd, &expirations, sizeof expirations) < 0)
        perror("timerfd");
}

static void read_stream(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        perror("socketpair");
        return;
    }
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_usec = 500000}, sizeof(struct timeval));
    FILE *const stream = fdopen(pair[0], "r");
    if (!stream || fgetc(stream) != EOF)
        perror("fgetc");
}

static void wait_for_ring(void)
{
    const int io_uring_setup = 425, io_uring_enter = 426, gets_events = 1, has_limit = 8;
    const int64_t half[2] = {0, 500000000};
    const struct {
        uint64_t mask;
        uint32_t mask_size, reserved;
        const int64_t *limit;
    } argument = {.limit = half};
    uint32_t parameters[30] = {0};
    const long ring = syscall(io_uring_setup, 1, parameters);
    if (ring < 0)
        _exit(77);
    syscall(io_uring_enter, ring, 0, 1, gets_events | has_limit, &argument, sizeof argument);
}

int main(int count, char **arguments)
{
    const char *const way = count == 2 ? arguments[1] : "";
    const unsigned long all = ~0ul;
    char line[64];
    if (count > 3 && strcmp(arguments[1], "without") == 0)
        return run_without((unsigned)strtoul(arguments[2], NULL, 10), arguments + 3);
    if (strcmp(way, "blocked") != 0 && strcmp(way, "filtered") != 0 && strcmp(way, "timerfd") != 0 &&
        strcmp(way, "stream") != 0 && strcmp(way, "ring") != 0) {
        fprintf(stderr, "usage: %s blocked|filtered|timerfd|stream|ring, or %s without NUMBER COMMAND…\n", arguments[0], arguments[0]);
        return 1;
    }
    const double begin = now();
    if (strcmp(way, "blocked") == 0)
        syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof all);
    else if (strcmp(way, "filtered") == 0 && filter() != 0) {
        perror("seccomp");
        return 1;
    }
    if (strcmp(way, "timerfd") == 0)
        wait_for_timer();
    else if (strcmp(way, "stream") == 0)
        read_stream();
    else if (strcmp(way, "ring") == 0)
        wait_for_ring();
    else
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    const int length = snprintf(line, sizeof line, "%.1f s\n", now() - begin);
    const ssize_t written = write(STDOUT_FILENO, line, (size_t)length);
    _exit(written != length);
}
