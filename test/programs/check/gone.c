/*
 * Calls with objects that were destroyed: for each kind of object, each call that takes one.
 *
 *   gone calls    makes all calls, under `userdma check`, which refuses them. Prints a line for each: the function, the
 *                 line of the call, 1 if the call would destroy the object, else 0, and the kind of object
 *   gone concurrent  arms and polls a CQ that another thread destroys
 *   gone churn    creates and destroys twice COUNT objects, without a mistake
 *   gone abort    aborts
 *   gone wild     posts to a queue pair whose pointer is none
 */
#include "../../../docs/findings/cm.h"

#include <rdma/rdma_verbs.h>
#include <pthread.h>
#include <stdbool.h>

/* For churn: twice as many are more objects than are kept. */
#define COUNT 5000

static int status;

static void expect(bool is_refused, const char *function, const char *kind, int line, bool is_destroy)
{
    /* Parentheses around a name avoid a macro of verbs.h. */
    function += strspn(function, "(");
    printf("%.*s %d %d %s\n", (int)strcspn(function, ")"), function, line, is_destroy, kind);
    if (!is_refused) {
        fprintf(stderr, "gone: line %d: %s is not refused\n", line, function);
        status = 1;
    }
}

/* A call that returns an errno; a negative errno; -1, with errno; NULL, with errno; nothing. */
#define ERRNO(kind, call, ...) expect(call(__VA_ARGS__) == EINVAL, #call, kind, __LINE__, false)
#define NEGATIVE(kind, call, ...) expect(call(__VA_ARGS__) == -EINVAL, #call, kind, __LINE__, false)
#define MINUS(kind, call, ...)                                                                                         \
    expect((errno = 0, call(__VA_ARGS__) == -1) && errno == EINVAL, #call, kind, __LINE__, false)
#define POINTER(kind, call, ...)                                                                                       \
    expect((errno = 0, !call(__VA_ARGS__)) && errno == EINVAL, #call, kind, __LINE__, false)
#define NOTHING(kind, call, ...) expect((call(__VA_ARGS__), true), #call, kind, __LINE__, false)
#define DESTROY(kind, call, ...) expect(call(__VA_ARGS__) == EINVAL, #call, kind, __LINE__, true)
#define DESTROY_MINUS(kind, call, ...)                                                                                 \
    expect((errno = 0, call(__VA_ARGS__) == -1) && errno == EINVAL, #call, kind, __LINE__, true)
#define DESTROY_NOTHING(kind, call, ...) expect((call(__VA_ARGS__), true), #call, kind, __LINE__, true)

static char buffer[SIZE];
static struct ibv_pd *pd;
static struct ibv_cq *cq;

static struct ibv_context *open_another(void)
{
    int count;
    struct ibv_device **list = need(ibv_get_device_list(&count), "ibv_get_device_list");
    struct ibv_context *opened = need(ibv_open_device(list[0]), "ibv_open_device");
    ibv_free_device_list(list);
    DESTROY_NOTHING("a list of devices", ibv_free_device_list, list);
    return opened;
}

static struct ibv_qp_init_attr init_with(struct ibv_cq *queue, struct ibv_srq *srq, enum ibv_qp_type type)
{
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = queue;
    init.srq = srq;
    init.qp_type = type;
    return init;
}

static struct ibv_ah_attr to_self(void)
{
    return (struct ibv_ah_attr){.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = 1, .hop_limit = 1}};
}

static struct ibv_qp *extended_qp(enum ibv_qp_type type)
{
    struct ibv_qp_init_attr_ex init = {.qp_type = type,
                                       .send_cq = cq,
                                       .recv_cq = cq,
                                       .pd = pd,
                                       .cap = small_qp().cap,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                       .send_ops_flags = IBV_QP_EX_WITH_SEND};
    return need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
}

/* ---- contexts, and objects of a context that was closed ---- */

static void contexts(void)
{
    struct ibv_context *gone = open_another();
    struct ibv_pd *orphan = need(ibv_alloc_pd(gone), "ibv_alloc_pd");
    struct ibv_cq *orphan_cq = need(ibv_create_cq(gone, 4, NULL, NULL, 0), "ibv_create_cq");
    check(ibv_close_device(gone), "ibv_close_device");

    struct ibv_device_attr device;
    struct ibv_device_attr_ex extended;
    struct ibv_values_ex values = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};
    struct ibv_port_attr port;
    struct ibv_gid_entry entry;
    union ibv_gid found;
    __be16 pkey;
    struct ibv_async_event event;
    struct ibv_ah_attr ah = to_self();
    struct ibv_wc wc = {.wc_flags = IBV_WC_GRH};
    struct ibv_grh grh = {0};
    uint8_t mac[6];
    uint16_t vlan;
    struct ibv_cq_init_attr_ex cq_init = {.cqe = 4};
    struct ibv_qp_init_attr_ex qp_init = {
        .qp_type = IBV_QPT_RC, .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, .pd = pd};
    struct ibv_srq_init_attr_ex srq_init = {.comp_mask = IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_TYPE |
                                                         IBV_SRQ_INIT_ATTR_CQ,
                                            .srq_type = IBV_SRQT_XRC,
                                            .pd = pd,
                                            .cq = cq};
    struct ibv_xrcd_init_attr xrcd_init = {.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                           .fd = -1,
                                           .oflags = 0100 /* O_CREAT */};
    struct ibv_qp_open_attr open = {.qp_num = 1};
    ERRNO("a context", ibv_query_device, gone, &device);
    ERRNO("a context", ibv_query_device_ex, gone, NULL, &extended);
    ERRNO("a context", ibv_query_rt_values_ex, gone, &values);
    ERRNO("a context", ibv_query_port, gone, 1, &port);
    MINUS("a context", ibv_query_gid, gone, 1, 1, &found);
    ERRNO("a context", _ibv_query_gid_ex, gone, 1, 1, &entry, 0, sizeof entry);
    NEGATIVE("a context", _ibv_query_gid_table, gone, &entry, 1, 0, sizeof entry);
    MINUS("a context", ibv_query_pkey, gone, 1, 0, &pkey);
    MINUS("a context", ibv_get_pkey_index, gone, 1, 0xffff);
    MINUS("a context", ibv_get_async_event, gone, &event);
    MINUS("a context", ibv_init_ah_from_wc, gone, 1, &wc, &grh, &ah);
    ERRNO("a context", ibv_resolve_eth_l2_from_gid, gone, &ah, mac, &vlan);
    POINTER("a context", ibv_alloc_pd, gone);
    POINTER("a context", ibv_import_pd, gone, 0);
    POINTER("a context", ibv_create_comp_channel, gone);
    POINTER("a context", ibv_create_cq, gone, 4, NULL, NULL, 0);
    POINTER("a context", ibv_create_cq_ex, gone, &cq_init);
    POINTER("a context", ibv_create_qp_ex, gone, &qp_init);
    POINTER("a context", ibv_create_srq_ex, gone, &srq_init);
    POINTER("a context", ibv_open_xrcd, gone, &xrcd_init);
    POINTER("a context", ibv_open_qp, gone, &open);
    DESTROY("a context", ibv_close_device, gone);

    ERRNO("PD", ibv_dealloc_pd, orphan);
    POINTER("PD", ibv_reg_mr_iova2, orphan, buffer, SIZE, 0, 0);
    ERRNO("CQ", ibv_req_notify_cq, orphan_cq, 0);
    expect(ibv_poll_cq(orphan_cq, 1, &wc) == -1, "ibv_poll_cq", "CQ", __LINE__, false);
}

/* ---- protection domains, regions, windows, address handles, XRC domains ---- */

static void domains(void)
{
    struct ibv_pd *gone = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    check(ibv_dealloc_pd(gone), "ibv_dealloc_pd");
    struct ibv_qp_init_attr init = init_with(cq, NULL, IBV_QPT_RC);
    struct ibv_srq_init_attr srq_init = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_ah_attr ah = to_self();
    struct ibv_wc wc = {0};
    struct ibv_grh grh = {0};
    struct ibv_sge sge = {.addr = (uintptr_t)buffer, .length = SIZE};
    struct ibv_qp_init_attr_ex init_ex = {.qp_type = IBV_QPT_RC,
                                          .send_cq = cq,
                                          .recv_cq = cq,
                                          .pd = gone,
                                          .cap = small_qp().cap,
                                          .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS};
    POINTER("PD", (ibv_reg_mr), gone, buffer, SIZE, 0);
    POINTER("PD", (ibv_reg_mr_iova), gone, buffer, SIZE, 0, 0);
    POINTER("PD", ibv_reg_mr_iova2, gone, buffer, SIZE, 0, 0);
    POINTER("PD", ibv_reg_dmabuf_mr, gone, 0, SIZE, 0, -1, 0);
    POINTER("PD", ibv_alloc_mw, gone, IBV_MW_TYPE_1);
    POINTER("PD", ibv_create_ah, gone, &ah);
    POINTER("PD", ibv_create_ah_from_wc, gone, &wc, &grh, 1);
    POINTER("PD", ibv_create_srq, gone, &srq_init);
    POINTER("PD", ibv_create_qp, gone, &init);
    POINTER("PD", ibv_create_qp_ex, context, &init_ex);
    POINTER("PD", ibv_import_mr, gone, 0);
    ERRNO("PD", ibv_advise_mr, gone, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 1);
    DESTROY("PD", ibv_dealloc_pd, gone);
}

static void regions(void)
{
    struct ibv_mr *gone = need(ibv_reg_mr(pd, buffer, SIZE, 0), "ibv_reg_mr");
    check(ibv_dereg_mr(gone), "ibv_dereg_mr");
    ERRNO("MR", ibv_rereg_mr, gone, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, IBV_ACCESS_LOCAL_WRITE);
    DESTROY("MR", ibv_dereg_mr, gone);
}

static void windows(struct ibv_qp *qp)
{
    struct ibv_mw *gone = need(ibv_alloc_mw(pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    check(ibv_dealloc_mw(gone), "ibv_dealloc_mw");
    struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, SIZE, IBV_ACCESS_MW_BIND | IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    struct ibv_mw_bind bind = {.bind_info = {.mr = mr, .addr = (uintptr_t)buffer, .length = SIZE}};
    ERRNO("MW", ibv_bind_mw, qp, gone, &bind);
    DESTROY("MW", ibv_dealloc_mw, gone);
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
}

static void address_handles(void)
{
    struct ibv_ah_attr attributes = to_self();
    struct ibv_ah *gone = need(ibv_create_ah(pd, &attributes), "ibv_create_ah");
    check(ibv_destroy_ah(gone), "ibv_destroy_ah");
    struct ibv_qp_init_attr init = init_with(cq, NULL, IBV_QPT_UD);
    struct ibv_qp *qp = need(ibv_create_qp(pd, &init), "ibv_create_qp");
    struct ibv_send_wr *bad = NULL, wr = {.opcode = IBV_WR_SEND, .wr.ud = {.ah = gone, .remote_qpn = 1}};
    ERRNO("AH", ibv_post_send, qp, &wr, &bad);
    if (bad != &wr)
        status = 1;
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
    struct ibv_qp_ex *extended = ibv_qp_to_qp_ex(qp = extended_qp(IBV_QPT_UD));
    ibv_wr_start(extended);
    ibv_wr_send(extended);
    NOTHING("AH", ibv_wr_set_ud_addr, extended, gone, 1, 1);
    ibv_wr_abort(extended);
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
    DESTROY("AH", ibv_destroy_ah, gone);
}

static void xrc_domains(void)
{
    struct ibv_xrcd_init_attr init = {.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                      .fd = -1,
                                      .oflags = 0100 /* O_CREAT */};
    struct ibv_xrcd *gone = need(ibv_open_xrcd(context, &init), "ibv_open_xrcd");
    check(ibv_close_xrcd(gone), "ibv_close_xrcd");
    struct ibv_srq_init_attr_ex srq_init = {.attr = {.max_wr = 4, .max_sge = 1},
                                            .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_XRCD |
                                                         IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_PD,
                                            .srq_type = IBV_SRQT_XRC,
                                            .pd = pd,
                                            .xrcd = gone,
                                            .cq = cq};
    struct ibv_qp_open_attr open = {
        .comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE,
        .qp_num = 1,
        .xrcd = gone,
        .qp_type = IBV_QPT_XRC_RECV};
    struct ibv_qp_init_attr_ex target = {
        .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = gone};
    POINTER("XRCD", ibv_create_srq_ex, context, &srq_init);
    POINTER("XRCD", ibv_open_qp, context, &open);
    POINTER("XRCD", ibv_create_qp_ex, context, &target);
    DESTROY("XRCD", ibv_close_xrcd, gone);
}

/* ---- queues ---- */

static void channels(void)
{
    struct ibv_comp_channel *gone = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    check(ibv_destroy_comp_channel(gone), "ibv_destroy_comp_channel");
    struct ibv_cq *found;
    void *user;
    struct ibv_cq_init_attr_ex init = {.cqe = 4, .channel = gone};
    MINUS("a completion channel", ibv_get_cq_event, gone, &found, &user);
    POINTER("a completion channel", ibv_create_cq, context, 4, NULL, gone, 0);
    POINTER("a completion channel", ibv_create_cq_ex, context, &init);
    DESTROY("a completion channel", ibv_destroy_comp_channel, gone);
}

static void completion_queues(void)
{
    struct ibv_cq *gone = need(ibv_create_cq(context, 4, NULL, NULL, 0), "ibv_create_cq");
    check(ibv_destroy_cq(gone), "ibv_destroy_cq");
    struct ibv_wc wc;
    struct ibv_qp_init_attr init = init_with(gone, NULL, IBV_QPT_RC);
    expect(ibv_poll_cq(gone, 1, &wc) == -1, "ibv_poll_cq", "CQ", __LINE__, false);
    ERRNO("CQ", ibv_req_notify_cq, gone, 0);
    ERRNO("CQ", ibv_resize_cq, gone, 8);
    NOTHING("CQ", ibv_ack_cq_events, gone, 1);
    POINTER("CQ", ibv_create_qp, pd, &init);
    DESTROY("CQ", ibv_destroy_cq, gone);

    struct ibv_cq_init_attr_ex cq_init = {.cqe = 4};
    struct ibv_cq_ex *extended = need(ibv_create_cq_ex(context, &cq_init), "ibv_create_cq_ex");
    check(ibv_destroy_cq(ibv_cq_ex_to_cq(extended)), "ibv_destroy_cq");
    struct ibv_poll_cq_attr poll = {0};
    ERRNO("CQ", ibv_start_poll, extended, &poll);
    expect(ibv_next_poll(extended) == ENOENT, "ibv_next_poll", "CQ", __LINE__, false);
    ibv_end_poll(extended);
}

static void shared_queues(void)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq *gone = need(ibv_create_srq(pd, &init), "ibv_create_srq");
    check(ibv_destroy_srq(gone), "ibv_destroy_srq");
    struct ibv_srq_attr attributes = {.max_wr = 4};
    uint32_t number;
    struct ibv_recv_wr *bad = NULL, wr = {.wr_id = 1};
    struct ibv_qp_init_attr qp_init = init_with(cq, gone, IBV_QPT_RC);
    ERRNO("SRQ", ibv_modify_srq, gone, &attributes, IBV_SRQ_MAX_WR);
    ERRNO("SRQ", ibv_query_srq, gone, &attributes);
    ERRNO("SRQ", ibv_get_srq_num, gone, &number);
    ERRNO("SRQ", ibv_post_srq_recv, gone, &wr, &bad);
    if (bad != &wr)
        status = 1;
    POINTER("SRQ", ibv_create_qp, pd, &qp_init);
    DESTROY("SRQ", ibv_destroy_srq, gone);
}

static void queue_pairs(void)
{
    struct ibv_qp_init_attr init = init_with(cq, NULL, IBV_QPT_RC), found;
    struct ibv_qp *gone = need(ibv_create_qp(pd, &init), "ibv_create_qp");
    struct ibv_mw *mw = need(ibv_alloc_mw(pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    check(ibv_destroy_qp(gone), "ibv_destroy_qp");
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_RESET};
    struct ibv_send_wr *bad_send = NULL, send = {.opcode = IBV_WR_SEND};
    struct ibv_recv_wr *bad_receive = NULL, receive = {.wr_id = 1};
    struct ibv_mw_bind bind = {.wr_id = 1};
    struct ibv_ece ece = {0};
    ERRNO("QP", ibv_modify_qp, gone, &attributes, IBV_QP_STATE);
    ERRNO("QP", ibv_query_qp, gone, &attributes, IBV_QP_STATE, &found);
    ERRNO("QP", ibv_post_send, gone, &send, &bad_send);
    ERRNO("QP", ibv_post_recv, gone, &receive, &bad_receive);
    if (bad_send != &send || bad_receive != &receive)
        status = 1;
    ERRNO("QP", ibv_bind_mw, gone, mw, &bind);
    ERRNO("QP", ibv_attach_mcast, gone, &gid, 0);
    ERRNO("QP", ibv_detach_mcast, gone, &gid, 0);
    ERRNO("QP", ibv_set_ece, gone, &ece);
    ERRNO("QP", ibv_query_ece, gone, &ece);
    POINTER("QP", ibv_qp_to_qp_ex, gone);
    expect(ibv_query_qp_data_in_order(gone, IBV_WR_SEND, 0) == 0, "ibv_query_qp_data_in_order", "QP", __LINE__, false);
    DESTROY("QP", ibv_destroy_qp, gone);
    check(ibv_dealloc_mw(mw), "ibv_dealloc_mw");

    gone = extended_qp(IBV_QPT_RC);
    struct ibv_qp_ex *extended = ibv_qp_to_qp_ex(gone);
    check(ibv_destroy_qp(gone), "ibv_destroy_qp");
    NOTHING("QP", ibv_wr_start, extended);
    ibv_wr_send(extended);
    ibv_wr_set_sge(extended, 1, 0, 8);
    ibv_wr_set_inline_data(extended, buffer, 8);
    ERRNO("QP", ibv_wr_complete, extended);
    ibv_wr_abort(extended);
}

/* ---- rdma_cm ---- */

static void connections(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_event_channel *gone_channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *gone, *other, *made;
    struct rdma_cm_event *event;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = 1, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *to = (struct sockaddr *)&address;
    rdma_destroy_event_channel(gone_channel);
    check(rdma_create_id(channel, &gone, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_create_id(channel, &other, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(other, NULL, to, 2000), "rdma_resolve_addr");
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    check(rdma_ack_cm_event(event), "rdma_ack_cm_event");
    DESTROY_MINUS("an event of rdma_cm", rdma_ack_cm_event, event);

    MINUS("an event channel of rdma_cm", rdma_get_cm_event, gone_channel, &event);
    MINUS("an event channel of rdma_cm", rdma_create_id, gone_channel, &made, NULL, RDMA_PS_TCP);
    MINUS("an event channel of rdma_cm", rdma_migrate_id, other, gone_channel);
    DESTROY_NOTHING("an event channel of rdma_cm", rdma_destroy_event_channel, gone_channel);

    check(rdma_destroy_id(gone), "rdma_destroy_id");
    struct ibv_qp_init_attr init = init_with(cq, NULL, IBV_QPT_RC);
    struct ibv_qp_init_attr_ex init_ex = {.qp_type = IBV_QPT_RC};
    struct ibv_srq_init_attr srq_init = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq_init_attr_ex srq_init_ex = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct rdma_conn_param parameters = {.retry_count = 7};
    struct rdma_cm_join_mc_attr_ex join = {.comp_mask = 0};
    struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_INIT};
    struct ibv_ece ece = {0};
    uint8_t tos = 0;
    int mask;
    MINUS("CM_ID", rdma_bind_addr, gone, to);
    MINUS("CM_ID", rdma_resolve_addr, gone, NULL, to, 2000);
    MINUS("CM_ID", rdma_resolve_route, gone, 2000);
    MINUS("CM_ID", rdma_create_qp, gone, pd, &init);
    MINUS("CM_ID", rdma_create_qp_ex, gone, &init_ex);
    NOTHING("CM_ID", rdma_destroy_qp, gone);
    MINUS("CM_ID", rdma_create_srq, gone, pd, &srq_init);
    MINUS("CM_ID", rdma_create_srq_ex, gone, &srq_init_ex);
    NOTHING("CM_ID", rdma_destroy_srq, gone);
    MINUS("CM_ID", rdma_connect, gone, &parameters);
    MINUS("CM_ID", rdma_establish, gone);
    MINUS("CM_ID", rdma_listen, gone, 1);
    MINUS("CM_ID", rdma_get_request, gone, &made);
    MINUS("CM_ID", rdma_accept, gone, &parameters);
    MINUS("CM_ID", rdma_reject, gone, NULL, 0);
    MINUS("CM_ID", rdma_reject_ece, gone, NULL, 0);
    MINUS("CM_ID", rdma_notify, gone, IBV_EVENT_COMM_EST);
    MINUS("CM_ID", rdma_disconnect, gone);
    MINUS("CM_ID", rdma_join_multicast, gone, to, NULL);
    MINUS("CM_ID", rdma_join_multicast_ex, gone, &join, NULL);
    MINUS("CM_ID", rdma_leave_multicast, gone, to);
    expect(rdma_get_src_port(gone) == 0, "rdma_get_src_port", "CM_ID", __LINE__, false);
    expect(rdma_get_dst_port(gone) == 0, "rdma_get_dst_port", "CM_ID", __LINE__, false);
    MINUS("CM_ID", rdma_set_option, gone, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &tos, sizeof tos);
    MINUS("CM_ID", rdma_migrate_id, gone, channel);
    MINUS("CM_ID", rdma_init_qp_attr, gone, &attributes, &mask);
    MINUS("CM_ID", rdma_set_local_ece, gone, &ece);
    MINUS("CM_ID", rdma_get_remote_ece, gone, &ece);
    DESTROY_NOTHING("CM_ID", rdma_destroy_ep, gone);
    DESTROY_MINUS("CM_ID", rdma_destroy_id, gone);
    check(rdma_destroy_id(other), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
}

static void calls(void)
{
    struct ibv_qp_init_attr init = init_with(cq, NULL, IBV_QPT_RC);
    struct ibv_qp *qp = need(ibv_create_qp(pd, &init), "ibv_create_qp");
    contexts();
    domains();
    regions();
    windows(qp);
    address_handles();
    xrc_domains();
    channels();
    completion_queues();
    shared_queues();
    queue_pairs();
    connections();
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
}

/* ---- concurrent: a thread destroys a CQ, and waits until its event is acknowledged ---- */

static void *destroy(void *queue)
{
    check(ibv_destroy_cq(queue), "ibv_destroy_cq");
    return NULL;
}

static void concurrent(void)
{
    static struct end one, other;
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    struct ibv_cq *found;
    struct ibv_wc wc;
    void *user;
    pthread_t thread;
    make_end(&one);
    make_end(&other);
    replace_cq(&one, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
    check(ibv_req_notify_cq(one.cq, 0), "ibv_req_notify_cq");
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    check(ibv_get_cq_event(channel, &found, &user), "ibv_get_cq_event");
    completion(&one);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    check(pthread_create(&thread, NULL, destroy, one.cq), "pthread_create");
    while (ibv_req_notify_cq(one.cq, 0) != EINVAL)
        usleep(1000);
    /* Not an error: this thread may have to poll before it acknowledges the event. */
    if (ibv_poll_cq(one.cq, 1, &wc) != 0)
        status = 1;
    ibv_ack_cq_events(one.cq, 1);
    pthread_join(thread, NULL);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    check(ibv_dereg_mr(one.mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(one.pd), "ibv_dealloc_pd");
    destroy_end(&other);
}

/* ---- churn ---- */

static long resident_pages(void)
{
    long total, resident = 0;
    FILE *file = need(fopen("/proc/self/statm", "r"), "/proc/self/statm");
    if (fscanf(file, "%ld %ld", &total, &resident) != 2)
        exit(1);
    fclose(file);
    return resident;
}

static void churn(void)
{
    struct ibv_ah_attr ah_attributes = to_self();
    struct ibv_qp_init_attr init = init_with(cq, NULL, IBV_QPT_RC);
    void *first[100];
    bool is_reused = false;
    long before = 0;
    for (int i = 0; i < COUNT; i++) {
        struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, SIZE, 0), "ibv_reg_mr");
        struct ibv_ah *ah = need(ibv_create_ah(pd, &ah_attributes), "ibv_create_ah");
        /* An object at the address of a destroyed one can be destroyed. */
        for (int j = 0; j < 100; j++)
            is_reused |= i >= 100 && mr == first[j];
        if (i < 100)
            first[i] = mr;
        check(ibv_destroy_ah(ah), "ibv_destroy_ah");
        check(ibv_dereg_mr(mr), "ibv_dereg_mr");
        if (i % 100 == 0) {
            struct ibv_qp *qp = need(ibv_create_qp(pd, &init), "ibv_create_qp");
            struct ibv_qp_attr attributes;
            check(ibv_query_qp(qp, &attributes, IBV_QP_STATE, &init), "ibv_query_qp");
            check(ibv_destroy_qp(qp), "ibv_destroy_qp");
        }
        if (i == COUNT / 2)
            before = resident_pages();
    }
    printf("%ld KiB more after %d objects, %s\n", (resident_pages() - before) * 4, 2 * COUNT,
           is_reused ? "addresses are used again" : "no address is used again");
}

static void wild(void)
{
    struct ibv_qp *qp = (struct ibv_qp *)0x123456789000;
    struct ibv_send_wr *bad, request = {.opcode = IBV_WR_SEND};
    ibv_post_send(qp, &request, &bad);
}

int main(int count, char **arguments)
{
    const char *name = count == 2 ? arguments[1] : "";
    void (*const run)(void) = strcmp(name, "calls") == 0        ? calls
                              : strcmp(name, "concurrent") == 0 ? concurrent
                              : strcmp(name, "churn") == 0      ? churn
                              : strcmp(name, "abort") == 0      ? abort
                              : strcmp(name, "wild") == 0       ? wild
                                                                : NULL;
    if (!run) {
        fprintf(stderr, "usage: gone calls|concurrent|churn|abort|wild\n");
        return 1;
    }
    open_device();
    pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    cq = need(ibv_create_cq(context, 64, NULL, NULL, 0), "ibv_create_cq");
    run();
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return status;
}
