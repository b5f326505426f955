/*
 * Makes uverbs calls and prints a line "NAME = OK" or "NAME = ERRNO" for each call, followed by lines "  FIELD VALUE"
 *                                                                                                        for
 * attributes of the device and its ports. every_region_call.c and every_queue_call.c cover memory and queues.
 * test/system/suites/every-call.test.ts compares the lines with those of Linux's rxe.
 */
#include "uverbs_calls.h"

/* ---- sweeps: which calls exist ---- */

static void sweep(void)
{
    static uint8_t zeros[512], response[512];
    for (int extended = 0; extended < 2; extended++)
        for (int number = 0; number < 64; number++) {
            open_context();
            uint32_t command = number | (extended ? EXTENDED : 0);
            step(invoke(command, zeros, 256, response, sizeof response, NULL, 0), "command %s%d of zeros",
                 extended ? "ex " : "", number);
        }
    for (int object = 0; object < 20; object++)
        for (int method = 0; method < 8; method++) {
            open_context();
            struct message message = begin(object, method);
            step(call(&message), "ioctl %d.%d without attributes", object, method);
        }
}

/* ---- contexts ---- */

static int query_context(int vectors_length, int support_length, uint32_t *vectors, uint64_t *support)
{
    struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_CONTEXT);
    if (vectors_length > 0)
        add_pointer(&message, UVERBS_ATTR_QUERY_CONTEXT_NUM_COMP_VECTORS, vectors, vectors_length);
    if (support_length > 0)
        add_pointer(&message, UVERBS_ATTR_QUERY_CONTEXT_CORE_SUPPORT, support, support_length);
    return call(&message);
}

static void contexts(void)
{
    uint32_t vectors[2] = {0};
    uint64_t support[2] = {0};
    open_device();
    step(query_context(4, 8, vectors, support), "QUERY_CONTEXT before GET_CONTEXT");
    open_context();
    step(query_context(4, 8, vectors, support), "QUERY_CONTEXT");
    step(query_context(0, 0, vectors, support), "QUERY_CONTEXT without attributes");
    step(query_context(8, 8, vectors, support), "QUERY_CONTEXT, vectors of 8 bytes");
    struct message message = begin(UVERBS_OBJECT_ASYNC_EVENT, UVERBS_METHOD_ASYNC_EVENT_ALLOC);
    add(&message, UVERBS_ATTR_ASYNC_EVENT_ALLOC_FD_HANDLE, 0, 0);
    step(call(&message), "ASYNC_EVENT_ALLOC");
    message = begin(UVERBS_OBJECT_ASYNC_EVENT, UVERBS_METHOD_ASYNC_EVENT_ALLOC);
    add(&message, UVERBS_ATTR_ASYNC_EVENT_ALLOC_FD_HANDLE, 0, 0);
    step(call(&message), "ASYNC_EVENT_ALLOC again");
}

static void info_handles(void)
{
    open_context();
    alloc_pd();
    for (int object = 0; object < 20; object++) {
        uint32_t total = 0, handles[8];
        struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INFO_HANDLES);
        add(&message, UVERBS_ATTR_INFO_OBJECT_ID, 8, object);
        add_pointer(&message, UVERBS_ATTR_INFO_TOTAL_HANDLES, &total, sizeof total);
        add_pointer(&message, UVERBS_ATTR_INFO_HANDLES_LIST, handles, sizeof handles);
        step(call(&message), "INFO_HANDLES of object %d, %u", object, total);
    }
}

#define SHOW(field) printf("  %s %" PRIu64 "\n", #field, (uint64_t)(field))
/* Offset of active_speed_ex in struct ib_uverbs_query_port_resp_ex; older headers have reserved bytes there. */
#define ACTIVE_SPEED_EX 44

