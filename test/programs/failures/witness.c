/*
 * Tells the events that it receives, in their order, of a connection of rdma_cm, its device and its requests, as lines
 * of SOURCE EVENT: `async PORT_ERR`, `cm DISCONNECTED 0`, `completion SEND success`, `netlink REGISTER`, `sysfs state
 * …`. `witness server|client ADDRESS`, or `witness device` without a connection. Commands on standard input: `send`,
 * `disconnect`, `destroy` (the queue pair and the identifier), `quit`; a line of another word is printed as it is, so
 * that what came before and after can be told apart.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <linux/netlink.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 64
#define MAX_GIDS 16
/* RDMA_NL_GROUP_NOTIFY, and its attribute RDMA_NLDEV_ATTR_EVENT_TYPE (Linux 6.12). */
#define GROUP_NOTIFY 4
#define ATTR_EVENT_TYPE 102

static void need(bool is_good, const char *what)
{
    if (is_good)
        return;
    fprintf(stderr, "witness: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct rdma_event_channel *channel;
static struct rdma_cm_id *id;
static struct ibv_context *context;
static struct ibv_comp_channel *completions;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct ibv_mr *mr;
static char buffer[2 * SIZE];
static int netlink = -1;

static void set_nonblocking(int fd)
{
    need(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0, "fcntl");
}

/* ---- the device ---- */

/* State of the port and indices of GIDs, if they have changed. */
static void look_at_sysfs(void)
{
    static char last[512];
    char now[sizeof last], path[128], line[64];
    size_t length = 0;
    now[0] = 0;
    for (int i = -1; i < MAX_GIDS; i++) {
        if (i < 0)
            snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/1/state", ibv_get_device_name(context->device));
        else
            snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/1/gids/%d", ibv_get_device_name(context->device), i);
        FILE *file = fopen(path, "r");
        const bool is_read = file && fgets(line, sizeof line, file);
        if (file)
            fclose(file);
        if (!is_read && i < 0)
            length += (size_t)snprintf(now + length, sizeof now - length, "no device");
        if (!is_read)
            continue;
        line[strcspn(line, "\n")] = 0;
        /* Which GIDs are IPv4, IPv6 or link-local; their bytes differ from run to run. */
        const char *kind = strstr(line, ":ffff:") ? "v4" : strncmp(line, "fe80", 4) == 0 ? "local" : "v6";
        if (i < 0)
            length += (size_t)snprintf(now + length, sizeof now - length, "%s", strchr(line, ' ') ? strchr(line, ' ') + 1 : line);
        else if (strncmp(line, "0000:0000:0000:0000:0000:0000:0000:0000", 39) != 0)
            length += (size_t)snprintf(now + length, sizeof now - length, " %d=%s", i, kind);
    }
    if (strcmp(now, last) == 0)
        return;
    strcpy(last, now);
    printf("sysfs %s\n", now);
}

static void read_async(void)
{
    struct ibv_async_event event;
    while (ibv_get_async_event(context, &event) == 0) {
        /* rdma-core 44 does not know DEVICE_SPEED_CHANGE, 20, yet. */
        printf("async %s\n", (int)event.event_type == 20 ? "speed change" : ibv_event_type_str(event.event_type));
        ibv_ack_async_event(&event);
    }
}

static void open_netlink(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    const int group = GROUP_NOTIFY;
    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_RDMA);
    if (netlink < 0 || bind(netlink, (struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(netlink, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
        printf("netlink none\n");
        netlink = -1;
    }
}

static void read_netlink(void)
{
    static const char *const names[] = {"REGISTER", "UNREGISTER", "NETDEV_ATTACH", "NETDEV_DETACH", "RENAME",
                                        "NETDEV_RENAME"};
    char message[4096];
    ssize_t length;
    while ((length = recv(netlink, message, sizeof message, 0)) >= (ssize_t)sizeof(struct nlmsghdr))
        for (size_t at = sizeof(struct nlmsghdr); at + sizeof(struct nlattr) <= (size_t)length;) {
            const struct nlattr *attribute = (const struct nlattr *)(message + at);
            if (attribute->nla_len < sizeof *attribute)
                break;
            const unsigned char type = (unsigned char)message[at + sizeof *attribute];
            if ((attribute->nla_type & NLA_TYPE_MASK) == ATTR_EVENT_TYPE)
                printf("netlink %s\n", type < sizeof names / sizeof *names ? names[type] : "?");
            at += (attribute->nla_len + 3u) & ~3u;
        }
}

static void open_named(void)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    need(list && list[0], "ibv_get_device_list");
    context = ibv_open_device(list[0]);
    need(context != NULL, "ibv_open_device");
    ibv_free_device_list(list);
}

/* ---- the connection ---- */

static void post_receive(void)
{
    struct ibv_sge sge = {(uintptr_t)buffer + SIZE, SIZE, mr->lkey};
    struct ibv_recv_wr *bad, wr = {.sg_list = &sge, .num_sge = 1};
    if (ibv_post_recv(qp, &wr, &bad) != 0)
        printf("call ibv_post_recv refused\n");
}

static void send_message(void)
{
    struct ibv_sge sge = {(uintptr_t)buffer, SIZE, mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    const int error = ibv_post_send(qp, &wr, &bad);
    if (error != 0)
        printf("call ibv_post_send %s\n", strerror(error));
}

static void make_queue_pair(void)
{
    struct ibv_pd *pd = ibv_alloc_pd(id->verbs);
    need(pd != NULL, "ibv_alloc_pd");
    context = id->verbs;
    completions = ibv_create_comp_channel(context);
    need(completions != NULL, "ibv_create_comp_channel");
    cq = ibv_create_cq(context, 16, NULL, completions, 0);
    need(cq != NULL && ibv_req_notify_cq(cq, 0) == 0, "ibv_create_cq");
    mr = ibv_reg_mr(pd, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE);
    need(mr != NULL, "ibv_reg_mr");
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
                                    .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1}};
    need(rdma_create_qp(id, pd, &init) == 0, "rdma_create_qp");
    qp = id->qp;
    post_receive();
    set_nonblocking(completions->fd);
    set_nonblocking(context->async_fd);
}

static void poll_completions(void)
{
    struct ibv_cq *from;
    void *user;
    while (ibv_get_cq_event(completions, &from, &user) == 0) {
        ibv_ack_cq_events(from, 1);
        if (ibv_req_notify_cq(from, 0) != 0)
            break;
    }
    struct ibv_wc wc;
    while (cq && ibv_poll_cq(cq, 1, &wc) > 0)
        printf("completion %s %s\n", wc.wr_id == 1 ? "SEND" : "RECV", ibv_wc_status_str(wc.status));
}

static struct rdma_cm_id *next_event(enum rdma_cm_event_type expected)
{
    struct rdma_cm_event *event;
    need(rdma_get_cm_event(channel, &event) == 0, "rdma_get_cm_event");
    if (event->event != expected) {
        fprintf(stderr, "witness: %s %d instead of %s\n", rdma_event_str(event->event), event->status, rdma_event_str(expected));
        exit(1);
    }
    struct rdma_cm_id *about = event->id;
    rdma_ack_cm_event(event);
    return about;
}

static void read_cm(void)
{
    struct rdma_cm_event *event;
    while (rdma_get_cm_event(channel, &event) == 0) {
        printf("cm %s %d\n", rdma_event_str(event->event) + strlen("RDMA_CM_EVENT_"), event->status);
        rdma_ack_cm_event(event);
    }
}

static void connect_as(bool is_server, const char *host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7471)};
    struct rdma_conn_param parameters = {.retry_count = 7, .rnr_retry_count = 7};
    need(inet_pton(AF_INET, host, &address.sin_addr) == 1, host);
    channel = rdma_create_event_channel();
    need(channel != NULL && rdma_create_id(channel, &id, NULL, RDMA_PS_TCP) == 0, "rdma_create_id");
    if (is_server) {
        need(rdma_bind_addr(id, (struct sockaddr *)&address) == 0 && rdma_listen(id, 1) == 0, "rdma_listen");
        puts("listening");
        id = next_event(RDMA_CM_EVENT_CONNECT_REQUEST);
        make_queue_pair();
        need(rdma_accept(id, &parameters) == 0, "rdma_accept");
    } else {
        need(rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 5000) == 0, "rdma_resolve_addr");
        next_event(RDMA_CM_EVENT_ADDR_RESOLVED);
        need(rdma_resolve_route(id, 5000) == 0, "rdma_resolve_route");
        next_event(RDMA_CM_EVENT_ROUTE_RESOLVED);
        make_queue_pair();
        need(rdma_connect(id, &parameters) == 0, "rdma_connect");
    }
    next_event(RDMA_CM_EVENT_ESTABLISHED);
    set_nonblocking(channel->fd);
}

