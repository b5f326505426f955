/*
 * The LID of the address handle is the receiver's, and the GID in the GRH is not.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
    gid.raw[15] += FAULT_OR(1, 0);
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
    post_receive(&other.end, all_of(&other.end));
    send_datagram(&one, &other, 64); /* FAULT */
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
