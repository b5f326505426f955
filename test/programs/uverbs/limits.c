/*
 * Uses each limit that a device reports (ibv_query_device_ex, ibv_query_port) at its full value, one at a time, the
 * other sizes as small as possible. Prints a line per use: the limit, how it is used, its value, and "granted" or the
 * error, with the largest value that is granted.
 *
 *   limits DEVICE
 */
#define _GNU_SOURCE
#include "../endpoint.h"

#include <sys/mman.h>

#define LENGTH 65536         /* bytes of the buffer */
#define MAX_IDLE_POLLS 50000 /* 100 us apart: 5 s */

static struct ibv_context *context;
static struct ibv_device_attr_ex attr;
static struct ibv_port_attr port;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static uint8_t *buffer;
static union ibv_gid gid;
static int gid_index;

/* 0, or the error of a use of `value`. */
typedef int (*use)(uint64_t value);

static void line(const char *limit, const char *how, uint64_t value, use try)
{
    if (value == 0)
        return;
    const int error = try(value);
    printf("%s | %s | %llu | ", limit, how, (unsigned long long)value);
    if (error == 0) {
        puts("granted");
        return;
    }
    uint64_t lower = 0;
    for (uint64_t upper = value; error != ETIMEDOUT && upper - lower > 1;) {
        const uint64_t middle = lower + (upper - lower) / 2;
        *(try(middle) == 0 ? &lower : &upper) = middle;
    }
    printf("%s; %llu is granted\n", strerrorname_np(error), (unsigned long long)lower);
}

/* ---- queue pairs ---- */

static struct ibv_qp *create(enum ibv_qp_type type, struct ibv_qp_cap cap, struct ibv_srq *srq)
{
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .srq = srq, .cap = cap, .qp_type = type};
    return ibv_create_qp(pd, &init);
}

static int created(enum ibv_qp_type type, struct ibv_qp_cap cap)
{
    errno = 0;
    struct ibv_qp *qp = create(type, cap, NULL);
    if (!qp)
        return errno ? errno : EINVAL;
    NEED(ibv_destroy_qp(qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    return 0;
}

static const enum ibv_qp_type types[] = {IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD};
static const char *const type_names[] = {"RC", "UC", "UD"};
static enum ibv_qp_type type;

static int send_requests(uint64_t value)
{
    return created(type, (struct ibv_qp_cap){(uint32_t)value, 1, 1, 1, 0});
}

static int empty_requests(uint64_t value)
{
    return created(type, (struct ibv_qp_cap){(uint32_t)value, 1, 0, 1, 0});
}

static int receive_requests(uint64_t value)
{
    return created(type, (struct ibv_qp_cap){1, (uint32_t)value, 1, 1, 0});
}

static void move_to(struct ibv_qp *qp, struct ibv_qp *peer, uint8_t reads, uint8_t own_reads, enum ibv_mtu mtu,
                    int *error)
{
    const bool is_ud = qp->qp_type == IBV_QPT_UD, is_rc = qp->qp_type == IBV_QPT_RC;
    struct ibv_qp_attr to = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 1};
    to.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
    const int rights = is_ud ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS;
    *error = ibv_modify_qp(qp, &to, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | rights);
    to.qp_state = IBV_QPS_RTR;
    to.path_mtu = mtu;
    to.dest_qp_num = peer->qp_num;
    to.max_dest_rd_atomic = reads;
    to.ah_attr = (struct ibv_ah_attr){
        .is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64}};
    int mask = IBV_QP_STATE;
    if (!is_ud)
        mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
    if (is_rc)
        mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    if (*error == 0)
        *error = ibv_modify_qp(qp, &to, mask);
    to.qp_state = IBV_QPS_RTS;
    to.timeout = 18;
    to.retry_cnt = to.rnr_retry = 7;
    to.max_rd_atomic = own_reads;
    mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
    if (is_rc)
        mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    if (*error == 0)
        *error = ibv_modify_qp(qp, &to, mask);
}

