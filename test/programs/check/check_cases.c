/*
 * Cases in which `userdma check` can hardly record stacks or tell them apart; the first argument names one.
 */
#include "../../../docs/findings/pair.h"
#include "../../../shim/protocol.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>

#define UNKNOWN_LKEY 77

/* Connects the pair; `one` can send RDMA WRITEs with ibv_wr_*. */
static struct ibv_qp_ex *make_extended_pair(struct end *one, struct end *other)
{
    open_device();
    make_end(one);
    make_end(other);
    recreate_extended(one, IBV_QP_EX_WITH_RDMA_WRITE);
    connect_ends(one, other);
    return ibv_qp_to_qp_ex(one->qp);
}

/* ---- batch: two requests in one ibv_wr_complete; the first fails ---- */

static int batch(void)
{
    struct end one = {0}, other = {0};
    struct ibv_qp_ex *qp = make_extended_pair(&one, &other);
    ibv_wr_start(qp);
    for (unsigned i = 0; i < 2; i++) {
        qp->wr_id = 1 + i;
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_rdma_write(qp, other.mr->rkey, address_of(&other));
        ibv_wr_set_sge(qp, i == 0 ? UNKNOWN_LKEY : one.mr->lkey, address_of(&one), 8);
    }
    check(ibv_wr_complete(qp), "ibv_wr_complete");
    completion(&one);
    return destroy_pair(&one, &other);
}

/*
 * ---- elements: requests with more elements than their list and their queue; the provider's ibv_post_send reads the
 * list of a send before it refuses it ----
 */

static void expect_refused(int error, const char *call)
{
    if (error == 0) {
        fprintf(stderr, "%s accepts too many elements\n", call);
        exit(1);
    }
}

static int elements(void)
{
    enum { TOO_MANY = 1 << 24 };
    struct end one = {0}, other = {0};
    struct ibv_qp_ex *qp = make_extended_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_recv_wr *bad_receive, receive = {.sg_list = &sge, .num_sge = TOO_MANY};
    expect_refused(ibv_post_recv(one.qp, &receive, &bad_receive), "ibv_post_recv");
    ibv_wr_start(qp);
    ibv_wr_rdma_write(qp, other.mr->rkey, address_of(&other));
    ibv_wr_set_sge_list(qp, TOO_MANY, &sge);
    expect_refused(ibv_wr_complete(qp), "ibv_wr_complete");
    return destroy_pair(&one, &other);
}

/* ---- callers: two functions post receives in turn, with the same stack pointer ---- */

static struct end poster_end;

__attribute__((noinline)) static void post_one(void)
{
    /* The post log has one stack for each wr_id of a queue. */
    static uint64_t wr_id;
    struct ibv_sge sge = all_of(&poster_end);
    struct ibv_recv_wr *bad, wr = {.wr_id = ++wr_id, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(poster_end.qp, &wr, &bad), "ibv_post_recv");
}

/* The assembler comments keep the compiler from merging the callers and from making their calls jumps. */
__attribute__((noinline)) static void one_caller(void)
{
    post_one();
    __asm__ volatile("# one_caller");
}

__attribute__((noinline)) static void other_caller(void)
{
    post_one();
    __asm__ volatile("# other_caller");
}

static int callers(void)
{
    struct end peer = {0};
    make_pair(&poster_end, &peer);
    /* Volatile: against unrolling, which would make several calls. */
    for (volatile int i = 0; i < 4; i++) {
        one_caller();
        other_caller();
    }
    /* The device reads the receives when a message arrives. */
    post(&peer, IBV_WR_SEND, all_of(&peer), 0, 0);
    completion(&peer);
    completion(&poster_end);
    return destroy_pair(&poster_end, &peer);
}

/* ---- forks: children that make the same mistake ---- */

