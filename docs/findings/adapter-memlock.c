/* More memory is registered than RLIMIT_MEMLOCK allows. Without `--like mlx5` the limit does not apply to root. */
#include "pair.h"

#include <sys/resource.h>

#define REGION_SIZE (1024 * 1024)

int main(void)
{
    static char buffer[REGION_SIZE];
    const struct rlimit limit = {.rlim_cur = 64 * 1024, .rlim_max = 64 * 1024};
    check(setrlimit(RLIMIT_MEMLOCK, &limit), "setrlimit");
    open_device();
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, FAULT_OR(REGION_SIZE, SIZE), 0), "ibv_reg_mr"); /* FAULT */
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    ibv_close_device(context);
    return 0;
}
