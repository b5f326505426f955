/* The result of ibv_alloc_pd is not checked: ibv_reg_mr crashes. */
#include "pair.h"

int main(void)
{
    static char buffer[SIZE];
    open_device();
    struct ibv_pd *pd = FAULT_OR(NULL, need(ibv_alloc_pd(context), "ibv_alloc_pd"));
    struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, SIZE, 0), "ibv_reg_mr"); /* FAULT */
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
