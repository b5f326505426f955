/*
 * Memory of outstanding requests that is freed, or belongs to a function that returns, for `userdma check`
 * (test/system/check/lifetimes.test.ts). The argument names a case.
 */
#define _GNU_SOURCE
#include "../../../docs/findings/pair.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <ucontext.h>

static struct end one, other;
/* Registered as one.extra. */
static char *block;

static void begin_with(struct ibv_qp_init_attr init)
{
    check(ibv_fork_init(), "ibv_fork_init");
    open_device();
    make_end_with(&one, init, 16);
    make_end(&other);
    connect_ends(&one, &other);
    block = need(malloc(SIZE), "malloc");
    one.extra = need(ibv_reg_mr(one.pd, block, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
}

static void begin(void)
{
    begin_with(small_qp());
}

static struct ibv_sge all_of_block(void)
{
    return (struct ibv_sge){.addr = (uintptr_t)block, .length = SIZE, .lkey = one.extra->lkey};
}

static int finish(void)
{
    return destroy_pair(&one, &other);
}

static void write_block(unsigned flags)
{
    struct ibv_sge sge = all_of_block();
    struct ibv_send_wr *bad, wr = {
        .wr_id = 7, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = flags};
    wr.wr.rdma.remote_addr = address_of(&other);
    wr.wr.rdma.rkey = other.mr->rkey;
    check(ibv_post_send(one.qp, &wr, &bad), "ibv_post_send");
}

/* ---- mistakes ---- */

static void moved(void)
{
    begin();
    post_receive(&one, all_of_block());
    /* Prevents realloc from growing the block in place. */
    char *volatile next = need(malloc(SIZE), "malloc");
    block = need(realloc(block, 16 * SIZE), "realloc");
    free(next);
}

/* The block stays where it is, without its end. */
static void shrunk(void)
{
    begin();
    post_receive(&one, all_of_block());
    char *const before = block;
    block = need(realloc(block, SIZE / 2), "realloc");
    check(block != before, "realloc in place");
}

/* Frees the block while its receive is outstanding. The callers end, or close the device, without polling. */
static void free_posted(void)
{
    begin();
    post_receive(&one, all_of_block());
    free(block);
}

static void ends_at_once(void)
{
    free_posted();
    _exit(0);
}

static void closed(void)
{
    free_posted();
    check(ibv_close_device(context), "ibv_close_device");
    exit(0);
}

static void closed_range(void)
{
    free_posted();
    check(close_range(context->cmd_fd, context->cmd_fd, 0), "close_range");
    _exit(0);
}

static void replaced(void)
{
    free_posted();
    check(dup2(STDERR_FILENO, context->cmd_fd) < 0, "dup2");
    _exit(0);
}

static void ends_quickly(void)
{
    free_posted();
    quick_exit(0);
}

static void ends_by_abort(void)
{
    free_posted();
    abort();
}

static void ends_by_assertion(void)
{
    free_posted();
    assert(!"reached");
}

static void ends_by_fault(void)
{
    free_posted();
    char *volatile nowhere = (char *)8;
    *nowhere = 1;
}

static void ends_by_signal(void)
{
    free_posted();
    raise(SIGSEGV);
}

/* The C library's allocator calls its own abort. */
static void ends_by_allocator(void)
{
    free_posted();
    void (*volatile release)(void *) = free;
    void *volatile twice = malloc(64);
    release(twice);
    release(twice);
}

static void ends_by_exec(void)
{
    free_posted();
    execlp("true", "true", NULL);
}

/* A child of vfork shares its parent's memory, and must not send the parent's reports. */
static void ends_child(void)
{
    free_posted();
    const pid_t pid = vfork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    _Exit(0);
}

/* The peer has received the message, but the sender's completion is not polled. */
static void unpolled(void)
{
    begin();
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, all_of_block(), 0, 0);
    completion(&other);
    free(block);
}

/* Prepares `one` for requests with ibv_wr_*. */
static void begin_built(void)
{
    begin();
    recreate_extended(&one, IBV_QP_EX_WITH_RDMA_WRITE);
    /* The other end still expects the replaced queue pair: a request is retried until it fails. */
    to_rtr(&one, &other);
    to_rts(&one);
}

static void build_write(uint32_t lkey, const char *memory)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    ibv_wr_start(qp);
    qp->wr_id = 3;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write(qp, other.mr->rkey, address_of(&other));
    ibv_wr_set_sge(qp, lkey, (uintptr_t)memory, 8);
    check(ibv_wr_complete(qp), "ibv_wr_complete");
}

