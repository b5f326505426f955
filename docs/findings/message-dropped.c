/* A datagram is sent before the receiver has posted a receive. */
#include "datagrams.h"

int main(void)
{
    struct datagram_end one = {0}, other = {0};
    open_device();
    make_datagram_end(&one, QKEY);
    make_datagram_end(&other, QKEY); /* FAULT */
#ifdef FIXED
    post_receive(&other.end, all_of(&other.end));
#endif
    send_datagram(&one, &other, 64);
    destroy_datagram_end(&one);
    destroy_datagram_end(&other);
    return ibv_close_device(context);
}
