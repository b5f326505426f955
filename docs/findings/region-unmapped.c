/* Memory is unmapped while it is registered. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    void *memory = need(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    struct ibv_mr *mr = need(ibv_reg_mr(one.pd, memory, SIZE, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
#ifdef FIXED
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    munmap(memory, SIZE);
#else
    munmap(memory, SIZE); /* FAULT */
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
#endif
    return destroy_pair(&one, &other);
}
