/*
 * Waits an hour in each way that the clock of `--clock skip` knows, one after the other, and prints how long each took
 * on two clocks. For tests of that clock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOUR 3600

int pthread_cond_clockwait(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
int pthread_mutex_clocklock(pthread_mutex_t *, clockid_t, const struct timespec *);
int pthread_rwlock_clockrdlock(pthread_rwlock_t *, clockid_t, const struct timespec *);
int sem_clockwait(sem_t *, clockid_t, const struct timespec *);

static const struct timespec hour = {.tv_sec = HOUR};
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t written = PTHREAD_RWLOCK_INITIALIZER;
static sem_t semaphore;
static volatile sig_atomic_t signals;

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static struct timespec in_an_hour(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += HOUR;
    return time;
}

static void expect(bool is_right, const char *what)
{
    if (is_right)
        return;
    fprintf(stderr, "hours: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void on_signal(int number)
{
    (void)number;
    signals++;
}

static void by_nanosleep(void) { nanosleep(&hour, NULL); }
static void by_sleep(void) { sleep(HOUR); }
static void by_poll(void) { poll(NULL, 0, HOUR * 1000); }
static void by_ppoll(void) { ppoll(NULL, 0, &hour, NULL); }
static void by_select(void) { select(0, NULL, NULL, NULL, &(struct timeval){.tv_sec = HOUR}); }
static void by_pselect(void) { pselect(0, NULL, NULL, NULL, &hour, NULL); }

static void by_clock_nanosleep(void)
{
    const struct timespec end = in_an_hour(CLOCK_REALTIME);
    clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &end, NULL);
}

static void by_epoll(void)
{
    const int epoll = epoll_create1(0);
    struct epoll_event event;
    expect(epoll_wait(epoll, &event, 1, HOUR * 1000) == 0, "epoll_wait");
    close(epoll);
}

static void by_syscall(void)
{
    const int epoll = epoll_create1(0);
    struct epoll_event event;
    const struct timespec half = {.tv_sec = HOUR / 2};
    expect(syscall(SYS_ppoll, NULL, 0, &half, NULL, 0) == 0, "ppoll");
    expect(syscall(SYS_epoll_pwait, epoll, &event, 1, HOUR / 4 * 1000, NULL, 0) == 0, "epoll_pwait");
    const struct timespec quarter = {.tv_sec = HOUR / 4};
    if (syscall(441 /* epoll_pwait2 */, epoll, &event, 1, &quarter, NULL, 0) != 0) /* the kernel has none */
        nanosleep(&quarter, NULL);
    close(epoll);
}

/* A condition variable of this clock. */
static void by_condition(clockid_t clock)
{
    pthread_condattr_t attributes;
    pthread_cond_t condition;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, clock);
    pthread_cond_init(&condition, &attributes);
    const struct timespec end = in_an_hour(clock);
    pthread_mutex_lock(&mutex);
    while (pthread_cond_timedwait(&condition, &mutex, &end) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&mutex);
}
static void by_condition_real(void) { by_condition(CLOCK_REALTIME); }
static void by_condition_monotonic(void) { by_condition(CLOCK_MONOTONIC); }

static void by_mutex(void)
{
    const struct timespec end = in_an_hour(CLOCK_REALTIME);
    expect(pthread_mutex_timedlock(&held, &end) == ETIMEDOUT, "pthread_mutex_timedlock");
}

static void by_rwlock(void)
{
    const struct timespec end = in_an_hour(CLOCK_REALTIME);
    expect(pthread_rwlock_timedrdlock(&written, &end) == ETIMEDOUT, "pthread_rwlock_timedrdlock");
}

static void by_semaphore(void)
{
    const struct timespec end = in_an_hour(CLOCK_REALTIME);
    expect(sem_timedwait(&semaphore, &end) != 0 && errno == ETIMEDOUT, "sem_timedwait");
}

#if __GLIBC_PREREQ(2, 30)
static void by_clocks_of_locks(void)
{
    struct timespec end = in_an_hour(CLOCK_MONOTONIC);
    end.tv_sec -= HOUR - HOUR / 4;
    expect(pthread_mutex_clocklock(&held, CLOCK_MONOTONIC, &end) == ETIMEDOUT, "pthread_mutex_clocklock");
    end.tv_sec += HOUR / 4;
    expect(pthread_rwlock_clockrdlock(&written, CLOCK_MONOTONIC, &end) == ETIMEDOUT, "pthread_rwlock_clockrdlock");
    end.tv_sec += HOUR / 4;
    expect(sem_clockwait(&semaphore, CLOCK_MONOTONIC, &end) != 0 && errno == ETIMEDOUT, "sem_clockwait");
    end.tv_sec += HOUR / 4;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&mutex);
    while (pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, &end) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&mutex);
}
#endif

static void by_futex(void)
{
    static int word;
    const long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &hour, NULL, 0);
    expect(result != 0 && errno == ETIMEDOUT, "futex");
}

static void by_futex_until(void)
{
    static int word;
    const struct timespec end = in_an_hour(CLOCK_MONOTONIC);
    const long result = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &end, NULL, ~0);
    expect(result != 0 && errno == ETIMEDOUT, "futex");
}

static void by_sigtimedwait(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    expect(sigtimedwait(&set, NULL, &hour) < 0 && errno == EAGAIN, "sigtimedwait");
}

static void by_socket(void)
{
    int pair[2];
    char byte;
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = HOUR}, sizeof(struct timeval));
    expect(recv(pair[0], &byte, 1, 0) < 0 && errno == EAGAIN, "recv");
    close(pair[0]);
    close(pair[1]);
}

