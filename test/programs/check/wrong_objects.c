/*
 * Calls of libibverbs and librdmacm with pointers that are those of no object, one after the other, under `userdma
 * check`, which refuses them. Prints a line for each: function, kind of the object, and what the pointer is: `wild` (no
 * memory), `memory`, `kind` (an object of another kind), `freed` (a destroyed object), `foreign` (an object of another
 * context).
 */
#include "../../../docs/findings/cm.h"

static int status;
/* Looks like no object. */
static uint64_t memory[128];

#define CALL(kind, what, is_refused, call, ...)                                                                        \
    do {                                                                                                               \
        printf("%s %s %s\n", #call[0] == '(' ? #call + 1 : #call, kind, what);                                         \
        fflush(stdout);                                                                                                \
        errno = 0;                                                                                                     \
        if (!(call(__VA_ARGS__) is_refused)) {                                                                         \
            fprintf(stderr, "wrong_objects: line %d is not refused\n", __LINE__);                                      \
            status = 1;                                                                                                \
        }                                                                                                              \
    } while (0)
#define FAILED != 0
#define IS_NULL == NULL

struct objects {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    struct ibv_mw *mw;
    struct ibv_ah *ah;
    struct ibv_srq *srq;
    struct ibv_comp_channel *channel;
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
};

static struct objects make(void)
{
    struct objects made;
    open_device();
    made.context = context;
    made.pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    made.cq = need(ibv_create_cq(context, 16, NULL, NULL, 0), "ibv_create_cq");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = made.cq;
    made.qp = need(ibv_create_qp(made.pd, &init), "ibv_create_qp");
    made.mr = need(ibv_reg_mr(made.pd, memory, sizeof memory, ALL_RIGHTS), "ibv_reg_mr");
    made.mw = need(ibv_alloc_mw(made.pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    struct ibv_ah_attr address = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1, .dgid = gid}};
    address.grh.sgid_index = (uint8_t)gid_index;
    made.ah = need(ibv_create_ah(made.pd, &address), "ibv_create_ah");
    struct ibv_srq_init_attr shared = {.attr = {.max_wr = 4, .max_sge = 1}};
    made.srq = need(ibv_create_srq(made.pd, &shared), "ibv_create_srq");
    made.channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    made.events = need(rdma_create_event_channel(), "rdma_create_event_channel");
    check(rdma_create_id(made.events, &made.id, NULL, RDMA_PS_TCP), "rdma_create_id");
    return made;
}

static void destroy(const struct objects *made)
{
    check(rdma_destroy_id(made->id), "rdma_destroy_id");
    rdma_destroy_event_channel(made->events);
    check(ibv_destroy_comp_channel(made->channel), "ibv_destroy_comp_channel");
    check(ibv_destroy_qp(made->qp), "ibv_destroy_qp");
    check(ibv_destroy_srq(made->srq), "ibv_destroy_srq");
    check(ibv_destroy_ah(made->ah), "ibv_destroy_ah");
    check(ibv_dealloc_mw(made->mw), "ibv_dealloc_mw");
    check(ibv_dereg_mr(made->mr), "ibv_dereg_mr");
    check(ibv_destroy_cq(made->cq), "ibv_destroy_cq");
    check(ibv_dealloc_pd(made->pd), "ibv_dealloc_pd");
}

/* `wrong`: what stands for each object in turn; `right`: the other objects of the calls. */
static void call_all(const char *what, const struct objects *wrong, const struct objects *right, int has_uses)
{
    struct ibv_qp_attr attr = {0};
    struct ibv_qp_init_attr init = small_qp();
    struct ibv_ah_attr address = {0};
    CALL("PD", what, IS_NULL, ibv_reg_mr, wrong->pd, memory, 8, 0);
    CALL("PD", what, IS_NULL, ibv_create_ah, wrong->pd, &address);
    CALL("PD", what, FAILED, ibv_dealloc_pd, wrong->pd);
    init.send_cq = wrong->cq;
    init.recv_cq = right->cq;
    CALL("CQ", what, IS_NULL, ibv_create_qp, right->pd, &init);
    init.send_cq = right->cq;
    init.recv_cq = wrong->cq;
    CALL("CQ", what, IS_NULL, ibv_create_qp, right->pd, &init);
    init.recv_cq = right->cq;
    init.srq = wrong->srq;
    CALL("SRQ", what, IS_NULL, ibv_create_qp, right->pd, &init);
    CALL("a completion channel", what, IS_NULL, ibv_create_cq, right->context, 4, NULL, wrong->channel, 0);
    if (!has_uses)
        return;
    CALL("CQ", what, FAILED, ibv_resize_cq, wrong->cq, 8);
    CALL("CQ", what, FAILED, ibv_destroy_cq, wrong->cq);
    CALL("QP", what, FAILED, ibv_modify_qp, wrong->qp, &attr, IBV_QP_STATE);
    CALL("QP", what, FAILED, ibv_destroy_qp, wrong->qp);
    CALL("MR", what, FAILED, ibv_dereg_mr, wrong->mr);
    CALL("AH", what, FAILED, ibv_destroy_ah, wrong->ah);
    CALL("SRQ", what, FAILED, ibv_destroy_srq, wrong->srq);
    CALL("a completion channel", what, FAILED, ibv_destroy_comp_channel, wrong->channel);
    struct rdma_cm_id *id;
    CALL("an event channel of rdma_cm", what, FAILED, rdma_create_id, wrong->events, &id, NULL, RDMA_PS_TCP);
    CALL("an identifier of rdma_cm", what, FAILED, rdma_resolve_route, wrong->id, 100);
    CALL("an identifier of rdma_cm", what, FAILED, rdma_destroy_id, wrong->id);
}

#define ALL_ARE(pointer)                                                                                               \
    {(void *)(pointer), (void *)(pointer), (void *)(pointer), (void *)(pointer), (void *)(pointer), (void *)(pointer), \
     (void *)(pointer), (void *)(pointer), (void *)(pointer), (void *)(pointer), (void *)(pointer)}

int main(int count, char **arguments)
{
    if (count > 1)
        return fprintf(stderr, "usage: %s, without %s\n", arguments[0], arguments[1]), 1;
    memset(memory, 0x5a, sizeof memory);
    const struct objects right = make(), foreign = make(), freed = make();
    const struct objects wild = ALL_ARE(0x123456789000), in_memory = ALL_ARE(memory), kind = ALL_ARE(right.mw);
    destroy(&freed);
    call_all("wild", &wild, &right, 1);
    call_all("memory", &in_memory, &right, 1);
    call_all("freed", &freed, &right, 1);
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = (void *)kind.cq;
    CALL("CQ", "kind", IS_NULL, ibv_create_qp, right.pd, &init);
    init.send_cq = right.cq;
    init.recv_cq = foreign.cq;
    CALL("CQ", "foreign", IS_NULL, ibv_create_qp, right.pd, &init);
    init.recv_cq = right.cq;
    init.srq = foreign.srq;
    CALL("SRQ", "foreign", IS_NULL, ibv_create_qp, right.pd, &init);
    CALL("a completion channel", "foreign", IS_NULL, ibv_create_cq, right.context, 4, NULL, foreign.channel, 0);

    /* Parts of requests. */
    struct ibv_send_wr *bad, send = {.num_sge = 1, .opcode = IBV_WR_SEND};
    struct ibv_recv_wr *bad_receive, receive = {.num_sge = 1};
    CALL("sg_list", "null", FAILED, ibv_post_send, right.qp, &send, &bad);
    CALL("sg_list", "null", FAILED, ibv_post_recv, right.qp, &receive, &bad_receive);
    CALL("sg_list", "null", FAILED, ibv_post_srq_recv, right.srq, &receive, &bad_receive);
    init = small_qp();
    init.qp_type = IBV_QPT_UD;
    init.send_cq = init.recv_cq = right.cq;
    struct ibv_qp *datagrams = need(ibv_create_qp(right.pd, &init), "ibv_create_qp");
    send.num_sge = 0;
    CALL("wr.ud.ah", "null", FAILED, ibv_post_send, datagrams, &send, &bad);
    send.wr.ud.ah = wild.ah;
    CALL("AH", "wild", FAILED, ibv_post_send, datagrams, &send, &bad);
    send.wr.ud.ah = freed.ah;
    CALL("AH", "freed", FAILED, ibv_post_send, datagrams, &send, &bad);
    receive.num_sge = 0;
    CALL("bad_wr", "null", != -1, ibv_post_recv, right.qp, &receive, NULL);
    check(ibv_destroy_qp(datagrams), "ibv_destroy_qp");
    destroy(&right);
    destroy(&foreign);
    for (int i = 0; i < 3; i++)
        check(ibv_close_device((i == 0 ? right : i == 1 ? foreign : freed).context), "ibv_close_device");
    return status;
}
