/* A region is deregistered while a receive that uses it is posted. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    make_pair(&one, &other);
    post_receive(&one, all_of(&one));
#ifdef FIXED
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = NULL;
#endif
    check(ibv_dereg_mr(one.mr), "ibv_dereg_mr"); /* FAULT */
    one.mr = NULL;
    return destroy_pair(&one, &other);
}
