/*
 * Repeats a control call, ibv_query_gid.
 *
 *   calls COUNT        queries a GID COUNT times, and prints microseconds per call
 *   calls endless      repeats the query until it is killed; prints "asking" after the first query
 */
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WARM_UP 2000 /* calls before the measurement: the first ones are slower */

static struct ibv_context *context;

static void query_gids(long count)
{
    union ibv_gid gid;
    for (long i = 0; i < count; i++)
        if (ibv_query_gid(context, 1, 1, &gid)) {
            perror("ibv_query_gid");
            exit(1);
        }
}

int main(int argc, char **argv)
{
    const int is_endless = argc == 2 && strcmp(argv[1], "endless") == 0;
    const long count = argc == 2 ? strtol(argv[1], NULL, 0) : 0;
    if (count < 1 && !is_endless) {
        fprintf(stderr, "usage: calls COUNT | calls endless\n");
        return 1;
    }
    struct ibv_device **devices = ibv_get_device_list(NULL);
    if (!devices || !devices[0] || !(context = ibv_open_device(devices[0]))) {
        fprintf(stderr, "no device could be opened\n");
        return 1;
    }
    query_gids(1);
    if (is_endless) {
        printf("asking\n");
        fflush(stdout);
        for (;;)
            query_gids(1000);
    }
    query_gids(WARM_UP);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    query_gids(count);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double us = (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) / 1e3;
    printf("%.3f usec/call\n", us / (double)count);
    ibv_close_device(context);
    ibv_free_device_list(devices);
    return 0;
}
