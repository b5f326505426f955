/*
 * A datagram is sent in one partition to a queue pair of another. With the options, entry 1 of the table of P_Keys is 0x0001.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband,pkeys=0xffff+0x0001
 */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {.end.pkey_index = FAULT_OR(1, 0)}, other = {0};
    open_device();
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY);
    post_receive(&other.end, all_of(&other.end));
    send_datagram(&one, &other, 64); /* FAULT */
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
