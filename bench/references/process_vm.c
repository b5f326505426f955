/*
 * A process moves messages between two other processes through its own buffer, with process_vm_readv and
 * process_vm_writev, as a daemon that maps no memory of programs. The reference of write-bw.ts.
 *
 *   process_vm SIZE ITERATIONS      prints gigabytes (1e9) per second
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *call)
{
    perror(call);
    exit(1);
}

/* A child that touches its copy of `buffer`, and sleeps until it is killed or the parent ends. */
static pid_t start_owner(char *buffer, size_t size, int fill)
{
    int ready[2];
    char byte = 0;
    if (pipe(ready))
        fail("pipe");
    const pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        memset(buffer, fill, size);
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    if (read(ready[0], &byte, 1) != 1)
        fail("the child ended");
    close(ready[0]);
    close(ready[1]);
    return child;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: process_vm SIZE ITERATIONS\n");
        return 2;
    }
    const size_t size = strtoul(argv[1], NULL, 0);
    const long iterations = strtol(argv[2], NULL, 0);
    char *buffer = NULL, *staging = NULL;
    if (posix_memalign((void **)&buffer, 4096, size) || posix_memalign((void **)&staging, 4096, size))
        fail("posix_memalign");
    memset(staging, 0, size);
    const pid_t source = start_owner(buffer, size, 0x5a);
    const pid_t destination = start_owner(buffer, size, 0);
    const struct iovec local = {staging, size}, remote = {buffer, size};

    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < iterations; i++) {
        if (process_vm_readv(source, &local, 1, &remote, 1, 0) != (ssize_t)size)
            fail("process_vm_readv");
        if (process_vm_writev(destination, &local, 1, &remote, 1, 0) != (ssize_t)size)
            fail("process_vm_writev");
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double seconds = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;

    memset(staging, 0, size);
    if (process_vm_readv(destination, &local, 1, &remote, 1, 0) != (ssize_t)size || staging[0] != 0x5a ||
        staging[size - 1] != 0x5a) {
        fprintf(stderr, "the data did not arrive\n");
        return 1;
    }
    printf("%.4f GB/s\n", (double)size * (double)iterations / seconds / 1e9);
    kill(source, SIGKILL);
    kill(destination, SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
