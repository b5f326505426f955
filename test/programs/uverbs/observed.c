/*
 * Programs that `--host` observes (test/system/check/host.test.ts, host-torture.long.test.ts).
 *
 *   observed descriptors     calls on descriptors that were duplicated, inherited, passed and kept over exec; each call
 *                            allocates or deallocates a PD
 *   observed imported FD     uses a descriptor that is open already
 *   observed queries COUNT   queries a port COUNT times
 *   observed forks COUNT     forks COUNT times while another thread allocates and deallocates PDs; each child does too
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "observed: line %d: %s\n", __LINE__, #condition);                                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static struct ibv_context *open_device(void)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    CHECK(list && list[0]);
    struct ibv_context *context = ibv_open_device(list[0]);
    CHECK(context);
    ibv_free_device_list(list);
    return context;
}

/* Allocates a PD by descriptor `first` of the context, and deallocates it by `second`. */
static void use(struct ibv_context *context, int first, int second)
{
    const int own = context->cmd_fd;
    context->cmd_fd = first;
    struct ibv_pd *pd = ibv_alloc_pd(context);
    CHECK(pd);
    context->cmd_fd = second;
    CHECK(ibv_dealloc_pd(pd) == 0);
    context->cmd_fd = own;
}

static void await(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* Uses a descriptor that another process has opened, or this one before exec. */
static void imported(int fd)
{
    struct ibv_context *context = open_device();
    use(context, fd, fd);
    CHECK(close(fd) == 0);
    CHECK(ibv_close_device(context) == 0);
}

static void duplicates(void)
{
    struct ibv_context *context = open_device();
    const int fd = context->cmd_fd;
    const int copies[] = {dup(fd), dup2(fd, 100), dup3(fd, 101, O_CLOEXEC), fcntl(fd, F_DUPFD_CLOEXEC, 102)};
    for (unsigned i = 0; i < 4; i++)
        use(context, copies[i], fd);
    /* Closed unseen: the number is another file's. */
    CHECK(syscall(SYS_close, 100) == 0);
    CHECK(syscall(SYS_dup2, open("/dev/null", O_WRONLY), 100) == 100);
    char bytes[64] = {0};
    /* userdma's own device still believes that it is the context's, so the result does not matter. */
    if (write(100, bytes, sizeof bytes) < 0)
        bytes[0] = 1;
    for (unsigned i = 0; i < 4; i++)
        close(copies[i]);
    CHECK(ibv_close_device(context) == 0);
}

/* A child uses the context that its parent has closed; the parent has another one on the same descriptor. */
static void inherited(void)
{
    int pipe_fds[2];
    char byte = 0;
    struct ibv_context *context = open_device();
    const int fd = context->cmd_fd;
    CHECK(pipe(pipe_fds) == 0);
    const pid_t child = fork();
    if (child == 0) {
        CHECK(read(pipe_fds[0], &byte, 1) == 1);
        use(context, fd, fd);
        exit(0);
    }
    CHECK(ibv_close_device(context) == 0);
    context = open_device();
    struct ibv_pd *pd = ibv_alloc_pd(context);
    CHECK(write(pipe_fds[1], &byte, 1) == 1);
    await(child);
    CHECK(ibv_dealloc_pd(pd) == 0);
    CHECK(ibv_close_device(context) == 0);
}

static void pass(int socket_fd, int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof fd)];
    } control = {.header = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS}};
    char byte = 0;
    struct iovec vector = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    CHECK(sendmsg(socket_fd, &message, 0) == 1);
}

static int receive(int socket_fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    int fd;
    struct iovec vector = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    CHECK(recvmsg(socket_fd, &message, 0) == 1);
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    return fd;
}

static void passed(void)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    const pid_t child = fork();
    if (child == 0) {
        imported(receive(pair[1]));
        exit(0);
    }
    struct ibv_context *context = open_device();
    struct ibv_pd *pd = ibv_alloc_pd(context);
    pass(pair[0], context->cmd_fd);
    await(child);
    CHECK(ibv_dealloc_pd(pd) == 0);
    CHECK(ibv_close_device(context) == 0);
}

static void executed(void)
{
    char number[16];
    struct ibv_context *context = open_device();
    CHECK(ibv_alloc_pd(context));
    snprintf(number, sizeof number, "%d", dup(context->cmd_fd));
    execl("/proc/self/exe", "observed", "imported", number, NULL);
}

static void queries(long count)
{
    struct ibv_context *context = open_device();
    struct ibv_port_attr attributes;
    for (long i = 0; i < count; i++)
        CHECK(ibv_query_port(context, 1, &attributes) == 0);
    CHECK(ibv_close_device(context) == 0);
}

static volatile int is_over;

static void *use_often(void *context)
{
    while (!is_over)
        use(context, ((struct ibv_context *)context)->cmd_fd, ((struct ibv_context *)context)->cmd_fd);
    return NULL;
}

static void forks(long count)
{
    struct ibv_context *context = open_device();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_often, context) == 0);
    for (long i = 0; i < count; i++) {
        const pid_t child = fork();
        if (child == 0) {
            use(context, context->cmd_fd, context->cmd_fd);
            _exit(0);
        }
        await(child);
    }
    is_over = 1;
    pthread_join(thread, NULL);
    CHECK(ibv_close_device(context) == 0);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    const long number = argc > 2 ? atol(argv[2]) : 0;
    if (argc == 2 && strcmp(name, "descriptors") == 0) {
        duplicates();
        inherited();
        passed();
        executed();
    } else if (argc == 3 && strcmp(name, "imported") == 0)
        imported((int)number);
    else if (argc == 3 && strcmp(name, "queries") == 0)
        queries(number);
    else if (argc == 3 && strcmp(name, "forks") == 0)
        forks(number);
    else {
        fprintf(stderr, "usage: observed descriptors | imported FD | queries COUNT | forks COUNT\n");
        return 1;
    }
    return 0;
}
