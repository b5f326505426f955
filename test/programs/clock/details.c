/*
 * details CASE: what programs rely on, of waits and timers, in ways that are seldom. A case is written as its function,
 * and fails with a message; its times are of the clock that it sees. It takes up to two minutes by the machine's clock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *name;

static void require(int is_good, const char *what)
{
    if (is_good)
        return;
    fprintf(stderr, "details: %s: %s (%s)\n", name, what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double begun_at;

/* That a wait of so long has ended. */
static void require_after(double seconds)
{
    const double took = now() - begun_at;
    char what[64];
    snprintf(what, sizeof what, "after %.2f s, not %.2f s", took, seconds);
    require(took >= seconds - 0.01 && took < seconds + 1, what);
}

static void *sleep_for(void *seconds)
{
    sleep((unsigned)(uintptr_t)seconds);
    return NULL;
}

/* Sleeps too, for longer than the case: its end must not be reached first. */
static void start_sleeper(void)
{
    pthread_t thread;
    require(pthread_create(&thread, NULL, sleep_for, (void *)60) == 0, "pthread_create");
}

static void block(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int wait_for(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return sigwaitinfo(&set, NULL);
}

/* ---- sockets with a limit ---- */

static void set_limit(int fd)
{
    const struct timeval limit = {.tv_sec = 1};
    require(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0, "setsockopt");
}

static int limited_socket(void)
{
    int ends[2];
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
    set_limit(ends[0]);
    return ends[0];
}

static void require_nothing(int fd)
{
    char text[1];
    require(read(fd, text, 1) == -1 && errno == EAGAIN, "a socket gave something");
    require_after(1);
}

static void copied_socket(void)
{
    start_sleeper();
    require_nothing(dup(limited_socket()));
}

static void stream_of_socket(void)
{
    start_sleeper();
    char text[8];
    require(!fgets(text, sizeof text, fdopen(limited_socket(), "r")), "a stream gave something");
    require_after(1);
}

static void socket_alone(void)
{
    char text[8];
    require(!fgets(text, sizeof text, fdopen(limited_socket(), "r")), "a stream gave something");
    require_after(1);
}

/* Two ends of a connection, of which the second was accepted. */
static void connect_pair(int ends[2], int is_limited)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    require(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0, "listen");
    require(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
    if (is_limited)
        set_limit(listener);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    require(connect(ends[0], (struct sockaddr *)&address, size) == 0, "connect");
    ends[1] = accept(listener, NULL, NULL);
    close(listener);
}

static void accepted_socket(void)
{
    int ends[2];
    connect_pair(ends, 1);
    require_nothing(ends[1]);
}

/* Held back by the kernel for 0.2 s. */
static void held_back(void)
{
    int ends[2];
    connect_pair(ends, 0);
    require(send(ends[1], "x", 1, MSG_MORE) == 1, "send");
    struct pollfd fd = {.fd = ends[0], .events = POLLIN};
    require(poll(&fd, 1, 60000) == 1, "nothing came");
}

/* ---- pipes with a name ---- */

static void named_pipes(void)
{
    char path[] = "/tmp/userdma-details-XXXXXX", pipe[64];
    require(mkdtemp(path) != NULL, "mkdtemp");
    snprintf(pipe, sizeof pipe, "%s/pipe", path);
    require(mkfifo(pipe, 0600) == 0, "mkfifo");
    if (fork() == 0) {
        sleep(30);
        const int fd = open(pipe, O_WRONLY);
        sleep(30);
        _exit(write(fd, "x", 1) != 1);
    }
    char text[1];
    const int fd = open(pipe, O_RDONLY);
    require(fd >= 0, "open");
    require_after(30);
    require(read(fd, text, 1) == 1, "read");
    require_after(60);
    unlink(pipe);
    rmdir(path);
}

static int terminal;

static void *write_later(void *fd)
{
    sleep(60);
    require(write(*(int *)fd, "x\n", 2) == 2, "write");
    return NULL;
}

static void terminals(void)
{
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    require(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0, "posix_openpt");
    int other = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    pthread_t thread;
    pthread_create(&thread, NULL, write_later, &other);
    char text[8];
    require(read(terminal, text, sizeof text) > 0, "read");
    require_after(60);
}

static int answer[2];

static void spliced(void)
{
    int other[2];
    require(pipe(answer) == 0 && pipe(other) == 0, "pipe");
    pthread_t thread;
    pthread_create(&thread, NULL, write_later, &answer[1]);
    require(splice(answer[0], NULL, other[1], NULL, 8, 0) == 2, "splice");
    require_after(60);
}

/* ---- children ---- */

static int work(void *unused)
{
    (void)unused;
    for (const clock_t begin = clock(); clock() - begin < CLOCKS_PER_SEC / 5;)
        ;
    return write(answer[1], "x", 1) != 1;
}

static void require_answer(pid_t child)
{
    require(child > 0, "no child");
    struct pollfd fd = {.fd = answer[0], .events = POLLIN};
    require(poll(&fd, 1, 60000) == 1, "the child did not answer in time");
    char text[1];
    require(read(answer[0], text, 1) == 1, "read");
    int status;
    require(waitpid(child, &status, 0) == child && status == 0, "the child failed");
}

static void children(void)
{
    require(pipe(answer) == 0, "pipe");
    const size_t size = 1 << 20;
    char *const stack = malloc(size);
    require_answer(clone(work, stack + size, SIGCHLD, NULL));
    require_answer(clone(work, stack + size, CLONE_VM | SIGCHLD, NULL));
#if __GLIBC_PREREQ(2, 34)
    const pid_t child = _Fork();
    if (child == 0)
        _exit(work(NULL));
    require_answer(child);
#endif
}

static void *run_shell(void *command)
{
    require(system(command) == 0, "system");
    return NULL;
}

static void shells(void)
{
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, run_shell, "sleep 3");
    sleep(1);
    pthread_create(&threads[1], NULL, run_shell, "sleep 4");
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    struct sigaction action;
    sigaction(SIGINT, NULL, &action);
    require(action.sa_handler == SIG_DFL, "SIGINT is ignored");
}

