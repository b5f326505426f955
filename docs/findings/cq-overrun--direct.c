/*
 * A program polls the entries of a completion queue itself, and never writes the consumer index to its doorbell record.
 * Options: --device mlx5_0@127.0.0.1,driver=mlx5
 */
#include "pair.h"

#include <endian.h>
#include <infiniband/mlx5dv.h>

/* The opcode of an entry that no completion was written to. */
#define INVALID 15

/* Waits for the completion with this number, from 0. */
static void poll_entry(const struct mlx5dv_cq *cq, uint32_t number)
{
    const struct mlx5_cqe64 *entry =
        (const void *)((char *)cq->buf + (size_t)(number & (cq->cqe_cnt - 1)) * cq->cqe_size);
    const uint8_t owner = (number & cq->cqe_cnt) != 0;
    const volatile uint8_t *op_own = &entry->op_own;
    while (*op_own >> 4 == INVALID || (*op_own & 1) != owner)
        ;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
#ifdef FIXED
    cq->dbrec[0] = htobe32((number + 1) & 0xffffff);
#endif
}

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    replace_cq(&one, need(ibv_create_cq(context, FAULT_OR(1, 16), NULL, NULL, 0), "ibv_create_cq")); /* FAULT */
    connect_ends(&one, &other);
    struct mlx5dv_cq cq;
    struct mlx5dv_obj object = {.cq = {.in = one.cq, .out = &cq}};
    if (!mlx5dv_is_supported(context->device))
        return destroy_pair(&one, &other);
    check(mlx5dv_init_obj(&object, MLX5DV_OBJ_CQ), "mlx5dv_init_obj");
    struct ibv_sge into = all_of(&one), from = all_of(&other);
    into.length = from.length = 0;
    for (uint32_t i = 0; i <= FAULT_OR(cq.cqe_cnt, 7); i++) {
        post_receive(&one, into);
        post(&other, IBV_WR_SEND, from, 0, 0);
        /* The completion after the last one that has room is lost. */
        if (FAULT_OR(i == cq.cqe_cnt, 0))
            break;
        completion(&other);
        poll_entry(&cq, i);
    }
    usleep(FAULT_OR(100000, 0));
    return destroy_pair(&one, &other);
}
