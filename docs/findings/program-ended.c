/* The process that registered the local memory has ended; the device is open in its parent. */
#include "pair.h"

static int stop[2];

/* A child of fork registers the buffer and answers the keys. It ends at once, or when `stop` is closed. */
static void register_in_child(const struct end *end, uint32_t *lkey, uint32_t *rkey)
{
    int keys[2];
    check(pipe(keys) || pipe(stop), "pipe");
    if (fork() == 0) {
        char none;
        close(stop[1]);
        struct ibv_mr *mr = need(ibv_reg_mr(end->pd, end->buffer, SIZE, end->access), "ibv_reg_mr");
        check(write(keys[1], &mr->lkey, 4) != 4 || write(keys[1], &mr->rkey, 4) != 4, "write");
#ifdef FIXED
        check(read(stop[0], &none, 1) != 0, "read");
        check(ibv_dereg_mr(mr), "ibv_dereg_mr");
#endif
        (void)none;
        _exit(0);
    }
    check(read(keys[0], lkey, 4) != 4 || read(keys[0], rkey, 4) != 4, "read");
#ifndef FIXED
    check(wait(NULL) < 0, "wait");
#endif
}

static void end_child(void)
{
    close(stop[1]);
#ifdef FIXED
    check(wait(NULL) < 0, "wait");
#endif
}

int main(void)
{
    struct end one = {0}, other = {0};
    uint32_t lkey, rkey;
    make_pair(&one, &other);
    register_in_child(&one, &lkey, &rkey);
    struct ibv_sge sge = {.addr = address_of(&one), .length = SIZE, .lkey = lkey};
    post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.mr->rkey); /* FAULT */
    completion(&one);
    end_child();
    return destroy_pair(&one, &other);
}
