/*
 * The sender uses another Q_Key than the receiver has; the address handle has a LID.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, FAULT_OR(QKEY + 1, QKEY));
    post_receive(&other.end, all_of(&other.end));
    send_datagram(&one, &other, 64); /* FAULT */
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
