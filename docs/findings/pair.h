/*
 * Two RC queue pairs of one device in one process, for the programs in this folder. FAULT marks the
 * lines that `userdma check` names; compiled with -DFIXED a program has no fault, with -DSRD its
 * queue pairs are those of SRD, which EFA has (srd.h; -lefa).
 */
#ifndef PAIR_H
#define PAIR_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 4096

/* The first argument, or the second if the program is compiled with -DFIXED. */
#ifdef FIXED
#define FAULT_OR(faulty, right) (right)
#else
#define FAULT_OR(faulty, right) (faulty)
#endif

/* Returns `object`; if it is NULL, prints errno with the name of the call and exits. */
static inline void *need(void *object, const char *call)
{
    if (!object) {
        perror(call);
        exit(1);
    }
    return object;
}

/* If `error` is not 0, prints it with the name of the call and exits. 1 (a true condition) and -1 stand for errno. */
static inline void check(int error, const char *call)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", call, strerror(error < 2 ? errno : error));
        exit(1);
    }
}

struct end {
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    /* A second region, which `destroy_end` deregisters; or NULL. */
    struct ibv_mr *extra;
    char *buffer;
    /* Attributes of the transitions to RTR and RTS; a program changes them before `connect_ends`. */
    struct ibv_qp_attr attr;
    /* qp_access_flags; 0: all rights. */
    int access;
    uint16_t pkey_index;
    /* Of SRD: the address of the peer. */
    struct ibv_ah *ah;
};

static struct ibv_context *context;
static union ibv_gid gid;
static int gid_index = 1;
/* The LID of the port; 0: it is none of InfiniBand. */
static uint16_t lid;

#ifdef SRD
#include "srd.h"
#define ALL_RIGHTS SRD_RIGHTS
#else
#define ALL_RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)
#endif

static inline void open_device(void)
{
    int count;
    struct ibv_device **list = need(ibv_get_device_list(&count), "ibv_get_device_list");
    context = need(count > 0 ? ibv_open_device(list[0]) : NULL, "ibv_open_device");
    ibv_free_device_list(list);
    // Adapters with RoCE v1 and v2 have the first IPv4 address on v2 at 3; devices without addresses have one GID.
    for (gid_index = 3; gid_index > 0; gid_index = gid_index == 3 ? 1 : 0)
        if (ibv_query_gid(context, 1, gid_index, &gid) == 0 && gid.global.interface_id != 0)
            break;
    check(ibv_query_gid(context, 1, gid_index, &gid), "ibv_query_gid");
    struct ibv_port_attr port;
    check(ibv_query_port(context, 1, &port), "ibv_query_port");
    lid = port.lid;
}

static inline void to_init(struct end *end)
{
#ifdef SRD
    if (end->qp->qp_type == IBV_QPT_DRIVER)
        return srd_to_init(end->qp);
#endif
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = end->access};
    attr.pkey_index = end->pkey_index;
    check(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
          "ibv_modify_qp to INIT");
}

static inline void create_queue_pair(struct end *end, struct ibv_qp_init_attr init)
{
#ifdef SRD
    if (init.qp_type == IBV_QPT_RC) {
        end->qp = need(srd_create(context, end->pd, &init), "efadv_create_qp_ex");
        return;
    }
#endif
    end->qp = need(ibv_create_qp(end->pd, &init), "ibv_create_qp");
}

/* Creates a queue pair in RESET with its own protection domain, CQ of `entries` entries and registered buffer. */
static inline void make_resources(struct end *end, struct ibv_qp_init_attr init, int entries)
{
    end->access = end->access ? end->access : ALL_RIGHTS;
    end->pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    end->cq = need(ibv_create_cq(context, entries, NULL, NULL, 0), "ibv_create_cq");
    end->buffer = need(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    end->mr = need(ibv_reg_mr(end->pd, end->buffer, SIZE, ALL_RIGHTS), "ibv_reg_mr");
    init.send_cq = init.recv_cq = end->cq;
    create_queue_pair(end, init);
}

/* As `make_resources`; also moves the queue pair to INIT and fills in the attributes for `connect_ends`. */
static inline void make_end_with(struct end *end, struct ibv_qp_init_attr init, int entries)
{
    make_resources(end, init, entries);
    to_init(end);
    end->attr = (struct ibv_qp_attr){
        .path_mtu = IBV_MTU_1024,
        .rq_psn = 100,
        .sq_psn = 100,
        .max_dest_rd_atomic = 1,
        .max_rd_atomic = 1,
        .min_rnr_timer = 1,
        .timeout = 14,
        .retry_cnt = 2,
        .rnr_retry = 2,
        .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1}},
    };
    end->attr.ah_attr.dlid = lid;
    end->attr.ah_attr.grh.sgid_index = (uint8_t)gid_index;
    end->attr.ah_attr.grh.dgid = gid;
}

static inline struct ibv_qp_init_attr small_qp(void)
{
    return (struct ibv_qp_init_attr){
        .qp_type = IBV_QPT_RC,
        .sq_sig_all = 1,
        .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1},
    };
}

static inline void make_end(struct end *end)
{
    make_end_with(end, small_qp(), 16);
}

/* Replaces the end's CQ, and its queue pair by one that uses this CQ. */
static inline void replace_cq(struct end *end, struct ibv_cq *cq)
{
    check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(end->cq), "ibv_destroy_cq");
    struct ibv_qp_init_attr init = small_qp();
    end->cq = init.send_cq = init.recv_cq = cq;
    create_queue_pair(end, init);
    to_init(end);
}

