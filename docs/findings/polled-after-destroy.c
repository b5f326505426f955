/* A queue pair is destroyed with what its requests name, and its completion is polled afterwards. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    struct ibv_wc wc;
    make_pair(&one, &other);
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&other);
#ifdef FIXED
    completion(&one);
#endif
    usleep(100000); /* until the SEND is acknowledged */
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    while (ibv_poll_cq(one.cq, 1, &wc) > 0) /* FAULT */
        printf("wr_id %lu has ended\n", (unsigned long)wc.wr_id);
    check(ibv_destroy_cq(one.cq), "ibv_destroy_cq");
    check(ibv_dereg_mr(one.mr), "ibv_dereg_mr");
    check(ibv_dealloc_pd(one.pd), "ibv_dealloc_pd");
    destroy_end(&other);
    return ibv_close_device(context);
}
