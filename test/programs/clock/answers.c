/*
 * Pairs of threads and of processes that ask each other, with a time limit of a minute for each answer, while other
 * threads sleep for hours. The answers take work: a clock that skips must not go past it. Prints how many questions
 * were asked, and ends with 1 if one was not answered in time, or a sleeper has woken before or after its time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS 60000
/* What a sleeper may be late, seconds: other threads work meanwhile. */
#define LATE 30

struct pair {
    int questioner, answerer; /* descriptors; -1: by the condition variable */
    unsigned seed;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned asked, answered;
    bool is_over;
};

static int rounds;
static volatile bool is_over;
static unsigned long questions;

static void fail(const char *what)
{
    fprintf(stderr, "answers: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Up to about a millisecond of work of a kind that `seed` chooses. */
static void work(unsigned *seed)
{
    const unsigned choice = (unsigned)rand_r(seed);
    switch (choice % 8) {
    case 0: /* the processor */
        for (volatile unsigned i = 0; i < choice % 1000000; i++)
            ;
        break;
    case 1: { /* faults of pages */
        char *const memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(memory, 1, 1 << 20);
        munmap(memory, 1 << 20);
        break;
    }
    case 2: { /* a disk */
        char name[] = "/tmp/answersXXXXXX";
        const int fd = mkstemp(name);
        unlink(name);
        if (write(fd, name, sizeof name) != sizeof name || fsync(fd) != 0)
            fail("fsync");
        close(fd);
        break;
    }
    case 3: { /* a child */
        const pid_t child = fork();
        if (child == 0) {
            usleep(100);
            _exit(0);
        }
        if (waitpid(child, NULL, 0) != child)
            fail("waitpid");
        break;
    }
    case 4:
        usleep(choice / 8 % 3000);
        break;
    case 5:
        raise(SIGUSR1);
        break;
    default:
        break;
    }
}

static void *answer(void *of)
{
    struct pair *const pair = of;
    unsigned seed = pair->seed * 2 + 1;
    if (pair->answerer < 0) {
        pthread_mutex_lock(&pair->lock);
        for (;;) {
            while (pair->asked == pair->answered && !pair->is_over)
                pthread_cond_wait(&pair->changed, &pair->lock);
            if (pair->is_over)
                break;
            pthread_mutex_unlock(&pair->lock);
            work(&seed);
            pthread_mutex_lock(&pair->lock);
            pair->answered++;
            pthread_cond_broadcast(&pair->changed);
        }
        pthread_mutex_unlock(&pair->lock);
        return NULL;
    }
    char byte;
    for (ssize_t length; (length = read(pair->answerer, &byte, 1)) != 0;) {
        if (length < 0 && errno != EINTR)
            fail("read");
        if (length < 0)
            continue;
        work(&seed);
        if (write(pair->answerer, &byte, 1) != 1)
            fail("write");
    }
    return NULL;
}

static void ask_by_descriptor(struct pair *pair)
{
    char byte = 'q';
    if (write(pair->questioner, &byte, 1) != 1)
        fail("write");
    struct pollfd ready = {.fd = pair->questioner, .events = POLLIN};
    int count;
    while ((count = poll(&ready, 1, LIMIT_MS)) < 0 && errno == EINTR)
        ;
    errno = ETIMEDOUT;
    if (count != 1)
        fail("no answer");
    if (read(pair->questioner, &byte, 1) != 1)
        fail("read");
}

static void ask_by_condition(struct pair *pair)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += LIMIT_MS / 1000;
    pthread_mutex_lock(&pair->lock);
    pair->asked++;
    pthread_cond_broadcast(&pair->changed);
    while (pair->answered != pair->asked) {
        errno = pthread_cond_timedwait(&pair->changed, &pair->lock, &limit);
        if (errno != 0)
            fail("no answer of a thread");
    }
    pthread_mutex_unlock(&pair->lock);
}

static void *ask(void *of)
{
    struct pair *const pair = of;
    unsigned seed = pair->seed * 2;
    for (int i = 0; i < rounds; i++) {
        if (pair->questioner >= 0)
            ask_by_descriptor(pair);
        else
            ask_by_condition(pair);
        __atomic_add_fetch(&questions, 1, __ATOMIC_RELAXED);
        if (rand_r(&seed) % 4 == 0)
            work(&seed);
    }
    if (pair->questioner >= 0)
        shutdown(pair->questioner, SHUT_WR);
    pthread_mutex_lock(&pair->lock);
    pair->is_over = true;
    pthread_cond_broadcast(&pair->changed);
    pthread_mutex_unlock(&pair->lock);
    return NULL;
}

static void *sleep_long(void *of)
{
    unsigned seed = *(unsigned *)of;
    while (!is_over) {
        const unsigned seconds = 600 + (unsigned)rand_r(&seed) % 3600;
        const double begin = now();
        const struct timespec time = {.tv_sec = seconds};
        nanosleep(&time, NULL);
        const double slept = now() - begin;
        if (slept < seconds || slept > seconds + LATE) {
            fprintf(stderr, "answers: a sleep of %u s took %.3f s\n", seconds, slept);
            _exit(1);
        }
    }
    return NULL;
}

static void tcp_pair(int pair[2])
{
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        fail("listen");
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(pair[0], (struct sockaddr *)&address, length) != 0)
        fail("connect");
    pair[1] = accept(listener, NULL, NULL);
    close(listener);
}

