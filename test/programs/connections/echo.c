/*
 * A program with TCP sockets and no RDMA code. The server returns what it receives; the client compares it with what it
 * sent. With librspreload the sockets are rsockets.
 *
 *   echo server ADDRESS PORT
 *   echo client ADDRESS PORT BYTES
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536

static void fail(const char *call)
{
    perror(call);
    exit(1);
}

/* Depends on the offset: lost, repeated or displaced data is detected. */
static unsigned char byte_at(size_t offset)
{
    return (unsigned char)(offset * 31 + (offset >> 8) * 7 + (offset >> 16));
}

static int tcp_socket(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        fail("socket");
    return fd;
}

static void run_server(const struct sockaddr_in *address)
{
    static char buffer[CHUNK];
    const int listener = tcp_socket();
    if (bind(listener, (const struct sockaddr *)address, sizeof *address) || listen(listener, 1))
        fail("listen");
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        fail("accept");
    ssize_t length;
    while ((length = recv(fd, buffer, sizeof buffer, 0)) > 0)
        for (ssize_t sent = 0; sent < length;) {
            const ssize_t accepted = send(fd, buffer + sent, (size_t)(length - sent), 0);
            if (accepted < 0)
                fail("send");
            sent += accepted;
        }
    if (length < 0)
        fail("recv");
    close(fd);
    close(listener);
}

/* Sends what the socket accepts, at most CHUNK bytes; returns how many of `bytes` have been sent so far. */
static size_t send_some(int fd, size_t sent, size_t bytes)
{
    static unsigned char buffer[CHUNK];
    const size_t length = bytes - sent < CHUNK ? bytes - sent : CHUNK;
    for (size_t i = 0; i < length; i++)
        buffer[i] = byte_at(sent + i);
    const ssize_t accepted = send(fd, buffer, length, 0);
    if (accepted < 0 && errno != EAGAIN)
        fail("send");
    return accepted < 0 ? sent : sent + (size_t)accepted;
}

/* Receives and compares what has arrived; returns how many bytes have been received so far. */
static size_t receive_some(int fd, size_t received)
{
    static unsigned char buffer[CHUNK];
    const ssize_t length = recv(fd, buffer, sizeof buffer, 0);
    if (length == 0 || (length < 0 && errno != EAGAIN))
        fail("recv");
    for (ssize_t i = 0; i < length; i++, received++)
        if (buffer[i] != byte_at(received)) {
            printf("byte %zu is wrong\n", received);
            exit(1);
        }
    return received;
}

static void run_client(const struct sockaddr_in *address, size_t bytes)
{
    const int fd = tcp_socket();
    if (connect(fd, (const struct sockaddr *)address, sizeof *address))
        fail("connect");
    if (fcntl(fd, F_SETFL, O_NONBLOCK))
        fail("fcntl");
    for (size_t sent = 0, received = 0; received < bytes;) {
        struct pollfd events = {.fd = fd, .events = (short)(POLLIN | (sent < bytes ? POLLOUT : 0))};
        if (poll(&events, 1, -1) < 0)
            fail("poll");
        if (events.revents & POLLOUT)
            sent = send_some(fd, sent, bytes);
        if (events.revents & POLLIN)
            received = receive_some(fd, received);
    }
    close(fd);
    puts("every byte came back");
}

int main(int count, char **words)
{
    const bool is_server = count == 4 && strcmp(words[1], "server") == 0;
    if (!is_server && !(count == 5 && strcmp(words[1], "client") == 0)) {
        fprintf(stderr, "usage: echo server ADDRESS PORT | echo client ADDRESS PORT BYTES\n");
        return 1;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[3]))};
    if (inet_pton(AF_INET, words[2], &address.sin_addr) != 1) {
        fprintf(stderr, "echo: %s is not an IPv4 address\n", words[2]);
        return 1;
    }
    if (is_server)
        run_server(&address);
    else
        run_client(&address, strtoul(words[4], NULL, 10));
    return 0;
}
