/*
 * Spins, for tests of a clock that skips.
 *
 * spins alone SECONDS WAY [DEVICE]: until the clock says that so many seconds are over, by WAY: clock, yield, poll, or
 * cq: the polls of an empty completion queue of DEVICE; two: by two processes that yield. Prints the seconds.
 *
 * spins asks ROUNDS: a thread spins for a while, asks another one, which sleeps, in each way to wake it, and spins
 * until it has worked and answered. Prints by how much the clock was ahead of the machine's at most, in milliseconds.
 */
#define _GNU_SOURCE
#include <infiniband/verbs.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double of_timespec(struct timespec time)
{
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return of_timespec(time);
}

/* The machine's clock: the system call itself. */
static double machine(void)
{
    struct timespec time;
#if defined(__x86_64__)
    long result = SYS_clock_gettime;
    __asm__ volatile("syscall" : "+a"(result) : "D"((long)CLOCK_MONOTONIC), "S"(&time) : "rcx", "r11", "memory");
#else
    register long number __asm__("x8") = SYS_clock_gettime;
    register long result __asm__("x0") = CLOCK_MONOTONIC;
    register struct timespec *to __asm__("x1") = &time;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(number), "r"(to) : "memory");
#endif
    return of_timespec(time);
}

static struct ibv_cq *open_cq(const char *device)
{
    int count;
    struct ibv_device **const devices = ibv_get_device_list(&count);
    for (int i = 0; i < count; i++) {
        if (strcmp(ibv_get_device_name(devices[i]), device) != 0)
            continue;
        struct ibv_context *const context = ibv_open_device(devices[i]);
        struct ibv_cq *const cq = context ? ibv_create_cq(context, 16, NULL, NULL, 0) : NULL;
        if (!cq)
            fail("ibv_create_cq");
        return cq;
    }
    fprintf(stderr, "spins: no device %s\n", device);
    exit(1);
}

static double spin(double seconds, const char *way, struct ibv_cq *cq)
{
    const double begin = now();
    for (;;) {
        struct ibv_wc wc;
        if (cq && ibv_poll_cq(cq, 1, &wc) != 0)
            fail("ibv_poll_cq");
        if (strcmp(way, "yield") == 0)
            sched_yield();
        if (strcmp(way, "poll") == 0)
            poll(NULL, 0, 0);
        const double passed = now() - begin;
        if (passed >= seconds)
            return passed;
    }
}

/* ---- questions ---- */

static enum { PIPE, CONDITION, SEMAPHORE, EVENTFD, FUTEX, MUTEX, PROCESS, WAYS } way;
static int ask_pipe[2], process_pipe[2], ask_event;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static sem_t semaphore, ready;
static struct shared {
    uint32_t word, asked, answered;
} *shared;

static void work_and_answer(void)
{
    for (volatile unsigned i = 0; i < 3000000; i++)
        ;
    __atomic_add_fetch(&shared->answered, 1, __ATOMIC_SEQ_CST);
}

static void *answer(void *unused)
{
    (void)unused;
    for (;;) {
        char byte;
        uint64_t value;
        sem_wait(&ready);
        switch (way) {
        case PIPE:
            if (read(ask_pipe[0], &byte, 1) != 1)
                return NULL;
            break;
        case CONDITION:
            pthread_mutex_lock(&lock);
            while (shared->asked == shared->answered)
                pthread_cond_wait(&changed, &lock);
            pthread_mutex_unlock(&lock);
            break;
        case SEMAPHORE:
            sem_wait(&semaphore);
            break;
        case EVENTFD:
            if (eventfd_read(ask_event, &value) != 0)
                return NULL;
            break;
        case FUTEX:
            while (__atomic_load_n(&shared->word, __ATOMIC_SEQ_CST) == 0)
                syscall(SYS_futex, &shared->word, FUTEX_WAIT, 0, NULL, NULL, 0);
            shared->word = 0;
            break;
        default: /* MUTEX; a PROCESS answers itself */
            if (way == PROCESS)
                continue;
            pthread_mutex_lock(&held);
            pthread_mutex_unlock(&held);
            break;
        }
        work_and_answer();
    }
}

static void ask(void)
{
    __atomic_add_fetch(&shared->asked, 1, __ATOMIC_SEQ_CST);
    switch (way) {
    case PIPE:
    case PROCESS:
        if (write(way == PIPE ? ask_pipe[1] : process_pipe[1], "?", 1) != 1)
            fail("write");
        break;
    case CONDITION:
        pthread_cond_signal(&changed);
        break;
    case SEMAPHORE:
        sem_post(&semaphore);
        break;
    case EVENTFD:
        eventfd_write(ask_event, 1);
        break;
    case FUTEX:
        shared->word = 1;
        syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
        break;
    default:
        pthread_mutex_unlock(&held);
        break;
    }
}

static void ask_all(int rounds)
{
    pthread_t thread;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pipe(ask_pipe) != 0 || pipe(process_pipe) != 0 || (ask_event = eventfd(0, 0)) < 0 ||
        sem_init(&semaphore, 0, 0) != 0 || sem_init(&ready, 0, 0) != 0)
        fail("mmap, pipe or eventfd");
    if (fork() == 0) {
        close(process_pipe[1]);
        for (char byte; read(process_pipe[0], &byte, 1) == 1;)
            work_and_answer();
        _exit(0);
    }
    if (pthread_create(&thread, NULL, answer, NULL) != 0)
        fail("pthread_create");
    double most = 0;
    for (int i = 0; i < rounds; i++) {
        way = (unsigned)i % WAYS;
        if (way == MUTEX)
            pthread_mutex_lock(&held);
        sem_post(&ready);
        spin(0.1, "yield", NULL);
        const double begin = now(), real = machine();
        ask();
        while (__atomic_load_n(&shared->answered, __ATOMIC_SEQ_CST) != shared->asked)
            sched_yield();
        const double ahead = now() - begin - (machine() - real);
        most = ahead > most ? ahead : most;
    }
    printf("at most %.3f ms ahead\n", most * 1e3);
}

int main(int count, char **arguments)
{
    if (count == 3 && strcmp(arguments[1], "asks") == 0) {
        ask_all(atoi(arguments[2]));
        return 0;
    }
    if (count < 4 || strcmp(arguments[1], "alone") != 0) {
        fprintf(stderr, "usage: %s alone SECONDS WAY [DEVICE], or asks ROUNDS\n", arguments[0]);
        return 1;
    }
    const char *const by = arguments[3];
    const pid_t second = strcmp(by, "two") == 0 ? fork() : 1;
    const double passed = spin(atof(arguments[2]), strcmp(by, "two") == 0 ? "yield" : by, count > 4 ? open_cq(arguments[4]) : NULL);
    if (second == 0)
        return 0;
    if (second > 1)
        wait(NULL);
    printf("%.1f s\n", passed);
    return 0;
}
