/* A region is never deregistered. */
#include "pair.h"

int main(void)
{
    static char buffer[SIZE];
    open_device();
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, SIZE, 0), "ibv_reg_mr"); /* FAULT */
#ifdef FIXED
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
#endif
    (void)mr;
    ibv_close_device(context);
    return 0;
}
