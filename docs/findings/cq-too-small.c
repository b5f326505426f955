/* 16 requests can complete into a CQ with fewer entries. */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0};
    open_device();
    make_end_with(&one, small_qp(), FAULT_OR(1, 16)); /* FAULT */
    make_end(&other);
    connect_ends(&one, &other);
    return destroy_pair(&one, &other);
}
