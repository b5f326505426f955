/*
 * The functions of libibverbs and librdmacm that take objects, wrapped. Without recorder_is_on a wrapper only calls the
 * library's function. Left out are functions without an object, such as ibv_fork_init.
 *
 * rdma/rdma_cma.h is not included: librdmacm-dev need not be installed. The libraries are not linked: the program has
 * them, or loads them later.
 */
#define _GNU_SOURCE
#include "acknowledgements.h"
#include "objects.h"
#include "refusals.h"
#include "verbs.h"

#include <errno.h>

struct rdma_addrinfo;

/* Macros and inline functions of verbs.h. */
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

/* ---- the libraries' own functions ---- */

/* A function that was found, while as many libraries had been unloaded as now. */
struct found {
    void *function;
    uint32_t unloads;
};

static void *find_in_cm(const char *name)
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

static void *find(struct found *known, const char *name, void *(*find_original)(const char *))
{
    const uint32_t unloads = stacks_unloads();
    if (LIKELY(__atomic_load_n(&known->unloads, __ATOMIC_ACQUIRE) == unloads + 1))
        return __atomic_load_n(&known->function, __ATOMIC_RELAXED);
    void *function = find_original(name);
    if (function) {
        __atomic_store_n(&known->function, function, __ATOMIC_RELAXED);
        __atomic_store_n(&known->unloads, unloads + 1, __ATOMIC_RELEASE);
    }
    return function;
}

/* ---- wrappers ---- */

/*
 * How a function tells an error. ERRNO: it returns a positive errno. MINUS: -1, with errno. NEGATIVE: a negative errno.
 * POINTER: NULL, with errno. NOTHING: it does not; NUMBER: neither, it returns 0.
 */
#define RESULT_ERRNO(call) const int result = (call)
#define RESULT_MINUS(call) const int result = (call)
#define RESULT_NEGATIVE(call) const ssize_t result = (call)
#define RESULT_NUMBER(call) const __typeof__(call) result = (call)
#define RESULT_POINTER(call) __typeof__(call) const result = (call)
#define RESULT_NOTHING(call) (call)
/* Some functions return a negative number of their own, with errno. */
#define ERROR_ERRNO (result < 0 ? errno : result)
#define ERROR_MINUS (result < 0 ? errno : 0)
#define ERROR_NEGATIVE (result < 0 ? -(int)result : 0)
#define ERROR_NUMBER 0
#define ERROR_POINTER (result ? 0 : errno)
#define ERROR_NOTHING 0
#define RETURN_ERRNO return result
#define RETURN_MINUS return result
#define RETURN_NEGATIVE return result
#define RETURN_NUMBER return result
#define RETURN_POINTER return result
#define RETURN_NOTHING return
/* An object that the function has created is known from then on. */
#define KNOW_ERRNO
#define KNOW_MINUS
#define KNOW_NEGATIVE
#define KNOW_NUMBER
#define KNOW_NOTHING
#define KNOW_POINTER known_add(KIND_OF(result), result);
#define FAIL_ERRNO(number) return number
#define FAIL_MINUS(number)                                                                                             \
    do {                                                                                                               \
        errno = number;                                                                                                \
        return -1;                                                                                                     \
    } while (0)
#define FAIL_NEGATIVE(number) return -(number)
#define FAIL_NUMBER(number) return 0
#define FAIL_POINTER(number)                                                                                           \
    do {                                                                                                               \
        errno = number;                                                                                                \
        return NULL;                                                                                                   \
    } while (0)
#define FAIL_NOTHING(number) return

/* DIRECT: the library's function is called. AROUND: around_NAME (verbs.h), which calls it. */
#define CALL_DIRECT(name, arguments) original arguments
#define CALL_AROUND(name, arguments) around_##name(original, EXPAND arguments)

/* The objects that a function takes, the first one first. */
#define U(kind, object) {USERDMA_OBJECT_##kind, object},
#define NONE() {0, NULL},
/* An argument that must not be NULL, by its position from 1. */
#define A(position, pointer) {OBJECT_ARGUMENT | (position), pointer},
#define OF(pointer, member) (pointer_may_be_memory(pointer) ? (pointer)->member : NULL)

