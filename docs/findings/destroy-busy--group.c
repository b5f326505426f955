/* The queue pair is destroyed while it is attached to a multicast group. */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0};
    open_device();
    make_datagram_end(&one, QKEY);
    union ibv_gid group = {.raw = {[10] = 0xff, 0xff, 239, 9, 9, 9}};
    check(ibv_attach_mcast(one.end.qp, &group, 0), "ibv_attach_mcast");
#ifndef FIXED
    ibv_destroy_qp(one.end.qp); /* FAULT */
#endif
    check(ibv_detach_mcast(one.end.qp, &group, 0), "ibv_detach_mcast");
    destroy_datagram_end(&one);
    return ibv_close_device(context);
}
