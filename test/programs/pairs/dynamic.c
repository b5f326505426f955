/*
 * The dynamically connected transport of libmlx5: an initiator of the client sends all requests to two targets of the
 * server in turn, then some that fail, and goes on.
 *
 *   dynamic -d DEVICE -n ROUNDS -p PORT [HOST]
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <infiniband/mlx5dv.h>

#include "../tcp.h"

#define KEY 0x1122334455667788ull
#define TARGETS 2
#define RECEIVES 64
#define BYTES 8192
#define RECEIVE_BYTES 4096
/* Where the server has a word for atomics, and what the client writes. */
#define WORD 4096
#define DATA 4104
#define LENGTH 3000
/* Of an initiator: 0.27 s, for peers on busy machines, and 1 ms, for requests that nobody answers. */
#define TIMEOUT 16
#define SHORT_TIMEOUT 8
/* The client's word for the result of an atomic, and its data. */
#define RESULT 0
#define SOURCE 8
#define READ_BACK 4096

struct server {
    uint32_t targets[TARGETS], rkey;
    uint64_t buffer;
    union ibv_gid gid;
};

static __typeof__(mlx5dv_create_qp) *create_dynamic;
static __typeof__(mlx5dv_qp_ex_from_ibv_qp_ex) *extended_of;

static void find_functions(void)
{
    void *library = dlopen("libmlx5.so.1", RTLD_NOW);
    NEED(library, "cannot: %s", dlerror());
    *(void **)&create_dynamic = dlsym(library, "mlx5dv_create_qp");
    *(void **)&extended_of = dlsym(library, "mlx5dv_qp_ex_from_ibv_qp_ex");
    NEED(create_dynamic && extended_of, "cannot: libmlx5 has no mlx5dv_create_qp");
}

static void modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
    const int error = ibv_modify_qp(qp, attr, mask);
    NEED(error == 0, "to state %d: %s", attr->qp_state, strerror(error));
}

static struct ibv_qp *create_target(struct endpoint *end, struct ibv_srq *srq)
{
    struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_DRIVER,
                                       .send_cq = end->cq,
                                       .recv_cq = end->cq,
                                       .srq = srq,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD,
                                       .pd = end->pd};
    struct mlx5dv_qp_init_attr dynamic = {
        .comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
        .dc_init_attr = {.dc_type = MLX5DV_DCTYPE_DCT, .dct_access_key = KEY}};
    struct ibv_qp *qp = create_dynamic(end->context, &init, &dynamic);
    NEED(qp, "create a target: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qp_access_flags =
                                   IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC};
    modify(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_1024;
    attr.min_rnr_timer = 1;
    attr.ah_attr.is_global = 1;
    attr.ah_attr.port_num = 1;
    attr.ah_attr.grh.sgid_index = (uint8_t)end->gid_index;
    modify(qp, &attr, IBV_QP_STATE | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV | IBV_QP_PATH_MTU);
    return qp;
}

static struct ibv_qp *create_initiator(struct endpoint *end)
{
    struct ibv_qp_init_attr_ex init = {
        .qp_type = IBV_QPT_DRIVER,
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .cap = {.max_send_wr = QUEUE, .max_send_sge = 1, .max_inline_data = 64},
        .sq_sig_all = 1,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = end->pd,
        .send_ops_flags = IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ |
                          IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP};
    struct mlx5dv_qp_init_attr dynamic = {.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
                                          .dc_init_attr = {.dc_type = MLX5DV_DCTYPE_DCI}};
    struct ibv_qp *qp = create_dynamic(end->context, &init, &dynamic);
    NEED(qp, "create an initiator: %s", strerror(errno));
    return qp;
}

static void start_initiator(struct ibv_qp *qp, uint8_t timeout)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    modify(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT);
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_1024;
    modify(qp, &attr, IBV_QP_STATE | IBV_QP_PATH_MTU);
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = timeout;
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    attr.max_rd_atomic = 4;
    modify(qp, &attr,
           IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
               IBV_QP_MAX_QP_RD_ATOMIC);
}

