/*
 * Calls of programs with unusual habits. Prints "done".
 *
 *   call_habits closing   closes all descriptors of the preload library's sockets by raw system calls, between calls
 *   call_habits malloc    first calls of threads in a signal handler that may have interrupted malloc
 *   call_habits leaving PID   leaves a call by siglongjmp while the daemon PID is stopped: its results are not written to the
 *                             stack when the daemon continues
 */
#define _GNU_SOURCE
#include <infiniband/verbs.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 300
#define CALLS 20 /* so that the daemon polls the slot */
#define DESCRIPTORS 4096
#define BLOCKS 40

static struct ibv_context *context;

static void query(void)
{
    struct ibv_port_attr port;
    const int error = ibv_query_port(context, 1, &port);
    if (error) {
        fprintf(stderr, "ibv_query_port: %s\n", strerror(error));
        exit(1);
    }
}

static void close_session(void)
{
    for (int fd = 3; fd < DESCRIPTORS; fd++) {
        int type;
        socklen_t length = sizeof type;
        if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET)
            syscall(SYS_close, fd);
    }
}

static __thread volatile sig_atomic_t has_called;

static void on_signal(int number)
{
    (void)number;
    query();
    has_called = 1;
}

static void *allocate(void *started)
{
    void *blocks[BLOCKS];
    *(volatile int *)started = 1;
    while (!has_called) {
        for (size_t i = 0; i < BLOCKS; i++)
            blocks[i] = malloc(2000 + 100 * i);
        for (size_t i = 0; i < BLOCKS; i++)
            free(blocks[i]);
    }
    return NULL;
}

static void call_in_malloc(void)
{
    volatile int has_started = 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate, (void *)&has_started) != 0)
        exit(1);
    while (!has_started)
        usleep(100);
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, NULL);
}

static sigjmp_buf before_call;

static void leave(int number)
{
    (void)number;
    siglongjmp(before_call, 1);
}

/* The frame of the call that was left lies in `frame`. */
__attribute__((noinline)) static void watch_stack(pid_t daemon)
{
    volatile unsigned char frame[32768];
    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = 0x5a;
    kill(daemon, SIGCONT);
    usleep(500000);
    for (size_t i = 0; i < sizeof frame; i++)
        if (frame[i] != 0x5a) {
            fprintf(stderr, "a call that was left has written to the stack\n");
            exit(1);
        }
}

__attribute__((noinline)) static void query_below(void)
{
    volatile char room[8192];
    room[0] = 0;
    query();
    room[1] = room[0];
}

static void leave_call(pid_t daemon)
{
    signal(SIGALRM, leave);
    kill(daemon, SIGSTOP);
    if (sigsetjmp(before_call, 1) == 0) {
        alarm(2); /* after UNBLOCK_SECONDS */
        query_below();
        fprintf(stderr, "the stopped daemon has answered\n");
        exit(1);
    }
    watch_stack(daemon);
    query();
}

int main(int argc, char **argv)
{
    const int closes = argc == 2 && strcmp(argv[1], "closing") == 0;
    if (!closes && !(argc == 2 && strcmp(argv[1], "malloc") == 0) && !(argc == 3 && strcmp(argv[1], "leaving") == 0))
        return fprintf(stderr, "usage: call_habits closing|malloc|leaving PID\n"), 1;
    struct ibv_device **devices = ibv_get_device_list(NULL);
    if (!devices || !devices[0] || !(context = ibv_open_device(devices[0]))) {
        fprintf(stderr, "no device could be opened\n");
        return 1;
    }
    signal(SIGUSR1, on_signal);
    const pid_t daemon = argc == 3 ? (pid_t)strtol(argv[2], NULL, 0) : 0;
    if (daemon > 0) {
        query();
        leave_call(daemon);
    }
    for (int round = 0; daemon <= 0 && round < ROUNDS; round++) {
        for (int call = 0; call < CALLS; call++)
            query();
        if (closes)
            close_session();
        else
            call_in_malloc();
    }
    printf("done\n");
    return 0;
}
