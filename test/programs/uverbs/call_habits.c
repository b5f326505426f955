/*
 * Calls of programs with unusual habits. What the programs have registered stays registered. Prints "done".
 *
 *   call_habits closing   closes all descriptors of the preload library's sockets by raw system calls, between calls
 *   call_habits malloc    first calls of threads in a signal handler that may have interrupted malloc
 *   call_habits leaving PID   leaves a call by siglongjmp while the daemon PID is stopped: its results are not written
 *                             to the stack when the daemon continues
 *   call_habits late PID      another thread calls while the first one waits for the answer of the stopped daemon
 */
#define _GNU_SOURCE
#include "../check/correct.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define CALLING_ROUNDS 300
#define CALLS 20 /* so that the daemon polls the slot */
#define DESCRIPTORS 4096
#define PIECES 40

static struct ibv_qp *sender, *receiver;
static struct ibv_cq *cq;

static void query(void)
{
    struct ibv_port_attr port;
    check(ibv_query_port(context, 1, &port), "ibv_query_port");
}

static void create_both(void)
{
    cq = create_cq(DEPTH, NULL);
    sender = create_qp(IBV_QPT_UD, cq, cq, NULL, 0);
    receiver = create_qp(IBV_QPT_UD, cq, cq, NULL, 0);
    connect_both(sender, receiver);
}

/* Sends `value` from registered memory to registered memory. */
static void exchange(int value)
{
    fill(memory[0], value, BLOCK);
    post_receive(receiver, 1, memory[1], 2 * BLOCK);
    send_piece(sender, 2, memory[0], BLOCK, IBV_SEND_SIGNALED);
    next(cq);
    next(cq);
    must(is_filled(memory[1] + GRH_BYTES, value, BLOCK), "data");
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
    void *pieces[PIECES];
    *(volatile int *)started = 1;
    while (!has_called) {
        for (size_t i = 0; i < PIECES; i++)
            pieces[i] = malloc(2000 + 100 * i);
        for (size_t i = 0; i < PIECES; i++)
            free(pieces[i]);
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

static void *call(void *unused)
{
    query();
    return unused;
}

static void call_late(pid_t daemon)
{
    pthread_t threads[2];
    kill(daemon, SIGSTOP);
    for (int i = 0; i < 2; i++) {
        check(pthread_create(&threads[i], NULL, call, NULL), "pthread_create");
        usleep(2500000); /* after UNBLOCK_SECONDS */
    }
    kill(daemon, SIGCONT);
    for (int i = 0; i < 2; i++)
        check(pthread_join(threads[i], NULL), "pthread_join");
}

int main(int argc, char **argv)
{
    const bool closes = argc == 2 && strcmp(argv[1], "closing") == 0, allocates = argc == 2 && strcmp(argv[1], "malloc") == 0;
    const bool leaves = argc == 3 && strcmp(argv[1], "leaving") == 0, is_late = argc == 3 && strcmp(argv[1], "late") == 0;
    if (!closes && !allocates && !leaves && !is_late)
        return fprintf(stderr, "usage: call_habits closing|malloc|leaving PID|late PID\n"), 1;
    const pid_t daemon = argc == 3 ? (pid_t)strtol(argv[2], NULL, 0) : 0;
    open_all();
    create_both();
    signal(SIGUSR1, on_signal);
    query();
    if (leaves)
        leave_call(daemon);
    if (is_late)
        call_late(daemon);
    for (int round = 0; (closes || allocates) && round < CALLING_ROUNDS; round++) {
        for (int call = 0; call < CALLS; call++)
            query();
        if (closes)
            close_session();
        else
            call_in_malloc();
    }
    if (!closes) /* also the context's socket */
        exchange(1);
    printf("done\n");
    return 0;
}
