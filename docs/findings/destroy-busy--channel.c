/* The completion channel is destroyed before the CQ that uses it. */
#include "pair.h"

int main(void)
{
    open_device();
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    struct ibv_cq *cq = need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq");
#ifndef FIXED
    const int error = ibv_destroy_comp_channel(channel); /* FAULT */
    printf("ibv_destroy_comp_channel: %s\n", strerror(error));
#endif
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
