/*
 * Calls that end for another reason than the program thinks, one case a run, for `userdma check`
 * (test/system/check/given-up.test.ts): the argument names it.
 */
#include "../../../docs/findings/cm.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>

static struct ibv_comp_channel *channel;
static struct end one, other;

static void nothing(int number)
{
    (void)number;
}

/* Signals come until `stop`: one that came before the wait would not end it. */
static void begin_signals(void)
{
    const struct sigaction action = {.sa_handler = nothing};
    const struct itimerval often = {.it_interval.tv_usec = 10000, .it_value.tv_usec = 10000};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
}

static void end_signals(void)
{
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
}

static void make_waiting_pair(void)
{
    open_device();
    channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    make_end(&one);
    make_end(&other);
    replace_cq(&other, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
    check(ibv_req_notify_cq(other.cq, 0), "ibv_req_notify_cq");
    post_receive(&other, all_of(&other));
    begin_signals();
}

static int get_event(void)
{
    struct ibv_cq *cq;
    void *user;
    return ibv_get_cq_event(channel, &cq, &user);
}

/* A signal is taken for the end of the channel. */
static int event(void)
{
    make_waiting_pair();
    if (get_event() == 0)
        return 1;
    end_signals();
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    return 1;
}

static int poll_channel(void)
{
    make_waiting_pair();
    struct pollfd polled = {.fd = channel->fd, .events = POLLIN};
    if (poll(&polled, 1, -1) > 0)
        return 1;
    end_signals();
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    return 1;
}

/* Another mistake follows after the wait has been repeated. */
static int repeat(void)
{
    make_waiting_pair();
    for (int interrupted = 0; interrupted < 3; interrupted++)
        if (get_event() == 0)
            return 1;
    end_signals();
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    check(get_event(), "ibv_get_cq_event");
    ibv_ack_cq_events(other.cq, 1);
    completion(&other);
    completion(&one);
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    return 1;
}

/* No descriptor is left for a channel, and the program goes on without it. */
static int descriptors(void)
{
    open_device();
    check(setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 32, .rlim_max = 32}), "setrlimit");
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    channel = ibv_create_comp_channel(context);
    return channel != NULL;
}

static void connect_to(struct cm_end *end)
{
    struct rdma_conn_param parameters = {.retry_count = 7};
    check(rdma_connect(end->id, &parameters), "rdma_connect");
}

/* A server takes the event after its rdma_accept for ESTABLISHED: it is the request of a second client. */
static int mixed(void)
{
    struct cm_end clients[2] = {0}, server = {0};
    resolve(&clients[0], &server);
    struct sockaddr address = *rdma_get_peer_addr(clients[0].id);
    clients[1].channel = clients[0].channel;
    check(rdma_create_id(clients[1].channel, &clients[1].id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(clients[1].id, NULL, &address, 2000), "rdma_resolve_addr");
    event_of(clients[1].channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    check(rdma_resolve_route(clients[1].id, 2000), "rdma_resolve_route");
    event_of(clients[1].channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
    make_cm_queue_pair(&clients[1]);
    connect_to(&clients[0]);
    take_request(&server);
    connect_to(&clients[1]);
    struct rdma_conn_param parameters = {0};
    check(rdma_accept(server.id, &parameters), "rdma_accept");
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(server.channel, &event), "rdma_get_cm_event");
    rdma_ack_cm_event(event);
    event_of(clients[0].channel, RDMA_CM_EVENT_ESTABLISHED);
    check(rdma_get_cm_event(server.channel, &event), "rdma_get_cm_event");
    server.id = event->id;
    rdma_ack_cm_event(event);
    make_cm_queue_pair(&server);
    return 0;
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } cases[] = {{"event", event}, {"poll", poll_channel}, {"repeat", repeat}, {"descriptors", descriptors}, {"mixed", mixed}};
    for (size_t i = 0; count == 2 && i < sizeof cases / sizeof *cases; i++)
        if (strcmp(arguments[1], cases[i].name) == 0)
            return cases[i].run();
    fprintf(stderr, "usage: given_up CASE\n");
    return 1;
}
