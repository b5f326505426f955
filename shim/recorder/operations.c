/*
 * Functions of contexts that take objects, and that verbs.h calls inline: wrapped while recorder_is_on. Those of posts
 * and polls are in posts.c and polls.c.
 */
#define _GNU_SOURCE
#include "objects.h"
#include "orders.h"
#include "refusals.h"
#include "slots.h"

#include <errno.h>

#define FUNCTION_alloc_mw struct ibv_mw *, (struct ibv_pd * pd, enum ibv_mw_type type), (pd, type)
#define FUNCTION_dealloc_mw int, (struct ibv_mw * mw), (mw)
#define FUNCTION_advise_mr                                                                                             \
    int, (struct ibv_pd * pd, enum ibv_advise_mr_advice advice, uint32_t flags, struct ibv_sge *list, uint32_t count), \
        (pd, advice, flags, list, count)
#define FUNCTION_alloc_null_mr struct ibv_mr *, (struct ibv_pd * pd), (pd)
#define FUNCTION_read_counters                                                                                         \
    int, (struct ibv_counters * counters, uint64_t * values, uint32_t count, uint32_t flags),                          \
        (counters, values, count, flags)
#define FUNCTION_attach_counters_point_flow                                                                            \
    int, (struct ibv_counters * counters, struct ibv_counter_attach_attr * attributes, struct ibv_flow * flow),        \
        (counters, attributes, flow)
#define FUNCTION_create_counters                                                                                       \
    struct ibv_counters *, (struct ibv_context * context, struct ibv_counters_init_attr * attributes),                 \
        (context, attributes)
#define FUNCTION_destroy_counters int, (struct ibv_counters * counters), (counters)
#define FUNCTION_reg_dm_mr                                                                                             \
    struct ibv_mr *, (struct ibv_pd * pd, struct ibv_dm * dm, uint64_t offset, size_t length, unsigned int access),    \
        (pd, dm, offset, length, access)
#define FUNCTION_alloc_dm                                                                                              \
    struct ibv_dm *, (struct ibv_context * context, struct ibv_alloc_dm_attr * attributes), (context, attributes)
#define FUNCTION_free_dm int, (struct ibv_dm * dm), (dm)
#define FUNCTION_modify_qp_rate_limit                                                                                  \
    int, (struct ibv_qp * qp, struct ibv_qp_rate_limit_attr * attributes), (qp, attributes)
#define FUNCTION_alloc_parent_domain                                                                                   \
    struct ibv_pd *, (struct ibv_context * context, struct ibv_parent_domain_init_attr * attributes),                  \
        (context, attributes)
#define FUNCTION_dealloc_td int, (struct ibv_td * td), (td)
#define FUNCTION_alloc_td                                                                                              \
    struct ibv_td *, (struct ibv_context * context, struct ibv_td_init_attr * attributes), (context, attributes)
#define FUNCTION_modify_cq int, (struct ibv_cq * cq, struct ibv_modify_cq_attr * attributes), (cq, attributes)
#define FUNCTION_post_srq_ops                                                                                          \
    int, (struct ibv_srq * srq, struct ibv_ops_wr * list, struct ibv_ops_wr * *bad), (srq, list, bad)
#define FUNCTION_destroy_rwq_ind_table int, (struct ibv_rwq_ind_table * queues), (queues)
#define FUNCTION_create_rwq_ind_table                                                                                  \
    struct ibv_rwq_ind_table *, (struct ibv_context * context, struct ibv_rwq_ind_table_init_attr * attributes),       \
        (context, attributes)
#define FUNCTION_destroy_wq int, (struct ibv_wq * wq), (wq)
#define FUNCTION_modify_wq int, (struct ibv_wq * wq, struct ibv_wq_attr * attributes), (wq, attributes)
#define FUNCTION_create_wq                                                                                             \
    struct ibv_wq *, (struct ibv_context * context, struct ibv_wq_init_attr * attributes), (context, attributes)
#define FUNCTION_query_rt_values                                                                                       \
    int, (struct ibv_context * context, struct ibv_values_ex * values), (context, values)
#define FUNCTION_query_port                                                                                            \
    int, (struct ibv_context * context, uint8_t port, struct ibv_port_attr * attributes, size_t size),                 \
        (context, port, attributes, size)
#define FUNCTION_query_device_ex                                                                                       \
    int,                                                                                                               \
        (struct ibv_context * context, const struct ibv_query_device_ex_input *input,                                  \
         struct ibv_device_attr_ex *attributes, size_t size),                                                          \
        (context, input, attributes, size)
#define FUNCTION_destroy_flow int, (struct ibv_flow * flow), (flow)
#define FUNCTION_create_flow                                                                                       \
    struct ibv_flow *, (struct ibv_qp * qp, struct ibv_flow_attr * attributes), (qp, attributes)
#define FUNCTION_open_qp                                                                                               \
    struct ibv_qp *, (struct ibv_context * context, struct ibv_qp_open_attr * attributes), (context, attributes)
