/* A program forks while memory is registered, without ibv_fork_init: run with `userdma check --like mlx5`. */
#include "pair.h"

int main(void)
{
    static char buffer[SIZE];
#ifdef FIXED
    check(ibv_fork_init(), "ibv_fork_init");
#endif
    open_device();
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_mr *mr = need(ibv_reg_mr(pd, buffer, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    const pid_t child = fork(); /* FAULT */
    if (child == 0)
        _exit(0);
    check(child < 0 ? -1 : 0, "fork");
    check(waitpid(child, NULL, 0) < 0 ? -1 : 0, "waitpid");
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    ibv_close_device(context);
    return 0;
}
