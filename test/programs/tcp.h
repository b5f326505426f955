/*
 * The TCP connection by which the two sides of a program exchange addresses and synchronise, and a limit of time.
 */
#ifndef TCP_H
#define TCP_H

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "endpoint.h"

static int without_delay(int fd)
{
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

UNUSED static int accept_client(const char *port)
{
    const int one = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    NEED(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0, "port %s: %s", port,
         strerror(errno));
    const int connected = accept(fd, NULL, NULL);
    NEED(connected >= 0, "accept: %s", strerror(errno));
    close(fd);
    return without_delay(connected);
}

/* The server may still be starting: retries for 10 seconds. */
UNUSED static int connect_to_server(const char *host, const char *port)
{
    struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM};
    const int error = getaddrinfo(host, port, &hints, &list);
    NEED(error == 0, "%s: %s", host, gai_strerror(error));
    for (int attempts = 0; attempts < 200; attempts++, usleep(50000))
        for (struct addrinfo *a = list; a; a = a->ai_next) {
            const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) {
                freeaddrinfo(list);
                return without_delay(fd);
            }
            close(fd);
        }
    fail("no server listens at %s port %s", host, port);
}

/* Sends `length` bytes to the peer, and receives as many. */
UNUSED static void exchange(int peer, const void *out, void *in, size_t length)
{
    const bool sent = send(peer, out, length, MSG_NOSIGNAL) == (ssize_t)length;
    NEED(sent && recv(peer, in, length, MSG_WAITALL) == (ssize_t)length, "the peer has closed the connection");
}

static void on_limit(int number)
{
    static const char text[] = "gave up: not finished in this time of the processor (-t)\n";
    (void)number;
    const ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    _exit(3);
}

/* Of the program's processor time, which other programs do not lengthen. The tests see a program that only waits. */
UNUSED static void set_time_limit(unsigned seconds)
{
    signal(SIGPROF, on_limit);
    setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = seconds}, NULL);
}

#endif