static void built(void)
{
    begin_built();
    build_write(one.extra->lkey, block);
    free(block);
}

static struct ibv_srq *srq;

/* Gives `one` an SRQ, connects the ends again, and posts the block to the SRQ. */
static void begin_shared(void)
{
    begin();
    struct ibv_srq_init_attr attributes = {.attr = {.max_wr = 4, .max_sge = 1}};
    srq = need(ibv_create_srq(one.pd, &attributes), "ibv_create_srq");
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = one.cq;
    init.srq = srq;
    one.qp = need(ibv_create_qp(one.pd, &init), "ibv_create_qp");
    to_init(&one);
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    init = small_qp();
    init.send_cq = init.recv_cq = other.cq;
    other.qp = need(ibv_create_qp(other.pd, &init), "ibv_create_qp");
    to_init(&other);
    one.attr.dest_qp_num = other.attr.dest_qp_num = 0; /* to_rtr sets the new numbers */
    connect_ends(&one, &other);
    struct ibv_sge sge = all_of_block();
    struct ibv_recv_wr *bad, wr = {.wr_id = 9, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_srq_recv(srq, &wr, &bad), "ibv_post_srq_recv");
}

/* A receive of a queue pair with an SRQ is refused. Its memory belongs to this frame. */
static __attribute__((noinline)) void post_beside_srq(void)
{
    char local[SIZE];
    struct ibv_sge sge = {.addr = (uintptr_t)local, .length = SIZE, .lkey = one.extra->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = 77, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(one.qp, &wr, &bad) != EINVAL, "ibv_post_recv is not refused");
}

/* The receives alone reach MAX_RANGES of shim/check: the check does not follow the second WRITE. */
static void built_when_full(void)
{
    enum { RECEIVES = 2048, ELEMENTS = 16 };
    begin_built();
    build_write(one.extra->lkey, block);
    struct ibv_srq_init_attr attributes = {.attr = {.max_wr = RECEIVES, .max_sge = ELEMENTS}};
    srq = need(ibv_create_srq(one.pd, &attributes), "ibv_create_srq");
    struct ibv_sge list[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++)
        list[i] = all_of(&one);
    for (int i = 0; i < RECEIVES; i++) {
        struct ibv_recv_wr *bad, wr = {.sg_list = list, .num_sge = ELEMENTS};
        check(ibv_post_srq_recv(srq, &wr, &bad), "ibv_post_srq_recv");
    }
    build_write(one.mr->lkey, (const char *)address_of(&one));
    free(block);
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
}

static int finish_shared(void)
{
    drain(&one);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = NULL;
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
    return finish();
}

static void freed_shared(void)
{
    begin_shared();
    free(block);
    exit(finish_shared());
}

static void beside_srq(void)
{
    begin_shared();
    post_beside_srq();
    exit(finish_shared());
}

