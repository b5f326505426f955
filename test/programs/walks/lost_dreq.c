/*
 * The fault of perftest #380, for a walk: whoever disconnects gets DISCONNECTED also if no DREQ has arrived, with
 * status
 * -ETIMEDOUT, which nobody reads. The peer learns nothing, and waits for its own DISCONNECTED.
 */
#include "../endpoint.h"

#include <arpa/inet.h>
#include <rdma/rdma_cma.h>
#include <signal.h>
#include <sys/wait.h>

static struct rdma_event_channel *channel;

/* Waits for an event, and looks only at its type. An end may come before the RTU, which may be lost. */
static struct rdma_cm_id *wait_for(enum rdma_cm_event_type type)
{
    static bool has_ended;
    struct rdma_cm_event *event;
    if (has_ended)
        return NULL;
    NEED(rdma_get_cm_event(channel, &event) == 0, "rdma_get_cm_event: %s", strerror(errno));
    has_ended = event->event == RDMA_CM_EVENT_DISCONNECTED;
    NEED(event->event == type || has_ended, "%s instead of %s", rdma_event_str(event->event), rdma_event_str(type));
    struct rdma_cm_id *id = event->id;
    rdma_ack_cm_event(event);
    return id;
}

/* A client that has failed may never connect. */
static void on_child(int number)
{
    siginfo_t info = {0};
    (void)number;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_status != 0)
        _exit(1);
}

static struct rdma_cm_id *new_id(void)
{
    struct rdma_cm_id *id;
    NEED(channel || (channel = rdma_create_event_channel()), "rdma_create_event_channel: %s", strerror(errno));
    NEED(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP) == 0, "rdma_create_id: %s", strerror(errno));
    return id;
}

static void create_queue_pair(struct rdma_cm_id *id)
{
    struct ibv_qp_init_attr init = {.cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
                                    .qp_type = IBV_QPT_RC};
    NEED(rdma_create_qp(id, NULL, &init) == 0, "rdma_create_qp: %s", strerror(errno));
}

static void end(struct rdma_cm_id *id)
{
    if (id->qp)
        rdma_destroy_qp(id);
    NEED(rdma_destroy_id(id) == 0, "rdma_destroy_id: %s", strerror(errno));
}

static int client(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
    struct rdma_cm_id *id = new_id();
    NEED(rdma_resolve_addr(id, NULL, (struct sockaddr *)&to, 2000) == 0, "rdma_resolve_addr: %s", strerror(errno));
    wait_for(RDMA_CM_EVENT_ADDR_RESOLVED);
    NEED(rdma_resolve_route(id, 2000) == 0, "rdma_resolve_route: %s", strerror(errno));
    wait_for(RDMA_CM_EVENT_ROUTE_RESOLVED);
    create_queue_pair(id);
    NEED(rdma_connect(id, &parameters) == 0, "rdma_connect: %s", strerror(errno));
    wait_for(RDMA_CM_EVENT_ESTABLISHED);
    NEED(rdma_disconnect(id) == 0, "rdma_disconnect: %s", strerror(errno));
    wait_for(RDMA_CM_EVENT_DISCONNECTED);
    end(id);
    rdma_destroy_event_channel(channel);
    puts("disconnected");
    return 0;
}

int main(int argc, char **argv)
{
    (void)argv;
    NEED(argc == 1, "usage: lost_dreq");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rdma_conn_param parameters = {.rnr_retry_count = 7};
    struct rdma_cm_id *listener = new_id();
    NEED(rdma_bind_addr(listener, (struct sockaddr *)&at) == 0, "rdma_bind_addr: %s", strerror(errno));
    NEED(rdma_listen(listener, 1) == 0, "rdma_listen: %s", strerror(errno));
    const uint16_t port = rdma_get_src_port(listener);
    signal(SIGCHLD, on_child);
    const pid_t child = fork();
    NEED(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        channel = NULL;
        return client(port);
    }
    struct rdma_cm_id *id = wait_for(RDMA_CM_EVENT_CONNECT_REQUEST);
    create_queue_pair(id);
    NEED(rdma_accept(id, &parameters) == 0, "rdma_accept: %s", strerror(errno));
    wait_for(RDMA_CM_EVENT_ESTABLISHED);
    wait_for(RDMA_CM_EVENT_DISCONNECTED);
    end(id);
    end(listener);
    rdma_destroy_event_channel(channel);
    int status = 1;
    waitpid(child, &status, 0);
    puts("done");
    return WEXITSTATUS(status);
}
