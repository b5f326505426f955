/* Two UD queue pairs of one device in one process, each with an address handle for that device. */
#ifndef DATAGRAMS_H
#define DATAGRAMS_H

#include "pair.h"

#define QKEY 0x11111111

struct datagram_end {
    struct end end;
    struct ibv_ah *ah;
};

/* Creates a UD queue pair in RTS with this Q_Key, and an address handle for the device's own GID. */
static inline __attribute__((always_inline)) void make_datagram_end(struct datagram_end *datagram_end, uint32_t qkey)
{
    struct end *end = &datagram_end->end;
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = IBV_QPT_UD;
    make_resources(end, init, 16);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = qkey};
    attr.pkey_index = end->pkey_index;
    check(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), "ibv_modify_qp to INIT");
    attr.qp_state = IBV_QPS_RTR;
    check(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE), "ibv_modify_qp to RTR");
    attr.qp_state = IBV_QPS_RTS;
    check(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), "ibv_modify_qp to RTS");
    struct ibv_ah_attr destination = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1, .dgid = gid}};
    destination.grh.sgid_index = (uint8_t)gid_index;
    destination.dlid = lid;
    datagram_end->ah = need(ibv_create_ah(end->pd, &destination), "ibv_create_ah");
}

/* Sends `length` bytes and waits for the completion, which does not depend on the receiver. */
static inline __attribute__((always_inline)) void send_datagram(struct datagram_end *from, const struct datagram_end *to, uint32_t length)
{
    struct ibv_sge sge = {.addr = address_of(&from->end), .length = length, .lkey = from->end.mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    wr.wr.ud.ah = from->ah;
    wr.wr.ud.remote_qpn = to->end.qp->qp_num;
    wr.wr.ud.remote_qkey = QKEY;
    check(ibv_post_send(from->end.qp, &wr, &bad), "ibv_post_send");
    completion(&from->end);
}

static inline void destroy_datagram_end(struct datagram_end *datagram_end)
{
    check(ibv_destroy_ah(datagram_end->ah), "ibv_destroy_ah");
    destroy_end(&datagram_end->end);
}

#endif
