/* An address handle has hop_limit 1, and its destination is in another subnet. */
#include "pair.h"

int main(void)
{
    open_device();
    struct ibv_pd *pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1};
    attr.dlid = lid;
    attr.grh.sgid_index = (uint8_t)gid_index;
    attr.grh.hop_limit = FAULT_OR(1, 64);
    /* 192.0.2.1 */
    memcpy(attr.grh.dgid.raw + 10, "\xff\xff\xc0\x00\x02\x01", 6);
    struct ibv_ah *ah = need(ibv_create_ah(pd, &attr), "ibv_create_ah"); /* FAULT */
    check(ibv_destroy_ah(ah), "ibv_destroy_ah");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    return ibv_close_device(context);
}
