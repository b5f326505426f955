/*
 * Makes uverbs calls about completion queues, queue pairs, shared receive queues and XRC domains, and prints
 * results as every_call.c does.
 */
#include "uverbs_calls.h"

/* ---- completion queues ---- */

static void completion_queues(void)
{
    open_context();
    uint32_t cq;
    for (int bit = -1; bit < 32; bit++) {
        const uint32_t flags = bit < 0 ? 0 : 1u << bit;
        step(cq_create(10, 0, -1, flags, &cq), "CQ_CREATE flags %#x", flags);
    }
    const uint32_t sizes[] = {0, 1, 32767, 32768, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < LENGTH(sizes); i++)
        step(cq_create(sizes[i], 0, -1, -1, &cq), "CQ_CREATE of %u", sizes[i]);
    const uint32_t vectors[] = {99, 0xffffffff};
    for (size_t i = 0; i < LENGTH(vectors); i++)
        step(cq_create(10, vectors[i], -1, -1, &cq), "CQ_CREATE vector %u", vectors[i]);
    step(cq_create(10, 0, 0, -1, &cq), "CQ_CREATE, channel that is stdin");
    step(cq_create(10, 0, 900, -1, &cq), "CQ_CREATE, channel that is no descriptor");
    for (int bit = -1; bit < 4; bit++) {
        struct ib_uverbs_ex_create_cq in = {
            .cqe = 10, .comp_channel = -1, .flags = bit < 0 ? 0 : 1u << bit};
        struct ib_uverbs_ex_create_cq_resp out = {0};
        uint8_t driver[16];
        step(INVOKE_WITH_DRIVER(EXTENDED | IB_USER_VERBS_EX_CMD_CREATE_CQ, in, out, driver), "EX_CREATE_CQ flags %#x",
             in.flags);
    }
    cq = some_cq();
    static const struct {
        const char *name;
        uint32_t mask;
        uint16_t count, period;
    } changes[] = {{"nothing", 0, 0, 0}, {"moderation", 1, 1, 1}, {"moderation of 0", 1, 0, 0}, {"unknown", 2, 0, 0}};
    for (size_t i = 0; i < LENGTH(changes); i++) {
        struct ib_uverbs_ex_modify_cq in = {.cq_handle = cq,
                                            .attr_mask = changes[i].mask,
                                            .attr = {.cq_count = changes[i].count, .cq_period = changes[i].period}};
        step(INVOKE_NO_OUT(EXTENDED | IB_USER_VERBS_EX_CMD_MODIFY_CQ, in), "EX_MODIFY_CQ %s", changes[i].name);
    }
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        struct ib_uverbs_resize_cq in = {.cq_handle = cq, .cqe = sizes[i]};
        struct ib_uverbs_resize_cq_resp out = {0};
        uint8_t driver[16];
        step(INVOKE_WITH_DRIVER(IB_USER_VERBS_CMD_RESIZE_CQ, in, out, driver), "RESIZE_CQ to %u", sizes[i]);
    }
    struct ib_uverbs_resize_cq resize = {.cq_handle = cq, .cqe = 20};
    struct ib_uverbs_resize_cq_resp resized = {0};
    step(INVOKE(IB_USER_VERBS_CMD_RESIZE_CQ, resize, resized), "RESIZE_CQ without the driver's response");
    for (int solicited = 0; solicited < 3; solicited++) {
        struct ib_uverbs_req_notify_cq in = {.cq_handle = cq, .solicited_only = solicited};
        step(INVOKE_NO_OUT(IB_USER_VERBS_CMD_REQ_NOTIFY_CQ, in), "REQ_NOTIFY_CQ %d", solicited);
    }
    struct ib_uverbs_poll_cq poll = {.cq_handle = cq, .ne = 0};
    uint8_t poll_out[64];
    step(INVOKE(IB_USER_VERBS_CMD_POLL_CQ, poll, poll_out), "POLL_CQ of 0 completions");
    for (int times = 0; times < 2; times++) {
        struct ib_uverbs_destroy_cq_resp out;
        struct message message = begin(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY);
        add(&message, UVERBS_ATTR_DESTROY_CQ_HANDLE, 0, cq);
        add_pointer(&message, UVERBS_ATTR_DESTROY_CQ_RESP, &out, sizeof out);
        step(call(&message), "CQ_DESTROY%s", times ? " again" : "");
    }
}

