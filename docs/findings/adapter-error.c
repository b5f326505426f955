/*
 * A window is bound without the right IBV_ACCESS_MW_BIND, seen by `userdma check --host`: the adapter says only
 * IBV_WC_MW_BIND_ERR.
 */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    const int rights = other.access | FAULT_OR(0, IBV_ACCESS_MW_BIND);
    other.extra = need(ibv_reg_mr(other.pd, other.buffer, SIZE, rights), "ibv_reg_mr");
    struct ibv_mw *window = need(ibv_alloc_mw(other.pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    struct ibv_mw_bind bind = {
        .bind_info = {.mr = other.extra, .addr = address_of(&other), .length = SIZE, .mw_access_flags = IBV_ACCESS_REMOTE_WRITE},
    };
    check(ibv_bind_mw(other.qp, window, &bind), "ibv_bind_mw"); /* FAULT */
    completion(&other);
    check(ibv_dealloc_mw(window), "ibv_dealloc_mw");
    return destroy_pair(&one, &other);
}