/* ---- what is left of a sleep ---- */

static void ignore(int signal)
{
    (void)signal;
}

static void remainders(void)
{
    signal(SIGALRM, ignore);
    alarm(10);
    usleep(700000);
    require(alarm(0) == 9, "alarm");
    ualarm(300000, 0);
    require(sleep(10) == 9, "sleep");
    const struct itimerval often = {{.tv_usec = 100000}, {.tv_usec = 100000}};
    setitimer(ITIMER_REAL, &often, NULL);
    int rounds = 0;
    for (unsigned left = 3; left != 0 && rounds < 100; rounds++)
        left = sleep(left);
    require(rounds == 3, "sleep does not end");
}

static void refused_clocks(void)
{
    const struct timespec second = {.tv_sec = 1};
    require(clock_nanosleep(CLOCK_MONOTONIC_RAW, 0, &second, NULL) == EOPNOTSUPP, "CLOCK_MONOTONIC_RAW");
    require(clock_nanosleep(CLOCK_REALTIME_COARSE, 0, &second, NULL) == EOPNOTSUPP, "CLOCK_REALTIME_COARSE");
}

/* Pointers that may be none. */
static void *volatile none;

static void no_pointers(void)
{
    struct timezone zone;
    require(gettimeofday(none, &zone) == 0, "gettimeofday");
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 1};
    char queue_name[32], text[1];
    snprintf(queue_name, sizeof queue_name, "/details%d", getpid());
    const mqd_t queue = mq_open(queue_name, O_CREAT | O_RDWR, 0600, &attributes);
    require(queue >= 0 && mq_unlink(queue_name) == 0, "mq_open");
    if (fork() == 0) {
        sleep(5);
        _exit(mq_send(queue, "x", 1, 0) != 0);
    }
    require(mq_timedreceive(queue, text, 1, NULL, none) == 1, "mq_timedreceive");
    require_after(5);
}

