/*
 * The program looks up its GID index once. When the address leaves and returns, it has another one.
 * Options: --fault call=cq.create,nth=1,gid=1
 */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
#ifdef FIXED
    union ibv_gid now;
    for (int index = 0; index < 16; index++)
        if (ibv_query_gid(context, 1, index, &now) == 0 && memcmp(&now, &gid, sizeof gid) == 0)
            one.attr.ah_attr.grh.sgid_index = other.attr.ah_attr.grh.sgid_index = (uint8_t)index;
#endif
    connect_ends(&one, &other); /* FAULT */
    return destroy_pair(&one, &other);
}