static void by_timerfd(void)
{
    const int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    uint64_t count;
    timerfd_settime(timer, 0, &(struct itimerspec){.it_value = hour}, NULL);
    const int unknown_flag = 64;
    expect(timerfd_settime(timer, unknown_flag, &(struct itimerspec){.it_value = hour}, NULL) != 0 && errno == EINVAL,
           "timerfd_settime with an unknown flag");
    expect(read(timer, &count, sizeof count) == sizeof count, "read of a timerfd");
    close(timer);
}

static void by_timer(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    timer_t timer;
    expect(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
    timer_settime(timer, 0, &(struct itimerspec){.it_value = hour}, NULL);
    pause();
    timer_delete(timer);
}

static void post(union sigval semaphore)
{
    sem_post(semaphore.sival_ptr);
}

static void by_timer_thread(void)
{
    sem_t over;
    sem_init(&over, 0, 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 18);
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD,
        .sigev_notify_function = post,
        .sigev_notify_attributes = &attributes,
        .sigev_value.sival_ptr = &over,
    };
    timer_t timer, deleted;
    struct itimerspec left;
    expect(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
    expect(timer_create(CLOCK_MONOTONIC, &event, &deleted) == 0, "timer_create");
    pthread_attr_destroy(&attributes);
    timer_settime(deleted, 0, &(struct itimerspec){.it_value = {.tv_sec = 1}}, NULL);
    timer_delete(deleted);
    timer_settime(timer, 0, &(struct itimerspec){.it_value = {.tv_sec = HOUR / 2}, .it_interval = {.tv_sec = HOUR / 2}}, NULL);
    for (int i = 0; i < 2; i++)
        while (sem_wait(&over) != 0)
            ;
    expect(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec > 1000, "timer_gettime");
    timer_delete(timer);
}

static void by_alarm(void)
{
    alarm(HOUR);
    pause();
}

static void by_setitimer(void)
{
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_sec = HOUR}}, NULL);
    pause();
}

static void *sleep_hours(void *hours)
{
    sleep((unsigned)(intptr_t)hours * HOUR);
    return NULL;
}

static void by_join(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_hours, (void *)1);
    pthread_join(thread, NULL);
}

static void by_timed_join(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_hours, (void *)2);
    const struct timespec end = in_an_hour(CLOCK_REALTIME);
    expect(pthread_timedjoin_np(thread, NULL, &end) == ETIMEDOUT, "pthread_timedjoin_np");
    pthread_detach(thread);
}

static void by_child(void)
{
    if (fork() == 0)
        _exit(sleep(HOUR) != 0);
    wait(NULL);
}

static void by_system(void) { expect(system("sleep 3600") == 0, "system"); }

static void by_popen(void)
{
    char line[8];
    FILE *const file = popen("sleep 3600; echo over", "r");
    expect(file && fgets(line, sizeof line, file), "popen");
    pclose(file);
}

static void by_message(void)
{
    char name[32], byte[8];
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = sizeof byte};
    snprintf(name, sizeof name, "/hours-%d", getpid());
    const mqd_t queue = mq_open(name, O_CREAT | O_RDWR, 0600, &attributes);
    if (queue == (mqd_t)-1) { /* the kernel has none */
        sleep(HOUR);
        return;
    }
    mq_unlink(name);
    const struct timespec end = in_an_hour(CLOCK_REALTIME);
    expect(mq_timedreceive(queue, byte, sizeof byte, NULL, &end) < 0 && errno == ETIMEDOUT, "mq_timedreceive");
    mq_close(queue);
}

#define WAY(name) {#name, by_##name}
static const struct {
    const char *name;
    void (*wait)(void);
} ways[] = {
    WAY(nanosleep),   WAY(clock_nanosleep), WAY(sleep),      WAY(poll),        WAY(ppoll),          WAY(select),
    WAY(pselect),     WAY(epoll),           WAY(condition_real), WAY(condition_monotonic), WAY(mutex),  WAY(rwlock),
    WAY(semaphore),
#if __GLIBC_PREREQ(2, 30)
    WAY(clocks_of_locks),
#endif
    WAY(futex),       WAY(futex_until),     WAY(sigtimedwait), WAY(socket),    WAY(timerfd),        WAY(timer),
    WAY(alarm),       WAY(setitimer),       WAY(join),       WAY(timed_join),  WAY(child),          WAY(system),
    WAY(popen),       WAY(message),         WAY(syscall),    WAY(timer_thread),
};

/* A thread that blocks all signals and has the locks for ever. */
static void *hold(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&held);
    pthread_rwlock_wrlock(&written);
    sem_post(&semaphore);
    while (pause() != 0)
        ;
    return NULL;
}

int main(int count, char **arguments)
{
    if (count > 1) {
        fprintf(stderr, "usage: %s\n", arguments[0]);
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    sem_init(&semaphore, 0, 0);
    signal(SIGUSR2, on_signal);
    signal(SIGALRM, on_signal);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_t thread;
    pthread_create(&thread, NULL, hold, NULL);
    sigaddset(&before, SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    while (sem_wait(&semaphore) != 0)
        ;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const double monotonic = seconds(CLOCK_MONOTONIC), real = seconds(CLOCK_REALTIME);
        ways[i].wait();
        printf("%s %.0f %.0f\n", ways[i].name, seconds(CLOCK_MONOTONIC) - monotonic, seconds(CLOCK_REALTIME) - real);
    }
    return 0;
}
