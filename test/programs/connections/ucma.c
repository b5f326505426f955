/*
 * Writes to rdma_cm files as a test requests, for test/system/rdmacm/connections.test.ts.
 *
 * Each input line is one step; each answer is a line "RESULT HEX". RESULT is the system call's result or a negative
 * errno, HEX the response of the command. An unknown step ends the program with status 2.
 *
 *   open                              opens another channel for the later steps; RESULT is its descriptor
 *   write NUMBER OFFSET OUT HEX       writes command NUMBER with the body HEX. Stores the address of a response of OUT
 *                                     bytes at OFFSET of the body (-1: stores none)
 *   poll                              RESULT is the sum of those that report the channel as readable: 1 for poll(2),
 *                                     2 for select(2), 4 for epoll(7)
 *   fork                              a child answers 0 and runs the following steps; the parent answers 0 when the
 *                                     child has exited, and continues
 *   exit                              ends this process without an answer
 *   raw LENGTH HEX                    calls write(2) with these bytes and this length
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <rdma/rdma_user_cm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_BYTES 4096

static int channel = -1;

static void answer(long result, const unsigned char *bytes, int length)
{
    printf("%ld ", result < 0 ? -(long)errno : result);
    for (int i = 0; i < length; i++)
        printf("%02x", bytes[i]);
    puts("");
    fflush(stdout);
}

/* Returns the number of bytes. */
static int unhex(const char *text, unsigned char *bytes)
{
    int length = 0;
    unsigned byte;
    while (length < MAX_BYTES && sscanf(text + 2 * length, "%2x", &byte) == 1)
        bytes[length++] = byte;
    return length;
}

static int readiness(void)
{
    struct pollfd poll_fd = {.fd = channel, .events = POLLIN};
    struct epoll_event event = {.events = EPOLLIN};
    struct timeval no_wait = {0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(channel, &set);
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, channel, &event);
    const int ready = (poll(&poll_fd, 1, 0) == 1 && poll_fd.revents == POLLIN) |
                      (select(channel + 1, &set, NULL, NULL, &no_wait) == 1) << 1 |
                      (epoll_wait(epoll, &event, 1, 0) == 1) << 2;
    close(epoll);
    return ready;
}

int main(int argc, char **argv)
{
    if (argc != 1) {
        fprintf(stderr, "usage: %s, with steps on its input\n", argv[0]);
        return 1;
    }
    static char line[4 * MAX_BYTES], hex[2 * MAX_BYTES + 1];
    static unsigned char message[2 * MAX_BYTES], response[MAX_BYTES];
    setvbuf(stdin, NULL, _IONBF, 0); /* unbuffered: a child continues with the next line */
    while (fgets(line, sizeof line, stdin)) {
        int number, offset, out;
        long length;
        hex[0] = 0;
        if (strncmp(line, "open", 4) == 0) {
            channel = open("/dev/infiniband/rdma_cm", O_RDWR | O_NONBLOCK);
            answer(channel, NULL, 0);
        } else if (strncmp(line, "poll", 4) == 0) {
            answer(readiness(), NULL, 0);
        } else if (strncmp(line, "fork", 4) == 0) {
            if (fork() > 0)
                wait(NULL);
            answer(0, NULL, 0);
        } else if (strncmp(line, "exit", 4) == 0) {
            _exit(0);
        } else if (sscanf(line, "raw %ld %8192s", &length, hex) >= 1) {
            unhex(hex, message);
            answer(write(channel, message, length), NULL, 0);
        } else if (sscanf(line, "write %d %d %d %8192s", &number, &offset, &out, hex) >= 3) {
            int size = unhex(hex, message + sizeof(struct rdma_ucm_cmd_hdr));
            struct rdma_ucm_cmd_hdr header = {.cmd = number, .in = size, .out = out};
            uint64_t pointer = (uintptr_t)response;
            memcpy(message, &header, sizeof header);
            memset(response, 0, sizeof response);
            if (offset >= 0)
                memcpy(message + sizeof header + offset, &pointer, sizeof pointer);
            long result = write(channel, message, sizeof header + size);
            answer(result, response, result < 0 ? 0 : out);
        } else
            return 2;
    }
    return 0;
}
