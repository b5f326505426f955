/*
 * Two processes exchange a datagram: the minimum latency of a message over UDP.
 *
 *   udp_pingpong spin|block SIZE ITERATIONS      prints microseconds per round trip; spin: both poll
 */
#include <arpa/inet.h>
#include <netinet/in.h>
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

static int open_socket(struct sockaddr_in *address)
{
    socklen_t length = sizeof *address;
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)address, length) || getsockname(fd, (struct sockaddr *)address, &length))
        fail("socket");
    return fd;
}

/* Receives a datagram; with MSG_DONTWAIT in `flags` it polls. */
static void receive(int fd, char *message, size_t size, int flags)
{
    while (recv(fd, message, size, flags) < 0)
        if (!flags)
            fail("recv");
}

static void send_to(int fd, const char *message, size_t size, const struct sockaddr_in *peer)
{
    if (sendto(fd, message, size, 0, (const struct sockaddr *)peer, sizeof *peer) < 0)
        fail("sendto");
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: udp_pingpong spin|block SIZE ITERATIONS\n");
        return 2;
    }
    const int flags = strcmp(argv[1], "spin") == 0 ? MSG_DONTWAIT : 0;
    const size_t size = strtoul(argv[2], NULL, 0);
    const long iterations = strtol(argv[3], NULL, 0);
    char *message = calloc(1, size);
    struct sockaddr_in near_address, far_address;
    const int near = open_socket(&near_address), far = open_socket(&far_address);

    const pid_t child = fork();
    if (child < 0 || !message)
        fail("fork");
    if (child == 0) {
        for (long i = 0; i < iterations; i++) {
            receive(far, message, size, flags);
            send_to(far, message, size, &near_address);
        }
        return 0;
    }
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < iterations; i++) {
        send_to(near, message, size, &far_address);
        receive(near, message, size, flags);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double us = (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) / 1e3;
    printf("%.3f usec/iter\n", us / (double)iterations);
    return waitpid(child, NULL, 0) == child ? 0 : 1;
}