/* After the arguments: facts about them (refusals.h). */
#define WRAPPER(finder, convention, how, effect, type, name, uses, parameters, arguments, ...)                         \
    type name parameters;                                                                                              \
    EXPORT type name parameters                                                                                        \
    {                                                                                                                  \
        static struct found known;                                                                                     \
        type(*original) parameters = (__typeof__(original))find(&known, #name, finder);                                \
        if (UNLIKELY(!original))                                                                                       \
            FAIL_##convention(ENOSYS);                                                                                 \
        if (LIKELY(!recorder_is_on))                                                                                   \
            return CALL_##how(name, arguments);                                                                        \
        const struct object_use taken[] = {EXPAND uses};                                                               \
        struct object_call call;                                                                                       \
        if (!object_enter(&call, #name, OBJECT_##effect, taken, sizeof taken / sizeof taken[0]))                       \
            FAIL_##convention(EINVAL);                                                                                 \
        RESULT_##convention(CALL_##how(name, arguments));                                                              \
        KNOW_##convention                                                                                              \
        OBJECT_LEAVE(&call, ERROR_##convention, __VA_ARGS__);                                                          \
        RETURN_##convention;                                                                                           \
    }

#define VERBS(...) WRAPPER(verbs_original, __VA_ARGS__)
#define CM(...) WRAPPER(find_in_cm, __VA_ARGS__)

/* ---- libibverbs: contexts ---- */

VERBS(NOTHING, DIRECT, DESTROYED, void, ibv_free_device_list, (U(DEVICES, list)), (struct ibv_device **list), (list))
VERBS(POINTER, AROUND, CREATED, struct ibv_context *, ibv_open_device, (NONE() A(1, device)), (struct ibv_device *device), (device))
VERBS(POINTER, AROUND, CREATED, struct ibv_context *, ibv_import_device, (NONE()), (int fd), (fd))
VERBS(ERRNO, DIRECT, DESTROYED, int, ibv_close_device, (U(CONTEXT, context)), (struct ibv_context *context), (context))
VERBS(MINUS, AROUND, USED, int, ibv_get_async_event, (U(CONTEXT, context) A(2, event)),
      (struct ibv_context *context, struct ibv_async_event *event), (context, event))
VERBS(ERRNO, DIRECT, USED, int, ibv_query_device, (U(CONTEXT, context) A(2, attributes)),
      (struct ibv_context *context, struct ibv_device_attr *attributes), (context, attributes))
VERBS(ERRNO, DIRECT, USED, int, ibv_query_port, (U(CONTEXT, context) A(3, attributes)),
      (struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attributes),
      (context, port, attributes))
VERBS(MINUS, DIRECT, USED, int, ibv_query_gid, (U(CONTEXT, context) A(4, gid)),
      (struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid), (context, port, index, gid))
VERBS(ERRNO, DIRECT, USED, int, _ibv_query_gid_ex, (U(CONTEXT, context)),
      (struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry, uint32_t flags,
       size_t size),
      (context, port, index, entry, flags, size),
      port, index, flags)
VERBS(NEGATIVE, DIRECT, USED, ssize_t, _ibv_query_gid_table, (U(CONTEXT, context)),
      (struct ibv_context *context, struct ibv_gid_entry *entries, size_t max, uint32_t flags, size_t size),
      (context, entries, max, flags, size))
VERBS(MINUS, DIRECT, USED, int, ibv_query_pkey, (U(CONTEXT, context) A(4, pkey)),
      (struct ibv_context *context, uint8_t port, int index, __be16 *pkey), (context, port, index, pkey))
VERBS(MINUS, DIRECT, USED, int, ibv_get_pkey_index, (U(CONTEXT, context)),
      (struct ibv_context *context, uint8_t port, __be16 pkey), (context, port, pkey))
VERBS(MINUS, DIRECT, USED, int, ibv_init_ah_from_wc, (U(CONTEXT, context)),
      (struct ibv_context *context, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
       struct ibv_ah_attr *attributes),
      (context, port, wc, grh, attributes),
      grh_version(wc, grh), grh_is_multicast(wc, grh))
VERBS(ERRNO, DIRECT, USED, int, ibv_resolve_eth_l2_from_gid, (U(CONTEXT, context)),
      (struct ibv_context *context, struct ibv_ah_attr *attributes, uint8_t mac[6], uint16_t *vid),
      (context, attributes, mac, vid))

/* ---- libibverbs: protection domains, regions, address handles ---- */

VERBS(POINTER, DIRECT, CREATED, struct ibv_pd *, ibv_alloc_pd, (U(CONTEXT, context)), (struct ibv_context *context),
      (context))
VERBS(ERRNO, DIRECT, DESTROYED, int, ibv_dealloc_pd, (U(PD, pd)), (struct ibv_pd *pd), (pd))
VERBS(POINTER, DIRECT, CREATED, struct ibv_pd *, ibv_import_pd, (U(CONTEXT, context)),
      (struct ibv_context *context, uint32_t handle), (context, handle))
VERBS(NOTHING, DIRECT, DESTROYED, void, ibv_unimport_pd, (U(PD, pd)), (struct ibv_pd *pd), (pd))
VERBS(POINTER, AROUND, CREATED, struct ibv_mr *, ibv_reg_mr, (U(PD, pd)),
      (struct ibv_pd *pd, void *address, size_t length, int access), (pd, address, length, access),
      (uintptr_t)address, length, (uint32_t)access)
VERBS(POINTER, AROUND, CREATED, struct ibv_mr *, ibv_reg_mr_iova, (U(PD, pd)),
      (struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access),
      (pd, address, length, iova, access),
      (uintptr_t)address, length, (uint32_t)access)
VERBS(POINTER, AROUND, CREATED, struct ibv_mr *, ibv_reg_mr_iova2, (U(PD, pd)),
      (struct ibv_pd *pd, void *address, size_t length, uint64_t iova, unsigned int access),
      (pd, address, length, iova, access),
      (uintptr_t)address, length, access)
VERBS(POINTER, DIRECT, CREATED, struct ibv_mr *, ibv_reg_dmabuf_mr, (U(PD, pd)),
      (struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access),
      (pd, offset, length, iova, fd, access))
VERBS(ERRNO, AROUND, USED, int, ibv_rereg_mr, (U(MR, mr) U(PD, flags & IBV_REREG_MR_CHANGE_PD ? pd : NULL)),
      (struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *address, size_t length, int access),
      (mr, flags, pd, address, length, access),
      (uint32_t)flags, (uintptr_t)address, length, (uint32_t)access)
VERBS(ERRNO, AROUND, DESTROYED, int, ibv_dereg_mr, (U(MR, mr)), (struct ibv_mr *mr), (mr))
VERBS(POINTER, DIRECT, CREATED, struct ibv_mr *, ibv_import_mr, (U(PD, pd)), (struct ibv_pd *pd, uint32_t handle),
      (pd, handle))
VERBS(NOTHING, DIRECT, DESTROYED, void, ibv_unimport_mr, (U(MR, mr)), (struct ibv_mr *mr), (mr))
VERBS(POINTER, DIRECT, CREATED, struct ibv_dm *, ibv_import_dm, (U(CONTEXT, context)),
      (struct ibv_context *context, uint32_t handle), (context, handle))
VERBS(NOTHING, DIRECT, DESTROYED, void, ibv_unimport_dm, (U(DM, dm)), (struct ibv_dm *dm), (dm))
VERBS(POINTER, DIRECT, CREATED, struct ibv_ah *, ibv_create_ah, (U(PD, pd) A(2, attributes)),
      (struct ibv_pd *pd, struct ibv_ah_attr *attributes), (pd, attributes))
VERBS(POINTER, DIRECT, CREATED, struct ibv_ah *, ibv_create_ah_from_wc, (U(PD, pd) A(2, wc)),
      (struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port), (pd, wc, grh, port),
      grh_version(wc, grh), grh_is_multicast(wc, grh))
VERBS(ERRNO, DIRECT, DESTROYED, int, ibv_destroy_ah, (U(AH, ah)), (struct ibv_ah *ah), (ah))

/* ---- libibverbs: queues ---- */

VERBS(POINTER, AROUND, CREATED, struct ibv_comp_channel *, ibv_create_comp_channel, (U(CONTEXT, context)),
      (struct ibv_context *context), (context))
VERBS(ERRNO, DIRECT, DESTROYED, int, ibv_destroy_comp_channel, (U(CHANNEL, channel)),
      (struct ibv_comp_channel *channel), (channel))
VERBS(POINTER, DIRECT, CREATED, struct ibv_cq *, ibv_create_cq, (U(CONTEXT, context) U(CHANNEL, channel)),
      (struct ibv_context *context, int entries, void *user, struct ibv_comp_channel *channel, int vector),
      (context, entries, user, channel, vector))
VERBS(ERRNO, AROUND, USED, int, ibv_resize_cq, (U(CQ, cq)), (struct ibv_cq *cq, int entries), (cq, entries))
VERBS(ERRNO, DIRECT, DESTROYED, int, ibv_destroy_cq, (U(CQ, cq)), (struct ibv_cq *cq), (cq))
VERBS(MINUS, AROUND, USED, int, ibv_get_cq_event, (U(CHANNEL, channel) A(2, cq) A(3, user)),
      (struct ibv_comp_channel *channel, struct ibv_cq **cq, void **user), (channel, cq, user))
VERBS(NOTHING, AROUND, USED, void, ibv_ack_cq_events, (U(CQ, cq)), (struct ibv_cq *cq, unsigned int count),
      (cq, count))
VERBS(POINTER, DIRECT, CREATED, struct ibv_srq *, ibv_create_srq, (U(PD, pd) A(2, attributes)),
      (struct ibv_pd *pd, struct ibv_srq_init_attr *attributes), (pd, attributes))
VERBS(ERRNO, DIRECT, USED, int, ibv_modify_srq, (U(SRQ, srq) A(2, attributes)),
      (struct ibv_srq *srq, struct ibv_srq_attr *attributes, int mask), (srq, attributes, mask))
VERBS(ERRNO, DIRECT, USED, int, ibv_query_srq, (U(SRQ, srq) A(2, attributes)), (struct ibv_srq *srq, struct ibv_srq_attr *attributes),
      (srq, attributes))
VERBS(ERRNO, AROUND, DESTROYED, int, ibv_destroy_srq, (U(SRQ, srq)), (struct ibv_srq *srq), (srq))
VERBS(POINTER, AROUND, CREATED, struct ibv_qp *, ibv_create_qp,
      (U(PD, pd) U(CQ, OF(attributes, send_cq)) U(CQ, OF(attributes, recv_cq)) U(SRQ, OF(attributes, srq)) A(2, attributes)),
      (struct ibv_pd *pd, struct ibv_qp_init_attr *attributes), (pd, attributes),
      attributes->qp_type, IBV_QP_INIT_ATTR_PD)
VERBS(ERRNO, AROUND, USED, int, ibv_modify_qp, (U(QP, qp) A(2, attributes)),
      (struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask), (qp, attributes, mask),
      (uint32_t)mask)
VERBS(ERRNO, DIRECT, USED, int, ibv_query_qp, (U(QP, qp) A(2, attributes) A(4, init)),
      (struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask, struct ibv_qp_init_attr *init),
      (qp, attributes, mask, init),
      (uint32_t)mask)
VERBS(NUMBER, DIRECT, USED, int, ibv_query_qp_data_in_order, (U(QP, qp)),
      (struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t flags), (qp, opcode, flags))
VERBS(ERRNO, AROUND, DESTROYED, int, ibv_destroy_qp, (U(QP, qp)), (struct ibv_qp *qp), (qp))
VERBS(POINTER, DIRECT, USED, struct ibv_qp_ex *, ibv_qp_to_qp_ex, (U(QP, qp)), (struct ibv_qp *qp), (qp))
VERBS(ERRNO, DIRECT, USED, int, ibv_attach_mcast, (U(QP, qp) A(2, gid)),
      (struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid), (qp, gid, lid))
VERBS(ERRNO, DIRECT, USED, int, ibv_detach_mcast, (U(QP, qp) A(2, gid)),
      (struct ibv_qp *qp, const union ibv_gid *gid, uint16_t lid), (qp, gid, lid))
VERBS(ERRNO, DIRECT, USED, int, ibv_set_ece, (U(QP, qp) A(2, ece)), (struct ibv_qp *qp, struct ibv_ece *ece), (qp, ece))
VERBS(ERRNO, DIRECT, USED, int, ibv_query_ece, (U(QP, qp) A(2, ece)), (struct ibv_qp *qp, struct ibv_ece *ece), (qp, ece))

VERBS(NOTHING, AROUND, USED, void, ibv_ack_async_event, (NONE()), (struct ibv_async_event *event), (event))

/* ---- librdmacm ---- */

CM(POINTER, DIRECT, CREATED, struct rdma_event_channel *, rdma_create_event_channel, (NONE()), (void), ())
CM(NOTHING, DIRECT, DESTROYED, void, rdma_destroy_event_channel, (U(CM_CHANNEL, channel)),
   (struct rdma_event_channel *channel), (channel))
CM(MINUS, AROUND, USED, int, rdma_get_cm_event, (U(CM_CHANNEL, channel)),
   (struct rdma_event_channel *channel, struct rdma_cm_event **event), (channel, event),
      event != NULL)
CM(MINUS, DIRECT, DESTROYED, int, rdma_ack_cm_event, (U(CM_EVENT, event)), (struct rdma_cm_event *event), (event),
      event != NULL)
CM(MINUS, DIRECT, CREATED, int, rdma_create_id, (U(CM_CHANNEL, channel) A(2, id)),
   (struct rdma_event_channel *channel, struct rdma_cm_id **id, void *user, unsigned space),
   (channel, id, user, space))
CM(MINUS, DIRECT, CREATED, int, rdma_create_ep, (U(PD, pd) A(1, id) A(2, address)),
   (struct rdma_cm_id **id, struct rdma_addrinfo *address, struct ibv_pd *pd, struct ibv_qp_init_attr *attributes),
   (id, address, pd, attributes))
CM(NOTHING, DIRECT, DESTROYED, void, rdma_destroy_ep, (U(CM_ID, id)), (struct rdma_cm_id *id), (id))
CM(MINUS, DIRECT, DESTROYED, int, rdma_destroy_id, (U(CM_ID, id)), (struct rdma_cm_id *id), (id))
CM(MINUS, DIRECT, USED, int, rdma_bind_addr, (U(CM_ID, id)), (struct rdma_cm_id *id, struct sockaddr *address),
   (id, address),
      FAMILY(address))
CM(MINUS, DIRECT, USED, int, rdma_resolve_addr, (U(CM_ID, id)),
   (struct rdma_cm_id *id, struct sockaddr *source, struct sockaddr *destination, int timeout),
   (id, source, destination, timeout),
      FAMILY(destination), FAMILY(source))
CM(MINUS, DIRECT, USED, int, rdma_resolve_route, (U(CM_ID, id)), (struct rdma_cm_id *id, int timeout), (id, timeout))
CM(MINUS, DIRECT, CREATED, int, rdma_create_qp,
   (U(CM_ID, id) U(PD, pd) U(CQ, OF(attributes, send_cq)) U(CQ, OF(attributes, recv_cq)) U(SRQ, OF(attributes, srq)) A(3, attributes)),
   (struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attributes), (id, pd, attributes),
      FACTS_OF_CM_QP(id, attributes, OF(pd, context)))
CM(MINUS, DIRECT, CREATED, int, rdma_create_qp_ex, (U(CM_ID, id) A(2, attributes)),
   (struct rdma_cm_id *id, struct ibv_qp_init_attr_ex *attributes), (id, attributes),
      FACTS_OF_CM_QP(id, attributes, OF(PRESENT(attributes, IBV_QP_INIT_ATTR_PD, pd), context)))
CM(NOTHING, DIRECT, USED, void, rdma_destroy_qp, (U(CM_ID, id)), (struct rdma_cm_id *id), (id))
CM(MINUS, DIRECT, CREATED, int, rdma_create_srq, (U(CM_ID, id) U(PD, pd) A(3, attributes)),
   (struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_srq_init_attr *attributes), (id, pd, attributes))
CM(MINUS, DIRECT, CREATED, int, rdma_create_srq_ex, (U(CM_ID, id) A(2, attributes)),
   (struct rdma_cm_id *id, struct ibv_srq_init_attr_ex *attributes), (id, attributes),
      FACTS_OF_SRQ(attributes))
CM(NOTHING, DIRECT, USED, void, rdma_destroy_srq, (U(CM_ID, id)), (struct rdma_cm_id *id), (id))
CM(MINUS, DIRECT, USED, int, rdma_connect, (U(CM_ID, id)), (struct rdma_cm_id *id, struct rdma_conn_param *parameters),
   (id, parameters),
      FACTS_OF_CONNECTION(id, parameters))
CM(MINUS, DIRECT, USED, int, rdma_establish, (U(CM_ID, id)), (struct rdma_cm_id *id), (id),
      id->qp != NULL)
CM(MINUS, DIRECT, USED, int, rdma_listen, (U(CM_ID, id)), (struct rdma_cm_id *id, int backlog), (id, backlog))
CM(MINUS, DIRECT, CREATED, int, rdma_get_request, (U(CM_ID, listener) A(2, id)),
   (struct rdma_cm_id *listener, struct rdma_cm_id **id), (listener, id),
      listener->event != NULL)
CM(MINUS, DIRECT, USED, int, rdma_accept, (U(CM_ID, id)), (struct rdma_cm_id *id, struct rdma_conn_param *parameters),
   (id, parameters),
      FACTS_OF_CONNECTION(id, parameters))
CM(MINUS, DIRECT, USED, int, rdma_reject, (U(CM_ID, id)), (struct rdma_cm_id *id, const void *data, uint8_t length),
   (id, data, length))
CM(MINUS, DIRECT, USED, int, rdma_reject_ece, (U(CM_ID, id)),
   (struct rdma_cm_id *id, const void *data, uint8_t length), (id, data, length))
CM(MINUS, DIRECT, USED, int, rdma_notify, (U(CM_ID, id)), (struct rdma_cm_id *id, unsigned event), (id, event))
CM(MINUS, DIRECT, USED, int, rdma_disconnect, (U(CM_ID, id)), (struct rdma_cm_id *id), (id),
      id->verbs != NULL)
CM(MINUS, DIRECT, USED, int, rdma_join_multicast, (U(CM_ID, id)),
   (struct rdma_cm_id *id, struct sockaddr *address, void *user), (id, address, user),
      FAMILY(address))
CM(MINUS, DIRECT, USED, int, rdma_join_multicast_ex, (U(CM_ID, id) A(2, attributes)),
   (struct rdma_cm_id *id, struct rdma_cm_join_mc_attr_ex *attributes, void *user), (id, attributes, user),
      FAMILY(PRESENT(attributes, 1, addr)), attributes->comp_mask, PRESENT(attributes, 2, join_flags))
CM(MINUS, DIRECT, USED, int, rdma_leave_multicast, (U(CM_ID, id)),
   (struct rdma_cm_id *id, struct sockaddr *address), (id, address),
      FAMILY(address))
CM(NUMBER, DIRECT, USED, uint16_t, rdma_get_src_port, (U(CM_ID, id)), (struct rdma_cm_id *id), (id))
CM(NUMBER, DIRECT, USED, uint16_t, rdma_get_dst_port, (U(CM_ID, id)), (struct rdma_cm_id *id), (id))
CM(MINUS, DIRECT, USED, int, rdma_set_option, (U(CM_ID, id) A(4, value)),
   (struct rdma_cm_id *id, int level, int option, void *value, size_t length), (id, level, option, value, length))
CM(MINUS, DIRECT, USED, int, rdma_migrate_id, (U(CM_ID, id) U(CM_CHANNEL, channel)),
   (struct rdma_cm_id *id, struct rdma_event_channel *channel), (id, channel),
      channel != NULL)
CM(MINUS, DIRECT, USED, int, rdma_init_qp_attr, (U(CM_ID, id) A(2, attributes) A(3, mask)),
   (struct rdma_cm_id *id, struct ibv_qp_attr *attributes, int *mask), (id, attributes, mask))
CM(MINUS, DIRECT, USED, int, rdma_set_local_ece, (U(CM_ID, id)), (struct rdma_cm_id *id, struct ibv_ece *ece),
   (id, ece),
      id && id->qp, ece ? ece->vendor_id : 0, ece ? ece->comp_mask : 0)
CM(MINUS, DIRECT, USED, int, rdma_get_remote_ece, (U(CM_ID, id)), (struct rdma_cm_id *id, struct ibv_ece *ece),
   (id, ece),
      id && id->qp)
CM(MINUS, DIRECT, CREATED, int, rdma_getaddrinfo, (NONE() A(4, found)),
   (const char *node, const char *service, const struct rdma_addrinfo *hints, struct rdma_addrinfo **found),
   (node, service, hints, found),
      node != NULL, service != NULL, hints != NULL)

/* Not of rdma-core 44. */
CM(MINUS, DIRECT, USED, int, rdma_write_cm_event, (U(CM_ID, id)),
   (struct rdma_cm_id *id, unsigned event, int status, uint64_t argument), (id, event, status, argument),
   event)
CM(MINUS, DIRECT, USED, int, rdma_resolve_addrinfo, (U(CM_ID, id)),
   (struct rdma_cm_id *id, const char *node, const char *service, const struct rdma_addrinfo *hints),
   (id, node, service, hints))
CM(MINUS, DIRECT, USED, int, rdma_query_addrinfo, (U(CM_ID, id)),
   (struct rdma_cm_id *id, struct rdma_addrinfo **found), (id, found))
