/*
 * The program tries again and again, after its device was removed.
 * Options: --fault call=pd.create,nth=1,gone=600s
 */
#include "pair.h"

int main(void)
{
    open_device();
    struct ibv_pd *pd = ibv_alloc_pd(context);
    const int tries = FAULT_OR(5, 1);
    for (int i = 0; i < tries; i++) {
        struct ibv_cq *cq = ibv_create_cq(context, 16, NULL, NULL, 0); /* FAULT */
        if (cq)
            ibv_destroy_cq(cq); // the device may be removed between the two calls
        usleep(100000);
    }
    if (pd)
        ibv_dealloc_pd(pd);
    ibv_close_device(context);
    return 0;
}
