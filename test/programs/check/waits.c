/*
 * Waits that do not end, for `userdma check` (test/system/check/waits.test.ts): `waits KIND...` runs each kind in a
 * process of its own, whose name is the kind, all at the same time, until standard input ends.
 */
#ifndef SRD
#include "../../../docs/findings/cm.h"
#else
#include "../../../docs/findings/pair.h"
#endif

#include <endian.h>
#include <fcntl.h>
#ifndef SRD
#include <infiniband/mlx5dv.h>
#endif
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/sem.h>

#define MAX_KINDS 64

static struct end one, other;

/* Polls for completions that do not come. */
static void wait_for(struct end *end, int count)
{
    struct ibv_wc wc;
    while (count > 0) {
        const int found = ibv_poll_cq(end->cq, 1, &wc);
        if (found > 0)
            count--;
        else
            usleep(1000);
    }
}

static void receive(struct end *end, int count)
{
    for (int i = 0; i < count; i++)
        post_receive(end, all_of(end));
}

static void send_one(struct end *end)
{
    post(end, IBV_WR_SEND, all_of(end), 0, 0);
}

/* What two processes tell each other. */
struct identity {
    uint32_t qpn, rkey;
    uint64_t address;
};

static int to_peer, from_peer;

static struct identity exchange(struct identity own)
{
    struct identity peer = {0};
    check(write(to_peer, &own, sizeof own) != sizeof own || read(from_peer, &peer, sizeof peer) != sizeof peer, "exchange");
    return peer;
}

/* Forks; each process has one end, `one`, connected to that of the other. True in the child. */
static bool two_processes(struct identity *peer)
{
    int up[2], down[2];
    check(pipe(up) || pipe(down), "pipe");
    const bool is_child = fork() == 0;
    to_peer = is_child ? up[1] : down[1];
    from_peer = is_child ? down[0] : up[0];
    open_device();
    make_end(&one);
    *peer = exchange((struct identity){one.qp->qp_num, one.mr->rkey, address_of(&one)});
    struct ibv_qp qp = {.qp_num = peer->qpn};
    const struct end remote = {.qp = &qp};
    to_rtr(&one, &remote);
    to_rts(&one);
    exchange(*peer);
    return is_child;
}

/* ---- messages that nobody sends ---- */

static void credit(void)
{
    struct identity peer;
    two_processes(&peer);
    receive(&one, 4);
    wait_for(&one, 1);
}

static void credit_read(void)
{
    struct identity peer;
    if (two_processes(&peer)) { /* It waits for a word over the socket, and sends nothing. */
        char byte;
        check(read(from_peer, &byte, 1) < 0, "read");
        pause();
    }
    receive(&one, 4);
    wait_for(&one, 1);
}

#ifndef SRD
/* A request in the memory of the send queue, whose doorbell is not rung. */
static void no_doorbell(void)
{
    make_pair(&one, &other);
    receive(&other, 1);
    struct mlx5dv_qp qp = {0};
    struct mlx5dv_obj object = {.qp = {.in = one.qp, .out = &qp}};
    check(mlx5dv_init_obj(&object, MLX5DV_OBJ_QP), "mlx5dv_init_obj");
    struct mlx5_wqe_ctrl_seg *control = qp.sq.buf;
    const struct ibv_sge from = all_of(&one);
    mlx5dv_set_data_seg((struct mlx5_wqe_data_seg *)(control + 1), from.length, from.lkey, from.addr);
    mlx5dv_set_ctrl_seg(control, 0, MLX5_OPCODE_SEND, 0, one.qp->qp_num, MLX5_WQE_CTRL_CQ_UPDATE, 2, 0, 0);
    wait_for(&one, 1);
}
#endif

/* ---- completions that are gone ---- */

static void *take_all(void *end)
{
    wait_for(end, 2);
    return NULL;
}

