/*
 * The functions of libibverbs and librdmacm that refuse calls themselves, wrapped: REFUSABLE of refusals.h, with the
 * facts of src/spec/check/refusals.ts.
 */
#define _GNU_SOURCE
#include "refusals.h"
#include "verbs.h"

#include <sys/socket.h>

#include "acknowledgements.h"

/*
 * Public structures of rdma_cma.h, as far as they are used. The header is not included: librdmacm-dev need not be
 * installed.
 */
struct rdma_event_channel;
struct rdma_cm_event;
struct rdma_addrinfo;
struct rdma_cm_id {
    struct ibv_context *verbs;
    struct rdma_event_channel *channel;
    void *context;
    struct ibv_qp *qp;
    uint64_t route[39];
    uint32_t port_space;
    uint8_t port;
    struct rdma_cm_event *event;
    struct ibv_comp_channel *send_cq_channel;
    struct ibv_cq *send_cq;
    struct ibv_comp_channel *recv_cq_channel;
    struct ibv_cq *recv_cq;
};
_Static_assert(offsetof(struct rdma_cm_id, recv_cq) == 384, "layout of the ABI");
struct rdma_conn_param {
    const void *private_data;
    uint8_t private_data_len;
    uint8_t responder_resources;
    uint8_t initiator_depth;
};
struct rdma_cm_join_mc_attr_ex {
    uint32_t comp_mask;
    uint32_t join_flags;
    struct sockaddr *addr;
};
enum { JOIN_ADDRESS = 1, JOIN_FLAGS = 2 };

#undef ibv_query_gid_ex
#undef ibv_reg_dmabuf_mr

/* The address is NULL. */
#define NULL_ADDRESS 0x10000u
/* sa_family of an address. */
#define FAMILY(address) ((address) ? ((const struct sockaddr *)(address))->sa_family : NULL_ADDRESS)

/* The header of IP in a GRH: its version, and whether it is to a multicast group. RoCE v2 with IPv4 has it at byte 20. */
static unsigned grh_version(const struct ibv_grh *grh)
{
    const uint8_t *bytes = (const uint8_t *)grh;
    return bytes[0] >> 4 == 6 || bytes[20] >> 4 != 4 ? bytes[0] >> 4 : 4;
}

static bool grh_is_multicast(const struct ibv_grh *grh)
{
    const uint8_t *bytes = (const uint8_t *)grh;
    return grh_version(grh) == 4 ? bytes[36] >> 4 == 14 : grh->dgid.raw[0] == 0xff;
}

/* librdmacm's own function; NULL: the program has no librdmacm. */
static void *cm_original(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found)
        return found;
    void *library = NEXT(dlopen)("librdmacm.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return NULL;
    found = dlsym(library, name);
    NEXT(dlclose)(library);
    return found;
}

/* Without the library: fails with ENOSYS. */
#define MISSING_POINTER (errno = ENOSYS, NULL)
#define MISSING_ERRNO ENOSYS
#define MISSING_MINUS (errno = ENOSYS, -1)

