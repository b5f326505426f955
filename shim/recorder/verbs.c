/*
 * Where the functions of providers are wrapped: in a context's table, when the provider has filled it (verbs_set_ops),
 * or when the program gets the context; in a queue pair, when it is created (here); in a CQ, likewise (polls.c).
 *
 * libibverbs is not linked: the program has it, or loads it later.
 */
#define _GNU_SOURCE
#include "objects.h"
#include "orders.h"
#include "refusals.h"
#include "verbs.h"
#include "wrapped.h"

#include <errno.h>

bool recorder_is_on, requests_are_noted;
__thread bool recorder_in_provider;

/* ---- queue pairs ---- */

/* The object of a new queue pair if `mask` has `bit`. */
#define IF(mask, bit, object) ((mask) & (bit) ? (object) : NULL)

/* The program gets a queue pair in `pd`; NULL: in none. */
static void created_qp(struct ibv_qp *qp, uint32_t slots, const struct ibv_pd *pd)
{
    provider_created_qp(qp, slots);
    if (UNLIKELY(recorder_is_on) && promises_is_domain(pd))
        promises_qp(qp);
}

static struct ibv_qp *create_qp_ex(create_qp_ex_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes)
{
    struct object_call call;
    if (UNLIKELY(recorder_is_on)) {
        const struct object_use uses[] = {
            {USERDMA_OBJECT_CONTEXT, context},
            {USERDMA_OBJECT_PD, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_PD, attributes->pd)},
            {USERDMA_OBJECT_XRCD, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_XRCD, attributes->xrcd)},
            {USERDMA_OBJECT_CQ, attributes->send_cq},
            {USERDMA_OBJECT_CQ, attributes->recv_cq},
            {USERDMA_OBJECT_SRQ, attributes->srq},
        };
        if (!object_enter(&call, "ibv_create_qp_ex", OBJECT_CREATED, uses, sizeof uses / sizeof uses[0])) {
            errno = EINVAL;
            return NULL;
        }
    }
    struct ibv_qp *qp = provider_create_qp(original, context, attributes);
    if (qp)
        created_qp(qp, attributes->cap.max_send_wr, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_PD, attributes->pd));
    known_add(USERDMA_OBJECT_QP, qp);
    /* An XRC target is no extended queue pair. */
    if (qp && attributes->qp_type != IBV_QPT_XRC_RECV && attributes->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        verbs_wrap_qp((struct ibv_qp_ex *)qp, attributes->send_ops_flags);
    if (UNLIKELY(recorder_is_on))
        OBJECT_LEAVE(&call, qp ? 0 : errno, attributes->qp_type, attributes->comp_mask,
                     PRESENT(attributes, IBV_QP_INIT_ATTR_CREATE_FLAGS, create_flags),
                     PRESENT(attributes, IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, send_ops_flags));
    return qp;
}
SLOTS_OF(create_qp_ex)

struct ibv_qp *verbs_create_own_qp(const char *name, create_own_qp_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes, void *own, uint32_t bytes)
{
    struct object_call call;
    if (UNLIKELY(recorder_is_on)) {
        const struct object_use uses[] = {
            {USERDMA_OBJECT_CONTEXT, context},
            {USERDMA_OBJECT_PD, PRESENT(attributes, IBV_QP_INIT_ATTR_PD, pd)},
            {USERDMA_OBJECT_CQ, attributes->send_cq},
            {USERDMA_OBJECT_CQ, attributes->recv_cq},
            {USERDMA_OBJECT_SRQ, attributes->srq},
        };
        if (!object_enter(&call, name, OBJECT_CREATED, uses, sizeof uses / sizeof uses[0])) {
            errno = EINVAL;
            return NULL;
        }
    }
    struct ibv_qp *qp = original(context, attributes, own, bytes);
    if (qp)
        created_qp(qp, attributes->cap.max_send_wr, IF(attributes->comp_mask, IBV_QP_INIT_ATTR_PD, attributes->pd));
    if (qp && attributes->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        verbs_wrap_qp((struct ibv_qp_ex *)qp, attributes->send_ops_flags);
    if (UNLIKELY(recorder_is_on))
        OBJECT_LEAVE(&call, qp ? 0 : errno, attributes->qp_type, attributes->comp_mask);
    return qp;
}

/* ---- destroyed objects with functions of their own ---- */

void verbs_gone_nothing(void)
{
}

void verbs_gone(uint32_t kind, void *object, size_t bytes)
{
    if (kind == USERDMA_OBJECT_QP)
        builders_gone(object, bytes);
    else if (kind == USERDMA_OBJECT_CQ)
        polls_gone(object, bytes);
}

/* ---- contexts ---- */

static void wrap_table(struct ibv_context *context)
{
    polls_wrap(context);
    posts_wrap(context);
    if (UNLIKELY(recorder_is_on))
        operations_wrap(context);
    struct verbs_context *extended = verbs_get_ctx_op(context, create_qp_ex);
    if (extended)
        WRAP(extended->create_qp_ex, create_qp_ex);
}

static struct ibv_context *wrap(struct ibv_context *context, bool is_new)
{
    if (context && provider_wraps(context, is_new))
        wrap_table(context);
    return context;
}

void verbs_keep_wrapped(uint32_t kind, void *object, const void *context)
{
    struct ibv_context *own = (struct ibv_context *)(uintptr_t)context;
    if (kind == USERDMA_OBJECT_QP)
        verbs_keep_qp_wrapped(object);
    /* Contexts of other devices have none of our wrappers. */
    if (own && (polls_are_wrapped(own) || posts_are_wrapped(own)))
        wrap_table(own);
}

/*
 * Also of a libibverbs that was loaded with RTLD_LOCAL. Some functions have an older version, for binaries of
 * libibverbs 1.0; before glibc 2.36, dlsym with RTLD_NEXT finds this one.
 */
void *verbs_original(const char *name)
{
    void *found = dlvsym(RTLD_NEXT, name, "IBVERBS_1.1");
    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (found)
        return found;
    void *library = NEXT(dlopen)("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return NULL;
    found = dlsym(library, name);
    NEXT(dlclose)(library);
    return found;
}

void *verbs_missing(void)
{
    errno = ENOSYS;
    return NULL;
}

struct ibv_context *around_ibv_open_device(struct ibv_context *(*original)(struct ibv_device *),
                                           struct ibv_device *device)
{
    return wrap(original(device), true);
}

struct ibv_context *around_ibv_import_device(struct ibv_context *(*original)(int), int fd)
{
    return wrap(original(fd), true);
}

struct ibv_qp *around_ibv_create_qp(struct ibv_qp *(*original)(struct ibv_pd *, struct ibv_qp_init_attr *),
                                    struct ibv_pd *pd, struct ibv_qp_init_attr *attributes)
{
    struct ibv_qp *qp = original(pd, attributes);
    if (qp)
        created_qp(qp, attributes->cap.max_send_wr, pd);
    return qp;
}

/*
 * Fills a context's table for a provider, which may call it again. Wrapped for programs that find ibv_open_device by
 * dlsym in libibverbs.
 */
struct verbs_context_ops;
EXPORT void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations);
void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations)
{
    void (*original)(struct verbs_context *, const struct verbs_context_ops *) = verbs_original("verbs_set_ops");
    if (!original)
        return;
    original(context, operations);
    wrap(&context->context, false);
}