static void thrown_away(void)
{
    pthread_t thread;
    make_pair(&one, &other);
    pthread_create(&thread, NULL, take_all, &one);
    receive(&other, 2);
    send_one(&one);
    send_one(&one);
    pthread_join(thread, NULL);
    wait_for(&other, 2);
    wait_for(&one, 1);
}

static void *take_one(void *end)
{
    wait_for(end, 1);
    return NULL;
}

static void thrown_joined(void)
{
    pthread_t thread;
    make_pair(&one, &other);
    for (int i = 0; i < 2; i++) {
        receive(&other, 1);
        send_one(&one);
        wait_for(&other, 1);
    }
    pthread_create(&thread, NULL, take_all, &one);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, take_one, &one);
    pthread_join(thread, NULL);
}

static void flush_destroyed(void)
{
    make_pair(&one, &other);
    receive(&one, 4);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    wait_for(&one, 4);
}

static void make_shared(struct end *end, struct ibv_srq **srq)
{
    struct ibv_srq_init_attr attr = {.attr = {.max_wr = 8, .max_sge = 1}};
    *srq = need(ibv_create_srq(end->pd, &attr), "ibv_create_srq");
    check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = end->cq;
    init.srq = *srq;
    create_queue_pair(end, init);
    to_init(end);
}

static void flush_shared(void)
{
    struct ibv_srq *srq;
    struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
    open_device();
    make_end(&one);
    make_end(&other);
    make_shared(&one, &srq);
    connect_ends(&one, &other);
    for (int i = 0; i < 4; i++) {
        struct ibv_sge sge = all_of(&one);
        struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
        check(ibv_post_srq_recv(srq, &wr, &bad), "ibv_post_srq_recv");
    }
    check(ibv_modify_qp(one.qp, &error, IBV_QP_STATE), "ibv_modify_qp");
    wait_for(&one, 4);
}

/* A poll gives two completions, and the program handles the first. */
static void took_first(void)
{
    struct ibv_wc wc[4];
    make_pair(&one, &other);
    receive(&other, 2);
    send_one(&one);
    send_one(&one);
    wait_for(&one, 2);
    for (int handled = 0; handled < 2;)
        if (ibv_poll_cq(other.cq, 4, wc) > 0)
            handled++;
        else
            usleep(1000);
}

static void polled_twice(void)
{
    make_pair(&one, &other);
    receive(&other, 1);
    send_one(&one);
    wait_for(&other, 1);
    wait_for(&one, 2);
}

#ifndef SRD
static void make_uc_pair(void)
{
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = IBV_QPT_UC;
    open_device();
    one.access = other.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    make_end_with(&one, init, 16);
    make_end_with(&other, init, 16);
    connect_ends(&one, &other);
}

static void lost_uc(void)
{
    make_uc_pair();
    send_one(&one);
    wait_for(&one, 1);
    receive(&other, 1);
    wait_for(&other, 1);
}
#endif

/* ---- memory that nobody writes ---- */

static void no_async(void)
{
    struct identity peer;
    if (two_processes(&peer)) {
        post(&one, IBV_WR_RDMA_READ, all_of(&one), peer.address + SIZE, peer.rkey);
        pause();
    }
    /* The peer's access is refused, which moves this queue pair to ERR. */
    while (*(volatile char *)one.buffer == 0)
        usleep(1000);
}

static void poll_memory(void)
{
    struct identity peer;
    if (two_processes(&peer))
        pause();
    while (*(volatile char *)one.buffer == 0)
        usleep(1000);
}

/* ---- states ---- */

static void own_init(void)
{
    open_device();
    make_end(&one);
    receive(&one, 2);
    wait_for(&one, 1);
}

static void peer_init(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    to_rtr(&one, &other);
    to_rts(&one);
    receive(&one, 2);
    wait_for(&one, 1);
}

static void own_error(void)
{
    struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
    make_pair(&one, &other);
    receive(&one, 2);
    check(ibv_modify_qp(one.qp, &error, IBV_QP_STATE), "ibv_modify_qp");
    wait_for(&one, 3);
}

