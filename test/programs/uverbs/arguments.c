/*
 * Calls with arguments out of range, as libibverbs makes them: which errno comes, and so which check comes first.
 * test/system/devices/arguments.test.ts has Linux's.
 *
 *   arguments DEVICE
 *
 * Prints a line per call: its name, then OK or the name of the errno.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>

#include "../endpoint.h"

#define PAGE 4096
#define BYTES 65536

static struct ibv_context *context;
static struct ibv_pd *pd;

static void show(const char *name, const void *object)
{
    printf("%s: %s\n", name, object ? "OK" : strerrorname_np(errno));
    errno = 0;
}

static void files(int file)
{
    const struct {
        const char *name;
        uint64_t offset;
        size_t length;
        uint64_t iova;
        int fd, access;
    } rows[] = {
        {"dmabuf: descriptor -1", 0, PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor 999", 0, PAGE, 0, 999, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, length 0", 0, 0, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, offset 1, iova 0", 1, PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, the end overflows", -PAGE, 2 * PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, remote write alone", 0, PAGE, 0, -1, IBV_ACCESS_REMOTE_WRITE},
        {"dmabuf: descriptor -1, remote atomic alone", 0, PAGE, 0, -1, IBV_ACCESS_REMOTE_ATOMIC},
        {"dmabuf: descriptor -1, remote atomic", 0, PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC},
        {"dmabuf: descriptor -1, on demand", 0, PAGE, 0, -1, IBV_ACCESS_ON_DEMAND},
        {"dmabuf: the context's descriptor", 0, PAGE, 0, context->cmd_fd, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: beyond the end", BYTES, PAGE, 0, file, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: right", 0, PAGE, 0, file, IBV_ACCESS_LOCAL_WRITE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        show(rows[i].name, ibv_reg_dmabuf_mr(pd, rows[i].offset, rows[i].length, rows[i].iova, rows[i].fd, rows[i].access));
}

static void regions(char *buffer)
{
    const struct {
        const char *name;
        size_t length;
        uint64_t iova;
        unsigned int access;
    } rows[] = {
        {"mr: length 0", 0, 0, IBV_ACCESS_LOCAL_WRITE},
        {"mr: iova 1", PAGE, 1, IBV_ACCESS_LOCAL_WRITE},
        {"mr: remote write alone", PAGE, 0, IBV_ACCESS_REMOTE_WRITE},
        {"mr: remote atomic", PAGE, 0, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC},
        {"mr: remote atomic, iova 1", PAGE, 1, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC},
        {"mr: memory windows", PAGE, 0, IBV_ACCESS_MW_BIND},
        {"mr: zero-based", PAGE, 0, IBV_ACCESS_ZERO_BASED},
        {"mr: an unknown flag", PAGE, 0, 1u << 15},
        {"mr: an optional flag", PAGE, 0, 1u << 25},
        {"mr: 2^31 pages", (size_t)1 << 43, 0, IBV_ACCESS_LOCAL_WRITE},
        {"mr: 2^32 pages", (size_t)1 << 44, 0, IBV_ACCESS_LOCAL_WRITE},
        {"mr: the end overflows", SIZE_MAX, 0, IBV_ACCESS_LOCAL_WRITE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        show(rows[i].name, ibv_reg_mr_iova(pd, buffer, rows[i].length, rows[i].iova, rows[i].access));
}

static void queues(void)
{
    static const int channels[] = {-1, 0, 999};
    for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++) {
        struct ibv_comp_channel channel = {.context = context, .fd = channels[i]};
        char name[64];
        snprintf(name, sizeof name, "cq: channel %d", channels[i]);
        show(name, ibv_create_cq(context, 1, NULL, &channel, 0));
    }
    show("cq: vector -1", ibv_create_cq(context, 1, NULL, NULL, -1));
    show("cq: 2^30 entries", ibv_create_cq(context, 1 << 30, NULL, NULL, 0));
}

static void domains(int file)
{
    const struct {
        const char *name;
        int fd, flags;
    } rows[] = {
        {"xrcd: descriptor -1", -1, 0},
        {"xrcd: descriptor -1, O_EXCL", -1, O_EXCL},
        {"xrcd: descriptor -2", -2, O_CREAT},
        {"xrcd: descriptor 999", 999, O_CREAT},
        {"xrcd: a file without a domain", file, 0},
        {"xrcd: a file, O_CREAT", file, O_CREAT},
        {"xrcd: a file with a domain, O_EXCL", file, O_CREAT | O_EXCL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ibv_xrcd_init_attr attr = {.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                          .fd = rows[i].fd,
                                          .oflags = rows[i].flags};
        show(rows[i].name, ibv_open_xrcd(context, &attr));
    }
}

static void addresses(void)
{
    union ibv_gid gid;
    const int index = choose_gid(context, -1);
    NEED(ibv_query_gid(context, 1, index, &gid) == 0, "ibv_query_gid: %s", strerror(errno));
    const struct ibv_ah_attr right = {
        .is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = (uint8_t)index, .hop_limit = 1}};
    struct ibv_ah_attr wrong = right;
    show("ah: right", ibv_create_ah(pd, &wrong));
    wrong.is_global = 0;
    show("ah: without a GID", ibv_create_ah(pd, &wrong));
    wrong = right;
    wrong.grh.sgid_index = 255;
    show("ah: GID index 255", ibv_create_ah(pd, &wrong));
    for (int port = 0; port <= 2; port += 2) {
        char name[64];
        wrong = right;
        wrong.port_num = (uint8_t)port;
        snprintf(name, sizeof name, "ah: port %d", port);
        show(name, ibv_create_ah(pd, &wrong));
    }
    wrong = right;
    wrong.static_rate = 1;
    show("ah: static rate 1", ibv_create_ah(pd, &wrong));
    wrong = right;
    wrong.sl = 16;
    show("ah: service level 16", ibv_create_ah(pd, &wrong));
    wrong = right;
    wrong.grh.flow_label = 1 << 20;
    show("ah: flow label 2^20", ibv_create_ah(pd, &wrong));
    wrong = right;
    wrong.dlid = 0xffff;
    show("ah: LID 0xffff", ibv_create_ah(pd, &wrong));
}

/* ---- attributes of queue pairs ---- */