#define FUNCTION_get_srq_num int, (struct ibv_srq * srq, uint32_t * number), (srq, number)
#define FUNCTION_create_srq_ex                                                                                         \
    struct ibv_srq *, (struct ibv_context * context, struct ibv_srq_init_attr_ex * attributes), (context, attributes)
#define FUNCTION_open_xrcd                                                                                             \
    struct ibv_xrcd *, (struct ibv_context * context, struct ibv_xrcd_init_attr * attributes), (context, attributes)
#define FUNCTION_close_xrcd int, (struct ibv_xrcd * xrcd), (xrcd)

#define FAIL_ERRNO return EINVAL
#define FAIL_POINTER                                                                                                   \
    do {                                                                                                               \
        errno = EINVAL;                                                                                                \
        return NULL;                                                                                                   \
    } while (0)
#define KNOW_ERRNO
#define KNOW_POINTER known_add(KIND_OF(result), result);
#define ERROR_ERRNO (result < 0 ? errno : result)
#define ERROR_POINTER (result ? 0 : errno)

#define U(kind, object) {USERDMA_OBJECT_##kind, object},
#define IF(mask, bit, object) ((mask) & (bit) ? (object) : NULL)

#define OPERATION_(name, type, parameters, arguments, convention, effect, verb, uses, ...)                             \
    static type name(name##_function *original, EXPAND parameters)                                                     \
    {                                                                                                                  \
        const struct object_use taken[] = {EXPAND uses};                                                               \
        struct object_call call;                                                                                       \
        if (!object_enter(&call, verb, OBJECT_##effect, taken, sizeof taken / sizeof taken[0]))                        \
            FAIL_##convention;                                                                                         \
        type result = original arguments;                                                                              \
        KNOW_##convention                                                                                              \
        OBJECT_LEAVE(&call, ERROR_##convention, __VA_ARGS__);                                                          \
        return result;                                                                                                 \
    }
/* `verb`: the name in verbs.h. After the objects: facts about the arguments (refusals.h). */
#define OPERATION(convention, effect, name, verb, uses, ...)                                                           \
    FUNCTION_TYPE(name)                                                                                                \
    TYPED(OPERATION_, name, FUNCTION_##name, convention, effect, verb, uses, __VA_ARGS__)                              \
    SLOTS_OF(name)

OPERATION(POINTER, CREATED, alloc_mw, "ibv_alloc_mw", (U(PD, pd)))
OPERATION(ERRNO, DESTROYED, dealloc_mw, "ibv_dealloc_mw", (U(MW, mw)))
OPERATION(ERRNO, USED, advise_mr, "ibv_advise_mr", (U(PD, pd)))
OPERATION(POINTER, CREATED, alloc_null_mr, "ibv_alloc_null_mr", (U(PD, pd)))
OPERATION(ERRNO, USED, read_counters, "ibv_read_counters", (U(COUNTERS, counters)))
OPERATION(ERRNO, USED, attach_counters_point_flow, "ibv_attach_counters_point_flow",
          (U(COUNTERS, counters) U(FLOW, flow)))
OPERATION(POINTER, CREATED, create_counters, "ibv_create_counters", (U(CONTEXT, context)))
OPERATION(ERRNO, DESTROYED, destroy_counters, "ibv_destroy_counters", (U(COUNTERS, counters)))
OPERATION(POINTER, CREATED, reg_dm_mr, "ibv_reg_dm_mr", (U(PD, pd) U(DM, dm)))
OPERATION(POINTER, CREATED, alloc_dm, "ibv_alloc_dm", (U(CONTEXT, context)))
OPERATION(ERRNO, DESTROYED, free_dm, "ibv_free_dm", (U(DM, dm)))
OPERATION(ERRNO, USED, modify_qp_rate_limit, "ibv_modify_qp_rate_limit", (U(QP, qp)))

/* With a thread domain, its objects are for one thread at a time. */
FUNCTION_TYPE(alloc_parent_domain)
static struct ibv_pd *alloc_parent_domain(alloc_parent_domain_function *original, struct ibv_context *context,
                                          struct ibv_parent_domain_init_attr *attributes)
{
    const struct object_use taken[] = {U(CONTEXT, context) U(PD, attributes->pd) U(TD, attributes->td)};
    struct object_call call;
    if (!object_enter(&call, "ibv_alloc_parent_domain", OBJECT_CREATED, taken, sizeof taken / sizeof taken[0]))
        FAIL_POINTER;
    struct ibv_pd *result = original(context, attributes);
    if (result && attributes->td)
        promises_domain(result);
    OBJECT_LEAVE(&call, ERROR_POINTER);
    return result;
}
SLOTS_OF(alloc_parent_domain)

OPERATION(ERRNO, DESTROYED, dealloc_td, "ibv_dealloc_td", (U(TD, td)))
OPERATION(POINTER, CREATED, alloc_td, "ibv_alloc_td", (U(CONTEXT, context)))
OPERATION(ERRNO, USED, modify_cq, "ibv_modify_cq", (U(CQ, cq)))
OPERATION(ERRNO, USED, post_srq_ops, "ibv_post_srq_ops", (U(SRQ, srq)))
OPERATION(ERRNO, DESTROYED, destroy_rwq_ind_table, "ibv_destroy_rwq_ind_table", (U(WQ_TABLE, queues)))
OPERATION(POINTER, CREATED, create_rwq_ind_table, "ibv_create_rwq_ind_table", (U(CONTEXT, context)))
OPERATION(ERRNO, DESTROYED, destroy_wq, "ibv_destroy_wq", (U(WQ, wq)))
OPERATION(ERRNO, USED, modify_wq, "ibv_modify_wq", (U(WQ, wq)))
OPERATION(POINTER, CREATED, create_wq, "ibv_create_wq",
          (U(CONTEXT, context) U(PD, attributes->pd) U(CQ, attributes->cq)))
OPERATION(ERRNO, USED, query_rt_values, "ibv_query_rt_values_ex", (U(CONTEXT, context)))
OPERATION(ERRNO, USED, query_port, "ibv_query_port", (U(CONTEXT, context)))
OPERATION(ERRNO, USED, query_device_ex, "ibv_query_device_ex", (U(CONTEXT, context)))
OPERATION(ERRNO, DESTROYED, destroy_flow, "ibv_destroy_flow", (U(FLOW, flow)))
OPERATION(POINTER, CREATED, create_flow, "ibv_create_flow", (U(QP, qp)))
OPERATION(POINTER, CREATED, open_qp, "ibv_open_qp",
          (U(CONTEXT, context) U(XRCD, IF(attributes->comp_mask, IBV_QP_OPEN_ATTR_XRCD, attributes->xrcd))),
          attributes->comp_mask)
OPERATION(ERRNO, USED, get_srq_num, "ibv_get_srq_num", (U(SRQ, srq)))
OPERATION(POINTER, CREATED, create_srq_ex, "ibv_create_srq_ex",
          (U(CONTEXT, context) U(PD, IF(attributes->comp_mask, IBV_SRQ_INIT_ATTR_PD, attributes->pd))
               U(XRCD, IF(attributes->comp_mask, IBV_SRQ_INIT_ATTR_XRCD, attributes->xrcd))
                   U(CQ, IF(attributes->comp_mask, IBV_SRQ_INIT_ATTR_CQ, attributes->cq))),
          FACTS_OF_SRQ(attributes))
OPERATION(POINTER, CREATED, open_xrcd, "ibv_open_xrcd", (U(CONTEXT, context)), attributes->comp_mask)
OPERATION(ERRNO, DESTROYED, close_xrcd, "ibv_close_xrcd", (U(XRCD, xrcd)))

/* The functions of struct verbs_context, by their members. A context of an older libibverbs may lack the latest. */
#define EXTENDED(X)                                                                                                    \
    X(advise_mr, advise_mr)                                                                                            \
    X(alloc_null_mr, alloc_null_mr)                                                                                    \
    X(read_counters, read_counters)                                                                                    \
    X(attach_counters_point_flow, attach_counters_point_flow)                                                          \
    X(create_counters, create_counters)                                                                                \
    X(destroy_counters, destroy_counters)                                                                              \
    X(reg_dm_mr, reg_dm_mr)                                                                                            \
    X(alloc_dm, alloc_dm)                                                                                              \
    X(free_dm, free_dm)                                                                                                \
    X(modify_qp_rate_limit, modify_qp_rate_limit)                                                                      \
    X(alloc_parent_domain, alloc_parent_domain)                                                                        \
    X(dealloc_td, dealloc_td)                                                                                          \
    X(alloc_td, alloc_td)                                                                                              \
    X(modify_cq, modify_cq)                                                                                            \
    X(post_srq_ops, post_srq_ops)                                                                                      \
    X(destroy_rwq_ind_table, destroy_rwq_ind_table)                                                                    \
    X(create_rwq_ind_table, create_rwq_ind_table)                                                                      \
    X(destroy_wq, destroy_wq)                                                                                          \
    X(modify_wq, modify_wq)                                                                                            \
    X(create_wq, create_wq)                                                                                            \
    X(query_rt_values, query_rt_values)                                                                                \
    X(query_port, query_port)                                                                                          \
    X(query_device_ex, query_device_ex)                                                                                \
    X(ibv_destroy_flow, destroy_flow)                                                                                  \
    X(ibv_create_flow, create_flow)                                                                                    \
    X(open_qp, open_qp)                                                                                                \
    X(get_srq_num, get_srq_num)                                                                                        \
    X(create_srq_ex, create_srq_ex)                                                                                    \
    X(open_xrcd, open_xrcd)                                                                                            \
    X(close_xrcd, close_xrcd)

void operations_wrap(struct ibv_context *context)
{
    struct verbs_context *extended;
    WRAP(context->ops.alloc_mw, alloc_mw);
    WRAP(context->ops.dealloc_mw, dealloc_mw);
#define WRAP_EXTENDED(member, name)                                                                                    \
    extended = verbs_get_ctx_op(context, member);                                                                      \
    if (extended)                                                                                                      \
        WRAP(extended->member, name);
    EXTENDED(WRAP_EXTENDED)
}