static void udp_pair(int pair[2])
{
    struct sockaddr_in address[2] = {{.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    address[1] = address[0];
    socklen_t length = sizeof address[0];
    for (int i = 0; i < 2; i++) {
        pair[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (bind(pair[i], (struct sockaddr *)&address[i], length) != 0 ||
            getsockname(pair[i], (struct sockaddr *)&address[i], &length) != 0)
            fail("bind");
    }
    for (int i = 0; i < 2; i++)
        if (connect(pair[i], (struct sockaddr *)&address[1 - i], length) != 0)
            fail("connect");
}

static void ignore(int signal)
{
    (void)signal;
}

int main(int count, char **arguments)
{
    if (count != 4) {
        fprintf(stderr, "usage: %s PAIRS SLEEPERS ROUNDS\n", arguments[0]);
        return 1;
    }
    const int pairs = atoi(arguments[1]), sleepers = atoi(arguments[2]);
    rounds = atoi(arguments[3]);
    struct sigaction action = {.sa_handler = ignore};
    sigaction(SIGUSR1, &action, NULL);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    pthread_t thread, questioners[pairs], sleeping[sleepers];
    unsigned seeds[sleepers];
    struct pair all[pairs];
    pid_t children[pairs];
    for (int i = 0; i < pairs; i++) {
        all[i] = (struct pair){.seed = (unsigned)i, .questioner = -1, .answerer = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
        children[i] = 0;
        int ends[2] = {-1, -1};
        switch (i % 5) {
        case 0:
            break;
        case 1:
        case 2:
            if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
                fail("socketpair");
            break;
        case 3:
            tcp_pair(ends);
            break;
        default:
            udp_pair(ends);
            break;
        }
        all[i].questioner = ends[0];
        all[i].answerer = ends[1];
        if (i % 5 == 2 && (children[i] = fork()) == 0) {
            close(ends[0]);
            answer(&all[i]);
            _exit(0);
        }
    }
    for (int i = 0; i < sleepers; i++) {
        seeds[i] = (unsigned)i;
        if (pthread_create(&sleeping[i], &attributes, sleep_long, &seeds[i]) != 0)
            fail("pthread_create");
    }
    for (int i = 0; i < pairs; i++) {
        if (children[i] == 0 && (pthread_create(&thread, &attributes, answer, &all[i]) != 0 || pthread_detach(thread) != 0))
            fail("pthread_create");
        if (pthread_create(&questioners[i], &attributes, ask, &all[i]) != 0)
            fail("pthread_create");
    }
    for (int i = 0; i < pairs; i++)
        pthread_join(questioners[i], NULL);
    is_over = true;
    for (int i = 0; i < sleepers; i++)
        pthread_join(sleeping[i], NULL);
    printf("%lu answers in time\n", questions);
    return 0;
}