/* ---- queue pairs ---- */

static void queue_pairs(void)
{
    open_context();
    uint32_t pd = alloc_pd(), cq = some_cq(), qp;
    for (int type = 0; type < 12; type++) {
        struct qp_spec spec = spec_of(type, pd, cq);
        step(qp_create(&spec, &qp), "QP_CREATE type %d", type);
    }
    struct qp_spec driver_type = spec_of(IB_UVERBS_QPT_DRIVER, pd, cq);
    step(qp_create(&driver_type, &qp), "QP_CREATE type 255");
    for (int type = IB_UVERBS_QPT_RC; type <= IB_UVERBS_QPT_UD; type++)
        for (int bit = 0; bit < 32; bit++) {
            struct qp_spec spec = spec_of(type, pd, cq);
            spec.flags = 1u << bit;
            step(qp_create(&spec, &qp), "QP_CREATE type %d flags %#x", type, 1u << bit);
        }
    struct qp_spec spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    spec.source_qpn = 5;
    step(qp_create(&spec, &qp), "QP_CREATE with a source QPN");
    spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    spec.pd = -1;
    step(qp_create(&spec, &qp), "QP_CREATE without a PD");
    spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    spec.recv_cq = -1;
    step(qp_create(&spec, &qp), "QP_CREATE without a receive CQ");
    spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    spec.send_cq = -1;
    step(qp_create(&spec, &qp), "QP_CREATE without a send CQ");
    spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    spec.srq = NO_HANDLE;
    step(qp_create(&spec, &qp), "QP_CREATE with an SRQ that does not exist");
    spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    spec.srq = pd;
    step(qp_create(&spec, &qp), "QP_CREATE with a PD as SRQ");
    spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    spec.ind_table = NO_HANDLE;
    step(qp_create(&spec, &qp), "QP_CREATE with an indirection table that does not exist");
    spec = spec_of(IB_UVERBS_QPT_XRC_INI, pd, cq);
    spec.xrcd = NO_HANDLE;
    step(qp_create(&spec, &qp), "QP_CREATE XRC initiator, domain that does not exist");
    static const struct {
        const char *name;
        struct ib_uverbs_qp_cap cap;
    } caps[] = {{"without capacity", {0}},
                {"16384 sends", {.max_send_wr = 16384}},
                {"2 ^ 20 sends", {.max_send_wr = 1 << 20}},
                {"2 ^ 20 + 1 sends", {.max_send_wr = (1 << 20) + 1}},
                {"2 ^ 20 + 1 receives", {.max_recv_wr = (1 << 20) + 1}},
                {"32 SGEs", {.max_send_wr = 1, .max_send_sge = 32, .max_recv_sge = 32}},
                {"33 SGEs", {.max_send_wr = 1, .max_send_sge = 33}},
                {"512 bytes inline", {.max_send_wr = 1, .max_inline_data = 512}},
                {"513 bytes inline", {.max_send_wr = 1, .max_inline_data = 513}},
                {"4096 bytes inline", {.max_send_wr = 1, .max_inline_data = 4096}}};
    for (size_t i = 0; i < LENGTH(caps); i++) {
        spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
        spec.cap = caps[i].cap;
        step(qp_create(&spec, &qp), "QP_CREATE %s", caps[i].name);
    }
    for (int bit = 0; bit < 16; bit++) {
        struct ib_uverbs_ex_create_qp in = {.pd_handle = pd,
                                            .send_cq_handle = cq,
                                            .recv_cq_handle = cq,
                                            .max_send_wr = 1,
                                            .max_send_sge = 1,
                                            .qp_type = IB_UVERBS_QPT_UD,
                                            .create_flags = 1u << bit};
        struct ib_uverbs_ex_create_qp_resp out = {0};
        uint8_t driver[32];
        step(INVOKE_WITH_DRIVER(EXTENDED | IB_USER_VERBS_EX_CMD_CREATE_QP, in, out, driver),
             "EX_CREATE_QP UD, creation flags %#x", in.create_flags);
    }
    for (int mask = 0; mask < 4; mask++) {
        struct ib_uverbs_ex_create_qp in = {.pd_handle = pd,
                                            .send_cq_handle = cq,
                                            .recv_cq_handle = cq,
                                            .max_send_wr = 1,
                                            .max_send_sge = 1,
                                            .qp_type = IB_UVERBS_QPT_RC,
                                            .comp_mask = mask};
        if (mask & IB_UVERBS_CREATE_QP_MASK_IND_TABLE)
            in.rwq_ind_tbl_handle = NO_HANDLE;
        struct ib_uverbs_ex_create_qp_resp out = {0};
        uint8_t driver[32];
        step(INVOKE_WITH_DRIVER(EXTENDED | IB_USER_VERBS_EX_CMD_CREATE_QP, in, out, driver),
             "EX_CREATE_QP RC, mask %d", mask);
    }
    struct ib_uverbs_open_qp open_in = {.pd_handle = pd, .qpn = 17, .qp_type = IB_UVERBS_QPT_RC};
    struct ib_uverbs_create_qp_resp opened = {0};
    step(INVOKE(IB_USER_VERBS_CMD_OPEN_QP, open_in, opened), "OPEN_QP of RC");

    spec = spec_of(IB_UVERBS_QPT_UD, pd, cq);
    qp_create(&spec, &qp);
    static const struct {
        const char *name;
        uint8_t gid[16];
        uint16_t lid;
    } groups[] = {{"IPv4", {[10] = 0xff, [11] = 0xff, [12] = 239, [15] = 7}, 0},
                  {"IPv6", {0xff, 0x0e, [15] = 7}, 0},
                  {"with a LID", {0xff, 0x0e, [15] = 8}, 0xc001},
                  {"no group", {0xfe, 0x80, [15] = 1}, 0}};
    for (int attach = 1; attach >= 0; attach--)
        for (size_t i = 0; i < LENGTH(groups); i++) {
            struct ib_uverbs_attach_mcast in = {.qp_handle = qp, .mlid = groups[i].lid};
            memcpy(in.gid, groups[i].gid, 16);
            step(INVOKE_NO_OUT(attach ? IB_USER_VERBS_CMD_ATTACH_MCAST : IB_USER_VERBS_CMD_DETACH_MCAST, in),
                 "%s_MCAST %s", attach ? "ATTACH" : "DETACH", groups[i].name);
        }
    spec = spec_of(IB_UVERBS_QPT_RC, pd, cq);
    qp_create(&spec, &qp);
    struct ib_uverbs_attach_mcast of_rc = {.qp_handle = qp, .gid = {0xff, 0x0e, [15] = 7}};
    step(INVOKE_NO_OUT(IB_USER_VERBS_CMD_ATTACH_MCAST, of_rc), "ATTACH_MCAST of RC");

    struct ib_uverbs_ex_modify_qp rate = {
        .base = {.qp_handle = qp, .attr_mask = 1u << 25 /* IB_QP_RATE_LIMIT */}, .rate_limit = 1000};
    struct ib_uverbs_ex_modify_qp_resp answered = {0};
    step(INVOKE(EXTENDED | IB_USER_VERBS_EX_CMD_MODIFY_QP, rate, answered), "EX_MODIFY_QP rate limit");
    for (int bit = 0; bit < 32; bit++) {
        struct ib_uverbs_ex_modify_qp in = {
            .base = {.qp_handle = qp, .attr_mask = 1u << bit, .qp_state = 1, .cur_qp_state = 0, .port_num = 1}};
        step(INVOKE(EXTENDED | IB_USER_VERBS_EX_CMD_MODIFY_QP, in, answered), "EX_MODIFY_QP from RESET, mask %#x",
             1u << bit);
    }
}

