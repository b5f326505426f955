/* A receive is posted into a local variable of a function that returns. */
#include "pair.h"

static __attribute__((noinline)) void expect_message(struct end *end)
{
#ifdef FIXED
    static char message[SIZE];
#else
    char message[SIZE];
#endif
    end->extra = need(ibv_reg_mr(end->pd, message, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    post_receive(end, (struct ibv_sge){.addr = (uintptr_t)message, .length = SIZE, .lkey = end->extra->lkey}); /* FAULT */
}

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    expect_message(&one);
    return destroy_pair(&one, &other);
}
