/* The protection domain is deallocated before the region that belongs to it. */
#include "pair.h"

int main(void)
{
    static char buffer[SIZE];
    open_device();
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, SIZE, 0), "ibv_reg_mr");
#ifndef FIXED
    ibv_dealloc_pd(pd); /* FAULT */
#endif
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
