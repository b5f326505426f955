/*
 * A key of mlx5dv_create_mkey is used before it is configured.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5
 */
#include "pair.h"

#include <infiniband/mlx5dv.h>

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    struct mlx5dv_mkey_init_attr attributes = {
        .pd = one.pd, .create_flags = MLX5DV_MKEY_INIT_ATTR_FLAGS_INDIRECT, .max_entries = 4};
    /* NULL on other devices. */
    struct mlx5dv_mkey *key = mlx5dv_is_supported(context->device) ? mlx5dv_create_mkey(&attributes) : NULL;
    struct ibv_sge part = {.addr = address_of(&one), .length = 64, .lkey = one.mr->lkey};
    if (key && FAULT_OR(1, 0))
        part.lkey = key->lkey;
    post(&one, IBV_WR_RDMA_WRITE, part, address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    if (key)
        check(mlx5dv_destroy_mkey(key), "mlx5dv_destroy_mkey");
    return destroy_pair(&one, &other);
}
