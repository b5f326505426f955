/*
 * Calls that libibverbs, its rxe provider or librdmacm refuse themselves; the argument names one, or none: all. Each
 * prints the function's name and the errno. The function that makes the call is named after the case.
 */
#include "../../../docs/findings/cm.h"

#include <rdma/rdma_verbs.h>

#define IS_NEGATIVE(result) ((result) < 0 ? errno : (result))

static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static struct ibv_qp *qp;
static char memory[SIZE];
static struct rdma_event_channel *channel;
static struct rdma_cm_id *id;

static int refused(const void *object)
{
    return object ? 0 : errno;
}

/* ---- libibverbs ---- */

static int rereg_flags(void)
{
    return IS_NEGATIVE(ibv_rereg_mr(mr, IBV_ACCESS_REMOTE_READ | 8, pd, NULL, 0, 0));
}

static int rereg_range(void)
{
    return IS_NEGATIVE(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, NULL, 0, 0));
}

static int rereg_access(void)
{
    return IS_NEGATIVE(ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD, pd, NULL, 0, IBV_ACCESS_LOCAL_WRITE));
}

static int reg_implicit(void)
{
    return refused(ibv_reg_mr(pd, memory, SIZE_MAX, IBV_ACCESS_ON_DEMAND));
}

static int reg_dmabuf(void)
{
    return refused(ibv_reg_dmabuf_mr(pd, 0, SIZE, 0, 0, IBV_ACCESS_LOCAL_WRITE));
}

static int import_mr(void)
{
    return refused(ibv_import_mr(pd, 0));
}

static int import_pd(void)
{
    return refused(ibv_import_pd(context, 0));
}

static int import_dm(void)
{
    return refused(ibv_import_dm(context, 0));
}

static int import_device(void)
{
    return refused(ibv_import_device(-1));
}

static int qp_type(void)
{
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = 77, .cap = {.max_send_wr = 1}};
    return refused(ibv_create_qp(pd, &init));
}

static int qp_without_pd(void)
{
    struct ibv_qp_init_attr_ex init = {
        .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .comp_mask = IBV_QP_INIT_ATTR_CREATE_FLAGS};
    return refused(ibv_create_qp_ex(context, &init));
}

static int qp_operations(void)
{
    struct ibv_qp_init_attr_ex init = {.send_cq = cq,
                                       .recv_cq = cq,
                                       .qp_type = IBV_QPT_UD,
                                       .pd = pd,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                       .send_ops_flags = IBV_QP_EX_WITH_RDMA_READ};
    return refused(ibv_create_qp_ex(context, &init));
}

static int qp_flags(void)
{
    struct ibv_qp_init_attr_ex init = {.send_cq = cq,
                                       .recv_cq = cq,
                                       .qp_type = IBV_QPT_RC,
                                       .pd = pd,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS,
                                       .create_flags = IBV_QP_CREATE_BLOCK_SELF_MCAST_LB};
    return refused(ibv_create_qp_ex(context, &init));
}

static int qp_target(void)
{
    struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_SEND_OPS_FLAGS};
    return refused(ibv_create_qp_ex(context, &init));
}

static int cq_fields(void)
{
    struct ibv_cq_init_attr_ex init = {.cqe = 4, .wc_flags = IBV_WC_EX_WITH_TM_INFO | 1ull << 40};
    return refused(ibv_create_cq_ex(context, &init));
}

static int srq_without_pd(void)
{
    struct ibv_srq_init_attr_ex init = {.attr = {.max_wr = 1, .max_sge = 1},
                                        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE,
                                        .srq_type = IBV_SRQT_XRC};
    return refused(ibv_create_srq_ex(context, &init));
}

static int srq_xrc(void)
{
    struct ibv_srq_init_attr_ex init = {.attr = {.max_wr = 1, .max_sge = 1},
                                        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD,
                                        .pd = pd,
                                        .srq_type = IBV_SRQT_XRC};
    return refused(ibv_create_srq_ex(context, &init));
}

static int xrcd(void)
{
    struct ibv_xrcd_init_attr init = {.fd = -1, .comp_mask = IBV_XRCD_INIT_ATTR_FD};
    return refused(ibv_open_xrcd(context, &init));
}

static int open_qp(void)
{
    struct ibv_qp_open_attr init = {.qp_num = 1, .comp_mask = IBV_QP_OPEN_ATTR_NUM};
    return refused(ibv_open_qp(context, &init));
}

