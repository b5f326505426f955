/*
 * Calls that libibverbs, a provider or librdmacm refuse themselves, without a call of the device (REFUSAL of
 * src/spec/session.ts). The outermost call of a thread that fails so is reported, with the function, the object and the
 * facts of the innermost call that failed with the same error: rdma_create_ep, for example, calls rdma_create_qp.
 *
 * Below: facts about the arguments of the functions (src/tools/check/library-refusals.ts), in their order, at most 4.
 */
#ifndef USERDMA_REFUSALS_H
#define USERDMA_REFUSALS_H

#include "../protocol.h"
#include "recorder.h"

#include <infiniband/verbs.h>

struct object_call;

/* Calls of this thread that the device has refused. Each library counts them. */
extern TLS uint32_t refusals_of_device;

/* Whether this thread is in a call of the libraries. */
bool calls_are_running(void);

/* Of objects.c: a call begins, and has ended. `error`, `facts`: as of object_leave. Preserves errno. */
void refusals_enter(struct object_call *call);
void refusals_leave(const struct object_call *call, int error, const uint64_t *facts);

/* ---- structures of rdma_cma.h, as far as facts need them; the header need not be installed ---- */

struct rdma_cm_event;
struct rdma_event_channel;
struct sockaddr;
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

/* ---- facts ---- */

/* For an address that is NULL. */
#define NULL_ADDRESS 0x10000u
/* sa_family. */
#define FAMILY(address) ((address) ? *(const uint16_t *)(const void *)(address) : NULL_ADDRESS)
/* A member of a structure of attributes, if `bit` is in its comp_mask; else 0. */
#define PRESENT(attributes, bit, member) ((attributes)->comp_mask & (bit) ? (attributes)->member : 0)

/*
 * The version of IP in a GRH, and whether it is to a multicast group. RoCE v2 has a header of IPv4 at byte 20. 0: the
 * completion has no GRH.
 */
unsigned grh_version(const struct ibv_wc *wc, const struct ibv_grh *grh);
bool grh_is_multicast(const struct ibv_wc *wc, const struct ibv_grh *grh);

#define FACTS_OF_CM_QP(id, attributes, context)                                                                        \
    (id)->qp != NULL, (id)->verbs != NULL, (context) && (id)->verbs && (context) != (id)->verbs,                       \
        ((id)->send_cq && (attributes)->send_cq && (id)->send_cq != (attributes)->send_cq) ||                          \
            ((id)->recv_cq && (attributes)->recv_cq && (id)->recv_cq != (attributes)->recv_cq)
#define FACTS_OF_SRQ(attributes)                                                                                       \
    (attributes)->comp_mask, PRESENT(attributes, IBV_SRQ_INIT_ATTR_TYPE, srq_type),                                    \
        PRESENT(attributes, IBV_SRQ_INIT_ATTR_TM, tm_cap.max_num_tags)
#define FACTS_OF_CONNECTION(id, parameters)                                                                            \
    (id)->qp != NULL, (parameters) != NULL, (parameters) ? (parameters)->responder_resources : 0,                      \
        (parameters) ? (parameters)->initiator_depth : 0

/* ---- of each library ---- */

/* Tells the reader of a refusal, with the caller's stack. `fd`: of the context; -1: none. */
void note_refusal(int fd, const struct userdma_refused_by_library *refusal);

#endif