/* Replaces the end's queue pair by one that supports ibv_wr_* for these ibv_qp_create_send_ops_flags. */
static inline void recreate_extended(struct end *end, uint64_t operations)
{
    check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr_ex init = {
        .qp_type = IBV_QPT_RC,
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .pd = end->pd,
        .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1},
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .send_ops_flags = operations,
    };
#ifdef SRD
    struct efadv_qp_init_attr own = {.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD};
    init.qp_type = IBV_QPT_DRIVER;
    end->qp = need(efadv_create_qp_ex(context, &init, &own, sizeof own), "efadv_create_qp_ex");
#else
    end->qp = need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
#endif
    to_init(end);
}

static inline void to_rtr(struct end *end, const struct end *peer)
{
    end->attr.qp_state = IBV_QPS_RTR;
    if (end->attr.dest_qp_num == 0)
        end->attr.dest_qp_num = peer->qp->qp_num;
#ifdef SRD
    if (end->qp->qp_type == IBV_QPT_DRIVER) {
        end->ah = need(ibv_create_ah(end->pd, &end->attr.ah_attr), "ibv_create_ah");
        return srd_to_rtr(end->qp);
    }
#endif
    const int responder = end->qp->qp_type == IBV_QPT_RC || end->qp->qp_type == IBV_QPT_XRC_RECV ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0;
    check(ibv_modify_qp(end->qp, &end->attr,
                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | responder),
          "ibv_modify_qp to RTR");
}

static inline void to_rts(struct end *end)
{
    end->attr.qp_state = IBV_QPS_RTS;
#ifdef SRD
    if (end->qp->qp_type == IBV_QPT_DRIVER)
        return srd_to_rts(end->qp, end->attr.rnr_retry);
#endif
    const int requester = end->qp->qp_type == IBV_QPT_RC || end->qp->qp_type == IBV_QPT_XRC_SEND ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                                               IBV_QP_MAX_QP_RD_ATOMIC
                                                         : 0;
    check(ibv_modify_qp(end->qp, &end->attr, IBV_QP_STATE | IBV_QP_SQ_PSN | requester), "ibv_modify_qp to RTS");
}

static inline void connect_ends(struct end *one, struct end *other)
{
    to_rtr(one, other);
    to_rtr(other, one);
    to_rts(one);
    to_rts(other);
}

/* Opens the device and connects two ends. */
static inline void make_pair(struct end *one, struct end *other)
{
    open_device();
    make_end(one);
    make_end(other);
    connect_ends(one, other);
}

static inline uint64_t address_of(const struct end *end)
{
    return (uintptr_t)end->buffer;
}

static inline struct ibv_sge all_of(const struct end *end)
{
    return (struct ibv_sge){.addr = (uintptr_t)end->buffer, .length = SIZE, .lkey = end->mr->lkey};
}

/* Posts a request with one scatter/gather element. */
static inline __attribute__((always_inline)) void post(struct end *end, enum ibv_wr_opcode opcode,
                                                       struct ibv_sge sge, uint64_t address, uint32_t rkey)
{
#ifdef SRD
    if (end->qp->qp_type == IBV_QPT_DRIVER) {
        check(srd_post(end->qp, end->ah, end->attr.dest_qp_num, opcode, sge, address, rkey), "ibv_wr_complete");
        return;
    }
#endif
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = opcode};
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = address;
        wr.wr.atomic.rkey = rkey;
    } else {
        wr.wr.rdma.remote_addr = address;
        wr.wr.rdma.rkey = rkey;
    }
    check(ibv_post_send(end->qp, &wr, &bad), "ibv_post_send");
}

static inline __attribute__((always_inline)) void post_receive(struct end *end, struct ibv_sge sge)
{
    struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(end->qp, &wr, &bad), "ibv_post_recv");
}

/* Posts a fetch and add with ibv_wr_*, which check no arguments. */
static inline __attribute__((always_inline)) void post_atomic(struct end *end, uint64_t address, uint32_t rkey, uint32_t length)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(end->qp);
    ibv_wr_start(qp);
    qp->wr_id = 1;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_atomic_fetch_add(qp, rkey, address, 1);
    ibv_wr_set_sge(qp, end->mr->lkey, address_of(end), length);
    check(ibv_wr_complete(qp), "ibv_wr_complete");
}

/* Waits for one completion, prints its status and returns it; IBV_WC_GENERAL_ERR if the poll fails. */
static inline enum ibv_wc_status completion(struct end *end)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        ;
    if (found < 0)
        return IBV_WC_GENERAL_ERR;
    printf("%s\n", ibv_wc_status_str(wc.status));
    return wc.status;
}

/* Polls until the CQ is empty. */
static inline void drain(struct end *end)
{
    struct ibv_wc wc;
    while (ibv_poll_cq(end->cq, 1, &wc) > 0)
        ;
}

static inline void destroy_end(struct end *end)
{
    drain(end);
    if (end->qp)
        check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
    if (end->mr)
        check(ibv_dereg_mr(end->mr), "ibv_dereg_mr");
    if (end->extra)
        check(ibv_dereg_mr(end->extra), "ibv_dereg_mr");
    if (end->ah)
        check(ibv_destroy_ah(end->ah), "ibv_destroy_ah");
    check(ibv_destroy_cq(end->cq), "ibv_destroy_cq");
    check(ibv_dealloc_pd(end->pd), "ibv_dealloc_pd");
}

static inline int destroy_pair(struct end *one, struct end *other)
{
    destroy_end(one);
    destroy_end(other);
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}

#endif
