/*
 * The address handle has a GID and no LID, as on RoCE.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
    lid = FAULT_OR(0, lid);
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
    post_receive(&other.end, all_of(&other.end));
    send_datagram(&one, &other, 64); /* FAULT */
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
