/* A datagram is sent to a multicast group that no queue pair has joined. */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    union ibv_gid group = {.raw = {[10] = 0xff, 0xff, 239, 1, 2, 3}};
    open_device();
    gid = group;
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
#ifdef FIXED
    check(ibv_attach_mcast(other.end.qp, &group, 0), "ibv_attach_mcast");
#endif
    post_receive(&other.end, all_of(&other.end));
    const uint32_t number = other.end.qp->qp_num;
    other.end.qp->qp_num = 0xffffff;
    send_datagram(&one, &other, 64); /* FAULT */
    other.end.qp->qp_num = number;
#ifdef FIXED
    check(ibv_detach_mcast(other.end.qp, &group, 0), "ibv_detach_mcast");
#endif
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
