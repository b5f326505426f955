/* The address of an atomic is not a multiple of 8. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    recreate_extended(&one, IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD);
    connect_ends(&one, &other);
    post_atomic(&one, address_of(&other) + FAULT_OR(4, 8), other.mr->rkey, 8); /* FAULT */
    completion(&one);
    return destroy_pair(&one, &other);
}
