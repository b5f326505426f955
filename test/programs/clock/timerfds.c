/*
 * timerfds many COUNT: COUNT timerfds, of 10 s and 1 ms more each, waited for together. Prints how long this took, and
 * how late the latest was, in seconds. timerfds left: spins for 10 s, and prints what is left then of 100 s. timerfds
 * again: waits for a timerfd that was never set, and has the descriptor of one that was set and closed. timerfds
 * inherited: a process waits for a timerfd that its parent has set to two seconds; the parent has ended. timerfds
 * copied: waits for a timerfd of 1000 s that was set by another descriptor, which is closed.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void require(int is_good, const char *what)
{
    if (is_good)
        return;
    fprintf(stderr, "timerfds: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static int new_timer(int64_t nanoseconds)
{
    const int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    require(fd >= 0, "timerfd_create");
    const struct itimerspec value = {
        .it_value = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000}};
    require(timerfd_settime(fd, 0, &value, NULL) == 0, "timerfd_settime");
    return fd;
}

static void raise_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void many(int count)
{
    raise_limit();
    struct pollfd *const fds = calloc((size_t)count, sizeof *fds);
    int64_t *const deadlines = calloc((size_t)count, sizeof *deadlines);
    const int64_t begin = now();
    for (int i = 0; i < count; i++) {
        const int64_t length = 10000000000ll + i * 1000000ll;
        deadlines[i] = now() + length;
        fds[i] = (struct pollfd){.fd = new_timer(length), .events = POLLIN};
    }
    int64_t latest = 0;
    for (int left = count; left > 0;) {
        require(poll(fds, (nfds_t)count, -1) > 0, "poll");
        for (int i = 0; i < count; i++) {
            if (fds[i].revents == 0)
                continue;
            const int64_t late = now() - deadlines[i];
            require(late >= 0, "a timer that is early");
            latest = late > latest ? late : latest;
            fds[i].fd = -1;
            fds[i].revents = 0;
            left--;
        }
    }
    printf("%.1f %.3f\n", (double)(now() - begin) / 1e9, (double)latest / 1e9);
}

/* A process whose times end meanwhile. It ends when the last reader of the pipe has. */
static void start_another(const int ends[2], int seconds)
{
    if (fork() != 0)
        return;
    struct pollfd readers = {.fd = ends[1]};
    close(ends[0]);
    sleep(1);
    poll(&readers, 1, seconds * 1000);
    _exit(0);
}

static void inherited(void)
{
    int ends[2];
    char text[8] = "";
    require(pipe(ends) == 0, "pipe");
    const pid_t parent = fork();
    if (parent == 0) {
        /* Before the timer, which takes the longer to be found. */
        raise_limit();
        for (int i = 0; i < 3000; i++)
            require(dup(0) > 0, "dup");
        const int timer = new_timer(2000000000);
        const int64_t begin = now();
        if (fork() == 0) {
            uint64_t times;
            start_another(ends, 1000);
            require(read(timer, &times, sizeof times) == sizeof times, "read of the timer");
            require(now() - begin < 3000000000, "a late timer");
            require(write(ends[1], "over", 4) == 4, "write");
        }
        _exit(0);
    }
    close(ends[1]);
    waitpid(parent, NULL, 0);
    require(read(ends[0], text, 4) == 4, "read of the pipe");
    printf("%s\n", text);
}

static void left(void)
{
    const int timer = new_timer(100000000000);
    for (const int64_t begin = now(); now() - begin < 10000000000;)
        poll(NULL, 0, 0);
    struct itimerspec value;
    require(timerfd_gettime(timer, &value) == 0, "timerfd_gettime");
    printf("%.1f\n", (double)value.it_value.tv_sec + (double)value.it_value.tv_nsec / 1e9);
}

static void again(void)
{
    const int before = new_timer(5000000000);
    close(before);
    struct pollfd fd = {.fd = timerfd_create(CLOCK_MONOTONIC, 0), .events = POLLIN};
    require(fd.fd == before, "timerfd_create gave another descriptor");
    /* The clock jumps twice, also to where the first timer would have ended. */
    sleep(1);
    require(poll(&fd, 1, 20000) == 0, "a timer has ended that was never set");
}

static void copied(void)
{
    const int64_t begin = now();
    const int timer = new_timer(1000000000000), copy = dup(timer);
    int ends[2];
    uint64_t times;
    close(timer);
    require(pipe(ends) == 0, "pipe");
    start_another(ends, 3000);
    require(read(copy, &times, sizeof times) == sizeof times, "read of the timer");
    require((now() - begin) / 1000000000 == 1000, "a late timer");
}

int main(int count, char **words)
{
    if (count > 2 && strcmp(words[1], "many") == 0)
        many(atoi(words[2]));
    else if (count > 1 && strcmp(words[1], "left") == 0)
        left();
    else if (count > 1 && strcmp(words[1], "again") == 0)
        again();
    else if (count > 1 && strcmp(words[1], "inherited") == 0)
        inherited();
    else if (count > 1 && strcmp(words[1], "copied") == 0)
        copied();
    else {
        fprintf(stderr, "usage: %s many COUNT, or left, again, inherited or copied\n", words[0]);
        return 1;
    }
    return 0;
}
