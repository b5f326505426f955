/* An address handle is destroyed before the completion of its send is polled. */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
    post_receive(&other.end, all_of(&other.end));
    struct ibv_ah_attr destination = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1, .dgid = gid}};
    destination.grh.sgid_index = (uint8_t)gid_index;
    struct ibv_sge sge = {.addr = address_of(&one.end), .length = 64, .lkey = one.end.mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    wr.wr.ud.ah = one.ah;
    wr.wr.ud.remote_qpn = other.end.qp->qp_num;
    wr.wr.ud.remote_qkey = QKEY;
    check(ibv_post_send(one.end.qp, &wr, &bad), "ibv_post_send");
#ifdef FIXED
    completion(&one.end);
#endif
    check(ibv_destroy_ah(one.ah), "ibv_destroy_ah"); /* FAULT */
    one.ah = need(ibv_create_ah(one.end.pd, &destination), "ibv_create_ah");
#ifndef FIXED
    completion(&one.end);
#endif
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
