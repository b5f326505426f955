/* The program frees the list of devices, and then opens a device that was in it. */
#include "pair.h"

int main(void)
{
    struct ibv_device **list = need(ibv_get_device_list(NULL), "ibv_get_device_list");
    struct ibv_device *device = list[0];
#ifndef FIXED
    ibv_free_device_list(list);
    context = need(ibv_open_device(device), "ibv_open_device"); /* FAULT */
#else
    /* The device is in a second list; then its context is open. */
    struct ibv_device **again = need(ibv_get_device_list(NULL), "ibv_get_device_list");
    ibv_free_device_list(list);
    context = need(ibv_open_device(device), "ibv_open_device");
    ibv_free_device_list(again);
    check(ibv_close_device(need(ibv_open_device(device), "ibv_open_device")), "ibv_close_device");
#endif
    return ibv_close_device(context);
}
