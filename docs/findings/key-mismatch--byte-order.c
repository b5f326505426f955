/* The receiver's Q_Key came over the network, and is set in the other byte order. */
#include "datagrams.h"
#include <arpa/inet.h>

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, FAULT_OR(htonl(0x01020304), QKEY));
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .opcode = IBV_WR_SEND};
    struct ibv_sge sge = {.addr = address_of(&one.end), .length = 64, .lkey = one.end.mr->lkey};
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.wr.ud.ah = one.ah;
    wr.wr.ud.remote_qpn = other.end.qp->qp_num;
    wr.wr.ud.remote_qkey = FAULT_OR(0x01020304, QKEY);
    post_receive(&other.end, all_of(&other.end));
    check(ibv_post_send(one.end.qp, &wr, &bad), "ibv_post_send"); /* FAULT */
    completion(&one.end);
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
