/*
 * The fault of Mooncake #3584, for a walk: a reply to the request of a connection has no number of its generation. If
 * it comes after the client has given up and asked again, it configures the next queue pair, whose peer is then
 * connected to the one that is gone.
 */
#include "../endpoint.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define ROUNDS 8
#define REPLY_TIME 400 /* ms */

static int serve(int fd, struct options *options)
{
    struct endpoint end;
    struct address client;
    struct ibv_context *context = open_named(NULL);
    create_endpoint(&end, context, options, 4096, 1);
    while (recv(fd, &client, sizeof client, 0) == (ssize_t)sizeof client) {
        ibv_destroy_qp(end.qp);
        create_qp(&end);
        connect_to(&end, &client, options);
        const struct address own = address_of(&end);
        if (send(fd, &own, sizeof own, MSG_NOSIGNAL) < 0)
            break;
    }
    destroy_endpoint(&end);
    ibv_close_device(context);
    return 0;
}

/* A new queue pair, and the first reply that comes. */
static struct address connect_client(struct endpoint *end, int fd, const struct options *options)
{
    for (;;) {
        struct address peer;
        ibv_destroy_qp(end->qp);
        create_qp(end);
        const struct address own = address_of(end);
        struct pollfd reply = {.fd = fd, .events = POLLIN};
        NEED(send(fd, &own, sizeof own, MSG_NOSIGNAL) == (ssize_t)sizeof own, "the server has gone");
        if (poll(&reply, 1, REPLY_TIME) != 1) {
            fprintf(stderr, "no reply in time: ask again\n");
            continue;
        }
        NEED(recv(fd, &peer, sizeof peer, 0) == (ssize_t)sizeof peer, "the server has gone");
        connect_to(end, &peer, options);
        return peer;
    }
}

int main(int argc, char **argv)
{
    (void)argv;
    NEED(argc == 1, "usage: late_reply");
    int ends[2];
    struct options options = default_options;
    options.timeout = 12;
    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0, "socketpair: %s", strerror(errno));
    const pid_t server = fork();
    NEED(server >= 0, "fork: %s", strerror(errno));
    if (server == 0) {
        close(ends[0]);
        return serve(ends[1], &options);
    }
    close(ends[1]);
    struct endpoint end;
    struct ibv_context *context = open_named(NULL);
    create_endpoint(&end, context, &options, 4096, 1);
    for (int i = 0; i < ROUNDS; i++) {
        const struct address peer = connect_client(&end, ends[0], &options);
        struct ibv_sge sge = {(uintptr_t)end.buffer, 64, end.mr->lkey};
        struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE,
                                 .send_flags = IBV_SEND_SIGNALED, .wr.rdma = {peer.buffer, peer.rkey}}, *bad;
        struct ibv_wc wc;
        NEED(ibv_post_send(end.qp, &wr, &bad) == 0, "ibv_post_send");
        while (next_completion(&end, &wc) == 0)
            usleep(100);
        NEED(wc.status == IBV_WC_SUCCESS, "round %d: %s", i, ibv_wc_status_str(wc.status));
    }
    destroy_endpoint(&end);
    ibv_close_device(context);
    close(ends[0]);
    waitpid(server, NULL, 0);
    puts("done");
    return 0;
}