static void ports(void)
{
    open_context();
    for (int number = 0; number < 3; number++) {
        struct ib_uverbs_query_port_resp_ex out;
        memset(&out, 0xcc, sizeof out);
        struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_PORT);
        add(&message, UVERBS_ATTR_QUERY_PORT_PORT_NUM, 8, number);
        add_pointer(&message, UVERBS_ATTR_QUERY_PORT_RESP, &out, sizeof out);
        int error = step(call(&message), "QUERY_PORT %d", number);
        if (error != 0)
            continue;
        const struct ib_uverbs_query_port_resp *port = &out.legacy_resp;
        uint32_t active_speed_ex;
        memcpy(&active_speed_ex, (const uint8_t *)&out + ACTIVE_SPEED_EX, sizeof active_speed_ex);
        SHOW(port->port_cap_flags);
        SHOW(port->max_msg_sz);
        SHOW(port->gid_tbl_len);
        SHOW(port->pkey_tbl_len);
        SHOW(port->lid);
        SHOW(port->sm_lid);
        SHOW(port->state);
        SHOW(port->max_mtu);
        SHOW(port->lmc);
        SHOW(port->max_vl_num);
        SHOW(port->sm_sl);
        SHOW(port->subnet_timeout);
        SHOW(port->init_type_reply);
        SHOW(port->active_width);
        SHOW(port->active_speed);
        SHOW(port->phys_state);
        SHOW(port->link_layer);
        SHOW(port->flags);
        SHOW(out.port_cap_flags2);
        SHOW(active_speed_ex);
    }
    for (int size = 8; size <= 64; size += 8) {
        uint8_t entries[16 * 64];
        uint64_t count = 0;
        struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_TABLE);
        add(&message, UVERBS_ATTR_QUERY_GID_TABLE_ENTRY_SIZE, 8, size);
        add(&message, UVERBS_ATTR_QUERY_GID_TABLE_FLAGS, 4, 0);
        add_pointer(&message, UVERBS_ATTR_QUERY_GID_TABLE_RESP_ENTRIES, entries, size * 16);
        add_pointer(&message, UVERBS_ATTR_QUERY_GID_TABLE_RESP_NUM_ENTRIES, &count, sizeof count);
        step(call(&message), "QUERY_GID_TABLE, entries of %d", size);
    }
    for (int flags = 0; flags < 2; flags++)
        for (int has_room = 0; has_room < 2; has_room++) {
            uint8_t entries[32 * 32];
            uint64_t count = 0;
            struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_TABLE);
            add(&message, UVERBS_ATTR_QUERY_GID_TABLE_ENTRY_SIZE, 8, 32);
            add(&message, UVERBS_ATTR_QUERY_GID_TABLE_FLAGS, 4, flags);
            add_pointer(&message, UVERBS_ATTR_QUERY_GID_TABLE_RESP_ENTRIES, entries, has_room ? sizeof entries : 0);
            add_pointer(&message, UVERBS_ATTR_QUERY_GID_TABLE_RESP_NUM_ENTRIES, &count, sizeof count);
            step(call(&message), "QUERY_GID_TABLE, flags %d, room for %d", flags, has_room * 32);
        }
    static const struct {
        uint64_t port, index;
        uint32_t flags;
    } queries[] = {{1, 0, 0}, {1, 0, 1}, {0, 0, 0}, {2, 0, 0}, {1, 1023, 0}, {1, 1024, 0}, {1, 1ull << 32, 0}};
    for (size_t i = 0; i < LENGTH(queries); i++) {
        struct ib_uverbs_gid_entry entry;
        struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_ENTRY);
        add(&message, UVERBS_ATTR_QUERY_GID_ENTRY_PORT, 8, queries[i].port);
        add(&message, UVERBS_ATTR_QUERY_GID_ENTRY_GID_INDEX, 8, queries[i].index);
        add(&message, UVERBS_ATTR_QUERY_GID_ENTRY_FLAGS, 4, queries[i].flags);
        add_pointer(&message, UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY, &entry, sizeof entry);
        step(call(&message), "QUERY_GID_ENTRY port %" PRIu64 " index %" PRIu64 " flags %u", queries[i].port,
             queries[i].index, queries[i].flags);
    }
}

