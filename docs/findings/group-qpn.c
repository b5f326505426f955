/* A datagram to a multicast group has the number of a queue pair, as one to a single receiver. */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    union ibv_gid group = {.raw = {[10] = 0xff, 0xff, 239, 1, 2, 3}};
    open_device();
    gid = group;
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
    check(ibv_attach_mcast(other.end.qp, &group, 0), "ibv_attach_mcast");
    post_receive(&other.end, all_of(&other.end));
    const uint32_t number = other.end.qp->qp_num;
    other.end.qp->qp_num = FAULT_OR(number, 0xffffff);
    send_datagram(&one, &other, 64); /* FAULT */
    other.end.qp->qp_num = number;
    check(ibv_detach_mcast(other.end.qp, &group, 0), "ibv_detach_mcast");
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