/* A handler that waits for longer than what it interrupts. */
static void wait_for_answer(int signal)
{
    (void)signal;
    char text[1];
    while (read(answer[0], text, 1) < 0)
        ;
}

static void long_handler(void)
{
    require(pipe(answer) == 0, "pipe");
    signal(SIGALRM, wait_for_answer);
    block(SIGALRM);
    pthread_t thread;
    pthread_create(&thread, NULL, write_later, &answer[1]);
    sigset_t set;
    sigemptyset(&set);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
    alarm(2);
    sleep(10);
    require_after(60);
}

/* ---- timers ---- */

static const struct itimerspec three_seconds = {.it_value = {.tv_sec = 3}};

static void require_expired(int timer)
{
    uint64_t times;
    require(read(timer, &times, sizeof times) == sizeof times, "read of a timerfd");
}

static void copied_timer(void)
{
    const int timer = dup(timerfd_create(CLOCK_MONOTONIC, 0));
    struct itimerspec value = {0};
    clock_gettime(CLOCK_MONOTONIC, &value.it_value);
    value.it_value.tv_sec += 3;
    require(timerfd_settime(timer, TFD_TIMER_ABSTIME, &value, NULL) == 0, "timerfd_settime");
    require_expired(timer);
    require_after(3);
}

static void set_in_child(int timer, time_t seconds)
{
    const pid_t child = fork();
    const struct itimerspec value = {.it_value = {.tv_sec = seconds}};
    if (child == 0)
        _exit(timerfd_settime(timer, 0, &value, NULL) != 0);
    int status;
    require(waitpid(child, &status, 0) == child && status == 0, "timerfd_settime");
}

/* Set by children. */
static void shared_timer(void)
{
    const int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(timer, 0, &three_seconds, NULL);
    set_in_child(timer, 30);
    require_expired(timer);
    require_after(30);
    timerfd_settime(timer, 0, &three_seconds, NULL);
    set_in_child(timer, 0);
    struct pollfd fd = {.fd = timer, .events = POLLIN};
    require(poll(&fd, 1, 10000) == 0, "a timer has ended that is not set");
}

static void *sleep_often(void *unused)
{
    (void)unused;
    for (int i = 0; i < 60; i++)
        usleep(330000);
    return NULL;
}

static void unread_timer(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_often, NULL);
    const int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    const struct itimerspec each_second = {{.tv_sec = 1}, {.tv_sec = 1}};
    timerfd_settime(timer, 0, &each_second, NULL);
    usleep(10500000);
    uint64_t times;
    require(read(timer, &times, sizeof times) == sizeof times && times == 10, "ends were lost");
    require_expired(timer);
    require_after(11);
}

static void far_timer(void)
{
    const int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec value = {.it_value = {.tv_sec = 10 * 365 * 86400}};
    timerfd_settime(timer, 0, &value, NULL);
    require(timerfd_gettime(timer, &value) == 0 && value.it_value.tv_sec > 9 * 365 * 86400, "timerfd_gettime");
}

static void system_calls(void)
{
    start_sleeper();
    const int timer = (int)syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0);
    require(syscall(SYS_timerfd_settime, timer, 0, &three_seconds, NULL) == 0, "timerfd_settime");
    require_expired(timer);
    require_after(3);
    block(SIGALRM);
    const struct itimerval value = {.it_value = {.tv_sec = 3}};
    require(syscall(SYS_setitimer, ITIMER_REAL, &value, NULL) == 0, "setitimer");
    require(wait_for(SIGALRM) == SIGALRM, "sigwaitinfo");
    require_after(6);
    block(SIGUSR1);
    int id;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    require(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) == 0, "timer_create");
    require(syscall(SYS_timer_settime, id, 0, &three_seconds, NULL) == 0, "timer_settime");
    require(wait_for(SIGUSR1) == SIGUSR1, "sigwaitinfo");
    require_after(9);
    require(syscall(SYS_timer_delete, id) == 0, "timer_delete");
}

