/* A window of type 1 is bound zero-based. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    other.extra = need(ibv_reg_mr(other.pd, other.buffer, SIZE, other.access | IBV_ACCESS_MW_BIND), "ibv_reg_mr");
    struct ibv_mw *window = need(ibv_alloc_mw(other.pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    const int rights = IBV_ACCESS_REMOTE_WRITE | FAULT_OR(IBV_ACCESS_ZERO_BASED, 0);
    struct ibv_mw_bind bind = {
        .bind_info = {.mr = other.extra, .addr = address_of(&other), .length = SIZE, .mw_access_flags = rights},
    };
    if (ibv_bind_mw(other.qp, window, &bind) == 0) /* FAULT */
        completion(&other);
    check(ibv_dealloc_mw(window), "ibv_dealloc_mw");
    return destroy_pair(&one, &other);
}