#define FUNCTION(result, name, parameters, arguments, find, error_of, missing, fd, object, ...)                        \
    EXPORT result name parameters;                                                                                     \
    result name parameters                                                                                             \
    {                                                                                                                  \
        result(*original) parameters = find(#name);                                                                    \
        if (!original)                                                                                                 \
            return missing;                                                                                            \
        return REFUSABLE(#name, error_of, fd, object, original arguments, __VA_ARGS__);                                \
    }
#define VERBS_POINTER(result, name, parameters, arguments, ...)                                                        \
    FUNCTION(result, name, parameters, arguments, verbs_original, ERROR_OF_POINTER, MISSING_POINTER, __VA_ARGS__)
#define VERBS_INT(name, parameters, arguments, ...)                                                                    \
    FUNCTION(int, name, parameters, arguments, verbs_original, ERROR_OF_INT, MISSING_ERRNO, __VA_ARGS__)
#define CM_INT(name, parameters, arguments, object, ...)                                                               \
    FUNCTION(int, name, parameters, arguments, cm_original, ERROR_OF_INT, MISSING_MINUS, -1, (uintptr_t)(object),      \
             __VA_ARGS__)

/* ---- libibverbs ---- */

VERBS_POINTER(struct ibv_mr *, ibv_reg_dmabuf_mr,
              (struct ibv_pd * pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access),
              (pd, offset, length, iova, fd, access), pd->context->cmd_fd, pd->handle, 0)
VERBS_POINTER(struct ibv_mr *, ibv_import_mr, (struct ibv_pd * pd, uint32_t handle), (pd, handle), pd->context->cmd_fd,
              pd->handle, 0)
VERBS_POINTER(struct ibv_pd *, ibv_import_pd, (struct ibv_context * context, uint32_t handle), (context, handle),
              context->cmd_fd, 0, 0)
VERBS_POINTER(struct ibv_dm *, ibv_import_dm, (struct ibv_context * context, uint32_t handle), (context, handle),
              context->cmd_fd, 0, 0)
VERBS_INT(ibv_destroy_comp_channel, (struct ibv_comp_channel * channel), (channel), channel->context->cmd_fd,
          channel->fd, 0)
VERBS_INT(ibv_query_qp, (struct ibv_qp * qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init),
          (qp, attr, mask, init), qp->context->cmd_fd, qp->qp_num, (uint32_t)mask)
VERBS_INT(ibv_set_ece, (struct ibv_qp * qp, struct ibv_ece *ece), (qp, ece), qp->context->cmd_fd, qp->qp_num, 0)
VERBS_INT(ibv_query_ece, (struct ibv_qp * qp, struct ibv_ece *ece), (qp, ece), qp->context->cmd_fd, qp->qp_num, 0)
VERBS_INT(ibv_init_ah_from_wc,
          (struct ibv_context * context, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
           struct ibv_ah_attr *attributes),
          (context, port, wc, grh, attributes), context->cmd_fd, 0, grh_version(grh), grh_is_multicast(grh))
VERBS_POINTER(struct ibv_ah *, ibv_create_ah_from_wc,
              (struct ibv_pd * pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port), (pd, wc, grh, port),
              pd->context->cmd_fd, pd->handle, grh_version(grh), grh_is_multicast(grh))

/* ---- librdmacm ---- */

FUNCTION(struct rdma_event_channel *, rdma_create_event_channel, (void), (), cm_original, ERROR_OF_POINTER,
         MISSING_POINTER, -1, 0, 0)
CM_INT(rdma_bind_addr, (struct rdma_cm_id * id, struct sockaddr *address), (id, address), id, FAMILY(address))
CM_INT(rdma_resolve_addr,
       (struct rdma_cm_id * id, struct sockaddr *source, struct sockaddr *destination, int timeout),
       (id, source, destination, timeout), id, FAMILY(destination), FAMILY(source))
CM_INT(rdma_create_qp, (struct rdma_cm_id * id, struct ibv_pd *pd, struct ibv_qp_init_attr *attributes),
       (id, pd, attributes), id, id->qp != NULL, id->verbs != NULL, pd && id->verbs && id->verbs != pd->context,
       (id->send_cq && attributes->send_cq && id->send_cq != attributes->send_cq) ||
           (id->recv_cq && attributes->recv_cq && id->recv_cq != attributes->recv_cq))
CM_INT(rdma_create_qp_ex, (struct rdma_cm_id * id, struct ibv_qp_init_attr_ex *attributes), (id, attributes), id,
       id->qp != NULL, id->verbs != NULL,
       attributes->comp_mask & IBV_QP_INIT_ATTR_PD && attributes->pd && id->verbs &&
           id->verbs != attributes->pd->context,
       (id->send_cq && attributes->send_cq && id->send_cq != attributes->send_cq) ||
           (id->recv_cq && attributes->recv_cq && id->recv_cq != attributes->recv_cq))
CM_INT(rdma_create_srq_ex, (struct rdma_cm_id * id, struct ibv_srq_init_attr_ex *attributes), (id, attributes), id,
       attributes->comp_mask, attributes->comp_mask & IBV_SRQ_INIT_ATTR_TYPE ? attributes->srq_type : 0,
       attributes->comp_mask & IBV_SRQ_INIT_ATTR_TM ? attributes->tm_cap.max_num_tags : 0)
CM_INT(rdma_connect, (struct rdma_cm_id * id, struct rdma_conn_param *parameters), (id, parameters), id,
       id->qp != NULL, parameters != NULL, parameters ? parameters->responder_resources : 0,
       parameters ? parameters->initiator_depth : 0)
CM_INT(rdma_accept, (struct rdma_cm_id * id, struct rdma_conn_param *parameters), (id, parameters), id,
       id->qp != NULL, parameters != NULL, parameters ? parameters->responder_resources : 0,
       parameters ? parameters->initiator_depth : 0)
CM_INT(rdma_get_request, (struct rdma_cm_id * listener, struct rdma_cm_id **id), (listener, id), listener,
       listener->event != NULL)
CM_INT(rdma_establish, (struct rdma_cm_id * id), (id), id, id->qp != NULL)
CM_INT(rdma_disconnect, (struct rdma_cm_id * id), (id), id, id->verbs != NULL)
CM_INT(rdma_join_multicast, (struct rdma_cm_id * id, struct sockaddr *address, void *context), (id, address, context),
       id, FAMILY(address))
CM_INT(rdma_join_multicast_ex,
       (struct rdma_cm_id * id, struct rdma_cm_join_mc_attr_ex *attributes, void *context), (id, attributes, context),
       id,
       attributes->comp_mask & JOIN_ADDRESS ? FAMILY(attributes->addr) : NULL_ADDRESS,
       attributes->comp_mask, attributes->comp_mask & JOIN_FLAGS ? attributes->join_flags : 0)
CM_INT(rdma_leave_multicast, (struct rdma_cm_id * id, struct sockaddr *address), (id, address), id, FAMILY(address))
CM_INT(rdma_get_cm_event, (struct rdma_event_channel * channel, struct rdma_cm_event **event), (channel, event), NULL,
       event != NULL)
CM_INT(rdma_ack_cm_event, (struct rdma_cm_event * event), (event), NULL, event != NULL)
CM_INT(rdma_migrate_id, (struct rdma_cm_id * id, struct rdma_event_channel *channel), (id, channel), id,
       channel != NULL)
CM_INT(rdma_set_local_ece, (struct rdma_cm_id * id, struct ibv_ece *ece), (id, ece), id, id && id->qp,
       ece ? ece->vendor_id : 0, ece ? ece->comp_mask : 0)
CM_INT(rdma_get_remote_ece, (struct rdma_cm_id * id, struct ibv_ece *ece), (id, ece), id, id && id->qp)
CM_INT(rdma_getaddrinfo,
       (const char *node, const char *service, const struct rdma_addrinfo *hints, struct rdma_addrinfo **found),
       (node, service, hints, found), NULL, node != NULL, service != NULL, hints != NULL)
CM_INT(rdma_create_ep,
       (struct rdma_cm_id * *id, struct rdma_addrinfo *information, struct ibv_pd *pd,
        struct ibv_qp_init_attr *attributes),
       (id, information, pd, attributes), NULL, 0)

/* ---- events ---- */

EXPORT int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user)
{
    int (*original)(struct ibv_comp_channel *, struct ibv_cq **, void **) = verbs_original("ibv_get_cq_event");
    const int result = original ? original(channel, cq, user) : MISSING_MINUS;
    if (UNLIKELY(recorder_is_on) && result == 0)
        acknowledgements_cq_event(*cq);
    return result;
}

EXPORT void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int count)
{
    void (*original)(struct ibv_cq *, unsigned int) = verbs_original("ibv_ack_cq_events");
    if (UNLIKELY(recorder_is_on))
        acknowledgements_cq(cq, count);
    if (original)
        original(cq, count);
}

EXPORT int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
    int (*original)(struct ibv_context *, struct ibv_async_event *) = verbs_original("ibv_get_async_event");
    const int result = original ? original(context, event) : MISSING_MINUS;
    if (UNLIKELY(recorder_is_on) && result == 0)
        acknowledgements_async_event(event);
    return result;
}

EXPORT void ibv_ack_async_event(struct ibv_async_event *event)
{
    void (*original)(struct ibv_async_event *) = verbs_original("ibv_ack_async_event");
    if (UNLIKELY(recorder_is_on))
        acknowledgements_async(event);
    if (original)
        original(event);
}
