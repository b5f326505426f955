/*
 * Successive TCP connections over loopback between two processes. After accept, the server sends a byte. The reference
 * of connections.ts for librdmacm.
 *
 *   tcp_connects COUNT      prints connections per second
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void check(bool succeeded, const char *call)
{
    if (succeeded)
        return;
    perror(call);
    exit(1);
}

static void serve(int listener)
{
    char byte = 1;
    for (;;) {
        const int connection = accept(listener, NULL, NULL);
        check(connection >= 0, "accept");
        check(write(connection, &byte, 1) == 1, "write");
        check(read(connection, &byte, 1) == 0, "read");
        close(connection);
    }
}

static void connect_once(const struct sockaddr_in *address)
{
    char byte;
    const int connection = socket(AF_INET, SOCK_STREAM, 0);
    check(connection >= 0, "socket");
    check(!connect(connection, (const struct sockaddr *)address, sizeof *address), "connect");
    check(read(connection, &byte, 1) == 1, "read");
    check(!shutdown(connection, SHUT_WR), "shutdown");
    check(read(connection, &byte, 1) == 0, "read");
    close(connection);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: tcp_connects COUNT\n");
        return 2;
    }
    const long count = strtol(argv[1], NULL, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    check(listener >= 0 && !bind(listener, (struct sockaddr *)&address, size) && !listen(listener, 16), "listen");
    check(!getsockname(listener, (struct sockaddr *)&address, &size), "getsockname");
    const pid_t server = fork();
    check(server >= 0, "fork");
    if (server == 0)
        serve(listener);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < count; i++)
        connect_once(&address);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.1f\n", count / ((end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9));
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    return 0;
}
