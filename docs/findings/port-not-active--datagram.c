/*
 * A datagram is sent while no subnet manager has come yet.
 * Options: --fabric manager=none --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
#ifdef FIXED
    struct ibv_port_attr port;
    check(ibv_query_port(context, 1, &port), "ibv_query_port");
    if (port.state != IBV_PORT_ACTIVE)
        return ibv_close_device(context);
#endif
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
    post_receive(&other.end, all_of(&other.end));
    send_datagram(&one, &other, 64); /* FAULT */
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