static struct ibv_wc wait_for(struct endpoint *end, const char *what)
{
    struct ibv_wc wc;
    int count;
    while ((count = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        usleep(10);
    NEED(count == 1, "%s: ibv_poll_cq: %d", what, count);
    return wc;
}

static void wait_good(struct endpoint *end, const char *what, int count)
{
    while (count-- > 0) {
        const struct ibv_wc wc = wait_for(end, what);
        NEED(wc.status == IBV_WC_SUCCESS, "%s: %s", what, ibv_wc_status_str(wc.status));
    }
}

struct request {
    enum { SEND_IMM, WRITE, READ, FETCH_ADD, COMPARE_SWAP } kind;
    uint32_t target;
    uint64_t key;
    uint64_t value, swap;
};

static void post(struct endpoint *end, struct ibv_qp *qp, struct ibv_ah *ah, const struct server *server,
                 const struct request *request)
{
    struct ibv_qp_ex *extended = ibv_qp_to_qp_ex(qp);
    const uint64_t remote = server->buffer;
    uint32_t offset = SOURCE, length = 8;
    ibv_wr_start(extended);
    extended->wr_id = request->kind;
    switch (request->kind) {
    case SEND_IMM:
        ibv_wr_send_imm(extended, htonl((uint32_t)request->value));
        break;
    case WRITE:
        ibv_wr_rdma_write(extended, server->rkey, remote + DATA);
        length = LENGTH;
        break;
    case READ:
        ibv_wr_rdma_read(extended, server->rkey, remote + DATA);
        offset = READ_BACK;
        length = LENGTH;
        break;
    case FETCH_ADD:
        ibv_wr_atomic_fetch_add(extended, server->rkey, remote + WORD, request->value);
        offset = RESULT;
        break;
    case COMPARE_SWAP:
        ibv_wr_atomic_cmp_swp(extended, server->rkey, remote + WORD, request->value, request->swap);
        offset = RESULT;
        break;
    }
    mlx5dv_wr_set_dc_addr(extended_of(extended), ah, request->target, request->key);
    ibv_wr_set_sge(extended, end->mr->lkey, (uintptr_t)end->buffer + offset, length);
    const int error = ibv_wr_complete(extended);
    NEED(error == 0, "ibv_wr_complete: %s", strerror(error));
}

static void run_client(struct endpoint *end, int peer, uint32_t rounds)
{
    struct server server = {0};
    exchange(peer, &server, &server, sizeof server);
    struct ibv_ah_attr path = {
        .is_global = 1, .port_num = 1, .grh = {.dgid = server.gid, .sgid_index = (uint8_t)end->gid_index}};
    struct ibv_ah *ah = ibv_create_ah(end->pd, &path);
    NEED(ah, "ibv_create_ah: %s", strerror(errno));
    struct ibv_qp *qp = create_initiator(end);
    start_initiator(qp, TIMEOUT);
    uint64_t *result = (uint64_t *)(end->buffer + RESULT);
    for (uint32_t i = 0; i < rounds; i++) {
        for (int j = 0; j < LENGTH; j++)
            end->buffer[SOURCE + j] = (uint8_t)(i * 31 + (uint32_t)j);
        const struct request requests[] = {{SEND_IMM, server.targets[i % 2], KEY, i, 0},
                                           {WRITE, server.targets[i / 3 % 2], KEY, 0, 0},
                                           {READ, server.targets[i / 2 % 2], KEY, 0, 0},
                                           {FETCH_ADD, server.targets[(i + 1) % 2], KEY, 2, 0}};
        for (int j = 0; j < 4; j++)
            post(end, qp, ah, &server, &requests[j]);
        wait_good(end, "a round", 4);
        NEED(memcmp(end->buffer + SOURCE, end->buffer + READ_BACK, LENGTH) == 0, "round %u: other bytes were read", i);
        NEED(*result == 2 * i, "round %u: the word was %llu", i, (unsigned long long)*result);
    }
    const struct request swap = {COMPARE_SWAP, server.targets[0], KEY, 2 * rounds, 7};
    post(end, qp, ah, &server, &swap);
    wait_good(end, "compare and swap", 1);
    NEED(*result == 2 * rounds, "the word before the swap was %llu", (unsigned long long)*result);

    const struct {
        struct request request;
        enum ibv_wc_status status;
    } failing[] = {{{SEND_IMM, server.targets[0], KEY + 1, 0, 0}, IBV_WC_REM_ACCESS_ERR},
                   {{SEND_IMM, 5, KEY, 0, 0}, IBV_WC_RETRY_EXC_ERR}};
    for (int i = 0; i < 2; i++) {
        post(end, qp, ah, &server, &failing[i].request);
        const struct ibv_wc wc = wait_for(end, "a failing request");
        NEED(wc.status == failing[i].status, "failing request %d: %s", i, ibv_wc_status_str(wc.status));
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
        modify(qp, &attr, IBV_QP_STATE);
        start_initiator(qp, i == 0 ? SHORT_TIMEOUT : TIMEOUT);
    }
    const struct request last = {SEND_IMM, server.targets[1], KEY, rounds, 0};
    post(end, qp, ah, &server, &last);
    wait_good(end, "the last request", 1);
    exchange(peer, &server, &server, 1);
    NEED(ibv_destroy_qp(qp) == 0 && ibv_destroy_ah(ah) == 0, "cannot destroy the queue pair");
}

static void post_receive(struct endpoint *end, struct ibv_srq *srq)
{
    struct ibv_sge sge = {(uintptr_t)end->buffer, RECEIVE_BYTES, end->mr->lkey};
    struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;
    NEED(ibv_post_srq_recv(srq, &wr, &bad) == 0, "ibv_post_srq_recv failed");
}

static void run_server(struct endpoint *end, int peer, uint32_t rounds)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = RECEIVES, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(end->pd, &init);
    NEED(srq, "ibv_create_srq: %s", strerror(errno));
    struct server server = {.rkey = end->mr->rkey, .buffer = (uintptr_t)end->buffer, .gid = end->gid}, unused = {0};
    struct ibv_qp *targets[TARGETS];
    for (int i = 0; i < TARGETS; i++) {
        targets[i] = create_target(end, srq);
        server.targets[i] = targets[i]->qp_num;
    }
    for (int i = 0; i < RECEIVES / 2; i++)
        post_receive(end, srq);
    exchange(peer, &server, &unused, sizeof server);
    for (uint32_t i = 0; i <= rounds; i++) {
        const struct ibv_wc wc = wait_for(end, "a receive");
        NEED(wc.status == IBV_WC_SUCCESS && wc.opcode == IBV_WC_RECV && wc.byte_len == 8, "receive %u: %s", i,
             ibv_wc_status_str(wc.status));
        const uint32_t target = server.targets[i == rounds ? 1 : i % 2];
        NEED(ntohl(wc.imm_data) == i && wc.qp_num == target, "receive %u: number %u at QP 0x%x", i,
             ntohl(wc.imm_data), wc.qp_num);
        post_receive(end, srq);
    }
    /* The acknowledgement of the last request may be lost: without targets, the client's retries would fail. */
    exchange(peer, &server, &unused, 1);
    for (int i = 0; i < TARGETS; i++)
        NEED(ibv_destroy_qp(targets[i]) == 0, "cannot destroy a target");
    NEED(ibv_destroy_srq(srq) == 0, "cannot destroy the shared queue");
}

int main(int argc, char **argv)
{
    const char *device = NULL, *port = NULL;
    uint32_t rounds = 0;
    for (int option; (option = getopt(argc, argv, "d:n:p:")) != -1;)
        if (option == 'd')
            device = optarg;
        else if (option == 'n')
            rounds = (uint32_t)atoi(optarg);
        else if (option == 'p')
            port = optarg;
        else
            device = NULL, optind = argc;
    NEED(device && port && rounds > 0 && argc <= optind + 1, "usage: dynamic -d DEVICE -n ROUNDS -p PORT [HOST]");
    const char *host = argv[optind];
    struct endpoint end;
    find_functions();
    set_time_limit(60);
    create_endpoint(&end, open_named(device), &default_options, BYTES, 1);
    const int peer = host ? connect_to_server(host, port) : accept_client(port);
    (host ? run_client : run_server)(&end, peer, rounds);
    puts("good");
    return 0;
}
