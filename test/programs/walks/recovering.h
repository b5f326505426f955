/*
 * What programs have that survive every single failure: a device that is opened again when it has failed, a server that
 * is started again, and waits that end. Each failure is told on standard error, and what failed is repeated until
 * nothing succeeds for PATIENCE.
 */
#ifndef RECOVERING_H
#define RECOVERING_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "../endpoint.h"

#define PATIENCE 10000 /* ms */
#define PAUSE 20       /* ms between attempts */
#define BYTES 4096

UNUSED static long now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static long last_success;

UNUSED static void succeeded(void)
{
    last_success = now_ms();
}

/* Says what has failed, and waits a little. Ends the program if nothing has succeeded for PATIENCE. */
__attribute__((format(printf, 1, 2))) UNUSED static void failed(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputs(": again\n", stderr);
    va_end(arguments);
    NEED(now_ms() - last_success < PATIENCE, "nothing succeeds any more");
    usleep(PAUSE * 1000);
}

struct device {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    uint8_t *buffer;
};

/* Nothing of a device that has failed can be kept; a destroy may fail too. */
UNUSED static void close_device(struct device *d)
{
    if (d->mr)
        ibv_dereg_mr(d->mr);
    if (d->cq)
        ibv_destroy_cq(d->cq);
    if (d->channel)
        ibv_destroy_comp_channel(d->channel);
    if (d->pd)
        ibv_dealloc_pd(d->pd);
    if (d->context)
        ibv_close_device(d->context);
    free(d->buffer);
    *d = (struct device){0};
}

/* The part of `try_open` that failed; NULL: none. */
static const char *try_open(struct device *d)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    if (!list)
        return "ibv_get_device_list";
    d->context = list[0] ? ibv_open_device(list[0]) : NULL;
    ibv_free_device_list(list);
    if (!d->context)
        return "ibv_open_device";
    fcntl(d->context->async_fd, F_SETFL, O_NONBLOCK);
    if (!(d->pd = ibv_alloc_pd(d->context)))
        return "ibv_alloc_pd";
    if (!(d->channel = ibv_create_comp_channel(d->context)))
        return "ibv_create_comp_channel";
    fcntl(d->channel->fd, F_SETFL, O_NONBLOCK);
    if (!(d->cq = ibv_create_cq(d->context, 64, NULL, d->channel, 0)))
        return "ibv_create_cq";
    if (posix_memalign((void **)&d->buffer, 4096, BYTES) != 0)
        return "posix_memalign";
    memset(d->buffer, 0, BYTES);
    if (!(d->mr = ibv_reg_mr(d->pd, d->buffer, BYTES,
                             IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE)))
        return "ibv_reg_mr";
    return NULL;
}

UNUSED static void open_device(struct device *d)
{
    for (const char *what; (what = try_open(d));) {
        const int error = errno;
        close_device(d);
        failed("%s: %s", what, strerror(error));
    }
}

/* Reads the events of the device. True: it has failed, and must be opened again. */
UNUSED static bool has_failed(struct device *d)
{
    bool fatal = false;
    struct ibv_async_event event;
    while (ibv_get_async_event(d->context, &event) == 0) {
        fatal = fatal || event.event_type == IBV_EVENT_DEVICE_FATAL;
        ibv_ack_async_event(&event);
    }
    return fatal || (errno != EAGAIN && errno != EINTR);
}

/* The index of the first IPv4 address, which may have moved since the last look. -1: there is none now. */
UNUSED static int find_gid(struct device *d, union ibv_gid *gid)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct ibv_gid_entry entry;
    for (int i = 0; i < 16; i++)
        if (ibv_query_gid_ex(d->context, 1, i, &entry, 0) == 0 && entry.gid_type != IBV_GID_TYPE_ROCE_V1 &&
            memcmp(entry.gid.raw, mapped, sizeof mapped) == 0) {
            *gid = entry.gid;
            return i;
        }
    return -1;
}

/* Polls one completion, for at most so long. An event only ends a wait early: it may be late, or have no cause. */
UNUSED static bool completed(struct device *d, struct ibv_wc *wc, int milliseconds)
{
    const long end = now_ms() + milliseconds;
    for (;;) {
        int found = ibv_poll_cq(d->cq, 1, wc);
        if (found == 0 && ibv_req_notify_cq(d->cq, 0) == 0)
            found = ibv_poll_cq(d->cq, 1, wc);
        if (found != 0)
            return found > 0;
        const long left = end - now_ms();
        if (left <= 0)
            return false;
        struct pollfd channel = {.fd = d->channel->fd, .events = POLLIN};
        poll(&channel, 1, left < PAUSE ? (int)left : PAUSE);
        struct ibv_cq *cq;
        void *context;
        if (ibv_get_cq_event(d->channel, &cq, &context) == 0)
            ibv_ack_cq_events(cq, 1);
    }
}

/* ---- the server, another process ---- */

static pid_t server;
static int control = -1;

static void end_server(void)
{
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    server = 0;
}

/* Starts the server, which is this program with `serve FD`. */
UNUSED static void start_server(const char *program)
{
    int ends[2];
    end_server();
    close(control);
    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0, "socketpair: %s", strerror(errno));
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    server = fork();
    NEED(server >= 0, "fork: %s", strerror(errno));
    if (server == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", ends[1]);
        execl("/proc/self/exe", program, "serve", number, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    control = ends[0];
    signal(SIGPIPE, SIG_IGN);
}

/* Asks the server. False: it does not answer in time, or has ended. */
UNUSED static bool ask(const void *question, size_t length, void *answer, size_t answer_length)
{
    struct pollfd from = {.fd = control, .events = POLLIN};
    return send(control, question, length, MSG_NOSIGNAL) == (ssize_t)length && poll(&from, 1, PATIENCE / 2) == 1 &&
           recv(control, answer, answer_length, 0) == (ssize_t)answer_length;
}

#endif
