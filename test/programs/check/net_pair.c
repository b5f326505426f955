/*
 * Two ends of a connection on two hosts of a net, each a process, which exchange what they need over TCP. The server
 * makes a mistake, and the client's request fails by it (of `destroyed` the client has another traffic class); or both
 * wait (with -DSRD by queue pairs of SRD: only these).
 *
 *     net_pair KIND            the server
 *     net_pair KIND ADDRESS    the client
 */
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef SRD
#include "../../../docs/findings/srd.h"
#define GID_INDEX 0
#else
#define GID_INDEX 1
#endif

#define PORT 7791
#define SIZE 4096

struct info {
    uint32_t qpn, rkey;
    uint64_t address;
    union ibv_gid gid;
};

static char buffer[SIZE];
static struct ibv_comp_channel *events;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static struct ibv_qp *qp;
static struct info own, peer;
static int channel;
#ifndef SRD
static uint8_t traffic_class;
#endif

static void check(int failed, const char *what)
{
    if (!failed)
        return;
    perror(what);
    exit(2);
}

static void all_write(const void *bytes, size_t length)
{
    check(write(channel, bytes, length) != (ssize_t)length, "write");
}

static void all_read(void *bytes, size_t length)
{
    check(read(channel, bytes, length) != (ssize_t)length, "read");
}

/* Both ends are here. */
static void meet(void)
{
    char byte = 0;
    all_write(&byte, 1);
    all_read(&byte, 1);
}

static void make_end(void)
{
    struct ibv_device **devices = ibv_get_device_list(NULL);
    struct ibv_context *context = ibv_open_device(devices[0]);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    events = ibv_create_comp_channel(context);
    cq = ibv_create_cq(context, 32, NULL, events, 0);
    mr = ibv_reg_mr(pd, buffer, SIZE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = {16, 16, 1, 1, 0}};
#ifdef SRD
    qp = srd_create(context, pd, &init);
#else
    qp = ibv_create_qp(pd, &init);
#endif
    check(qp == NULL, "ibv_create_qp");
    own = (struct info){.qpn = qp->qp_num, .rkey = mr->rkey, .address = (uintptr_t)buffer};
    check(ibv_query_gid(context, 1, GID_INDEX, &own.gid), "ibv_query_gid");
}

static void connect_end(void)
{
#ifdef SRD
    srd_to_init(qp);
    srd_to_rtr(qp);
    srd_to_rts(qp, 3);
#else
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ};
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = peer.qpn,
        .max_dest_rd_atomic = 1,
        .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1, .grh = {.dgid = peer.gid, .sgid_index = GID_INDEX, .hop_limit = 1}, .port_num = 1}};
    attr.ah_attr.grh.traffic_class = traffic_class;
    check(ibv_modify_qp(qp, &attr,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                            IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
          "RTR");
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .timeout = 8, .retry_cnt = 3, .rnr_retry = 3, .max_rd_atomic = 1};
    check(ibv_modify_qp(qp, &attr,
                        IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                            IBV_QP_MAX_QP_RD_ATOMIC),
          "RTS");
#endif
}

static void receive(void)
{
    struct ibv_sge element = {(uintptr_t)buffer, SIZE, mr->lkey};
    struct ibv_recv_wr *bad, request = {.wr_id = 5, .sg_list = &element, .num_sge = 1};
    check(ibv_post_recv(qp, &request, &bad), "ibv_post_recv");
}

static void request(enum ibv_wr_opcode opcode)
{
    struct ibv_sge element = {(uintptr_t)buffer, 64, mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 7, .sg_list = &element, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};
    wr.wr.rdma.remote_addr = peer.address;
    wr.wr.rdma.rkey = peer.rkey;
    check(ibv_post_send(qp, &wr, &bad), "ibv_post_send");
}

static void wait_for_completion(void)
{
    struct ibv_wc wc;
    while (ibv_poll_cq(cq, 1, &wc) == 0)
        usleep(1000);
}

static void reset_end(void)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE), "RESET");
}

static void destroy_end(void)
{
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
}

static void nothing(void)
{
}

static void wait_by_polls(void)
{
    receive();
    wait_for_completion();
}

static void wait_by_event(void)
{
    struct ibv_cq *of;
    void *own_context;
    receive();
    check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
    check(ibv_get_cq_event(events, &of, &own_context), "ibv_get_cq_event");
}

static void wait_in_read(void)
{
    char byte;
    all_read(&byte, 1);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t is_locked;

static void *wait_with_mutex(void *unused)
{
    pthread_mutex_lock(&mutex);
    pthread_barrier_wait(&is_locked);
    wait_by_event();
    pthread_mutex_unlock(&mutex);
    return unused;
}

static void wait_for_mutex(void)
{
    pthread_t thread;
    pthread_barrier_init(&is_locked, NULL, 2);
    pthread_create(&thread, NULL, wait_with_mutex, NULL);
    pthread_barrier_wait(&is_locked);
    pthread_mutex_lock(&mutex);
}

static void wait_in_join(void)
{
    pthread_t thread;
    pthread_barrier_init(&is_locked, NULL, 1);
    pthread_create(&thread, NULL, wait_with_mutex, NULL);
    pthread_join(thread, NULL);
}

/* `wait`: what the client does instead of a request. */
static const struct kind {
    const char *name;
    void (*serve)(void), (*wait)(void);
    enum ibv_wr_opcode opcode;
} kinds[] = {
    {"reset", reset_end, NULL, IBV_WR_SEND},
    {"destroyed", destroy_end, NULL, IBV_WR_SEND},
    {"no-right", nothing, NULL, IBV_WR_RDMA_WRITE},
    {"no-receive", nothing, NULL, IBV_WR_SEND},
    {"wait", wait_by_polls, wait_by_polls, IBV_WR_SEND},
    {"wait-event", wait_by_event, wait_by_event, IBV_WR_SEND},
    {"wait-read", wait_in_read, wait_by_polls, IBV_WR_SEND},
    {"wait-mutex", wait_by_polls, wait_for_mutex, IBV_WR_SEND},
    {"wait-join", wait_in_join, wait_by_event, IBV_WR_SEND},
};

static void open_channel(const char *address)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    channel = fd;
    if (address == NULL) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        check(bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 1), "listen");
        channel = accept(fd, NULL, NULL);
        check(channel < 0, "accept");
        return;
    }
    at.sin_addr.s_addr = inet_addr(address);
    while (connect(channel, (struct sockaddr *)&at, sizeof at)) {
        close(channel);
        usleep(10000);
        channel = socket(AF_INET, SOCK_STREAM, 0);
    }
}

int main(int argc, char **argv)
{
    const struct kind *kind = NULL;
    for (size_t i = 0; argc > 1 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            kind = &kinds[i];
    if (kind == NULL || argc > 3) {
        fprintf(stderr, "usage: net_pair KIND [ADDRESS]\n");
        return 1;
    }
#ifndef SRD
    traffic_class = argc == 3 && strcmp(kind->name, "destroyed") == 0 ? 236 : 0;
#endif
    make_end();
    open_channel(argv[2]);
    all_write(&own, sizeof own);
    all_read(&peer, sizeof peer);
    connect_end();
    meet();
    if (argc == 2)
        kind->serve();
    else if (kind->wait)
        kind->wait();
    meet();
    if (argc == 3) {
        request(kind->opcode);
        wait_for_completion();
    }
    meet();
    return 0;
}
