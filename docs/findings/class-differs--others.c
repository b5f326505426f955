/* Two connections between the same programs, one in traffic class 0, the other in 236 (SL 0 and 3). */
#include "pair.h"

int main(void)
{
    struct end one = {0}, other = {0}, third = {0}, fourth = {0};
    make_pair(&one, &other);
    make_end(&third);
    make_end(&fourth);
    third.attr.ah_attr.grh.traffic_class = fourth.attr.ah_attr.grh.traffic_class = FAULT_OR(236, 0);
    third.attr.ah_attr.sl = fourth.attr.ah_attr.sl = FAULT_OR(3, 0);
    connect_ends(&third, &fourth); /* FAULT */
    destroy_end(&third);
    destroy_end(&fourth);
    return destroy_pair(&one, &other);
}