/* What a request has: elements at each end, or one element of `bytes` of `source` and `target`. */
struct message {
    enum ibv_wr_opcode opcode;
    uint32_t send_sges, receive_sges, bytes;
    struct ibv_mr *source, *target;
    uint8_t reads, own_reads;
    enum ibv_mtu mtu;
    bool is_shared;
};

static void spread(struct ibv_sge *sges, uint32_t count, struct ibv_mr *region, uint32_t bytes)
{
    for (uint32_t i = 0; i < count; i++)
        sges[i] = (struct ibv_sge){(uintptr_t)region->addr + i * bytes, bytes, region->lkey};
}

/* One message of a queue pair to itself; 0, or an error. A completion with an error is EIO. */
static int carried(struct message message)
{
    static struct ibv_sge from[256], into[256];
    const bool is_ud = type == IBV_QPT_UD, is_send = message.opcode == IBV_WR_SEND;
    const uint32_t sends = message.send_sges, receives = message.receive_sges;
    if (sends > 256 || receives > 256)
        return E2BIG;
    struct ibv_srq *srq = NULL;
    if (message.is_shared) {
        struct ibv_srq_init_attr shared = {.attr = {.max_wr = 1, .max_sge = receives}};
        srq = ibv_create_srq(pd, &shared);
        if (!srq)
            return errno;
    }
    errno = 0;
    struct ibv_qp *qp = create(type, (struct ibv_qp_cap){1, srq ? 0 : 1, sends, srq ? 0 : receives, 0}, srq);
    int error = qp ? 0 : errno ? errno : EINVAL;
    struct ibv_ah *ah = NULL;
    if (error == 0)
        move_to(qp, qp, message.reads, message.own_reads, message.mtu, &error);
    if (error == 0) {
        struct ibv_ah_attr to = {
            .is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64}};
        ah = is_ud ? ibv_create_ah(pd, &to) : NULL;
        const uint32_t bytes = message.bytes ? message.bytes : 1;
        spread(from, sends, message.source, bytes);
        spread(into, receives, message.target, is_ud ? bytes + 40 : bytes);
        if (is_send && sends > receives)
            into[0].length = sends * bytes + (is_ud ? 40 : 0);
        struct ibv_recv_wr receive = {.sg_list = into, .num_sge = (int)receives}, *bad_receive;
        struct ibv_send_wr send = {.wr_id = 1, .sg_list = from, .num_sge = (int)sends, .opcode = message.opcode}, *bad;
        send.send_flags = IBV_SEND_SIGNALED;
        if (is_ud) {
            send.wr.ud.ah = ah;
            send.wr.ud.remote_qpn = qp->qp_num;
            send.wr.ud.remote_qkey = 1;
        } else {
            send.wr.rdma.remote_addr = (uintptr_t)message.target->addr;
            send.wr.rdma.rkey = message.target->rkey;
        }
        if (is_send)
            error = srq ? ibv_post_srq_recv(srq, &receive, &bad_receive) : ibv_post_recv(qp, &receive, &bad_receive);
        if (error == 0)
            error = ibv_post_send(qp, &send, &bad);
        for (int left = is_send ? 2 : 1, idle = 0; error == 0 && left > 0;) {
            struct ibv_wc wc;
            const int found = ibv_poll_cq(cq, 1, &wc);
            if (found == 0) {
                if (++idle == MAX_IDLE_POLLS)
                    error = ETIMEDOUT;
                usleep(100);
            }
            if (found > 0 && wc.status != IBV_WC_SUCCESS)
                error = EIO;
            if (found < 0)
                error = EPROTO;
            left -= found;
        }
    }
    if (ah)
        ibv_destroy_ah(ah);
    if (qp)
        ibv_destroy_qp(qp);
    if (srq)
        ibv_destroy_srq(srq);
    return error;
}

