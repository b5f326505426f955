/* The program opens the device twice: the CQ of its queue pair is of another context than the protection domain. */
#include "pair.h"

int main(void)
{
    struct end one = {0};
    open_device();
    struct ibv_context *const first = context;
#ifndef FIXED
    open_device();
#endif
    one.pd = need(ibv_alloc_pd(first), "ibv_alloc_pd");
    one.cq = need(ibv_create_cq(context, 16, NULL, NULL, 0), "ibv_create_cq");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = one.cq;
    one.qp = ibv_create_qp(one.pd, &init); /* FAULT */
    destroy_end(&one);
    if (context != first)
        check(ibv_close_device(context), "ibv_close_device");
    check(ibv_close_device(first), "ibv_close_device");
    return 0;
}