static void blocked_timer(void)
{
    const int signal = SIGRTMIN + 2;
    block(signal);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal};
    timer_t timer;
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    const struct itimerspec often = {{.tv_nsec = 100000000}, {.tv_nsec = 100000000}};
    timer_settime(timer, 0, &often, NULL);
    usleep(2050000);
    require(wait_for(signal) == signal, "sigwaitinfo");
    const int overruns = timer_getoverrun(timer);
    require(overruns >= 19 && overruns < 25, "timer_getoverrun");
    sigset_t set;
    sigpending(&set);
    require(!sigismember(&set, signal), "another signal");
}

static void forgotten_timer(void)
{
    timer_t timer;
    timer_create(CLOCK_MONOTONIC, NULL, &timer);
    timer_settime(timer, 0, &(struct itimerspec){.it_value = {.tv_nsec = 500000000}}, NULL);
    /* Without the library. */
    char *const nothing[] = {NULL};
    execle("/bin/sleep", "sleep", "1", NULL, nothing);
}

static void lock_with_limit(void)
{
    static int word;
    word = getppid();
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 3;
    require(syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, &until, NULL, 0) == -1 && errno == ETIMEDOUT, "FUTEX_LOCK_PI");
    require_after(3);
}

static sigjmp_buf left;

static void leave(int signal)
{
    (void)signal;
    siglongjmp(left, 1);
}

/* The wait that a handler has left must not end a later one. */
static void left_wait(void)
{
    int ends[2];
    require(pipe(ends) == 0, "pipe");
    signal(SIGALRM, leave);
    if (sigsetjmp(left, 1) == 0) {
        alarm(1);
        usleep(2500000);
    }
    require_after(1);
    if (fork() == 0) {
        sleep(4);
        _exit(write(ends[1], "x", 1) != 1);
    }
    struct pollfd ready = {.fd = ends[0], .events = POLLIN};
    require(poll(&ready, 1, -1) == 1, "poll");
    require_after(5);
}

/* A wait whose time is over is no error. */
static void kept_errno(void)
{
    struct pollfd none;
    errno = 0;
    require(poll(&none, 0, 3000) == 0 && errno == 0, "poll");
    require(select(0, NULL, NULL, NULL, &(struct timeval){.tv_sec = 3}) == 0 && errno == 0, "select");
    require_after(6);
}

static void long_handled(int signal)
{
    (void)signal;
    sleep(3);
}

/* The handler ends after the sleep would have: it has interrupted it. */
static void late_handler(void)
{
    signal(SIGALRM, long_handled);
    alarm(1);
    require(nanosleep(&(struct timespec){.tv_sec = 2}, NULL) == -1 && errno == EINTR, "nanosleep");
    require_after(4);
}

/* Timers that begin in the past keep their phase, and have ended as often. */
static void past_timers(void)
{
    struct timespec past;
    timer_t timer;
    uint64_t ticks;
    clock_gettime(CLOCK_MONOTONIC, &past);
    past.tv_sec -= 10;
    const struct itimerspec often = {{.tv_sec = 1, .tv_nsec = 500000000}, past};
    const int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &often, NULL);
    require(read(fd, &ticks, sizeof ticks) == sizeof ticks && ticks == 7, "read");
    require(read(fd, &ticks, sizeof ticks) == sizeof ticks && ticks == 1, "read again");
    require_after(0.5);
    block(SIGALRM);
    timer_create(CLOCK_MONOTONIC, NULL, &timer);
    timer_settime(timer, TIMER_ABSTIME, &often, NULL);
    require(wait_for(SIGALRM) == SIGALRM && timer_getoverrun(timer) >= 6, "timer_getoverrun");
    require(wait_for(SIGALRM) == SIGALRM, "sigwaitinfo");
    require_after(2);
}