/* A path to the device itself, and what a transition needs, of RC or of UD. */
static struct ibv_qp_attr attributes_for(enum ibv_qp_state state)
{
    struct ibv_qp_attr attr = {.qp_state = state,
                               .port_num = 1,
                               .qkey = 5,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE,
                               .path_mtu = IBV_MTU_1024,
                               .dest_qp_num = 20,
                               .max_dest_rd_atomic = 1,
                               .min_rnr_timer = 1,
                               .timeout = 14,
                               .retry_cnt = 7,
                               .rnr_retry = 7,
                               .max_rd_atomic = 1,
                               .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1}}};
    attr.ah_attr.grh.sgid_index = (uint8_t)choose_gid(context, -1);
    NEED(ibv_query_gid(context, 1, attr.ah_attr.grh.sgid_index, &attr.ah_attr.grh.dgid) == 0, "ibv_query_gid: %s",
         strerror(errno));
    return attr;
}

static int mask_for(enum ibv_qp_state state, enum ibv_qp_type type)
{
    const bool is_rc = type == IBV_QPT_RC;
    switch (state) {
    case IBV_QPS_INIT:
        return IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (is_rc ? IBV_QP_ACCESS_FLAGS : IBV_QP_QKEY);
    case IBV_QPS_RTR:
        return IBV_QP_STATE | (is_rc ? IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                           IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER
                                     : 0);
    default:
        return IBV_QP_STATE | IBV_QP_SQ_PSN | (is_rc ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                                           IBV_QP_MAX_QP_RD_ATOMIC
                                                     : 0);
    }
}

/* `more`: of the mask. */
struct transition {
    const char *name;
    enum ibv_qp_type type;
    enum ibv_qp_state state;
    void (*change)(struct ibv_qp_attr *attr);
    int more;
};

#define CHANGE(name, field, number)                                                                                    \
    static void name(struct ibv_qp_attr *attr)                                                                         \
    {                                                                                                                  \
        attr->field = number;                                                                                          \
    }
