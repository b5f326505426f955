/*
 * A program of two connected queue pairs under circumstances that the daemon and the preload library might not expect,
 * for test/system/failures/circumstances.test.ts. The argument is the name of a function below. The function prints
 * "done" after it has sent data and made calls.
 */
#define _GNU_SOURCE
#include "../../../docs/findings/pair.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static struct end one, other;
static char memory[1 << 16] __attribute__((aligned(4096)));
static char **arguments;

static void begin(void)
{
    check(ibv_fork_init(), "ibv_fork_init");
    make_pair(&one, &other);
}

static void expect_success(struct end *end)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        ;
    if (found != 1 || wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "completion: %s\n", found == 1 ? ibv_wc_status_str(wc.status) : "none");
        exit(1);
    }
}

static void send_and_call(void)
{
    for (int i = 0; i < 4; i++) {
        post_receive(&other, all_of(&other));
        post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
        expect_success(&one);
        expect_success(&other);
    }
    check(ibv_dereg_mr(need(ibv_reg_mr(one.pd, memory, sizeof memory, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr")),
          "ibv_dereg_mr");
}

/*
 * Destroys a completion queue with an unread event. libibverbs waits until each reported event is acknowledged: the
 * daemon must not report an unread event.
 */
static void destroy_with_event(void)
{
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    struct end self = {.pd = one.pd, .attr = one.attr, .access = one.access};
    struct ibv_qp_init_attr init = small_qp();
    struct ibv_sge none = {0};
    self.cq = init.send_cq = init.recv_cq = need(ibv_create_cq(context, 4, NULL, channel, 0), "ibv_create_cq");
    self.qp = need(ibv_create_qp(one.pd, &init), "ibv_create_qp");
    self.attr.dest_qp_num = self.qp->qp_num;
    self.attr.rq_psn = self.attr.sq_psn;
    to_init(&self);
    to_rtr(&self, &self);
    to_rts(&self);
    check(ibv_req_notify_cq(self.cq, 0), "ibv_req_notify_cq");
    post(&self, IBV_WR_RDMA_WRITE, none, 0, 0);
    struct pollfd event = {.fd = channel->fd, .events = POLLIN};
    check(poll(&event, 1, -1) != 1, "poll");
    check(ibv_destroy_qp(self.qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(self.cq), "ibv_destroy_cq");
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
}

static void finish(void)
{
    send_and_call();
    destroy_pair(&one, &other);
    puts("done");
    exit(0);
}

/* ---- threads ---- */

static pthread_t main_thread;

static void *finish_without_main(void *unused)
{
    check(pthread_join(main_thread, NULL), "pthread_join");
    /* Before Linux 6.9 the daemon cannot reach the program's descriptors, and the destruction would not end. */
    const int pidfd = (int)syscall(SYS_pidfd_open, gettid(), O_EXCL /* PIDFD_THREAD */);
    if (pidfd >= 0)
        destroy_with_event();
    finish();
    return unused;
}

/* The main thread ends, and another one continues. */
static void main_ends(void)
{
    pthread_t thread;
    begin();
    main_thread = pthread_self();
    check(pthread_create(&thread, NULL, finish_without_main, NULL), "pthread_create");
    pthread_exit(NULL);
}

static atomic_int calls;

static void *call_for_ever(void *unused)
{
    for (;; calls++) {
        struct ibv_mr *region = ibv_reg_mr(one.pd, memory, sizeof memory, IBV_ACCESS_LOCAL_WRITE);
        if (!region || ibv_dereg_mr(region))
            _exit(1);
    }
    return unused;
}

/* Starts four threads that make calls, and returns after 20 calls. */
static void call_in_threads(void)
{
    pthread_t thread;
    for (int i = 0; i < 4; i++)
        check(pthread_create(&thread, NULL, call_for_ever, NULL), "pthread_create");
    while (calls < 20)
        sched_yield();
}

/* Executes itself several times while other threads make calls; every second time it keeps the context. */
static void execs(void)
{
    char left[16];
    const int count = arguments[2] ? atoi(arguments[2]) : 6;
    begin();
    send_and_call();
    if (count == 0)
        finish();
    call_in_threads();
    check(fcntl(context->cmd_fd, F_SETFD, count % 2 ? 0 : FD_CLOEXEC), "fcntl");
    snprintf(left, sizeof left, "%d", count - 1);
    execl("/proc/self/exe", arguments[0], arguments[1], left, NULL);
    check(-1, "execl");
}

/* Ends while other threads make calls. */
static void exits(void)
{
    begin();
    send_and_call();
    call_in_threads();
    puts("done");
    exit(0);
}

/* ---- namespaces, tables of descriptors, roots ---- */

static void user_namespace(void)
{
    begin();
    check(unshare(CLONE_NEWUSER), "unshare");
    finish();
}

static void own_descriptors(void)
{
    begin();
    check(unshare(CLONE_FILES | CLONE_FS), "unshare");
    finish();
}

static void other_root(void)
{
    begin();
    /* A root without /proc, /sys and the daemon's files. */
    check(chroot("/proc/self/fdinfo") || chdir("/"), "chroot");
    finish();
}

int main(int count, char **values)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"main_ends", main_ends},           {"execs", execs},           {"exits", exits},
        {"user_namespace", user_namespace}, {"own_descriptors", own_descriptors}, {"other_root", other_root},
    };
    arguments = values;
    for (size_t i = 0; count > 1 && i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(values[1], cases[i].name) == 0)
            cases[i].run();
    fprintf(stderr, "usage: circumstances CASE\n");
    return 1;
}