/* Registers SIZE bytes of the caller's frame and posts them. */
static void post_receive_in(char *local)
{
    check(ibv_dereg_mr(one.extra), "ibv_dereg_mr");
    one.extra = need(ibv_reg_mr(one.pd, local, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    post_receive(&one, (struct ibv_sge){.addr = (uintptr_t)local, .length = SIZE, .lkey = one.extra->lkey});
}

static __attribute__((noinline)) void post_local(void)
{
    char local[SIZE];
    post_receive_in(local);
}

static void *thread_posts(void *unused)
{
    post_local();
    drain(&one);
    return unused;
}

static void frame_of_thread(void)
{
    begin();
    pthread_t thread;
    check(pthread_create(&thread, NULL, thread_posts, NULL), "pthread_create");
    pthread_join(thread, NULL);
}

static sigjmp_buf jump_target;

static void leave(int number)
{
    siglongjmp(jump_target, number);
}

static __attribute__((noinline)) void post_and_leave(void)
{
    post_local();
    raise(SIGUSR1);
}

static void frame_left(void)
{
    begin();
    signal(SIGUSR1, leave);
    if (sigsetjmp(jump_target, 1) == 0)
        post_and_leave();
    drain(&one);
}

/* ---- no mistakes ---- */

static void polled(void)
{
    begin();
    write_block(0);
    completion(&one);
    post_receive(&one, all_of_block());
    post(&other, IBV_WR_SEND, all_of(&other), 0, 0);
    completion(&other);
    completion(&one);
    check(ibv_dereg_mr(one.extra), "ibv_dereg_mr");
    one.extra = NULL;
    free(block);
}

/* The completion of the second WRITE implies the first, which is unsignaled. */
static void unsignaled(void)
{
    struct ibv_qp_init_attr init = small_qp();
    init.sq_sig_all = 0;
    begin_with(init);
    write_block(0);
    write_block(IBV_SEND_SIGNALED);
    completion(&one);
    free(block);
}

/* One realloc fails; another shrinks the block in place, to the size of the request's memory. */
static void not_moved(void)
{
    begin();
    struct ibv_sge sge = all_of_block();
    sge.length = SIZE / 2;
    post_receive(&one, sge);
    char *const before = block;
    check(realloc(block, PTRDIFF_MAX) != NULL, "realloc of more memory than there is");
    block = need(realloc(block, SIZE / 2), "realloc");
    check(block != before, "realloc in place");
}

/*
 * The allocator (test/system/check/lifetimes.test.ts) calls this function in a realloc that has moved the block. The
 * memory is allocated again and posted, as by another thread.
 */
static void post_again(void)
{
    char *const moved = block;
    block = need(malloc(SIZE), "malloc");
    check(block != moved, "malloc of the same block");
    post_receive(&one, all_of_block());
}

static void reused(void)
{
    begin();
    post_receive(&one, all_of(&one));
    /* Prevents realloc from growing the block in place. */
    char *volatile next = need(malloc(SIZE), "malloc");
    void (**after_realloc)(void) = need(dlsym(RTLD_DEFAULT, "after_realloc"), "dlsym");
    *after_realloc = post_again;
    free(need(realloc(block, 16 * SIZE), "realloc"));
    free(next);
}

static void flushed(void)
{
    begin();
    post_receive(&one, all_of_block());
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    check(ibv_modify_qp(one.qp, &attr, IBV_QP_STATE), "ibv_modify_qp");
    completion(&one);
    free(block);
}

static void reset(void)
{
    begin();
    post_receive(&one, all_of_block());
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    check(ibv_modify_qp(one.qp, &attr, IBV_QP_STATE), "ibv_modify_qp");
    free(block);
}

static void polled_shared(void)
{
    begin_shared();
    post(&other, IBV_WR_SEND, all_of(&other), 0, 0);
    completion(&other);
    completion(&one);
    free(block);
    exit(finish_shared());
}

static void free_block(void)
{
    free(block);
}

/* A function of atexit frees the block, as the destructor of a static object would. */
static void exits(void)
{
    atexit(free_block);
    begin();
    post_receive(&one, all_of_block());
    exit(0);
}

static void child(void)
{
    begin();
    post_receive(&one, all_of_block());
    const pid_t pid = fork();
    if (pid == 0) {
        free(block);
        _exit(0);
    }
    check(waitpid(pid, NULL, 0) < 0, "waitpid");
}

/*
 * Two coroutines with stacks in the main stack: the stack of the poster is below that of the poller. The poster does
 * not return before its receive ends.
 */
static ucontext_t main_context, poster, poller;

static void in_poster(void)
{
    char local[SIZE];
    post_receive_in(local);
    swapcontext(&poster, &main_context);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = NULL;
    swapcontext(&poster, &main_context);
}

static void in_poller(void)
{
    drain(&one);
    swapcontext(&poller, &main_context);
}

static void run_on(ucontext_t *routine, char *stack, size_t size, void (*run)(void))
{
    getcontext(routine);
    routine->uc_stack.ss_sp = stack;
    routine->uc_stack.ss_size = size;
    makecontext(routine, run, 0);
    swapcontext(&main_context, routine);
}

static void coroutines(void)
{
    char stacks[2][1 << 16];
    begin();
    run_on(&poster, stacks[0], sizeof stacks[0], in_poster);
    run_on(&poller, stacks[1], sizeof stacks[1], in_poller);
    swapcontext(&main_context, &poster);
}

static void in_handler(int number)
{
    if (number == SIGUSR1)
        drain(&one);
}

static __attribute__((noinline)) void post_and_raise(void)
{
    char local[SIZE];
    post_receive_in(local);
    raise(SIGUSR1);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = NULL;
}

/* The handler polls on a stack above the buffer. */
static void alternate_stack(void)
{
    char stack[1 << 16];
    begin();
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    const struct sigaction action = {.sa_handler = in_handler, .sa_flags = SA_ONSTACK};
    check(sigaltstack(&alternate, NULL), "sigaltstack");
    check(sigaction(SIGUSR1, &action, NULL), "sigaction");
    post_and_raise();
}

/*
 * A receive into this frame and into memory allocated after an earlier post. The receive ends before the function
 * returns.
 */
static void beside_stack(void)
{
    char local[SIZE], *grown = NULL;
    struct ibv_qp_init_attr init = small_qp();
    init.cap.max_recv_sge = 2;
    begin_with(init);
    post_receive(&one, all_of_block());
    /* The heap grows beyond its end at the time of that post. */
    for (int i = 0; i < 16; i++)
        grown = need(malloc(SIZE << 4), "malloc");
    struct ibv_mr *in_frame = need(ibv_reg_mr(one.pd, local, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    struct ibv_mr *in_heap = need(ibv_reg_mr(one.pd, grown, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    struct ibv_sge list[] = {{.addr = (uintptr_t)local, .length = SIZE, .lkey = in_frame->lkey},
                             {.addr = (uintptr_t)grown, .length = SIZE, .lkey = in_heap->lkey}};
    struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = list, .num_sge = 2};
    check(ibv_post_recv(one.qp, &wr, &bad), "ibv_post_recv");
    drain(&one);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = NULL;
    check(ibv_dereg_mr(in_frame), "ibv_dereg_mr");
    check(ibv_dereg_mr(in_heap), "ibv_dereg_mr");
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"moved", moved},
    {"shrunk", shrunk},
    {"ends_at_once", ends_at_once},
    {"closed", closed},
    {"closed_range", closed_range},
    {"replaced", replaced},
    {"ends_quickly", ends_quickly},
    {"ends_by_abort", ends_by_abort},
    {"ends_by_allocator", ends_by_allocator},
    {"ends_by_exec", ends_by_exec},
    {"ends_by_fault", ends_by_fault},
    {"ends_by_signal", ends_by_signal},
    {"ends_by_assertion", ends_by_assertion},
    {"ends_child", ends_child},
    {"unpolled", unpolled},
    {"built", built},
    {"built_when_full", built_when_full},
    {"freed_shared", freed_shared},
    {"beside_srq", beside_srq},
    {"frame_of_thread", frame_of_thread},
    {"frame_left", frame_left},
    {"polled", polled},
    {"unsignaled", unsignaled},
    {"not_moved", not_moved},
    {"reused", reused},
    {"flushed", flushed},
    {"reset", reset},
    {"polled_shared", polled_shared},
    {"exits", exits},
    {"child", child},
    {"coroutines", coroutines},
    {"alternate_stack", alternate_stack},
    {"beside_stack", beside_stack},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            cases[i].run();
            return finish();
        }
    fprintf(stderr, "usage: lifetimes CASE\n");
    return 1;
}