CHANGE(nothing, qp_state, attr->qp_state)
CHANGE(port_0, port_num, 0)
CHANGE(port_2, port_num, 2)
CHANGE(pkey_1, pkey_index, 1)
CHANGE(state_7, qp_state, (enum ibv_qp_state)7)
CHANGE(path_port_0, ah_attr.port_num, 0)
CHANGE(path_port_2, ah_attr.port_num, 2)
CHANGE(path_local, ah_attr.is_global, 0)
CHANGE(path_gid_255, ah_attr.grh.sgid_index, 255)
CHANGE(path_flow, ah_attr.grh.flow_label, 1 << 20)
CHANGE(path_sl_16, ah_attr.sl, 16)
CHANGE(rate_1, ah_attr.static_rate, 1)
CHANGE(rate_2, ah_attr.static_rate, IBV_RATE_2_5_GBPS)
CHANGE(rate_22, ah_attr.static_rate, IBV_RATE_600_GBPS)
CHANGE(rate_23, ah_attr.static_rate, 23)
CHANGE(rate_24, ah_attr.static_rate, 24)
CHANGE(rate_25, ah_attr.static_rate, 25)
CHANGE(rate_255, ah_attr.static_rate, 255)
CHANGE(mtu_0, path_mtu, (enum ibv_mtu)0)
CHANGE(mtu_6, path_mtu, (enum ibv_mtu)6)
CHANGE(dest_24, dest_qp_num, 1 << 24)
CHANGE(rq_psn_24, rq_psn, 1 << 24)
CHANGE(dest_reads_17, max_dest_rd_atomic, 17)
CHANGE(dest_reads_255, max_dest_rd_atomic, 255)
CHANGE(rnr_timer_32, min_rnr_timer, 32)
CHANGE(timeout_31, timeout, 31)
CHANGE(timeout_32, timeout, 32)
CHANGE(retries_8, retry_cnt, 8)
CHANGE(rnr_retries_8, rnr_retry, 8)
CHANGE(reads_17, max_rd_atomic, 17)
CHANGE(reads_255, max_rd_atomic, 255)
CHANGE(sq_psn_24, sq_psn, 1 << 24)

static void alternate(struct ibv_qp_attr *attr)
{
    attr->alt_ah_attr = attr->ah_attr;
    attr->alt_port_num = 1;
}

