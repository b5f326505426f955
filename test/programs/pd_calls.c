/*
 * Allocates and deallocates protection domains, and prints the time of a call.
 *
 *   pd_calls DEVICE COUNT
 */
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    int count, calls = argc > 2 ? atoi(argv[2]) : 0;
    struct ibv_device **devices = ibv_get_device_list(&count);
    struct ibv_context *context = NULL;
    for (int i = 0; devices && i < count && argc > 1; i++)
        if (strcmp(ibv_get_device_name(devices[i]), argv[1]) == 0)
            context = ibv_open_device(devices[i]);
    if (!context)
        return fprintf(stderr, "usage: pd_calls DEVICE COUNT; there is no such device\n"), 2;
    const double begin = seconds();
    for (int i = 0; i < calls; i += 2) {
        struct ibv_pd *pd = ibv_alloc_pd(context);
        if (!pd || ibv_dealloc_pd(pd) != 0)
            return perror("pd"), 1;
    }
    printf("%.2f us\n", (seconds() - begin) * 1e6 / (calls ? calls : 1));
    return ibv_close_device(context) != 0;
}
