/*
 * Posts that do not end as they began, for `userdma check` (test/system/check/queue-threads.test.ts): the preload
 * library has counted the request, and the provider has not got it yet. This program defines mincore, which the preload
 * library calls at that moment. Each request has memory of its own, which is written before the post alone.
 *
 *   interrupted_posts signal    a signal handler posts to the same queue: its request comes first
 *                     jump      a signal handler leaves the post by siglongjmp
 *                     exit      the thread ends
 *                     fork      the thread forks, and the child has a queue pair of its own
 *
 * Then a thread goes on with the queue. At last the queue pair begins anew, and a request has a wrong lkey: prints what
 * has failed, as a finding does.
 */
#define _GNU_SOURCE
#define DEPTH 128
#define BLOCK 64
#define BLOCKS 512
#include "correct.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>

/* Requests of each part. */
#define SENDS 6

static void (*interruption)(void);
static struct ibv_qp *sender, *receiver;
static struct ibv_cq *cq;
static sigjmp_buf before_post;
static int posted;

/* What the preload library calls before it reads a buffer. */
int mincore(void *address, size_t length, unsigned char *pages);
int mincore(void *address, size_t length, unsigned char *pages)
{
    void (*const now)(void) = interruption;
    interruption = NULL;
    if (now)
        now();
    int (*next)(void *, size_t, unsigned char *) = dlsym(RTLD_NEXT, "mincore");
    return next(address, length, pages);
}

static void write_one(uint32_t lkey)
{
    const int number = posted++;
    fill(memory[number], number + 1, BLOCK);
    struct ibv_sge sge = {.addr = (uintptr_t)memory[number], .length = BLOCK, .lkey = lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = (uint64_t)number,
                                   .sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED};
    wr.wr.rdma.remote_addr = (uintptr_t)memory[BLOCKS / 2 + number];
    wr.wr.rdma.rkey = mr->rkey;
    check(ibv_post_send(sender, &wr, &bad), "ibv_post_send");
}

static void writes(void)
{
    for (int i = 0; i < SENDS; i++)
        write_one(mr->lkey);
}

static void polls(int count)
{
    while (count-- > 0)
        next(cq);
}

static void *other_thread(void *unused)
{
    writes();
    return unused;
}

/* ---- interruptions ---- */

static void post_in_handler(int signal)
{
    (void)signal;
    write_one(mr->lkey);
}

static void jump_from_handler(int signal)
{
    (void)signal;
    siglongjmp(before_post, 1);
}

static void raise_signal(void)
{
    raise(SIGUSR1);
}

static void end_thread(void)
{
    pthread_exit(NULL);
}

static void fork_child(void)
{
    const pid_t child = fork();
    if (child == 0) {
        open_all();
        cq = create_cq(DEPTH, NULL);
        sender = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
        receiver = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
        connect_both(sender, receiver);
        writes();
        polls(SENDS);
        destroy_qp(sender);
        destroy_qp(receiver);
        destroy_cq(cq);
        close_all();
        _exit(0);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "child");
}

static void *interrupted(void *unused)
{
    if (sigsetjmp(before_post, 1) == 0)
        write_one(mr->lkey);
    return unused;
}

static void run_thread(void *(*function)(void *))
{
    pthread_t thread;
    check(pthread_create(&thread, NULL, function, NULL), "pthread_create");
    check(pthread_join(thread, NULL), "pthread_join");
}

static void reconnect(void)
{
    struct ibv_qp *const both[] = {sender, receiver};
    for (int i = 0; i < 2; i++) {
        struct ibv_qp_attr attr = {0};
        modify(both[i], &attr, IBV_QPS_RESET, 0);
    }
    connect_both(sender, receiver);
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"jump", "exit", "fork", "signal"};
    const char *kind = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && argc == 2; i++)
        if (strcmp(argv[1], kinds[i]) == 0)
            kind = kinds[i];
    if (!kind)
        return fprintf(stderr, "usage: interrupted_posts jump|exit|fork|signal\n"), 1;
    const struct sigaction action = {.sa_handler = strcmp(kind, "jump") == 0 ? jump_from_handler : post_in_handler};
    check(sigaction(SIGUSR1, &action, NULL), "sigaction");
    check(ibv_fork_init(), "ibv_fork_init");
    open_all();
    cq = create_cq(DEPTH, NULL);
    sender = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
    receiver = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
    connect_both(sender, receiver);
    writes();
    polls(SENDS);
    interruption = strcmp(kind, "exit") == 0 ? end_thread : strcmp(kind, "fork") == 0 ? fork_child : raise_signal;
    const bool is_posted = strcmp(kind, "exit") != 0 && strcmp(kind, "jump") != 0;
    if (strcmp(kind, "exit") == 0)
        run_thread(interrupted);
    else
        interrupted(NULL);
    must(interruption == NULL, "the post is interrupted");
    writes();
    run_thread(other_thread);
    polls(2 * SENDS + is_posted + (strcmp(kind, "signal") == 0));
    reconnect();
    posted = 0;
    writes();
    polls(SENDS);
    write_one(mr->lkey ^ 0x5500);
    struct ibv_wc wc;
    while (ibv_poll_cq(cq, 1, &wc) == 0)
        sched_yield();
    printf("%s: QP 0x%x wr_id %d: %s\n", kind, sender->qp_num, (int)wc.wr_id, ibv_wc_status_str(wc.status));
    destroy_qp(sender);
    destroy_qp(receiver);
    destroy_cq(cq);
    close_all();
    return 0;
}
