/* The owner gives a request up, and tells a peer on another rail of the same buffer; the first peer writes last. */
#include "told.h"

int main(void)
{
    struct end one = {0}, first = {0}, two = {0}, second = {0};
    make_pair(&one, &first);
    make_end(&two);
    make_end(&second);
    connect_ends(&two, &second);
    /* the buffer of the first rail, with a key of the second */
    two.extra = need(ibv_reg_mr(two.pd, one.buffer, SIZE, ALL_RIGHTS), "ibv_reg_mr");
    tell(&one, &first);
#ifdef FIXED
    write_told(&first, one.mr);
#endif
    tell_of(&two, &second, two.extra);
    write_told(&second, two.extra);
#ifndef FIXED
    write_told(&first, one.mr); /* FAULT */
#endif
    destroy_end(&one);
    destroy_end(&first);
    return destroy_pair(&two, &second);
}