static void own_sqd(void)
{
    struct ibv_qp_attr drained = {.qp_state = IBV_QPS_SQD};
    make_pair(&one, &other);
    receive(&other, 2);
    check(ibv_modify_qp(one.qp, &drained, IBV_QP_STATE), "ibv_modify_qp");
    send_one(&one);
    wait_for(&one, 1);
}

static void no_receive(void)
{
    make_pair(&one, &other);
    wait_for(&other, 1);
}

static void no_peer(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.dest_qp_num = 0x123456;
    to_rtr(&one, &other);
    to_rts(&one);
    receive(&one, 1);
    wait_for(&one, 1);
}

static void no_qp(void)
{
    open_device();
    make_end(&one);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    wait_for(&one, 1);
}

static void endless_rnr(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.rnr_retry = 7;
    connect_ends(&one, &other);
    send_one(&one);
    wait_for(&one, 1);
}

#ifndef SRD
static void endless_timeout(void)
{
    /* Timeout 0, and the peer is gone. */
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.timeout = 0;
    connect_ends(&one, &other);
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    send_one(&one);
    wait_for(&one, 1);
}

static void rnr_timer_0(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.rnr_retry = 7;
    other.attr.min_rnr_timer = 0;
    connect_ends(&one, &other);
    for (;;) {
        send_one(&one);
        usleep(50000);
        receive(&other, 1);
        wait_for(&one, 1);
        wait_for(&other, 1);
    }
}
#endif

/* ---- events ---- */