static struct message small(void)
{
    return (struct message){IBV_WR_SEND, 1, 1, 0, mr, mr, 1, 1, port.active_mtu, false};
}

static int send_sges(uint64_t value)
{
    struct message message = small();
    message.send_sges = (uint32_t)value;
    return carried(message);
}

static int receive_sges(uint64_t value)
{
    struct message message = small();
    message.receive_sges = (uint32_t)value;
    return carried(message);
}

static int read_sges(uint64_t value)
{
    struct message message = small();
    message.opcode = IBV_WR_RDMA_READ;
    message.send_sges = (uint32_t)value;
    return carried(message);
}

static int shared_sges(uint64_t value)
{
    struct message message = small();
    message.is_shared = true;
    message.receive_sges = (uint32_t)value;
    return carried(message);
}

static int answered_reads(uint64_t value)
{
    struct message message = small();
    message.opcode = IBV_WR_RDMA_READ;
    message.reads = (uint8_t)value;
    return carried(message);
}

static int own_reads(uint64_t value)
{
    struct message message = small();
    message.opcode = IBV_WR_RDMA_READ;
    message.own_reads = (uint8_t)value;
    return carried(message);
}

static int path_mtu(uint64_t value)
{
    struct message message = small();
    message.mtu = (enum ibv_mtu)value;
    return carried(message);
}

/* ---- messages and regions ---- */

#define PART (2u << 20)

