/*
 * Two queue pairs of one device, for the table of what each tool does on each device
 * (test/system/devices/tools.test.ts): RC, or SRD if the device has no RC.
 *
 *   tools DEVICE [CASE]
 *
 *   exchange  SENDs whose receives are posted late, WRITEs and READs; then a request that the peer refuses
 *   hang      a SEND without a receive, for whose completion it waits
 *   change    changes the bytes of a SEND that waits for its receive
 *   race      READs of both ends into the same bytes at once
 *   relaxed   two WRITEs to the same bytes of a region with relaxed ordering
 *   unarmed   waits for an event of a CQ that it has not armed
 *   unpolled  a request that the peer refuses, and never polls
 *   page      a SEND from a region with on-demand paging
 *   event     waits for an asynchronous event, and prints it
 *   leak      ends without releasing anything
 *
 * The first failure is printed, with exit status 1.
 */
#include <infiniband/efadv.h>
#include <poll.h>
#include <sys/mman.h>

#include "../endpoint.h"

#define QKEY 0x1234
#define LENGTH 3000
#define BYTES 65536
#define DISTANCE 4096
#define ROUNDS 12
/* The power of two above it is larger: torment can make a queue or CQ exact. */
#define DEPTH 5
#define EVENT_MS 10000

struct end {
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    unsigned events; /* which were not acknowledged */
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_mr *mr;
static struct ibv_ah *ah; /* of SRD */
static uint8_t *buffer;
static struct end ends[2];
static union ibv_gid gid;
static int gid_index;
static uint64_t next_id = 1;

static void modify(struct end *end, struct ibv_qp_attr attr, int mask)
{
    NEED(ibv_modify_qp(end->qp, &attr, mask | IBV_QP_STATE) == 0, "ibv_modify_qp: %s", strerror(errno));
}

static struct ibv_qp_init_attr_ex attributes_of(struct end *end, enum ibv_qp_type type)
{
    return (struct ibv_qp_init_attr_ex){
        .qp_type = type,
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .pd = pd,
        .cap = {.max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 1, .max_recv_sge = 1},
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ |
                          (type == IBV_QPT_RC ? IBV_QP_EX_WITH_RDMA_WRITE : 0),
    };
}

static void create_srd(struct end *end)
{
    struct ibv_qp_init_attr_ex init = attributes_of(end, IBV_QPT_DRIVER);
    struct efadv_qp_init_attr own = {.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD};
    end->qp = efadv_create_qp_ex(context, &init, &own, sizeof own);
    NEED(end->qp, "efadv_create_qp_ex: %s", strerror(errno));
    modify(end, (struct ibv_qp_attr){.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY},
           IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
    modify(end, (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR}, 0);
    modify(end, (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS}, IBV_QP_SQ_PSN);
}

static struct ibv_ah_attr path(void)
{
    return (struct ibv_ah_attr){
        .is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 1}};
}

static void connect_rc(struct end *end, const struct end *peer)
{
    modify(end,
           (struct ibv_qp_attr){.qp_state = IBV_QPS_INIT,
                                .port_num = 1,
                                .qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE},
           IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    modify(end,
           (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR,
                                .path_mtu = IBV_MTU_1024,
                                .dest_qp_num = peer->qp->qp_num,
                                .max_dest_rd_atomic = 1,
                                .min_rnr_timer = 1,
                                .ah_attr = path()},
           IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
               IBV_QP_MIN_RNR_TIMER);
    modify(end,
           (struct ibv_qp_attr){
               .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1},
           IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

static void create_pair_of(const char *device)
{
    context = open_named(device);
    gid_index = choose_gid(context, -1);
    NEED(ibv_query_gid(context, 1, gid_index, &gid) == 0, "ibv_query_gid: %s", strerror(errno));
    pd = ibv_alloc_pd(context);
    NEED(pd, "ibv_alloc_pd: %s", strerror(errno));
    buffer = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(buffer != MAP_FAILED, "mmap: %s", strerror(errno));
    mr = ibv_reg_mr(pd, buffer, BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    bool has_rc = true;
    for (int i = 0; i < 2; i++) {
        ends[i].channel = ibv_create_comp_channel(context);
        NEED(ends[i].channel, "ibv_create_comp_channel: %s", strerror(errno));
        ends[i].cq = ibv_create_cq(context, DEPTH, NULL, ends[i].channel, 0);
        NEED(ends[i].cq, "ibv_create_cq: %s", strerror(errno));
        struct ibv_qp_init_attr_ex init = attributes_of(&ends[i], IBV_QPT_RC);
        errno = 0;
        ends[i].qp = has_rc ? ibv_create_qp_ex(context, &init) : NULL;
        has_rc = ends[i].qp != NULL;
        NEED(has_rc || errno == EOPNOTSUPP || i > 0, "ibv_create_qp_ex: %s", strerror(errno));
        if (!has_rc)
            create_srd(&ends[i]);
    }
    struct ibv_ah_attr attr = path();
    ah = has_rc ? NULL : ibv_create_ah(pd, &attr);
    NEED(has_rc || ah, "ibv_create_ah: %s", strerror(errno));
    for (int i = 0; has_rc && i < 2; i++)
        connect_rc(&ends[i], &ends[1 - i]);
}

/* SRD has READs instead of WRITEs: before version 50, libefa has no others. */
enum operation { SEND, WRITE, READ };

/* Posts a request of an end to the other one, with its bytes at `from`. */
static void post_with(int side, enum operation operation, uint32_t lkey, const void *from, uint32_t rkey)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(ends[side].qp);
    const uint64_t remote = (uintptr_t)(buffer + BYTES / 2);
    ibv_wr_start(qp);
    qp->wr_id = next_id++;
    qp->wr_flags = IBV_SEND_SIGNALED;
    if (operation == SEND)
        ibv_wr_send(qp);
    else if (operation == WRITE && !ah)
        ibv_wr_rdma_write(qp, rkey, remote);
    else
        ibv_wr_rdma_read(qp, rkey, remote);
    if (ah)
        ibv_wr_set_ud_addr(qp, ah, ends[1 - side].qp->qp_num, QKEY);
    ibv_wr_set_sge(qp, lkey, (uintptr_t)from, LENGTH);
    const int error = ibv_wr_complete(qp);
    NEED(error == 0, "ibv_wr_complete: %s", strerror(error));
}

/* With bytes of its own for each operation. */
static void post(enum operation operation)
{
    post_with(0, operation, mr->lkey, buffer + operation * 2 * DISTANCE, mr->rkey);
}

static void post_receive(void)
{
    struct ibv_sge sge = {(uintptr_t)(buffer + BYTES / 2), LENGTH, mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = next_id++, .sg_list = &sge, .num_sge = 1}, *bad;
    const int error = ibv_post_recv(ends[1].qp, &wr, &bad);
    NEED(error == 0, "ibv_post_recv: %s", strerror(error));
}

static struct ibv_wc next(struct end *end)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        ;
    NEED(found == 1, "ibv_poll_cq: %d", found);
    return wc;
}

static void succeeds(struct end *end)
{
    const struct ibv_wc wc = next(end);
    NEED(wc.status == IBV_WC_SUCCESS, "wr_id %d: %s, vendor_err 0x%x", (int)wc.wr_id, ibv_wc_status_str(wc.status),
         wc.vendor_err);
}

static void arm(struct end *end)
{
    NEED(ibv_req_notify_cq(end->cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno));
}

static void wait_for_event(struct end *end)
{
    struct ibv_cq *cq;
    void *user;
    NEED(ibv_get_cq_event(end->channel, &cq, &user) == 0, "ibv_get_cq_event: %s", strerror(errno));
    end->events++;
}

static void exchange(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        arm(&ends[1]);
        post(SEND);
        /* Calls take time, in which the message finds no receive. */
        struct ibv_port_attr port;
        for (int i = 0; i < 4; i++)
            NEED(ibv_query_port(context, 1, &port) == 0, "ibv_query_port: %s", strerror(errno));
        post_receive();
        wait_for_event(&ends[1]);
        succeeds(&ends[1]);
        succeeds(&ends[0]);
        post(WRITE);
        post(READ);
        succeeds(&ends[0]);
        succeeds(&ends[0]);
    }
    post_with(0, WRITE, mr->lkey, buffer, mr->rkey ^ 0x5500);
    const struct ibv_wc wc = next(&ends[0]);
    NEED(wc.status != IBV_WC_SUCCESS, "a request with a wrong rkey succeeds");
    printf("refused: %s, vendor_err 0x%x\n", ibv_wc_status_str(wc.status), wc.vendor_err);
}

static void hang(void)
{
    arm(&ends[0]);
    post(SEND);
    printf("waits\n");
    fflush(stdout);
    wait_for_event(&ends[0]);
}

static void change(void)
{
    post(SEND);
    struct ibv_port_attr port;
    for (int i = 0; i < 4; i++)
        NEED(ibv_query_port(context, 1, &port) == 0, "ibv_query_port: %s", strerror(errno));
    memset(buffer, 1, LENGTH);
    post_receive();
    succeeds(&ends[1]);
    succeeds(&ends[0]);
}

static void race(void)
{
    for (int side = 0; side < 2; side++)
        post_with(side, READ, mr->lkey, buffer, mr->rkey);
    for (int side = 0; side < 2; side++)
        succeeds(&ends[side]);
}

static void relaxed(void)
{
    const int rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
    struct ibv_mr *target = ibv_reg_mr(pd, buffer, BYTES, rights | IBV_ACCESS_RELAXED_ORDERING);
    NEED(target, "ibv_reg_mr with relaxed ordering: %s", strerror(errno));
    for (int i = 0; i < 2; i++)
        post_with(0, WRITE, mr->lkey, buffer + i * DISTANCE, target->rkey);
    for (int i = 0; i < 2; i++)
        succeeds(&ends[0]);
    ibv_dereg_mr(target);
}

static void unarmed(void)
{
    printf("waits\n");
    fflush(stdout);
    wait_for_event(&ends[1]);
}

static void unpolled(void)
{
    post_with(0, READ, mr->lkey, buffer, mr->rkey ^ 0x5500);
    printf("waits\n");
    fflush(stdout);
    pause();
}

static void page(void)
{
    struct ibv_mr *paged = ibv_reg_mr(pd, buffer, BYTES / 2, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
    NEED(paged, "ibv_reg_mr on demand: %s", strerror(errno));
    post_receive();
    post_with(0, SEND, paged->lkey, buffer, mr->rkey);
    succeeds(&ends[0]);
    ibv_dereg_mr(paged);
}

static void event(void)
{
    struct pollfd readable = {.fd = context->async_fd, .events = POLLIN};
    struct ibv_async_event found;
    NEED(poll(&readable, 1, EVENT_MS) == 1, "no event");
    NEED(ibv_get_async_event(context, &found) == 0, "ibv_get_async_event: %s", strerror(errno));
    printf("event: %s\n", ibv_event_type_str(found.event_type));
    ibv_ack_async_event(&found);
}

static void leak(void)
{
    exit(0);
}

static void release(void)
{
    for (int i = 0; i < 2; i++) {
        struct end *end = &ends[i];
        if (end->events)
            ibv_ack_cq_events(end->cq, end->events);
        NEED(ibv_destroy_qp(end->qp) == 0 && ibv_destroy_cq(end->cq) == 0 &&
                 ibv_destroy_comp_channel(end->channel) == 0,
             "destroy: %s", strerror(errno));
    }
    NEED((!ah || ibv_destroy_ah(ah) == 0) && ibv_dereg_mr(mr) == 0 && ibv_dealloc_pd(pd) == 0, "release: %s",
         strerror(errno));
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"exchange", exchange}, {"hang", hang}, {"page", page}, {"event", event}, {"leak", leak},
                 {"unarmed", unarmed},   {"unpolled", unpolled}, {"change", change}, {"race", race}, {"relaxed", relaxed}};
    void (*run)(void) = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argc > 2 ? argv[2] : "exchange", cases[i].name) == 0)
            run = cases[i].run;
    NEED(argc > 1 && run, "usage: tools DEVICE [CASE]");
    create_pair_of(argv[1]);
    run();
    release();
    return 0;
}
