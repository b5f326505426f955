/*
 * Two processes exchange a message over a unix stream socket. The reference of pingpong.ts; with `seqpacket`, the kind
 * of the preload library's socket, the reference of control.ts.
 *
 *   unix_pingpong SIZE ITERATIONS [seqpacket]      prints microseconds per round trip
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *call)
{
    perror(call);
    exit(1);
}

static void send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = write(fd, data, size);
        if (sent <= 0)
            fail("write");
        data += sent;
        size -= (size_t)sent;
    }
}

static void receive_all(int fd, char *data, size_t size)
{
    while (size > 0) {
        ssize_t received = read(fd, data, size);
        if (received <= 0)
            fail("read");
        data += received;
        size -= (size_t)received;
    }
}

int main(int argc, char **argv)
{
    const bool is_seqpacket = argc == 4 && strcmp(argv[3], "seqpacket") == 0;
    if (argc != 3 && !is_seqpacket) {
        fprintf(stderr, "usage: unix_pingpong SIZE ITERATIONS [seqpacket]\n");
        return 2;
    }
    const size_t size = strtoul(argv[1], NULL, 0);
    const long iterations = strtol(argv[2], NULL, 0);
    char *message = calloc(1, size);
    int ends[2];
    if (!message || socketpair(AF_UNIX, is_seqpacket ? SOCK_SEQPACKET : SOCK_STREAM, 0, ends))
        fail("socketpair");

    const pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        for (long i = 0; i < iterations; i++) {
            receive_all(ends[1], message, size);
            send_all(ends[1], message, size);
        }
        return 0;
    }

    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < iterations; i++) {
        send_all(ends[0], message, size);
        receive_all(ends[0], message, size);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double us = (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) / 1e3;
    printf("%.3f usec/iter\n", us / (double)iterations);
    return waitpid(child, NULL, 0) == child ? 0 : 1;
}