static int modify_mask(void)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT};
    return ibv_modify_qp(qp, &attr, IBV_QP_STATE | 1 << 26);
}

static int query_mask(void)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    return ibv_query_qp(qp, &attr, 1 << 26, &init);
}

static int set_ece(void)
{
    struct ibv_ece ece = {0};
    return ibv_set_ece(qp, &ece);
}

static int query_ece(void)
{
    struct ibv_ece ece;
    return ibv_query_ece(qp, &ece);
}

static int ah_without_grh(void)
{
    struct ibv_wc wc = {.wc_flags = IBV_WC_GRH};
    return refused(ibv_create_ah_from_wc(pd, &wc, (struct ibv_grh *)memory, 1));
}

static int ah_multicast(void)
{
    struct ibv_wc wc = {.wc_flags = IBV_WC_GRH};
    struct ibv_grh grh = {.version_tclass_flow = htonl(6u << 28), .dgid.raw = {0xff}};
    struct ibv_ah_attr attr;
    return IS_NEGATIVE(ibv_init_ah_from_wc(context, 1, &wc, &grh, &attr));
}

/* ---- librdmacm ---- */

static int bind_family(void)
{
    struct sockaddr_in address = {.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return IS_NEGATIVE(rdma_bind_addr(id, (struct sockaddr *)&address));
}

static int bind_null(void)
{
    return IS_NEGATIVE(rdma_bind_addr(id, NULL));
}

static int resolve_family(void)
{
    struct sockaddr_in to = {0};
    return IS_NEGATIVE(rdma_resolve_addr(id, NULL, (struct sockaddr *)&to, 1000));
}

static int resolve_source(void)
{
    struct sockaddr_in from = {0}, to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return IS_NEGATIVE(rdma_resolve_addr(id, (struct sockaddr *)&from, (struct sockaddr *)&to, 1000));
}

static int qp_unbound(void)
{
    struct ibv_qp_init_attr init = small_qp();
    return IS_NEGATIVE(rdma_create_qp(id, pd, &init));
}

/* Binds the identifier to the loopback address, so that it has a device. */
static void bind_id(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (!id->verbs)
        check(rdma_bind_addr(id, (struct sockaddr *)&address), "rdma_bind_addr");
}

static int qp_other_context(void)
{
    bind_id();
    struct ibv_qp_init_attr init = small_qp();
    return IS_NEGATIVE(rdma_create_qp(id, pd, &init));
}

/* Resolves the loopback address, and gives the identifier a queue pair. */
static void give_qp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(1)};
    check(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 1000), "rdma_resolve_addr");
    event_of(channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    struct ibv_qp_init_attr init = small_qp();
    check(rdma_create_qp(id, NULL, &init), "rdma_create_qp");
}

static int qp_twice(void)
{
    give_qp();
    struct ibv_qp_init_attr init = small_qp();
    return IS_NEGATIVE(rdma_create_qp(id, NULL, &init));
}

static int qp_other_cq(void)
{
    give_qp();
    rdma_destroy_qp(id);
    id->send_cq = cq;
    struct ibv_cq *other = need(ibv_create_cq(id->verbs, 4, NULL, NULL, 0), "ibv_create_cq");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = other;
    const int error = IS_NEGATIVE(rdma_create_qp(id, NULL, &init));
    id->send_cq = NULL;
    ibv_destroy_cq(other);
    return error;
}

static int cm_srq_type(void)
{
    bind_id();
    struct ibv_srq_init_attr_ex init = {.attr = {.max_wr = 1, .max_sge = 1}};
    return IS_NEGATIVE(rdma_create_srq_ex(id, &init));
}

static int connect_null(void)
{
    bind_id();
    return IS_NEGATIVE(rdma_connect(id, NULL));
}

static int connect_depth(void)
{
    bind_id();
    struct rdma_conn_param parameters = {.responder_resources = 254, .initiator_depth = 254};
    return IS_NEGATIVE(rdma_connect(id, &parameters));
}

static int get_request(void)
{
    struct rdma_cm_id *request;
    return IS_NEGATIVE(rdma_get_request(id, &request));
}

static int establish(void)
{
    give_qp();
    return IS_NEGATIVE(rdma_establish(id));
}