static void device_attributes(void)
{
    open_context();
    struct ib_uverbs_ex_query_device in = {0};
    struct ib_uverbs_ex_query_device_resp out = {0};
    step(INVOKE(EXTENDED | IB_USER_VERBS_EX_CMD_QUERY_DEVICE, in, out), "EX_QUERY_DEVICE");
    const struct ib_uverbs_query_device_resp *base = &out.base;
    SHOW(base->max_mr_size);
    SHOW(base->page_size_cap);
    SHOW(base->hw_ver);
    SHOW(base->max_qp);
    SHOW(base->max_qp_wr);
    SHOW(base->device_cap_flags);
    SHOW(base->max_sge);
    SHOW(base->max_sge_rd);
    SHOW(base->max_cq);
    SHOW(base->max_cqe);
    SHOW(base->max_mr);
    SHOW(base->max_pd);
    SHOW(base->max_qp_rd_atom);
    SHOW(base->max_ee_rd_atom);
    SHOW(base->max_res_rd_atom);
    SHOW(base->max_qp_init_rd_atom);
    SHOW(base->max_ee_init_rd_atom);
    SHOW(base->atomic_cap);
    SHOW(base->max_mw);
    SHOW(base->max_raw_ipv6_qp);
    SHOW(base->max_raw_ethy_qp);
    SHOW(base->max_mcast_grp);
    SHOW(base->max_mcast_qp_attach);
    SHOW(base->max_total_mcast_qp_attach);
    SHOW(base->max_ah);
    SHOW(base->max_srq);
    SHOW(base->max_srq_wr);
    SHOW(base->max_srq_sge);
    SHOW(base->max_pkeys);
    SHOW(base->local_ca_ack_delay);
    SHOW(base->phys_port_cnt);
    SHOW(out.comp_mask);
    SHOW(out.response_length);
    SHOW(out.odp_caps.general_caps);
    SHOW(out.timestamp_mask);
    SHOW(out.hca_core_clock);
    SHOW(out.device_cap_flags_ex);
    SHOW(out.rss_caps.supported_qpts);
    SHOW(out.max_wq_type_rq);
    SHOW(out.raw_packet_caps);
    SHOW(out.tm_caps.max_num_tags);
    SHOW(out.cq_moderation_caps.max_cq_moderation_count);
    SHOW(out.cq_moderation_caps.max_cq_moderation_period);
    SHOW(out.max_dm_size);
    SHOW(out.xrc_odp_caps);
}

/* ---- features that soft devices lack ---- */