/* ---- shared receive queues, domains ---- */

enum { BASIC, XRC, TAG_MATCHING, SRQ_TYPES };

/* The attributes of SRQ_CREATE; -1: absent. */
struct srq_spec {
    uint64_t type;
    uint32_t pd, max_wr, max_sge;
    int64_t xrcd, cq, tags;
};

/* Without optional attributes. */
static struct srq_spec srq_spec_of(uint64_t type, uint32_t pd)
{
    return (struct srq_spec){.type = type, .pd = pd, .max_wr = 10, .max_sge = 1, .xrcd = -1, .cq = -1, .tags = -1};
}

static int srq_create(struct srq_spec spec, uint32_t *handle)
{
    uint8_t driver[64] = {0};
    uint32_t out[3] = {0};
    struct message message = begin(UVERBS_OBJECT_SRQ, UVERBS_METHOD_SRQ_CREATE);
    struct ib_uverbs_attr *created = add(&message, UVERBS_ATTR_CREATE_SRQ_HANDLE, 0, 0);
    add(&message, UVERBS_ATTR_CREATE_SRQ_PD_HANDLE, 0, spec.pd);
    if (spec.xrcd >= 0)
        add(&message, UVERBS_ATTR_CREATE_SRQ_XRCD_HANDLE, 0, spec.xrcd);
    if (spec.cq >= 0)
        add(&message, UVERBS_ATTR_CREATE_SRQ_CQ_HANDLE, 0, spec.cq);
    add(&message, UVERBS_ATTR_CREATE_SRQ_USER_HANDLE, 8, 7);
    add(&message, UVERBS_ATTR_CREATE_SRQ_MAX_WR, 4, spec.max_wr);
    add(&message, UVERBS_ATTR_CREATE_SRQ_MAX_SGE, 4, spec.max_sge);
    add(&message, UVERBS_ATTR_CREATE_SRQ_LIMIT, 4, 0);
    if (spec.tags >= 0)
        add(&message, UVERBS_ATTR_CREATE_SRQ_MAX_NUM_TAGS, 4, spec.tags);
    add(&message, UVERBS_ATTR_CREATE_SRQ_TYPE, 8, spec.type);
    add_pointer(&message, UVERBS_ATTR_CREATE_SRQ_RESP_MAX_WR, out, 4);
    add_pointer(&message, UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE, out + 1, 4);
    add_pointer(&message, UVERBS_ATTR_CREATE_SRQ_RESP_SRQ_NUM, out + 2, 4);
    add_pointer(&message, UVERBS_ATTR_UHW_OUT, driver, 24);
    int error = call(&message);
    *handle = (uint32_t)created->data;
    return error;
}