static bool command(const char *word)
{
    if (strcmp(word, "quit") == 0)
        return false;
    if (strcmp(word, "send") == 0 && qp)
        send_message();
    else if (strcmp(word, "disconnect") == 0 && id) {
        if (rdma_disconnect(id) != 0)
            printf("call rdma_disconnect %s\n", strerror(errno));
    } else if (strcmp(word, "destroy") == 0 && id) {
        if (id->qp)
            rdma_destroy_qp(id);
        if (rdma_destroy_id(id) != 0)
            printf("call rdma_destroy_id %s\n", strerror(errno));
        id = NULL;
        qp = NULL;
    } else
        puts(word);
    return true;
}

/* Commands that have arrived; false: the last. */
static bool read_commands(void)
{
    static char line[64];
    static size_t length;
    char next;
    while (read(STDIN_FILENO, &next, 1) == 1) {
        if (next != '\n') {
            if (length < sizeof line - 1)
                line[length++] = next;
            continue;
        }
        line[length] = 0;
        length = 0;
        if (!command(line))
            return false;
    }
    return errno == EAGAIN;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const bool is_device = argc == 2 && strcmp(argv[1], "device") == 0;
    const bool is_server = argc == 3 && strcmp(argv[1], "server") == 0;
    if (!is_device && !is_server && !(argc == 3 && strcmp(argv[1], "client") == 0))
        return fputs("usage: witness device | server ADDRESS | client ADDRESS\n", stderr), 1;
    if (is_device) {
        open_named();
        set_nonblocking(context->async_fd);
    } else
        connect_as(is_server, argv[2]);
    open_netlink();
    set_nonblocking(STDIN_FILENO);
    look_at_sysfs();
    puts("ready");
    for (;;) {
        struct pollfd fds[] = {{.fd = netlink, .events = POLLIN},
                               {.fd = context->async_fd, .events = POLLIN},
                               {.fd = completions ? completions->fd : -1, .events = POLLIN},
                               {.fd = channel ? channel->fd : -1, .events = POLLIN},
                               {.fd = STDIN_FILENO, .events = POLLIN}};
        if (poll(fds, sizeof fds / sizeof *fds, 50) < 0)
            return 1;
        if (netlink >= 0)
            read_netlink();
        read_async();
        look_at_sysfs();
        if (completions)
            poll_completions();
        if (channel)
            read_cm();
        if ((fds[4].revents & (POLLIN | POLLHUP)) != 0 && !read_commands())
            return 0;
    }
}
