/* The peer of an unreliable connection is destroyed before the message. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = IBV_QPT_UC;
    one.access = other.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    open_device();
    make_end_with(&one, init, 16);
    make_end_with(&other, init, 16);
    connect_ends(&one, &other);
    post_receive(&other, all_of(&other));
#ifndef FIXED
    destroy_end(&other);
#endif
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0); /* FAULT */
    completion(&one);
    destroy_end(&one);
#ifdef FIXED
    destroy_end(&other);
#endif
    return ibv_close_device(context);
}