static void with_channel(struct ibv_comp_channel **channel)
{
    open_device();
    make_end(&one);
    make_end(&other);
    *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    replace_cq(&one, need(ibv_create_cq(context, 16, NULL, *channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
}

static void unacknowledged(void)
{
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    void *own;
    with_channel(&channel);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq");
    receive(&one, 1);
    send_one(&other);
    check(ibv_get_cq_event(channel, &cq, &own), "ibv_get_cq_event");
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(one.cq), "ibv_destroy_cq");
}

static void credit_event(void)
{
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    void *own;
    with_channel(&channel);
    receive(&one, 2);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq");
    check(ibv_get_cq_event(channel, &cq, &own), "ibv_get_cq_event");
}

static void no_arm(void)
{
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    void *own;
    with_channel(&channel);
    receive(&one, 2);
    send_one(&other);
    check(ibv_get_cq_event(channel, &cq, &own), "ibv_get_cq_event");
}

/* A thread waits for an event of the device, and none comes. */
static void async_event(void)
{
    struct ibv_async_event event;
    make_pair(&one, &other);
    check(ibv_get_async_event(context, &event), "ibv_get_async_event");
}

/* ---- polls that hold the CQ ---- */

static struct ibv_cq_ex *held;

static void hold(void)
{
    struct ibv_cq_init_attr_ex attr = {.cqe = 16, .wc_flags = IBV_WC_STANDARD_FLAGS};
    struct ibv_poll_cq_attr poll = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    held = need(ibv_create_cq_ex(context, &attr), "ibv_create_cq_ex");
    replace_cq(&one, ibv_cq_ex_to_cq(held));
    connect_ends(&one, &other);
    receive(&other, 1);
    send_one(&one);
    while (ibv_start_poll(held, &poll) == ENOENT)
        ;
}

static void held_itself(void)
{
    struct ibv_poll_cq_attr poll = {0};
    hold();
    check(ibv_start_poll(held, &poll), "ibv_start_poll");
}

static void *poll_held(void *unused)
{
    (void)unused;
    wait_for(&one, 1);
    return NULL;
}

static void held_by_other(void)
{
    pthread_t thread;
    hold();
    pthread_create(&thread, NULL, poll_held, NULL);
    pthread_join(thread, NULL);
}

static void *destroy_held(void *unused)
{
    (void)unused;
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    return NULL;
}

static void held_destroy(void)
{
    pthread_t thread;
    hold();
    pthread_create(&thread, NULL, destroy_held, NULL);
    pthread_join(thread, NULL);
    wait_for(&other, 2);
}

/* ---- descriptors ---- */

static void closed_all(void)
{
    make_pair(&one, &other);
    receive(&one, 1);
    for (int fd = 3; fd < 256; fd++)
        close(fd);
    wait_for(&one, 1);
}

static void forked_away(void)
{
    make_pair(&one, &other);
    receive(&one, 1);
    if (fork() != 0)
        _exit(0);
    wait_for(&one, 1);
}

/* ---- threads and processes ---- */

static void *read_events(void *unused)
{
    struct ibv_async_event event;
    while (ibv_get_async_event(context, &event) == 0)
        ibv_ack_async_event(&event);
    return unused;
}

static void join_events(void)
{
    pthread_t thread;
    make_pair(&one, &other);
    pthread_create(&thread, NULL, read_events, NULL);
    pthread_join(thread, NULL);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t locked;

static void *hold_mutex(void *channel)
{
    struct ibv_cq *cq;
    void *own;
    pthread_mutex_lock(&lock);
    pthread_barrier_wait(&locked);
    check(ibv_get_cq_event(channel, &cq, &own), "ibv_get_cq_event");
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* The send of which the event would be needs the mutex that is held meanwhile. */
static void mutex_event(void)
{
    struct ibv_comp_channel *channel;
    pthread_t thread;
    with_channel(&channel);
    receive(&one, 1);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq");
    pthread_barrier_init(&locked, NULL, 2);
    pthread_create(&thread, NULL, hold_mutex, channel);
    pthread_barrier_wait(&locked);
    pthread_mutex_lock(&lock);
    send_one(&other);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
}

static pthread_rwlock_t table = PTHREAD_RWLOCK_INITIALIZER;

static void *hold_table(void *channel)
{
    struct ibv_cq *cq;
    void *own;
    pthread_rwlock_wrlock(&table);
    pthread_barrier_wait(&locked);
    check(ibv_get_cq_event(channel, &cq, &own), "ibv_get_cq_event");
    pthread_rwlock_unlock(&table);
    return NULL;
}

static void rwlock_event(void)
{
    struct ibv_comp_channel *channel;
    pthread_t thread;
    with_channel(&channel);
    receive(&one, 1);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq");
    pthread_barrier_init(&locked, NULL, 2);
    pthread_create(&thread, NULL, hold_table, channel);
    pthread_barrier_wait(&locked);
    pthread_rwlock_rdlock(&table);
    send_one(&other);
}

static pthread_cond_t ready = PTHREAD_COND_INITIALIZER;

static void *signal_ready(void *unused)
{
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&ready);
    pthread_mutex_unlock(&lock);
    pthread_barrier_wait(&locked);
    return read_events(unused);
}

/* The signal comes before the wait. */
static void condition_missed(void)
{
    pthread_t thread;
    make_pair(&one, &other);
    pthread_barrier_init(&locked, NULL, 2);
    pthread_create(&thread, NULL, signal_ready, NULL);
    pthread_barrier_wait(&locked);
    pthread_mutex_lock(&lock);
    pthread_cond_wait(&ready, &lock);
}

static sem_t credits;

static void *post_credit(void *unused)
{
    sem_post(&credits);
    return read_events(unused);
}

/* Two credits are taken, and one is given. */
static void semaphore_short(void)
{
    pthread_t thread;
    make_pair(&one, &other);
    sem_init(&credits, 0, 0);
    pthread_create(&thread, NULL, post_credit, NULL);
    sem_wait(&credits);
    sem_wait(&credits);
}

/* One thread comes to a barrier of two. */
static void barrier_short(void)
{
    make_pair(&one, &other);
    pthread_barrier_init(&locked, NULL, 2);
    pthread_barrier_wait(&locked);
}

/* The child waits for a message that its parent sends when the child has ended. */
static void child_waits(void)
{
    struct identity peer;
    if (two_processes(&peer)) {
        receive(&one, 1);
        wait_for(&one, 1);
        _exit(0);
    }
    wait(NULL);
    send_one(&one);
}

/* What the open batch has added is polled for. */
static void open_batch(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    recreate_extended(&one, IBV_QP_EX_WITH_SEND);
    connect_ends(&one, &other);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    ibv_wr_start(qp);
    qp->wr_id = 1;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(qp);
    ibv_wr_set_sge(qp, one.mr->lkey, address_of(&one), SIZE);
    wait_for(&one, 1);
}

#define RING 3

static void all_write(int fd, const void *bytes, size_t length)
{
    check(write(fd, bytes, length) != (ssize_t)length, "write");
}

static void all_read(int fd, void *bytes, size_t length)
{
    check(read(fd, bytes, length) != (ssize_t)length, "read");
}

/* Each process waits for the token of the one before it. */
static void ring(void)
{
    int pipes[RING][2], me = 0;
    uint32_t own[2], left, right;
    for (int i = 0; i < RING; i++)
        check(pipe(pipes[i]), "pipe");
    for (int i = 1; i < RING && me == 0; i++)
        if (fork() == 0)
            me = i;
    open_device();
    make_end(&one);
    make_end(&other);
    /* `one` is connected to the next process, `other` to the one before. Numbers go round both ways. */
    own[0] = one.qp->qp_num;
    own[1] = other.qp->qp_num;
    all_write(pipes[me][1], &own[0], sizeof own[0]);
    all_read(pipes[(me + RING - 1) % RING][0], &left, sizeof left);
    all_write(pipes[me][1], &own[1], sizeof own[1]);
    for (int hops = 0; hops < RING - 1; hops++) {
        all_read(pipes[(me + RING - 1) % RING][0], &right, sizeof right);
        if (hops < RING - 2)
            all_write(pipes[me][1], &right, sizeof right);
    }
    one.attr.dest_qp_num = right;
    other.attr.dest_qp_num = left;
    connect_ends(&one, &other);
    receive(&other, 1);
    wait_for(&other, 1);
    send_one(&one);
}

/* A server that takes part by its memory alone is killed: its client polls for what the server would write. */
static void server_killed(void)
{
    struct identity peer;
    if (two_processes(&peer))
        kill(getpid(), SIGKILL);
    check(wait(NULL) < 0, "wait");
    while (*(volatile char *)one.buffer == 0)
        usleep(1000);
}

/* Nobody writes the word. */
static void spin(void)
{
    make_pair(&one, &other);
    while (*(volatile uint32_t *)one.buffer == 0)
        ;
}

/* As `spin`, with sleeps. */
static void sleep_for_word(void)
{
    make_pair(&one, &other);
    while (*(volatile uint32_t *)one.buffer == 0)
        usleep(500);
}

/* The C library reads inside. */
static void in_stdio(void)
{
    char line[16];
    int ends[2];
    make_pair(&one, &other);
    check(pipe(ends), "pipe");
    FILE *file = need(fdopen(ends[0], "r"), "fdopen");
    check(fgets(line, sizeof line, file) == NULL, "fgets");
}

/* ---- waits without RDMA ---- */

static void by_epoll_pwait2(void)
{
    struct epoll_event event;
    make_pair(&one, &other);
    const int set = epoll_create1(0);
    check(set < 0 || epoll_pwait2(set, &event, 1, NULL, NULL) < 0, "epoll_pwait2");
}

static void by_sigwaitinfo(void)
{
    sigset_t signals;
    make_pair(&one, &other);
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    check(sigwaitinfo(&signals, NULL) < 0, "sigwaitinfo");
}

static void by_semop(void)
{
    struct sembuf takes = {.sem_op = -1};
    const int set = semget(IPC_PRIVATE, 1, 0600);
    const pid_t waiting = getpid();
    check(set < 0, "semget");
    /* It would stay when the process is killed. */
    if (fork() == 0) {
        while (getppid() == waiting)
            usleep(1000);
        semctl(set, 0, IPC_RMID);
        _exit(0);
    }
    make_pair(&one, &other);
    check(semop(set, &takes, 1) < 0, "semop");
}

static void by_message_queue(void)
{
    char byte;
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 1};
    char name[32];
    make_pair(&one, &other);
    snprintf(name, sizeof name, "/userdma-%d", (int)getpid());
    const mqd_t queue = mq_open(name, O_CREAT | O_RDWR, 0600, &attributes);
    check(queue < 0 || mq_unlink(name), "mq_open");
    check(mq_receive(queue, &byte, 1, NULL) < 0, "mq_receive");
}

/* The completions of one end are in a CQ that nobody polls. */
static void other_cq(void)
{
    make_pair(&one, &other);
    receive(&other, 1);
    send_one(&one);
    wait_for(&one, 2);
}

/* ---- sets of descriptors ---- */

/* The set tells an edge once: of the events of two CQs one is read. With the second message both have come. */
static void edge_epoll(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    struct ibv_cq *cq;
    void *own;
    open_device();
    make_end(&one);
    make_end(&other);
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    replace_cq(&one, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    replace_cq(&other, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
    check(ibv_req_notify_cq(one.cq, 0) || ibv_req_notify_cq(other.cq, 0), "ibv_req_notify_cq");
    for (int i = 0; i < 2; i++) {
        receive(&one, 1);
        send_one(&other);
        wait_for(&other, 1);
        wait_for(&one, 1);
    }
    const int set = epoll_create1(0);
    check(set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, channel->fd, &event), "epoll_ctl");
    for (;;) {
        check(epoll_wait(set, &event, 1, -1) < 0, "epoll_wait");
        check(ibv_get_cq_event(channel, &cq, &own), "ibv_get_cq_event");
        ibv_ack_cq_events(cq, 1);
        drain(&one);
    }
}

/* ---- atomics ---- */

#ifndef SRD
/* Compares the word at `address` with `expected`; returns what it was. */
static uint64_t swap(struct end *end, struct identity target, uint64_t expected, uint64_t new)
{
    struct ibv_sge sge = {address_of(end), 8, end->mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_ATOMIC_CMP_AND_SWP};
    wr.wr.atomic.remote_addr = target.address;
    wr.wr.atomic.rkey = target.rkey;
    wr.wr.atomic.compare_add = expected;
    wr.wr.atomic.swap = new;
    check(ibv_post_send(end->qp, &wr, &bad), "ibv_post_send");
    wait_for(end, 1);
    return *(uint64_t *)end->buffer;
}

/* The word has the order of the network, and the program expects it in its own. */
static void swap_order(void)
{
    make_pair(&one, &other);
    *(uint64_t *)one.buffer = __builtin_bswap64(7);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    wait_for(&one, 1);
    while (swap(&one, (struct identity){.address = address_of(&other), .rkey = other.mr->rkey}, 7, 8) != 7)
        ;
}

/* A process locks a word of the other one, and ends. */
static void holder_ended(void)
{
    struct identity peer;
    if (two_processes(&peer)) {
        swap(&one, peer, 0, 1);
        _exit(0);
    }
    struct end self = {0};
    check(wait(NULL) < 0, "wait");
    make_end(&self);
    make_end(&other);
    connect_ends(&self, &other);
    other.extra = need(ibv_reg_mr(other.pd, one.buffer, SIZE, ALL_RIGHTS), "ibv_reg_mr");
    while (swap(&self, (struct identity){.address = address_of(&one), .rkey = other.extra->rkey}, 0, 2) != 0)
        ;
}
#endif

/* ---- rdma_cm ---- */

#ifndef SRD
static struct cm_end active, passive;
static struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};

static void any_event(struct rdma_event_channel *channel)
{
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    rdma_ack_cm_event(event);
}

static void cm_not_accepted(void)
{
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    any_event(active.channel);
}

static void cm_not_read(void)
{
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    any_event(active.channel);
}

static void cm_resolve_to(uint32_t address, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address), .sin_port = htons(port)};
    active.channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    check(rdma_create_id(active.channel, &active.id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(active.id, NULL, (struct sockaddr *)&to, 2000), "rdma_resolve_addr");
}

/* Waits for `wanted`, and overlooks all other events. */
static void overlook(enum rdma_cm_event_type wanted)
{
    struct rdma_cm_event *event;
    enum rdma_cm_event_type type;
    do {
        check(rdma_get_cm_event(active.channel, &event), "rdma_get_cm_event");
        type = event->event;
        rdma_ack_cm_event(event);
    } while (type != wanted);
}

static void cm_connect(void)
{
    overlook(RDMA_CM_EVENT_ADDR_RESOLVED);
    check(rdma_resolve_route(active.id, 2000), "rdma_resolve_route");
    overlook(RDMA_CM_EVENT_ROUTE_RESOLVED);
    make_cm_queue_pair(&active);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
}

/* REJECTED comes, and the program waits for ESTABLISHED. */
static void cm_no_port(void)
{
    cm_resolve_to(INADDR_LOOPBACK, 1);
    cm_connect();
    overlook(RDMA_CM_EVENT_ESTABLISHED);
}

/* As before, and the program polls its CQ. */
static void cm_no_port_poll(void)
{
    cm_resolve_to(INADDR_LOOPBACK, 1);
    cm_connect();
    cm_receive(&active);
    wait_for(&(struct end){.cq = active.id->recv_cq}, 1);
}

/* No device has the address. */
static void cm_no_address(void)
{
    cm_resolve_to(INADDR_LOOPBACK + 76, 1);
    cm_connect();
    overlook(RDMA_CM_EVENT_ESTABLISHED);
}

static void cm_rejected(void)
{
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    check(rdma_reject(passive.id, NULL, 0), "rdma_reject");
    cm_receive(&active);
    wait_for(&(struct end){.cq = active.id->recv_cq}, 1);
}

static void cm_rejected_read(void)
{
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    check(rdma_reject(passive.id, NULL, 0), "rdma_reject");
    overlook(RDMA_CM_EVENT_ESTABLISHED);
}

static void cm_no_route(void)
{
    cm_resolve_to(INADDR_LOOPBACK, 1);
    overlook(RDMA_CM_EVENT_ROUTE_RESOLVED);
}

static void cm_no_connect(void)
{
    resolve(&active, &passive);
    take_request(&passive);
}

/* The device is removed at rdma_resolve_route (an option of the test), and DEVICE_REMOVAL is the last event. */
static void cm_removed(void)
{
    cm_resolve_to(INADDR_LOOPBACK, 1);
    overlook(RDMA_CM_EVENT_ADDR_RESOLVED);
    check(rdma_resolve_route(active.id, 2000), "rdma_resolve_route");
    overlook(RDMA_CM_EVENT_DISCONNECTED);
}

static void cm_unread_accept(void)
{
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    check(rdma_accept(passive.id, &parameters), "rdma_accept");
    cm_receive(&passive);
    wait_for(&(struct end){.cq = passive.id->recv_cq}, 1);
}

static void cm_unacknowledged(void)
{
    struct rdma_cm_event *event;
    cm_resolve_to(INADDR_LOOPBACK, 1);
    check(rdma_get_cm_event(active.channel, &event), "rdma_get_cm_event");
    rdma_destroy_id(active.id);
}

static void cm_disconnected(void)
{
    resolve(&active, &passive);
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    cm_receive(&passive);
    check(rdma_accept(passive.id, &parameters), "rdma_accept");
    event_of(active.channel, RDMA_CM_EVENT_ESTABLISHED);
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
    check(rdma_disconnect(active.id), "rdma_disconnect");
    wait_for(&(struct end){.cq = passive.id->recv_cq}, 2);
}
#endif

static const struct kind {
    const char *name;
    void (*run)(void);
} kinds[] = {
    {"credit", credit},
    {"credit-read", credit_read},
    {"credit-event", credit_event},
#ifndef SRD
    {"no-doorbell", no_doorbell},
#endif
    {"thrown-away", thrown_away},
    {"thrown-joined", thrown_joined},
    {"polled-twice", polled_twice},
    {"took-first", took_first},
    {"flush-destroyed", flush_destroyed},
    {"flush-shared", flush_shared},
    {"no-async", no_async},
    {"poll-memory", poll_memory},
    {"own-init", own_init},
    {"peer-init", peer_init},
    {"own-error", own_error},
    {"no-receive", no_receive},
    {"no-peer", no_peer},
    {"no-qp", no_qp},
    {"endless-rnr", endless_rnr},
    {"unacknowledged", unacknowledged},
    {"no-arm", no_arm},
    {"async-event", async_event},
    {"closed-all", closed_all},
    {"forked-away", forked_away},
    {"own-sqd", own_sqd},
    {"held-itself", held_itself},
    {"held-by-other", held_by_other},
    {"held-destroy", held_destroy},
    {"join-events", join_events},
    {"mutex-event", mutex_event},
    {"rwlock-event", rwlock_event},
    {"cond-missed", condition_missed},
    {"sem-short", semaphore_short},
    {"barrier-short", barrier_short},
    {"child-waits", child_waits},
    {"open-batch", open_batch},
    {"ring", ring},
    {"server-killed", server_killed},
    {"spin", spin},
    {"sleep", sleep_for_word},
    {"stdio", in_stdio},
    {"epoll-pwait2", by_epoll_pwait2},
    {"sigwaitinfo", by_sigwaitinfo},
    {"semop", by_semop},
    {"mq-receive", by_message_queue},
    {"other-cq", other_cq},
    {"edge-epoll", edge_epoll},
#ifndef SRD
    {"swap-order", swap_order},
    {"holder-ended", holder_ended},
    {"lost-uc", lost_uc},
    {"timeout-0", endless_timeout},
    {"rnr-timer-0", rnr_timer_0},
    {"cm-not-accepted", cm_not_accepted},
    {"cm-not-read", cm_not_read},
    {"cm-no-port", cm_no_port},
    {"cm-no-port-poll", cm_no_port_poll},
    {"cm-no-address", cm_no_address},
    {"cm-rejected", cm_rejected},
    {"cm-rejected-read", cm_rejected_read},
    {"cm-no-route", cm_no_route},
    {"cm-no-connect", cm_no_connect},
    {"cm-removed", cm_removed},
    {"cm-unread", cm_unread_accept},
    {"cm-unacked", cm_unacknowledged},
    {"cm-disconnected", cm_disconnected},
#endif
};

static const struct kind *kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

int main(int argc, char **argv)
{
    char byte;
    pid_t groups[MAX_KINDS];
    if (argc < 2 || argc > MAX_KINDS)
        return fprintf(stderr, "usage: waits KIND...\n"), 1;
    for (int i = 1; i < argc; i++)
        if (!kind_of(argv[i]))
            return fprintf(stderr, "waits: %s is no kind of wait\n", argv[i]), 1;
    for (int i = 1; i < argc; i++) {
        groups[i] = fork();
        if (groups[i] != 0)
            continue;
        setpgid(0, 0);
        prctl(PR_SET_NAME, argv[i]);
        kind_of(argv[i])->run();
        return fprintf(stderr, "%s: it ends\n", argv[i]), 1;
    }
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    for (int i = 1; i < argc; i++)
        kill(-groups[i], SIGTERM);
    while (wait(NULL) > 0)
        ;
    return 0;
}