static void transitions(void)
{
    static const struct transition rows[] = {
        {"rc init: right", IBV_QPT_RC, IBV_QPS_INIT, nothing, 0},
        {"rc init: port 0", IBV_QPT_RC, IBV_QPS_INIT, port_0, 0},
        {"rc init: port 2", IBV_QPT_RC, IBV_QPS_INIT, port_2, 0},
        {"rc init: P_Key index 1", IBV_QPT_RC, IBV_QPS_INIT, pkey_1, 0},
        {"rc init: state 7", IBV_QPT_RC, IBV_QPS_INIT, state_7, 0},
        {"rc init: with a Q_Key", IBV_QPT_RC, IBV_QPS_INIT, nothing, IBV_QP_QKEY},
        {"rc rtr: right", IBV_QPT_RC, IBV_QPS_RTR, nothing, 0},
        {"rc rtr: path, port 0", IBV_QPT_RC, IBV_QPS_RTR, path_port_0, 0},
        {"rc rtr: path, port 2", IBV_QPT_RC, IBV_QPS_RTR, path_port_2, 0},
        {"rc rtr: path without a GID", IBV_QPT_RC, IBV_QPS_RTR, path_local, 0},
        {"rc rtr: path, GID index 255", IBV_QPT_RC, IBV_QPS_RTR, path_gid_255, 0},
        {"rc rtr: path, flow label 2^20", IBV_QPT_RC, IBV_QPS_RTR, path_flow, 0},
        {"rc rtr: path, service level 16", IBV_QPT_RC, IBV_QPS_RTR, path_sl_16, 0},
        {"rc rtr: path, static rate 1", IBV_QPT_RC, IBV_QPS_RTR, rate_1, 0},
        {"rc rtr: path, static rate 2", IBV_QPT_RC, IBV_QPS_RTR, rate_2, 0},
        {"rc rtr: path, static rate 22", IBV_QPT_RC, IBV_QPS_RTR, rate_22, 0},
        {"rc rtr: path, static rate 23", IBV_QPT_RC, IBV_QPS_RTR, rate_23, 0},
        {"rc rtr: path, static rate 24", IBV_QPT_RC, IBV_QPS_RTR, rate_24, 0},
        {"rc rtr: path, static rate 25", IBV_QPT_RC, IBV_QPS_RTR, rate_25, 0},
        {"rc rtr: path, static rate 255", IBV_QPT_RC, IBV_QPS_RTR, rate_255, 0},
        {"rc rtr: MTU 0", IBV_QPT_RC, IBV_QPS_RTR, mtu_0, 0},
        {"rc rtr: MTU 6", IBV_QPT_RC, IBV_QPS_RTR, mtu_6, 0},
        {"rc rtr: destination 2^24", IBV_QPT_RC, IBV_QPS_RTR, dest_24, 0},
        {"rc rtr: PSN 2^24", IBV_QPT_RC, IBV_QPS_RTR, rq_psn_24, 0},
        {"rc rtr: 17 READs", IBV_QPT_RC, IBV_QPS_RTR, dest_reads_17, 0},
        {"rc rtr: 255 READs", IBV_QPT_RC, IBV_QPS_RTR, dest_reads_255, 0},
        {"rc rtr: RNR timer 32", IBV_QPT_RC, IBV_QPS_RTR, rnr_timer_32, 0},
        {"rc rtr: alternate path", IBV_QPT_RC, IBV_QPS_RTR, alternate, IBV_QP_ALT_PATH},
        {"rc rts: right", IBV_QPT_RC, IBV_QPS_RTS, nothing, 0},
        {"rc rts: timeout 31", IBV_QPT_RC, IBV_QPS_RTS, timeout_31, 0},
        {"rc rts: timeout 32", IBV_QPT_RC, IBV_QPS_RTS, timeout_32, 0},
        {"rc rts: 8 retries", IBV_QPT_RC, IBV_QPS_RTS, retries_8, 0},
        {"rc rts: 8 RNR retries", IBV_QPT_RC, IBV_QPS_RTS, rnr_retries_8, 0},
        {"rc rts: 17 READs", IBV_QPT_RC, IBV_QPS_RTS, reads_17, 0},
        {"rc rts: 255 READs", IBV_QPT_RC, IBV_QPS_RTS, reads_255, 0},
        {"rc rts: PSN 2^24", IBV_QPT_RC, IBV_QPS_RTS, sq_psn_24, 0},
        {"rc rts: with a rate limit", IBV_QPT_RC, IBV_QPS_RTS, nothing, IBV_QP_RATE_LIMIT},
        {"ud init: right", IBV_QPT_UD, IBV_QPS_INIT, nothing, 0},
        {"ud init: port 0", IBV_QPT_UD, IBV_QPS_INIT, port_0, 0},
        {"ud init: port 2", IBV_QPT_UD, IBV_QPS_INIT, port_2, 0},
        {"ud init: P_Key index 1", IBV_QPT_UD, IBV_QPS_INIT, pkey_1, 0},
        {"ud init: with access flags", IBV_QPT_UD, IBV_QPS_INIT, nothing, IBV_QP_ACCESS_FLAGS},
        {"ud rtr: right", IBV_QPT_UD, IBV_QPS_RTR, nothing, 0},
        {"ud rtr: with a path", IBV_QPT_UD, IBV_QPS_RTR, nothing, IBV_QP_AV},
        {"ud rtr: with an MTU", IBV_QPT_UD, IBV_QPS_RTR, nothing, IBV_QP_PATH_MTU},
        {"ud rts: right", IBV_QPT_UD, IBV_QPS_RTS, nothing, 0},
        {"ud rts: PSN 2^24", IBV_QPT_UD, IBV_QPS_RTS, sq_psn_24, 0},
        {"ud rts: with a timeout", IBV_QPT_UD, IBV_QPS_RTS, nothing, IBV_QP_TIMEOUT},
        {"ud rts: with RNR retries", IBV_QPT_UD, IBV_QPS_RTS, nothing, IBV_QP_RNR_RETRY},
    };
    struct ibv_cq *cq = ibv_create_cq(context, 1, NULL, NULL, 0);
    NEED(cq, "ibv_create_cq: %s", strerror(errno));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = rows[i].type};
        init.cap = (struct ibv_qp_cap){.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1};
        struct ibv_qp *qp = ibv_create_qp(pd, &init);
        if (!qp) {
            show(rows[i].name, NULL);
            continue;
        }
        for (enum ibv_qp_state state = IBV_QPS_INIT; state <= rows[i].state; state++) {
            struct ibv_qp_attr attr = attributes_for(state);
            int mask = mask_for(state, rows[i].type);
            if (state == rows[i].state) {
                rows[i].change(&attr);
                mask |= rows[i].more;
            }
            const int error = ibv_modify_qp(qp, &attr, mask);
            errno = error;
            if (state == rows[i].state)
                show(rows[i].name, error ? NULL : qp);
            else
                NEED(error == 0, "%s: to state %d: %s", rows[i].name, state, strerror(error));
        }
        NEED(ibv_destroy_qp(qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    }
}

int main(int argc, char **argv)
{
    NEED(argc == 2 && argv[1][0] != '-', "usage: arguments DEVICE");
    const int file = memfd_create("arguments", MFD_CLOEXEC);
    NEED(file >= 0 && ftruncate(file, BYTES) == 0, "memfd_create: %s", strerror(errno));
    char *buffer = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(buffer != MAP_FAILED, "mmap: %s", strerror(errno));
    context = open_named(argv[1]);
    pd = ibv_alloc_pd(context);
    NEED(pd, "ibv_alloc_pd: %s", strerror(errno));
    files(file);
    regions(buffer);
    queues();
    domains(file);
    addresses();
    transitions();
    return 0;
}
