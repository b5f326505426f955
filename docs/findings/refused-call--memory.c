/* A constant is registered for local writes: its pages are read-only (EFAULT). */
#include "pair.h"

#ifdef FIXED
static char text[SIZE] = "variable";
#else
static const char text[SIZE] = "constant";
#endif

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    one.extra = ibv_reg_mr(one.pd, (void *)text, sizeof text, IBV_ACCESS_LOCAL_WRITE); /* FAULT */
    if (!one.extra)
        perror("ibv_reg_mr");
    return destroy_pair(&one, &other);
}
