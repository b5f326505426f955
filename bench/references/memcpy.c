/*
 * Copies between two buffers with memcpy: the upper limit for messages in a process. The reference of inproc.ts.
 *
 *   memcpy SIZE ITERATIONS      prints gigabytes (1e9) per second
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: memcpy SIZE ITERATIONS\n");
        return 2;
    }
    const size_t size = strtoul(argv[1], NULL, 0);
    const long iterations = strtol(argv[2], NULL, 0);
    char *source = NULL, *destination = NULL;
    if (posix_memalign((void **)&source, 4096, size) || posix_memalign((void **)&destination, 4096, size)) {
        perror("posix_memalign");
        return 1;
    }
    memset(source, 0x5a, size);
    memset(destination, 0, size);

    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < iterations; i++) {
        memcpy(destination, source, size);
        /* Keeps the compiler from eliminating copies. */
        __asm__ volatile("" : : "r"(destination) : "memory");
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double seconds = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
    if (destination[size - 1] != 0x5a) {
        fprintf(stderr, "the data did not arrive\n");
        return 1;
    }
    printf("%.4f GB/s\n", (double)size * (double)iterations / seconds / 1e9);
    return 0;
}