/* A timer that ends at each moment keeps no wait from its end that a jump has shortened. */
static void short_timer(void)
{
    timer_t timer;
    pthread_t thread;
    signal(SIGUSR1, ignore);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    block(SIGUSR1);
    pthread_create(&thread, NULL, sleep_for, (void *)3);
    sleep(2);
    timer_settime(timer, 0, &(struct itimerspec){{.tv_nsec = 20000}, {.tv_nsec = 20000}}, NULL);
    pthread_join(thread, NULL);
    require_after(3);
}

/* Two timers have one signal each, not one for each end. */
static void one_signal_for_two(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    timer_t timers[2];
    block(SIGRTMIN);
    for (int i = 0; i < 2; i++) {
        timer_create(CLOCK_MONOTONIC, &event, &timers[i]);
        timer_settime(timers[i], 0, &(struct itimerspec){{.tv_nsec = 100000000}, {.tv_nsec = 100000000}}, NULL);
    }
    usleep(2050000);
    for (int i = 0; i < 2; i++)
        timer_settime(timers[i], 0, &(struct itimerspec){{0}, {0}}, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    int signals = 0;
    while (sigtimedwait(&set, NULL, &(struct timespec){0}) == SIGRTMIN)
        signals++;
    require(signals <= 2, "signals");
}

static void refused_times(void)
{
    const struct itimerval bad[] = {{.it_value = {.tv_sec = -1}},
                                    {.it_value = {.tv_usec = 1000000}},
                                    {{.tv_usec = -1}, {.tv_sec = 1}}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        require(setitimer(ITIMER_REAL, &bad[i], NULL) == -1 && errno == EINVAL, "setitimer");
    require(ualarm(1500000, 0) == (useconds_t)-1, "ualarm");
    require(nanosleep(NULL, NULL) == -1 && errno == EFAULT, "nanosleep");
}

static int notice_ends[2];

static void wait_in_notice(union sigval value)
{
    char byte;
    (void)value;
    (void)!read(notice_ends[0], &byte, 1);
}

/* A signal of the process is for the thread that waits for it, not for that of a timer. */
static void notice_blocks_signals(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = wait_in_notice};
    timer_t timer;
    require(pipe(notice_ends) == 0, "pipe");
    block(SIGUSR1);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &(struct itimerspec){.it_value = {.tv_sec = 1}}, NULL);
    sleep(2);
    kill(getpid(), SIGUSR1);
    require(wait_for(SIGUSR1) == SIGUSR1, "sigwaitinfo");
}

/* After such a timer nothing is left that ends the wait. */
static void wait_after_notice(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = wait_in_notice};
    timer_t timer;
    union sigval none = {0};
    require(pipe(notice_ends) == 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
    timer_delete(timer);
    wait_in_notice(none);
}

static void write_byte(int signal)
{
    (void)signal;
    (void)!write(notice_ends[1], "x", 1);
}

/* Until somebody ends it by SIGTERM. */
static void wait_for_end(void)
{
    require(pipe(notice_ends) == 0, "pipe");
    signal(SIGTERM, write_byte);
    puts("waits");
    fflush(stdout);
    struct pollfd ready = {.fd = notice_ends[0], .events = POLLIN};
    while (poll(&ready, 1, -1) != 1)
        ;
}

