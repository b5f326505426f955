/* The device is closed before a protection domain, whose handle belongs to the device's file. */
#include "pair.h"

int main(void)
{
    open_device();
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    if (FAULT_OR(0, 1))
        check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    if (FAULT_OR(1, 0))
        ibv_dealloc_pd(pd); /* FAULT */
    return 0;
}