static void shared_queues(void)
{
    open_context();
    uint32_t pd = alloc_pd(), cq = some_cq(), srq;
    for (int type = BASIC; type <= SRQ_TYPES; type++) /* SRQ_TYPES is no type */
        step(srq_create(srq_spec_of(type, pd), &srq), "SRQ_CREATE type %d", type);
    struct srq_spec spec = srq_spec_of(XRC, pd);
    spec.xrcd = NO_HANDLE;
    spec.cq = cq;
    step(srq_create(spec, &srq), "SRQ_CREATE XRC, domain that does not exist");
    spec = srq_spec_of(TAG_MATCHING, pd);
    spec.cq = cq;
    spec.tags = 4;
    step(srq_create(spec, &srq), "SRQ_CREATE with tags");
    const uint32_t sizes[] = {0, 1 << 20, (1 << 20) + 1, 0xffffffff};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        spec = srq_spec_of(BASIC, pd);
        spec.max_wr = sizes[i];
        step(srq_create(spec, &srq), "SRQ_CREATE of %u", sizes[i]);
    }
    const uint32_t sges[] = {0, 27, 28, 32, 33};
    for (size_t i = 0; i < LENGTH(sges); i++) {
        spec = srq_spec_of(BASIC, pd);
        spec.max_sge = sges[i];
        step(srq_create(spec, &srq), "SRQ_CREATE of %u SGEs", sges[i]);
    }
    srq_create(srq_spec_of(BASIC, pd), &srq);
    static const struct {
        const char *name;
        uint32_t mask, limit;
    } changes[] = {
        {"nothing", 0, 0}, {"limit 5", IB_SRQ_LIMIT, 5}, {"limit 100", IB_SRQ_LIMIT, 100}, {"unknown", 4, 0}};
    for (size_t i = 0; i < LENGTH(changes); i++) {
        struct ib_uverbs_modify_srq in = {
            .srq_handle = srq,
            .attr_mask = changes[i].mask,
            .srq_limit = changes[i].limit,
        };
        step(INVOKE_NO_OUT(IB_USER_VERBS_CMD_MODIFY_SRQ, in), "MODIFY_SRQ %s", changes[i].name);
    }
    struct ib_uverbs_open_xrcd domain = {.fd = (uint32_t)-1, .oflags = O_CREAT};
    struct ib_uverbs_open_xrcd_resp opened = {0};
    step(INVOKE(IB_USER_VERBS_CMD_OPEN_XRCD, domain, opened), "OPEN_XRCD");
}

int main(int argc, char **argv)
{
    take_no_arguments(argc, argv);
    completion_queues();
    queue_pairs();
    shared_queues();
    return 0;
}