static int disconnect(void)
{
    return IS_NEGATIVE(rdma_disconnect(id));
}

static int join_family(void)
{
    struct sockaddr_in address = {0};
    return IS_NEGATIVE(rdma_join_multicast(id, (struct sockaddr *)&address, NULL));
}

static int join_mask(void)
{
    struct rdma_cm_join_mc_attr_ex join = {.comp_mask = RDMA_CM_JOIN_MC_ATTR_ADDRESS};
    return IS_NEGATIVE(rdma_join_multicast_ex(id, &join, NULL));
}

static int join_flags(void)
{
    struct rdma_cm_join_mc_attr_ex join = {.comp_mask = 3, .join_flags = 7};
    return IS_NEGATIVE(rdma_join_multicast_ex(id, &join, NULL));
}

static int join_unknown(void)
{
    struct rdma_cm_join_mc_attr_ex join = {.comp_mask = 64};
    return IS_NEGATIVE(rdma_join_multicast_ex(id, &join, NULL));
}

static int leave(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xe0000101)};
    return IS_NEGATIVE(rdma_leave_multicast(id, (struct sockaddr *)&address));
}

static int event_null(void)
{
    return IS_NEGATIVE(rdma_get_cm_event(channel, NULL));
}

static int ack_null(void)
{
    return IS_NEGATIVE(rdma_ack_cm_event(NULL));
}

static int migrate_null(void)
{
    struct rdma_cm_id *synchronous;
    check(rdma_create_id(NULL, &synchronous, NULL, RDMA_PS_TCP), "rdma_create_id");
    const int error = IS_NEGATIVE(rdma_migrate_id(synchronous, NULL));
    check(rdma_destroy_id(synchronous), "rdma_destroy_id");
    return error;
}

static int local_ece(void)
{
    struct ibv_ece ece = {0};
    return IS_NEGATIVE(rdma_set_local_ece(id, &ece));
}

static int remote_ece(void)
{
    give_qp();
    struct ibv_ece ece;
    return IS_NEGATIVE(rdma_get_remote_ece(id, &ece));
}

static int addrinfo(void)
{
    struct rdma_addrinfo *found;
    return IS_NEGATIVE(rdma_getaddrinfo(NULL, NULL, NULL, &found));
}

#define CASES(X)                                                                                                       \
    X(rereg_flags) X(rereg_range) X(rereg_access) X(reg_implicit) X(reg_dmabuf) X(import_mr) X(import_pd)              \
    X(import_dm) X(import_device) X(qp_type) X(qp_without_pd) X(qp_operations) X(qp_flags) X(qp_target) X(cq_fields)   \
    X(srq_without_pd) X(srq_xrc) X(xrcd) X(open_qp) X(modify_mask) X(query_mask) X(set_ece)            \
    X(query_ece) X(ah_without_grh) X(ah_multicast) X(bind_family) X(bind_null) X(resolve_family) X(resolve_source)     \
    X(qp_unbound) X(qp_other_context) X(qp_twice) X(qp_other_cq) X(cm_srq_type) X(connect_null) X(connect_depth)       \
    X(get_request) X(establish) X(disconnect) X(join_family) X(join_mask) X(join_flags) X(join_unknown) X(leave)       \
    X(event_null) X(ack_null) X(migrate_null) X(local_ece) X(remote_ece) X(addrinfo)

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
#define X(name) {#name, name},
    CASES(X)
#undef X
};

int main(int argc, char **argv)
{
    int chosen = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        chosen += argc == 1 || (argc == 2 && strcmp(argv[1], cases[i].name) == 0);
    if (chosen == 0) {
        fprintf(stderr, "usage: refusals [CASE]\n");
        return 1;
    }
    open_device();
    pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    cq = need(ibv_create_cq(context, 4, NULL, NULL, 0), "ibv_create_cq");
    mr = need(ibv_reg_mr(pd, memory, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = cq;
    qp = need(ibv_create_qp(pd, &init), "ibv_create_qp");
    channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (argc == 1 || (argc == 2 && strcmp(argv[1], cases[i].name) == 0)) {
            check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
            printf("%s: %d\n", cases[i].name, cases[i].run());
            if (id->qp)
                rdma_destroy_qp(id);
            check(rdma_destroy_id(id), "rdma_destroy_id");
        }
    rdma_destroy_event_channel(channel);
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
