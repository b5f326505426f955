/* A region has two owners, and each deregisters it. */
#include "pair.h"

int main(void)
{
    static char buffer[SIZE];
    open_device();
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, SIZE, 0), "ibv_reg_mr");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    if (FAULT_OR(1, 0))
        ibv_dereg_mr(mr); /* FAULT */
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
