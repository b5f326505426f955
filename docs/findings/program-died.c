/* The structure for the answer of ibv_query_device is at an address without memory. */
#include "pair.h"

int main(void)
{
    struct ibv_device_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    open_device();
    check(ibv_query_device(context, FAULT_OR((struct ibv_device_attr *)0x123456789000, &attributes)), "ibv_query_device"); /* FAULT */
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
