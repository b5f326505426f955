/* The program does not poll the completion of its request. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&other);
    usleep(100000);
#ifdef FIXED
    completion(&one);
#endif
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(one.cq), "ibv_destroy_cq"); /* FAULT */
    check(ibv_dereg_mr(one.mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(one.pd), "ibv_dealloc_pd");
    destroy_end(&other);
    return ibv_close_device(context);
}
