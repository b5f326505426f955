/*
 * A connection to another subnet has the index of a GID of RoCE v1.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5
 */
#include "pair.h"

int main(void)
{
    struct end one = {0};
    open_device();
    make_end(&one);
    /* 192.0.2.1 */
    memcpy(one.attr.ah_attr.grh.dgid.raw + 10, "\xff\xff\xc0\x00\x02\x01", 6);
    one.attr.ah_attr.grh.sgid_index = (uint8_t)FAULT_OR(2, gid_index);
    one.attr.dest_qp_num = 7;
    to_rtr(&one, &one); /* FAULT */
    destroy_end(&one);
    return ibv_close_device(context);
}
