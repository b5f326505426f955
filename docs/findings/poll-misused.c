/* ibv_end_poll is called although ibv_start_poll has found no completion: it releases a lock that the thread lacks. */
#include "pair.h"

int main(void)
{
    open_device();
    struct ibv_cq_init_attr_ex attributes = {.cqe = 16, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN};
    struct ibv_cq_ex *cq = need(ibv_create_cq_ex(context, &attributes), "ibv_create_cq_ex");
    struct ibv_poll_cq_attr none = {0};
    const int error = ibv_start_poll(cq, &none);
#ifdef FIXED
    if (error == 0)
        ibv_end_poll(cq);
#else
    (void)error;
    ibv_end_poll(cq); /* FAULT */
#endif
    check(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), "ibv_destroy_cq");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