static int forks(int count)
{
    for (int i = 0; i < count; i++) {
        const pid_t child = fork();
        if (child == 0) {
            open_device();
            need(ibv_alloc_pd(context), "ibv_alloc_pd");
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    return 0;
}

/* ---- threads: one posts while the main thread forks; then a signal handler posts ---- */

static struct end one, other;
static atomic_bool stop_posting;

static void post_small(void)
{
    struct ibv_sge sge = all_of(&one);
    sge.length = 8;
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey);
    struct ibv_wc wc;
    while (ibv_poll_cq(one.cq, 1, &wc) == 0)
        ;
    check(wc.status, "RDMA WRITE");
}

static void *poster(void *unused)
{
    while (!stop_posting)
        post_small();
    return unused;
}

static atomic_int signals_handled;

/* The signal is raised outside the calls of libibverbs. */
static void on_signal(int number)
{
    signals_handled += number == SIGUSR1;
    post_small();
}

static int threads(void)
{
    check(ibv_fork_init(), "ibv_fork_init");
    make_pair(&one, &other);
    pthread_t thread;
    check(pthread_create(&thread, NULL, poster, NULL), "pthread_create");
    for (int i = 0; i < 50; i++) {
        const pid_t child = fork();
        if (child == 0) {
            int count;
            ibv_free_device_list(need(ibv_get_device_list(&count), "ibv_get_device_list"));
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        check(status, "the child");
    }
    stop_posting = true;
    pthread_join(thread, NULL);
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    printf("%d handled\n", signals_handled);
    return destroy_pair(&one, &other);
}

/* ---- constructor: a library's constructor and another thread make calls ---- */

/* Thread id; 0: not yet known. */
static atomic_int calling_thread;

static void *call_once(void *pd)
{
    calling_thread = (int)syscall(SYS_gettid);
    static char buffer[SIZE];
    check(ibv_dereg_mr(need(ibv_reg_mr(pd, buffer, SIZE, 0), "ibv_reg_mr")), "ibv_dereg_mr");
    return NULL;
}

static pthread_t thread;

/*
 * The library's constructor calls this function, with the loader's lock held. Starts a thread, whose first call waits
 * for that lock. When the thread waits or has ended, this function makes another call.
 */
static void in_constructor(void)
{
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    check(pthread_create(&thread, NULL, call_once, pd), "pthread_create");
    while (calling_thread == 0)
        ;
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", calling_thread);
    for (FILE *file; (file = fopen(path, "r")) != NULL; fclose(file))
        if (fgets(line, sizeof line, file) && atoi(line) == SYS_futex) {
            fclose(file);
            break;
        }
    ibv_dealloc_pd(need(ibv_alloc_pd(context), "ibv_alloc_pd"));
}

static int constructor(const char *library)
{
    open_device();
    char text[32];
    snprintf(text, sizeof text, "%p", (void *)in_constructor);
    setenv("CONSTRUCTOR", text, 1);
    if (!dlopen(library, RTLD_NOW)) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    pthread_join(thread, NULL);
    puts("loaded");
    return 0;
}

/* ---- exec: a program executes itself; neither program destroys its object ---- */

static int leave_domain(void)
{
    open_device();
    need(ibv_alloc_pd(context), "ibv_alloc_pd");
    return 0;
}

static int replace_program(char *program)
{
    leave_domain();
    char *arguments[] = {program, "leaves", NULL};
    execv("/proc/self/exe", arguments);
    perror("exec");
    return 1;
}

/* ---- unloaded: two libraries in turn, often at the same addresses, make calls ---- */

static int in_library(void)
{
    need(ibv_alloc_pd(context), "ibv_alloc_pd");
    return 0;
}

static int unloaded(char *const libraries[2])
{
    open_device();
    for (int i = 0; i < 10; i++) {
        void *library = need(dlopen(libraries[i % 2], RTLD_NOW), "dlopen");
        int (*entry)(int (*)(void)) = need(dlsym(library, i % 2 == 0 ? "entry_one" : "entry_two"), "dlsym");
        entry(in_library);
        dlclose(library);
    }
    return 0;
}

/* ---- forged: all records of posts get the parent's process id and invented stacks ---- */

static int forged(void)
{
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    sge.lkey = UNKNOWN_LKEY;
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey);
    for (uint32_t i = 0; i < USERDMA_POST_LOG_ENTRIES; i++) {
        const struct userdma_post forged_post = {
            .wr_id = 1,
            .queue = USERDMA_POST_SEND,
            .number = one.qp->qp_num,
            .pid = (uint32_t)getppid(),
            .stack = i * 0x10001,
        };
        const off_t offset = (off_t)USERDMA_POST_LOG_OFFSET + (off_t)(i * sizeof forged_post);
        check(pwrite(context->cmd_fd, &forged_post, sizeof forged_post, offset) != sizeof forged_post, "pwrite");
    }
    post_receive(&one, sge);
    completion(&one);
    completion(&one);
    return destroy_pair(&one, &other);
}

/* ---- asks: forks with a receive outstanding, after the answer that ibv_fork_init is not needed ---- */

static int asks(void)
{
    check(ibv_is_fork_initialized() != IBV_FORK_UNNEEDED, "ibv_is_fork_initialized");
    make_pair(&one, &other);
    post_receive(&one, all_of(&one));
    const pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return destroy_pair(&one, &other);
}

/* ---- tries: halves max_inline_data until the device accepts it, as libfabric does ---- */

static int tries(void)
{
    open_device();
    make_end(&one);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = one.cq;
    init.cap.max_inline_data = 8192;
    while (!(one.qp = ibv_create_qp(one.pd, &init))) {
        check(errno != EINVAL, "ibv_create_qp");
        init.cap.max_inline_data /= 2;
    }
    destroy_end(&one);
    return ibv_close_device(context);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "exec") == 0)
        return replace_program(argv[0]);
    if (strcmp(name, "leaves") == 0)
        return leave_domain();
    if (strcmp(name, "unloaded") == 0 && argc > 3)
        return unloaded(argv + 2);
    if (strcmp(name, "forged") == 0)
        return forged();
    if (strcmp(name, "asks") == 0)
        return asks();
    if (strcmp(name, "tries") == 0)
        return tries();
    if (strcmp(name, "batch") == 0)
        return batch();
    if (strcmp(name, "elements") == 0)
        return elements();
    if (strcmp(name, "callers") == 0)
        return callers();
    if (strcmp(name, "forks") == 0 && argc > 2)
        return forks(atoi(argv[2]));
    if (strcmp(name, "threads") == 0)
        return threads();
    if (strcmp(name, "constructor") == 0 && argc > 2)
        return constructor(argv[2]);
    fprintf(stderr, "usage: check_cases batch | elements | callers | forks COUNT | threads | constructor LIBRARY | "
                    "exec | unloaded LIBRARY LIBRARY | forged | asks | tries\n");
    return 1;
}
