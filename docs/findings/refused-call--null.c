/* The result of ibv_alloc_pd is put into another variable than the one that is used. */
#include "pair.h"

int main(void)
{
    struct end one = {0};
    open_device();
    struct ibv_pd *volatile unset = NULL;
    (void)unset;
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    one.buffer = need(malloc(SIZE), "malloc");
    one.mr = ibv_reg_mr(FAULT_OR(unset, pd), one.buffer, SIZE, IBV_ACCESS_LOCAL_WRITE); /* FAULT */
    if (one.mr)
        check(ibv_dereg_mr(one.mr), "ibv_dereg_mr");
    free(one.buffer);
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
