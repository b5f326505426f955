/*
 * A device that one program opens and another one uses (R28, R37). The first program passes the descriptors over a
 * socket or across exec, and closes its own; only then the second program uses them.
 *
 *   passing              both ways, with different first calls of the second program
 *   passing nobody       the second program expects its daemon at the socket $PASSING_OTHER, where there is none
 *   passing take …       the second program
 *
 * The first unexpected result is printed, and the exit status is 1.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../descriptors.h"

/* DESCRIPTORS: number of passed descriptors. */
enum { DEVICE, ASYNC, CHANNEL, DESCRIPTORS };
enum { NO_HANDLE = 0xdead };
/* Letters of ioctls: Linux's verbs, the object dialect. */
enum { VERBS_LETTER = 0x1b, OBJECT_LETTER = 0xdb };

/*
 * ALLOC_PD by write(2): command 3, 4 words, response of 1 word. A plain memory file would accept the bytes too, but
 * not change `handle`. Handle 0 is that of the first program's PD, which still exists.
 */
static void allocate_pd(int device)
{
    uint32_t handle = NO_HANDLE, command[4] = {3, 4 | 1 << 16};
    const uint64_t response = (uintptr_t)&handle;
    memcpy(&command[2], &response, sizeof response);
    NEED(write(device, command, sizeof command) == sizeof command && handle != NO_HANDLE && handle != 0,
         "write: PD %u, %s", handle, strerror(errno));
}

/* The second program's first call, on a newly opened device. NOBODY: there is no daemon. */
enum { FIRST_WRITE, FIRST_STAT, FIRST_READ, FIRST_EVENT, FIRSTS, NOBODY };

/* Calls fail with EIO (lseek with ESPIPE, as always), and not as on a memory file or a socket. */
static void find_nobody(const int *fds)
{
    char text[64];
    NEED(write(fds[DEVICE], text, 16) < 0 && errno == EIO, "write: %s", strerror(errno));
    NEED(ioctl(fds[DEVICE], _IOWR(VERBS_LETTER, 1, uint64_t), text) < 0 && errno == EIO, "ioctl: %s", strerror(errno));
    NEED(read(fds[DEVICE], text, 1) < 0 && errno == EIO, "read: %s", strerror(errno));
    NEED(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fds[DEVICE], 4096) == MAP_FAILED && errno == EIO, "mmap: %s",
         strerror(errno));
    NEED(lseek(fds[DEVICE], 0, SEEK_END) < 0 && errno == ESPIPE, "lseek: %s", strerror(errno));
    NEED(ioctl(fds[CHANNEL], _IOWR(OBJECT_LETTER, 1, uint64_t), text) < 0 && errno == EIO, "ioctl: %s",
         strerror(errno));
    NEED(close(fds[DEVICE]) == 0, "close: %s", strerror(errno));
}

/* The second program. `numbers`: the inherited descriptors if `socket` is -1. */
static void take(int socket, const char *numbers, int first)
{
    int fds[DESCRIPTORS];
    char byte;
    NEED(socket >= 0 || sscanf(numbers, "%d,%d,%d", fds, fds + 1, fds + 2) == 3, "numbers %s", numbers);
    NEED(read(STDIN_FILENO, &byte, 1) == 0, "waiting until the first program has closed its descriptors: %s",
         strerror(errno));
    if (socket >= 0)
        receive_fds(socket, fds, DESCRIPTORS);
    struct stat stat;
    struct pollfd async_fd = {.fd = fds[ASYNC], .events = POLLIN};
    switch (first) {
    case FIRST_WRITE: allocate_pd(fds[DEVICE]); break;
    case FIRST_STAT: NEED(fstat(fds[DEVICE], &stat) == 0 && S_ISCHR(stat.st_mode), "fstat: %o", stat.st_mode); break;
    case FIRST_READ: NEED(read(fds[DEVICE], &byte, 1) < 0 && errno == EINVAL, "read: %s", strerror(errno)); break;
    case FIRST_EVENT:
        NEED(write(fds[CHANNEL], "x", 1) < 0 && errno == EBADF, "write to a channel: %s", strerror(errno));
        NEED(poll(&async_fd, 1, 0) == 0, "poll: %d", async_fd.revents);
        break;
    }
    if (first == NOBODY) {
        find_nobody(fds);
        return;
    }
    NEED(fstat(fds[DEVICE], &stat) == 0 && S_ISCHR(stat.st_mode), "fstat: %o", stat.st_mode);
    allocate_pd(fds[DEVICE]);
    uint64_t invalid_call[8] = {0};
    NEED(ioctl(fds[DEVICE], _IOWR(VERBS_LETTER, 1, uint64_t[3]), invalid_call) < 0 && errno != ENOTTY, "ioctl: %s",
         strerror(errno));
    NEED(read(fds[ASYNC], &byte, 1) < 0 && errno == EAGAIN, "read without an event: %s", strerror(errno));
}

static void open_and_pass(const char *self, bool over_socket, int first)
{
    /* The pipe `closed` tells the second program that the first has closed its descriptors. */
    int pair[2], closed[2];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe2(closed, O_CLOEXEC) == 0, "%s", strerror(errno));
    struct ibv_context *context = open_named(NULL);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
    NEED(pd && pd->handle == 0 && channel, "the objects to pass: %s", strerror(errno));
    int fds[DESCRIPTORS] = {context->cmd_fd, context->async_fd, channel->fd};
    NEED(fcntl(context->async_fd, F_SETFL, O_NONBLOCK) == 0, "fcntl: %s", strerror(errno));
    fflush(stdout);
    const pid_t other = fork();
    if (other == 0) {
        char socket[16] = "-1", numbers[64], first_number[16];
        if (over_socket) {
            snprintf(socket, sizeof socket, "%d", pair[0]);
            for (int i = 0; i < DESCRIPTORS; i++)
                close(fds[i]);
        } else {
            for (int i = 0; i < DESCRIPTORS; i++)
                fcntl(fds[i], F_SETFD, 0);
        }
        snprintf(numbers, sizeof numbers, "%d,%d,%d", fds[0], fds[1], fds[2]);
        snprintf(first_number, sizeof first_number, "%d", first);
        dup2(closed[0], STDIN_FILENO);
        if (first == NOBODY)
            setenv("USERDMA_SOCKET", getenv("PASSING_OTHER"), 1);
        close(pair[1]);
        execl(self, self, "take", socket, numbers, first_number, (char *)NULL);
        _exit(127);
    }
    close(pair[0]);
    if (over_socket)
        send_fds(pair[1], fds, DESCRIPTORS);
    /* The objects exist as long as some program has the device. */
    for (int i = 0; i < DESCRIPTORS; i++)
        close(fds[i]);
    close(closed[0]);
    close(closed[1]);
    int status;
    NEED(waitpid(other, &status, 0) == other && status == 0, "first call %d %s: status %x", first,
         over_socket ? "over a socket" : "across exec", status);
    close(pair[1]);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "take") == 0) {
        take(atoi(argv[2]), argv[3], atoi(argv[4]));
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "nobody") == 0 && getenv("PASSING_OTHER")) {
        open_and_pass("/proc/self/exe", false, NOBODY);
        open_and_pass("/proc/self/exe", true, NOBODY);
        return 0;
    }
    NEED(argc == 1, "usage: %s [nobody]", argv[0]);
    for (int first = 0; first < FIRSTS; first++)
        for (int over_socket = 0; over_socket < 2; over_socket++)
            open_and_pass("/proc/self/exe", over_socket, first);
    printf("%d ways\n", 2 * FIRSTS);
    return 0;
}
