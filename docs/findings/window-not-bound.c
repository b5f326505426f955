/* The rkey of a memory window is used before the window is bound. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    other.extra = need(ibv_reg_mr(other.pd, other.buffer, SIZE, other.access | IBV_ACCESS_MW_BIND), "ibv_reg_mr");
    struct ibv_mw *window = need(ibv_alloc_mw(other.pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
#ifdef FIXED
    struct ibv_mw_bind bind = {
        .bind_info = {.mr = other.extra, .addr = address_of(&other), .length = SIZE, .mw_access_flags = IBV_ACCESS_REMOTE_WRITE},
    };
    check(ibv_bind_mw(other.qp, window, &bind), "ibv_bind_mw");
    completion(&other);
#endif
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), window->rkey); /* FAULT */
    completion(&one);
    check(ibv_dealloc_mw(window), "ibv_dealloc_mw");
    return destroy_pair(&one, &other);
}
