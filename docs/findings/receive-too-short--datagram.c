/*
 * The receive has no room for the 40 bytes before a datagram, which are there without a GRH too.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
    struct ibv_sge sge = all_of(&other.end);
    sge.length = FAULT_OR(64, 40 + 64);
    post_receive(&other.end, sge); /* FAULT */
    send_datagram(&one, &other, 64);
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
