/* A queue pair is created without slots for receives. */
#include "pair.h"

int main(void)
{
    struct end one = {0};
    open_device();
    struct ibv_qp_init_attr init = small_qp();
    init.cap.max_recv_wr = FAULT_OR(0, 1);
    make_end_with(&one, init, 16);
    struct ibv_sge sge = all_of(&one);
    struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
    const int error = ibv_post_recv(one.qp, &wr, &bad); /* FAULT */
    puts(strerror(error));
    destroy_end(&one);
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
