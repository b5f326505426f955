/* The buffer of a receive is freed while the receive is posted. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    char *block = need(malloc(SIZE), "malloc");
    one.extra = need(ibv_reg_mr(one.pd, block, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    post_receive(&one, (struct ibv_sge){.addr = (uintptr_t)block, .length = SIZE, .lkey = one.extra->lkey});
#ifdef FIXED
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = NULL;
#endif
    free(block); /* FAULT */
    return destroy_pair(&one, &other);
}