static void lacking_features_and_destruction(void)
{
    open_context();
    uint32_t pd = alloc_pd(), cq = some_cq(), qp;
    struct qp_spec spec = spec_of(IB_UVERBS_QPT_UD, pd, cq);
    qp_create(&spec, &qp);
    struct {
        struct ib_uverbs_create_flow flow;
        uint8_t specs[64];
    } flow = {.flow = {.qp_handle = qp, .flow_attr = {.port = 1}}};
    struct ib_uverbs_create_flow_resp flow_out = {0};
    step(invoke(EXTENDED | IB_USER_VERBS_EX_CMD_CREATE_FLOW, &flow, sizeof flow.flow, &flow_out, sizeof flow_out, NULL,
                0),
         "EX_CREATE_FLOW");
    struct ib_uverbs_destroy_flow destroy_flow = {.flow_handle = NO_HANDLE};
    step(INVOKE_NO_OUT(EXTENDED | IB_USER_VERBS_EX_CMD_DESTROY_FLOW, destroy_flow), "EX_DESTROY_FLOW");
    struct ib_uverbs_ex_create_wq wq = {.pd_handle = pd, .cq_handle = cq, .max_wr = 1, .max_sge = 1};
    struct ib_uverbs_ex_create_wq_resp wq_out = {0};
    step(INVOKE(EXTENDED | IB_USER_VERBS_EX_CMD_CREATE_WQ, wq, wq_out), "EX_CREATE_WQ");
    struct ib_uverbs_ex_destroy_wq destroy_wq = {.wq_handle = NO_HANDLE};
    struct ib_uverbs_ex_destroy_wq_resp destroyed = {0};
    step(INVOKE(EXTENDED | IB_USER_VERBS_EX_CMD_DESTROY_WQ, destroy_wq, destroyed), "EX_DESTROY_WQ");
    struct ib_uverbs_ex_modify_wq modify_wq = {.attr_mask = 1, .wq_handle = NO_HANDLE, .wq_state = 1};
    step(INVOKE_NO_OUT(EXTENDED | IB_USER_VERBS_EX_CMD_MODIFY_WQ, modify_wq), "EX_MODIFY_WQ");
    uint32_t out[2];
    struct message message = begin(UVERBS_OBJECT_WQ, UVERBS_METHOD_WQ_CREATE);
    add(&message, UVERBS_ATTR_CREATE_WQ_HANDLE, 0, 0);
    add(&message, UVERBS_ATTR_CREATE_WQ_PD_HANDLE, 0, pd);
    add(&message, UVERBS_ATTR_CREATE_WQ_CQ_HANDLE, 0, cq);
    add(&message, UVERBS_ATTR_CREATE_WQ_USER_HANDLE, 8, 7);
    add(&message, UVERBS_ATTR_CREATE_WQ_TYPE, 8, 0);
    add(&message, UVERBS_ATTR_CREATE_WQ_MAX_WR, 4, 1);
    add(&message, UVERBS_ATTR_CREATE_WQ_MAX_SGE, 4, 1);
    add(&message, UVERBS_ATTR_CREATE_WQ_FLAGS, 4, 0);
    add_pointer(&message, UVERBS_ATTR_CREATE_WQ_RESP_MAX_WR, out, 4);
    add_pointer(&message, UVERBS_ATTR_CREATE_WQ_RESP_MAX_SGE, out + 1, 4);
    step(call(&message), "WQ_CREATE");
    struct ib_uverbs_ex_create_rwq_ind_table table = {0};
    struct ib_uverbs_ex_create_rwq_ind_table_resp table_out = {0};
    step(INVOKE(EXTENDED | IB_USER_VERBS_EX_CMD_CREATE_RWQ_IND_TBL, table, table_out), "EX_CREATE_RWQ_IND_TBL");
    struct ib_uverbs_ex_destroy_rwq_ind_table destroy_table = {.ind_tbl_handle = NO_HANDLE};
    step(INVOKE_NO_OUT(EXTENDED | IB_USER_VERBS_EX_CMD_DESTROY_RWQ_IND_TBL, destroy_table), "EX_DESTROY_RWQ_IND_TBL");
    message = begin(UVERBS_OBJECT_COUNTERS, UVERBS_METHOD_COUNTERS_CREATE);
    add(&message, UVERBS_ATTR_CREATE_COUNTERS_HANDLE, 0, 0);
    step(call(&message), "COUNTERS_CREATE");
    uint64_t counts[4];
    message = begin(UVERBS_OBJECT_COUNTERS, UVERBS_METHOD_COUNTERS_READ);
    add(&message, UVERBS_ATTR_READ_COUNTERS_HANDLE, 0, pd);
    add_pointer(&message, UVERBS_ATTR_READ_COUNTERS_BUFF, counts, sizeof counts);
    add(&message, UVERBS_ATTR_READ_COUNTERS_FLAGS, 4, 0);
    step(call(&message), "COUNTERS_READ of a PD");
    /* `method` destroys objects of the class; `response`: bytes of its response. */
    static const struct {
        const char *name;
        int object, method, response;
    } destroy_calls[] = {
        {"PD", UVERBS_OBJECT_PD, 0, 0},
        {"CQ", UVERBS_OBJECT_CQ, 1, 8},
        {"QP", UVERBS_OBJECT_QP, 1, 4},
        {"SRQ", UVERBS_OBJECT_SRQ, 1, 4},
        {"AH", UVERBS_OBJECT_AH, 0, 0},
        {"MR", UVERBS_OBJECT_MR, 1, 0},
        {"MW", UVERBS_OBJECT_MW, 0, 0},
        {"flow", UVERBS_OBJECT_FLOW, 0, 0},
        {"XRCD", UVERBS_OBJECT_XRCD, 0, 0},
        {"table", UVERBS_OBJECT_RWQ_IND_TBL, 0, 0},
        {"WQ", UVERBS_OBJECT_WQ, 1, 4},
        {"flow action", UVERBS_OBJECT_FLOW_ACTION, 1, 0},
        {"DM", UVERBS_OBJECT_DM, 1, 0},
        {"counters", UVERBS_OBJECT_COUNTERS, 1, 0},
    };
    const struct {
        const char *name;
        uint32_t handle;
    } handles[] = {{"a handle that does not exist", NO_HANDLE}, {"the CQ in use", cq}, {"the PD in use", pd}};
    for (size_t h = 0; h < LENGTH(handles); h++)
        for (size_t i = 0; i < LENGTH(destroy_calls); i++) {
            uint8_t response[8];
            message = begin(destroy_calls[i].object, destroy_calls[i].method);
            add(&message, 0, 0, handles[h].handle);
            if (destroy_calls[i].response > 0)
                add_pointer(&message, 1, response, destroy_calls[i].response);
            step(call(&message), "destroy of %s as %s", handles[h].name, destroy_calls[i].name);
        }
}

int main(int argc, char **argv)
{
    take_no_arguments(argc, argv);
    sweep();
    contexts();
    info_handles();
    ports();
    device_attributes();
    lacking_features_and_destruction();
    return 0;
}