/* The time of a packet is that of the program. */
static void packet_time(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int socket_ = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    require(bind(socket_, (struct sockaddr *)&address, size) == 0 && getsockname(socket_, (struct sockaddr *)&address, &size) == 0 &&
                setsockopt(socket_, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) == 0,
            "socket");
    sleep(2);
    require(sendto(socket_, "x", 1, 0, (struct sockaddr *)&address, size) == 1, "sendto");
    char byte, control[256];
    struct iovec part = {&byte, 1};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    require(recvmsg(socket_, &header, 0) == 1 && CMSG_FIRSTHDR(&header), "recvmsg");
    struct timeval time, until;
    memcpy(&time, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof time);
    gettimeofday(&until, NULL);
    const double age = (double)(until.tv_sec - time.tv_sec) + (double)(until.tv_usec - time.tv_usec) / 1e6;
    require(age >= 0 && age < 1, "the packet's time");
}

/* No thread waits for the disk. */
static void read_by_disk(void)
{
    enum { LENGTH = 8 << 20, READS = 10 };
    aio_context_t context = 0;
    char path[] = "/var/tmp/userdma-XXXXXX";
    void *buffer;
    uint64_t count;
    const int made = mkstemp(path), file = open(path, O_RDWR | O_DIRECT), done = eventfd(0, 0);
    unlink(path);
    if (made < 0 || file < 0 || syscall(SYS_io_setup, 8, &context) != 0)
        return; /* neither is needed to have a clock */
    require(posix_memalign(&buffer, 4096, LENGTH) == 0 && pwrite(file, memset(buffer, 1, LENGTH), LENGTH, 0) == LENGTH, "pwrite");
    for (int i = 0; i < READS; i++) {
        struct iocb request = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file, .aio_buf = (uintptr_t)buffer,
                               .aio_nbytes = LENGTH, .aio_flags = IOCB_FLAG_RESFD, .aio_resfd = (uint32_t)done};
        struct iocb *list = &request;
        struct io_event event;
        struct pollfd ready = {.fd = done, .events = POLLIN};
        require(syscall(SYS_io_submit, context, 1, &list) == 1, "io_submit");
        require(poll(&ready, 1, 60000) == 1, "poll");
        require(read(done, &count, sizeof count) == sizeof count && syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1,
                "io_getevents");
    }
    require_after(0);
}

/* A child sleeps for less than a look takes, and ends. */
static void ended_children(void)
{
    for (int i = 0; i < 1000; i++) {
        const double begin = now();
        const pid_t child = fork();
        if (child == 0) {
            usleep(100 + (useconds_t)i % 6 * 100);
            _exit(0);
        }
        struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, child, 0), .events = POLLIN};
        require(poll(&ended, 1, 60000) == 1 && now() - begin < 30, "poll");
        close(ended.fd);
        waitpid(child, NULL, 0);
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
#define CASE(name) {#name, name}
    CASE(copied_socket), CASE(stream_of_socket), CASE(socket_alone),   CASE(accepted_socket), CASE(held_back),
    CASE(named_pipes),   CASE(terminals), CASE(spliced),        CASE(children),       CASE(shells),          CASE(remainders),
    CASE(refused_clocks), CASE(no_pointers),     CASE(long_handler),   CASE(copied_timer),    CASE(shared_timer),
    CASE(unread_timer), CASE(far_timer), CASE(system_calls),  CASE(blocked_timer),    CASE(forgotten_timer), CASE(lock_with_limit),
    CASE(left_wait), CASE(kept_errno), CASE(late_handler), CASE(past_timers), CASE(short_timer), CASE(one_signal_for_two),
    CASE(refused_times), CASE(notice_blocks_signals), CASE(packet_time), CASE(wait_after_notice), CASE(wait_for_end), CASE(read_by_disk), CASE(ended_children),
};

int main(int count, char **words)
{
    for (size_t i = 0; count == 2 && i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(words[1], cases[i].name) != 0)
            continue;
        name = cases[i].name;
        begun_at = now();
        cases[i].run();
        return 0;
    }
    fprintf(stderr, "usage: %s CASE, one of:", words[0]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        fprintf(stderr, " %s", cases[i].name);
    fprintf(stderr, "\n");
    return 1;
}
