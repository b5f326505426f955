/*
 * The program connects while no subnet manager has come yet.
 * Options: --fabric manager=none --device mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband
 */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
#ifdef FIXED
    struct ibv_port_attr port;
    check(ibv_query_port(context, 1, &port), "ibv_query_port");
    if (port.state != IBV_PORT_ACTIVE) {
        printf("the port is %s\n", ibv_port_state_str(port.state));
        return ibv_close_device(context);
    }
#endif
    make_end(&one);
    make_end(&other);
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