/* `bytes` of address space that are the same 2 MiB of memory again and again. */
static void *repeated(uint64_t bytes)
{
    const int fd = memfd_create("part", 0);
    NEED(fd >= 0 && ftruncate(fd, PART) == 0, "memfd_create: %s", strerror(errno));
    const uint64_t rounded = (bytes + PART - 1) / PART * PART;
    uint8_t *start = mmap(NULL, rounded, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(start != MAP_FAILED, "cannot: %llu bytes of address space", (unsigned long long)bytes);
    for (uint64_t at = 0; at < rounded; at += PART)
        NEED(mmap(start + at, PART, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED, "mmap: %s",
             strerror(errno));
    close(fd);
    return start;
}

static int message_bytes(uint64_t value)
{
    struct message message = small();
    void *memory = repeated(value + 40);
    int access = IBV_ACCESS_LOCAL_WRITE;
    if (type != IBV_QPT_UD) {
        access |= IBV_ACCESS_REMOTE_WRITE;
        message.opcode = IBV_WR_RDMA_WRITE;
    }
    message.bytes = (uint32_t)value;
    message.source = message.target = ibv_reg_mr(pd, memory, value + 40, access);
    int error = message.source ? carried(message) : errno;
    if (message.source)
        ibv_dereg_mr(message.source);
    munmap(memory, (value + 40 + PART - 1) / PART * PART);
    return error;
}

static int region_bytes(uint64_t value)
{
    void *memory = NULL;
    int access = IBV_ACCESS_LOCAL_WRITE;
    if (value == SIZE_MAX)
        access |= IBV_ACCESS_ON_DEMAND;
    else
        memory = mmap(NULL, value, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return errno;
    struct ibv_mr *region = ibv_reg_mr(pd, memory, value, access);
    const int error = region ? 0 : errno;
    if (region)
        ibv_dereg_mr(region);
    if (memory)
        munmap(memory, value);
    return error;
}

static int device_memory(uint64_t value)
{
    struct ibv_alloc_dm_attr init = {.length = value};
    struct ibv_dm *dm = ibv_alloc_dm(context, &init);
    return dm ? ibv_free_dm(dm) : errno;
}

/* ---- completion queues and shared receive queues ---- */

static int entries(uint64_t value)
{
    struct ibv_cq *one = ibv_create_cq(context, (int)value, NULL, NULL, 0);
    return one ? ibv_destroy_cq(one) : errno;
}

static int resized(uint64_t value)
{
    struct ibv_cq *one = ibv_create_cq(context, 1, NULL, NULL, 0);
    NEED(one, "ibv_create_cq: %s", strerror(errno));
    const int error = ibv_resize_cq(one, (int)value);
    ibv_destroy_cq(one);
    return error;
}

static int vectors(uint64_t value)
{
    struct ibv_cq *one = ibv_create_cq(context, 1, NULL, NULL, (int)value - 1);
    return one ? ibv_destroy_cq(one) : errno;
}

static int moderated_count(uint64_t value)
{
    struct ibv_modify_cq_attr to = {.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {(uint16_t)value, 0}};
    return ibv_modify_cq(cq, &to);
}

static int moderated_period(uint64_t value)
{
    struct ibv_modify_cq_attr to = {.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {1, (uint16_t)value}};
    return ibv_modify_cq(cq, &to);
}

static int shared_requests(uint64_t value)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = (uint32_t)value, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(pd, &init);
    return srq ? ibv_destroy_srq(srq) : errno;
}

/* ---- multicast and tables ---- */

static union ibv_gid group_of(uint32_t number)
{
    union ibv_gid group = {.raw = {0xff, 0x0e}};
    memcpy(group.raw + 12, &number, sizeof number);
    return group;
}

/* One queue pair in `value` groups. */
static int groups(uint64_t value)
{
    struct ibv_qp *qp = create(IBV_QPT_UD, (struct ibv_qp_cap){1, 1, 1, 1, 0}, NULL);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    int error = 0;
    uint32_t done = 0;
    for (; error == 0 && done < value; done += error == 0) {
        const union ibv_gid group = group_of(done);
        error = ibv_attach_mcast(qp, &group, 0);
    }
    while (done-- > 0) {
        const union ibv_gid group = group_of(done);
        ibv_detach_mcast(qp, &group, 0);
    }
    ibv_destroy_qp(qp);
    return error;
}

/* `value` queue pairs in one group. */
static int members(uint64_t value)
{
    const union ibv_gid group = group_of(1);
    struct ibv_qp *qps[1024];
    int error = 0;
    uint32_t done = 0;
    if (value > 1024)
        return E2BIG;
    for (; error == 0 && done < value; done++) {
        qps[done] = create(IBV_QPT_UD, (struct ibv_qp_cap){1, 1, 1, 1, 0}, NULL);
        NEED(qps[done], "ibv_create_qp: %s", strerror(errno));
        error = ibv_attach_mcast(qps[done], &group, 0);
    }
    while (done-- > 0) {
        ibv_detach_mcast(qps[done], &group, 0);
        ibv_destroy_qp(qps[done]);
    }
    return error;
}

static int gids(uint64_t value)
{
    union ibv_gid found;
    return ibv_query_gid(context, 1, (int)value - 1, &found) == 0 ? 0 : errno;
}

static int pkeys(uint64_t value)
{
    __be16 found;
    return ibv_query_pkey(context, 1, (int)value - 1, &found) == 0 ? 0 : errno;
}

static int ports(uint64_t value)
{
    struct ibv_port_attr found;
    return ibv_query_port(context, (uint8_t)value, &found);
}

int main(int argc, char **argv)
{
    setlinebuf(stdout);
    NEED(argc == 2 && argv[1][0] != '-', "usage: limits DEVICE");
    context = open_named(argv[1]);
    NEED(ibv_query_device_ex(context, NULL, &attr) == 0, "ibv_query_device_ex: %s", strerror(errno));
    NEED(ibv_query_port(context, 1, &port) == 0, "ibv_query_port: %s", strerror(errno));
    gid_index = choose_gid(context, -1);
    NEED(ibv_query_gid(context, 1, gid_index, &gid) == 0, "ibv_query_gid: %s", strerror(errno));
    NEED((pd = ibv_alloc_pd(context)), "ibv_alloc_pd: %s", strerror(errno));
    NEED((cq = ibv_create_cq(context, 16, NULL, NULL, 0)), "ibv_create_cq: %s", strerror(errno));
    NEED((buffer = aligned_alloc(4096, LENGTH)), "no memory");
    int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
    NEED((mr = ibv_reg_mr(pd, buffer, LENGTH, access)), "ibv_reg_mr: %s", strerror(errno));
    const struct ibv_device_attr *own = &attr.orig_attr;
    char how[64];
    bool has_reads = false;
    for (int i = 0; i < 3; i++) {
        type = types[i];
        if (created(type, (struct ibv_qp_cap){1, 1, 1, 1, 0}) != 0)
            continue;
        const uint64_t requests = (uint64_t)own->max_qp_wr, sges = (uint64_t)own->max_sge;
        snprintf(how, sizeof how, "%s sends without elements", type_names[i]);
        line("max_qp_wr", how, requests, empty_requests);
        snprintf(how, sizeof how, "%s sends of one element", type_names[i]);
        line("max_qp_wr", how, requests, send_requests);
        snprintf(how, sizeof how, "%s receives", type_names[i]);
        line("max_qp_wr", how, requests, receive_requests);
        snprintf(how, sizeof how, "%s SEND", type_names[i]);
        line("max_sge", how, sges, send_sges);
        snprintf(how, sizeof how, "%s receive", type_names[i]);
        line("max_sge", how, sges, receive_sges);
        if (type == IBV_QPT_RC) {
            has_reads = true;
            line("max_sge_rd", "RDMA READ", (uint64_t)own->max_sge_rd, read_sges);
            line("max_qp_rd_atom", "max_dest_rd_atomic", (uint64_t)own->max_qp_rd_atom, answered_reads);
            line("max_qp_init_rd_atom", "max_rd_atomic", (uint64_t)own->max_qp_init_rd_atom, own_reads);
            line("active_mtu", "path_mtu", (uint64_t)port.active_mtu, path_mtu);
            line("max_srq_sge", "shared receive", (uint64_t)own->max_srq_sge, shared_sges);
        }
        if (type == IBV_QPT_RC || (type == IBV_QPT_UD && !has_reads)) {
            snprintf(how, sizeof how, "%s %s", type_names[i], type == IBV_QPT_RC ? "RDMA WRITE" : "SEND");
            line("max_msg_sz", how, port.max_msg_sz, message_bytes);
        }
    }
    line("max_srq_wr", "ibv_create_srq", (uint64_t)own->max_srq_wr, shared_requests);
    line("max_cqe", "ibv_create_cq", (uint64_t)own->max_cqe, entries);
    if (resized(2) == 0)
        line("max_cqe", "ibv_resize_cq", (uint64_t)own->max_cqe, resized);
    line("num_comp_vectors", "ibv_create_cq", (uint64_t)context->num_comp_vectors, vectors);
    line("cq_mod_caps.max_cq_count", "ibv_modify_cq", attr.cq_mod_caps.max_cq_count, moderated_count);
    line("cq_mod_caps.max_cq_period", "ibv_modify_cq", attr.cq_mod_caps.max_cq_period, moderated_period);
    line("max_mr_size", "ibv_reg_mr", own->max_mr_size, region_bytes);
    line("max_dm_size", "ibv_alloc_dm", attr.max_dm_size, device_memory);
    line("max_mcast_grp", "groups of one queue pair", (uint64_t)own->max_mcast_grp, groups);
    line("max_mcast_qp_attach", "queue pairs of one group", (uint64_t)own->max_mcast_qp_attach, members);
    line("phys_port_cnt", "ibv_query_port", own->phys_port_cnt, ports);
    line("gid_tbl_len", "ibv_query_gid", (uint64_t)port.gid_tbl_len, gids);
    line("pkey_tbl_len", "ibv_query_pkey", port.pkey_tbl_len, pkeys);
    return 0;
}
