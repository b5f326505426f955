/*
 * Writes commands to /dev/infiniband/rdma_cm and prints the results. They are the same on every machine where GID 1 of
 * device rxe0 is an IPv4 address. librdmacm would refuse some of these commands.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <rdma/rdma_user_cm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))
#define MAX_WAIT_MS 3000 /* for an event */
#define UNMAPPED 16 /* an address without memory */
#define CONSUMER_REJECT 28 /* a reason of REJ */
/* RDMA_CM_EVENT_* of librdmacm's <rdma/rdma_cma.h>; Linux's headers lack them. */
enum { EVENT_ROUTE_RESOLVED = 2, EVENT_CONNECT_REQUEST = 4, EVENT_ESTABLISHED = 9, EVENT_MULTICAST_JOIN = 12 };

static int channel;
static struct in6_addr own_gid;

/* Prints a command and its result. */
__attribute__((format(printf, 2, 3))) static long step(long result, const char *format, ...)
{
    const int error = result < 0 ? errno : 0;
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" = %s\n", error == 0 ? "OK" : strerrorname_np(error));
    fflush(stdout);
    return result;
}

static void stop(const char *failed)
{
    fprintf(stderr, "%s: %s\n", failed, strerror(errno));
    exit(1);
}

static int open_channel(void)
{
    int fd = open("/dev/infiniband/rdma_cm", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        stop("/dev/infiniband/rdma_cm");
    return fd;
}

/* `out`: the response size that the header announces. */
static long command(int number, const void *body, size_t length, size_t out)
{
    struct {
        struct rdma_ucm_cmd_hdr header;
        uint8_t body[1024];
    } message = {.header = {.cmd = number, .in = length, .out = out}};
    memcpy(message.body, body, length);
    return write(channel, &message, sizeof message.header + length);
}
#define WRITE_COMMAND(name, in, out) command(RDMA_USER_CM_CMD_##name, &(in), sizeof(in), out)

/* ---- addresses ---- */

/*
 * `text`: "own" for the IPv4 address of the device; an IPv4 or IPv6 address; or the number of an address family, for an
 * address of zeros.
 */
static struct sockaddr_storage parse_address(const char *text, int port)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in *four = (void *)&storage;
    struct sockaddr_in6 *six = (void *)&storage;
    if (strcmp(text, "own") == 0) {
        *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&four->sin_addr, own_gid.s6_addr + 12, 4);
    } else if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
    } else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
    } else
        storage.ss_family = atoi(text);
    return storage;
}

static int size_of(const struct sockaddr_storage *storage)
{
    return storage->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static void find_own_gid(void)
{
    char text[64] = "";
    FILE *file = fopen("/sys/class/infiniband/rxe0/ports/1/gids/1", "r");
    if (!file || !fgets(text, sizeof text, file))
        stop("GID 1 of rxe0");
    fclose(file);
    text[strcspn(text, "\n")] = 0;
    if (inet_pton(AF_INET6, text, &own_gid) != 1)
        stop(text);
}

/* ---- commands ---- */

/* A function that returns `long` writes one command. */

/* The identifier in the response of the last CREATE_ID, JOIN_MCAST or JOIN_IP_MCAST. */
static uint32_t created_id;

static long create(int port_space, int qp_type)
{
    struct rdma_ucm_create_id_resp answer = {0};
    struct rdma_ucm_create_id in = {.uid = 7, .response = (uintptr_t)&answer, .ps = port_space, .qp_type = qp_type};
    long result = WRITE_COMMAND(CREATE_ID, in, sizeof answer);
    created_id = answer.id;
    return result;
}

/* Returns the new identifier. A failure ends the program. */
static uint32_t create_id(int space)
{
    if (create(space, space == RDMA_PS_TCP || space == RDMA_PS_IB ? IBV_QPT_RC : IBV_QPT_UD) < 0)
        stop("CREATE_ID");
    return created_id;
}

/* The number of events in the response of the last DESTROY_ID, LEAVE_MCAST or MIGRATE_ID. */
static uint32_t events_reported;

static long destroy(uint32_t id)
{
    struct rdma_ucm_destroy_id_resp answer = {0};
    struct rdma_ucm_destroy_id in = {.response = (uintptr_t)&answer, .id = id};
    long result = WRITE_COMMAND(DESTROY_ID, in, sizeof answer);
    events_reported = answer.events_reported;
    return result;
}

static long bind_to(uint32_t id, struct sockaddr_storage address)
{
    struct rdma_ucm_bind in = {.id = id, .addr_size = size_of(&address)};
    memcpy(&in.addr, &address, sizeof in.addr);
    return WRITE_COMMAND(BIND, in, 0);
}

static long bind_ip(uint32_t id, struct sockaddr_storage address)
{
    struct rdma_ucm_bind_ip in = {.id = id};
    memcpy(&in.addr, &address, sizeof in.addr);
    return WRITE_COMMAND(BIND_IP, in, 0);
}

/* `from`: NULL for no source address. */
static long resolve(uint32_t id, const struct sockaddr_storage *from, struct sockaddr_storage to)
{
    struct rdma_ucm_resolve_addr in = {.id = id, .timeout_ms = 1000, .dst_size = size_of(&to)};
    memcpy(&in.dst_addr, &to, sizeof in.dst_addr);
    if (from) {
        in.src_size = size_of(from);
        memcpy(&in.src_addr, from, sizeof in.src_addr);
    }
    return WRITE_COMMAND(RESOLVE_ADDR, in, 0);
}

static long resolve_ip(uint32_t id, struct sockaddr_storage to)
{
    struct rdma_ucm_resolve_ip in = {.id = id, .timeout_ms = 1000};
    memcpy(&in.dst_addr, &to, sizeof in.dst_addr);
    return WRITE_COMMAND(RESOLVE_IP, in, 0);
}

static long resolve_route(uint32_t id)
{
    struct rdma_ucm_resolve_route in = {.id = id, .timeout_ms = 1000};
    return WRITE_COMMAND(RESOLVE_ROUTE, in, 0);
}

static long listen_on(uint32_t id, int backlog)
{
    struct rdma_ucm_listen in = {.id = id, .backlog = backlog};
    return WRITE_COMMAND(LISTEN, in, 0);
}

/* The QP number in the next CONNECT or ACCEPT. There is no such queue pair. */
static uint32_t next_qp = 0x4000;

/* `data`: number of bytes of private data, here and below. */
static struct rdma_ucm_conn_param parameters(int data)
{
    struct rdma_ucm_conn_param param = {.qp_num = next_qp++,
                                        .private_data_len = data,
                                        .responder_resources = 3,
                                        .initiator_depth = 2,
                                        .retry_count = 7,
                                        .rnr_retry_count = 7,
                                        .valid = 1};
    memset(param.private_data, 'x', data);
    return param;
}

static long connect_to(uint32_t id, int data)
{
    struct rdma_ucm_connect in = {.conn_param = parameters(data), .id = id};
    return WRITE_COMMAND(CONNECT, in, 0);
}

static long accept_with(uint32_t id, int data)
{
    struct rdma_ucm_accept in = {.uid = 9, .conn_param = parameters(data), .id = id};
    return WRITE_COMMAND(ACCEPT, in, 0);
}

/* A client accepts the server's answer in this way. */
static long accept_without_parameters(uint32_t id)
{
    struct rdma_ucm_accept in = {.uid = 9, .id = id};
    return WRITE_COMMAND(ACCEPT, in, 0);
}

static long reject_with(uint32_t id, int data, int reason)
{
    struct rdma_ucm_reject in = {.id = id, .private_data_len = data, .reason = reason};
    memset(in.private_data, 'r', data);
    return WRITE_COMMAND(REJECT, in, 0);
}

static long disconnect(uint32_t id)
{
    struct rdma_ucm_disconnect in = {.id = id};
    return WRITE_COMMAND(DISCONNECT, in, 0);
}

/* The response of the last INIT_QP_ATTR. */
static struct ib_uverbs_qp_attr attributes;

static long init_qp(uint32_t id, int state)
{
    memset(&attributes, 0, sizeof attributes);
    struct rdma_ucm_init_qp_attr in = {.response = (uintptr_t)&attributes, .id = id, .qp_state = state};
    return WRITE_COMMAND(INIT_QP_ATTR, in, sizeof attributes);
}

static void print_attributes(void)
{
    printf("  mask %#x rd %d %d timeout %d retry %d rnr %d access %#x\n", attributes.qp_attr_mask,
           attributes.max_rd_atomic, attributes.max_dest_rd_atomic, attributes.timeout, attributes.retry_cnt,
           attributes.rnr_retry, attributes.qp_access_flags);
}

static long notify(uint32_t id, int event)
{
    struct rdma_ucm_notify in = {.id = id, .event = event};
    return WRITE_COMMAND(NOTIFY, in, 0);
}

static long set_option(uint32_t id, int level, int name, const void *value, int length)
{
    struct rdma_ucm_set_option in = {
        .optval = (uintptr_t)value, .id = id, .level = level, .optname = name, .optlen = length};
    return WRITE_COMMAND(SET_OPTION, in, 0);
}

static long join(uint32_t id, struct sockaddr_storage group, int flags)
{
    struct rdma_ucm_create_id_resp answer = {0};
    struct rdma_ucm_join_mcast in = {.response = (uintptr_t)&answer,
                                     .uid = 11,
                                     .id = id,
                                     .addr_size = size_of(&group),
                                     .join_flags = flags};
    memcpy(&in.addr, &group, sizeof in.addr);
    long result = WRITE_COMMAND(JOIN_MCAST, in, sizeof answer);
    created_id = answer.id;
    return result;
}

static long join_ip(uint32_t id, struct sockaddr_storage group)
{
    struct rdma_ucm_create_id_resp answer = {0};
    struct rdma_ucm_join_ip_mcast in = {.response = (uintptr_t)&answer, .uid = 11, .id = id};
    memcpy(&in.addr, &group, sizeof in.addr);
    long result = WRITE_COMMAND(JOIN_IP_MCAST, in, sizeof answer);
    created_id = answer.id;
    return result;
}

static long leave(uint32_t id)
{
    struct rdma_ucm_destroy_id_resp answer = {0};
    struct rdma_ucm_destroy_id in = {.response = (uintptr_t)&answer, .id = id};
    long result = WRITE_COMMAND(LEAVE_MCAST, in, sizeof answer);
    events_reported = answer.events_reported;
    return result;
}

/* Moves an identifier to `channel` from the file `from`. */
static long migrate(uint32_t id, int from)
{
    struct rdma_ucm_migrate_resp answer = {0};
    struct rdma_ucm_migrate_id in = {.response = (uintptr_t)&answer, .id = id, .fd = from};
    long result = WRITE_COMMAND(MIGRATE_ID, in, sizeof answer);
    events_reported = answer.events_reported;
    return result;
}

/* The response of the last QUERY or QUERY_ROUTE. */
static union {
    struct rdma_ucm_query_addr_resp addresses;
    struct rdma_ucm_query_route_resp route;
    struct {
        struct rdma_ucm_query_path_resp head;
        struct {
            uint32_t flags, reserved;
            uint8_t record[64];
        } paths[6];
    } paths;
} queried;

static long query(uint32_t id, int option)
{
    memset(&queried, 0, sizeof queried);
    struct rdma_ucm_query in = {.response = (uintptr_t)&queried, .id = id, .option = option};
    return WRITE_COMMAND(QUERY, in, sizeof queried);
}

static long query_route(uint32_t id)
{
    memset(&queried, 0, sizeof queried);
    struct rdma_ucm_query in = {.response = (uintptr_t)&queried, .id = id};
    return WRITE_COMMAND(QUERY_ROUTE, in, sizeof queried.route);
}

/* The response of the last GET_EVENT. */
static struct rdma_ucm_event_resp event;

static long get_event(void)
{
    struct rdma_ucm_get_event in = {.response = (uintptr_t)&event};
    memset(&event, 0, sizeof event);
    return WRITE_COMMAND(GET_EVENT, in, sizeof event);
}

static bool wait_for_event(void)
{
    struct pollfd readable = {.fd = channel, .events = POLLIN};
    return poll(&readable, 1, MAX_WAIT_MS) == 1;
}

/* Prints the next event; returns its identifier, or 0 if no event comes. */
static uint32_t print_event(const char *subject)
{
    if (!wait_for_event() || get_event() < 0) {
        printf("  event %s: none\n", subject);
        return 0;
    }
    static const char *const names[] = {"ADDR_RESOLVED",  "ADDR_ERROR",    "ROUTE_RESOLVED",   "ROUTE_ERROR",
                                        "CONNECT_REQUEST", "CONNECT_RESPONSE", "CONNECT_ERROR", "UNREACHABLE",
                                        "REJECTED",       "ESTABLISHED",   "DISCONNECTED",     "DEVICE_REMOVAL",
                                        "MULTICAST_JOIN", "MULTICAST_ERROR", "ADDR_CHANGE",    "TIMEWAIT_EXIT"};
    printf("  event %s: %s status %d uid %d", subject, event.event < LENGTH(names) ? names[event.event] : "?",
           (int)event.status, (int)event.uid);
    const struct rdma_ucm_conn_param *conn = &event.param.conn;
    const struct rdma_ucm_ud_param *ud = &event.param.ud;
    if (event.event == EVENT_MULTICAST_JOIN)
        printf(" qp %#x qkey %#x global %d hops %d", ud->qp_num, ud->qkey, ud->ah_attr.is_global,
               ud->ah_attr.grh.hop_limit);
    else if (event.event >= EVENT_CONNECT_REQUEST && event.event <= EVENT_ESTABLISHED)
        printf(" data %d resources %d depth %d flow %d retry %d rnr %d srq %d", conn->private_data_len,
               conn->responder_resources, conn->initiator_depth, conn->flow_control, conn->retry_count,
               conn->rnr_retry_count, conn->srq);
    puts("");
    fflush(stdout);
    return event.id;
}

/* ---- scenarios ---- */

static void malformed_commands(void)
{
    static const uint8_t zeros[600];
    /* The header has 8 bytes. JOIN_MCAST is the last command of Linux 6.12. */
    for (int length = 0; length < 9; length += 4)
        step(write(channel, zeros, length), "write of %d zeros", length);
    for (int number = 0; number <= RDMA_USER_CM_CMD_JOIN_MCAST + 1; number++)
        for (int out = 0; out <= 512; out += 512)
            if (number != RDMA_USER_CM_CMD_GET_EVENT || out == 0) /* with room: get_event below */
                step(command(number, zeros, 300, out), "command %d of 300 zeros, room for %d", number, out);
    for (int number = 0; number <= RDMA_USER_CM_CMD_JOIN_MCAST + 1; number++)
        step(command(number, zeros, 0, 512), "command %d of 0 bytes", number);
    struct rdma_ucm_cmd_hdr header = {
        .cmd = RDMA_USER_CM_CMD_CREATE_ID, .in = sizeof(struct rdma_ucm_create_id), .out = 4};
    step(write(channel, &header, sizeof header), "a command that is not whole");
    step(get_event(), "GET_EVENT without an event");
    char byte;
    step(read(channel, &byte, 1), "read");
    struct rdma_ucm_create_id in = {.response = UNMAPPED, .ps = RDMA_PS_TCP, .qp_type = IBV_QPT_RC};
    step(WRITE_COMMAND(CREATE_ID, in, 4), "CREATE_ID with a bad response");
    struct rdma_ucm_query query_in = {.response = UNMAPPED, .id = create_id(RDMA_PS_TCP)};
    step(WRITE_COMMAND(QUERY, query_in, sizeof queried), "QUERY with a bad response");
    struct rdma_ucm_destroy_id destroy_in = {.response = UNMAPPED, .id = created_id};
    step(WRITE_COMMAND(DESTROY_ID, destroy_in, 4), "DESTROY_ID with a bad response");
    step(destroy(created_id), "DESTROY_ID again");
}

static void creations(void)
{
    static const int spaces[] = {RDMA_PS_TCP, RDMA_PS_UDP, RDMA_PS_IB, RDMA_PS_IPOIB, 0, 1, 0x100, 0xffff};
    /* IBV_QPT_RC is 2, UC 3, UD 4, RAW_PACKET 8, XRC_SEND 9, XRC_RECV 10, DRIVER 255; libibverbs has no 0 and 1. */
    static const int types[] = {0, 1, 2, 3, 4, 8, 9, 10, 255};
    for (size_t i = 0; i < LENGTH(spaces); i++)
        for (size_t k = 0; k < LENGTH(types); k++)
            if (step(create(spaces[i], types[k]), "CREATE_ID space %#x type %d", spaces[i], types[k]) >= 0)
                destroy(created_id);
}

/* Commands that do not change the state of the identifier. */
static void commands_without_effect(const char *state, uint32_t id)
{
    if (strcmp(state, "listening") != 0)
        step(listen_on(id, 0), "%s: LISTEN", state);
    step(connect_to(id, 0), "%s: CONNECT", state);
    step(accept_with(id, 0), "%s: ACCEPT", state);
    step(accept_without_parameters(id), "%s: ACCEPT without parameters", state);
    step(reject_with(id, 0, 0), "%s: REJECT", state);
    step(disconnect(id), "%s: DISCONNECT", state);
    step(notify(id, IBV_EVENT_COMM_EST), "%s: NOTIFY", state);
    step(notify(id, 99), "%s: NOTIFY of 99", state);
    for (int qp_state = IBV_QPS_RESET; qp_state <= IBV_QPS_UNKNOWN; qp_state++)
        step(init_qp(id, qp_state), "%s: INIT_QP_ATTR %d", state, qp_state);
    step(migrate(id, channel), "%s: MIGRATE_ID to its channel", state);
    step(migrate(id, 0), "%s: MIGRATE_ID from stdin", state);
    step(migrate(id, 500), "%s: MIGRATE_ID from no descriptor", state);
    step(join_ip(id, parse_address("239.77.0.9", 0)), "%s: JOIN_IP_MCAST", state);
    step(join(id, parse_address("239.77.0.9", 0), 0), "%s: JOIN_MCAST", state);
    step(leave(id), "%s: LEAVE_MCAST", state);
    step(leave(12345), "%s: LEAVE_MCAST of an ID that does not exist", state);
}

static void queries(const char *state, uint32_t id)
{
    if (step(query_route(id), "%s: QUERY_ROUTE", state) >= 0)
        printf("  paths %d port %d from %d to %d\n", queried.route.num_paths, queried.route.port_num,
               queried.route.src_addr.sin6_family, queried.route.dst_addr.sin6_family);
    if (step(query(id, RDMA_USER_CM_QUERY_ADDR), "%s: QUERY addresses", state) >= 0)
        printf("  port %d pkey %#x sizes %d %d families %d %d\n", queried.addresses.port_num, queried.addresses.pkey,
               queried.addresses.src_size, queried.addresses.dst_size, queried.addresses.src_addr.ss_family,
               queried.addresses.dst_addr.ss_family);
    if (step(query(id, RDMA_USER_CM_QUERY_PATH), "%s: QUERY path", state) >= 0)
        printf("  paths %d flags %#x\n", queried.paths.head.num_paths, queried.paths.paths[0].flags);
    if (step(query(id, RDMA_USER_CM_QUERY_GID), "%s: QUERY GIDs", state) >= 0)
        printf("  port %d pkey %#x sizes %d %d families %d %d\n", queried.addresses.port_num, queried.addresses.pkey,
               queried.addresses.src_size, queried.addresses.dst_size, queried.addresses.src_addr.ss_family,
               queried.addresses.dst_addr.ss_family);
    step(query(id, 3), "%s: QUERY 3", state);
}

static void options(const char *state, int space)
{
    /* Level 0 has options 0 to 3 (TOS, REUSEADDR, AFONLY, ACK_TIMEOUT), level 1 has option 1 (IB_PATH). */
    static const struct {
        int level, name, length;
    } variants[] = {{0, 0, 1}, {0, 0, 4}, {0, 1, 4}, {0, 1, 1}, {0, 2, 4}, {0, 2, 1}, {0, 3, 1}, {0, 3, 4}, {0, 4, 1},
                    {1, 0, 4}, {1, 1, 0}, {1, 1, 72}, {1, 2, 72}, {2, 0, 1}, {0, 0, 0}, {0, 0, 4097}};
    static const uint8_t value[4097] = {1};
    for (size_t i = 0; i < LENGTH(variants); i++) {
        uint32_t id = create_id(space);
        if (strcmp(state, "bound") == 0)
            bind_to(id, parse_address("own", 0));
        if (strcmp(state, "listening") == 0)
            listen_on(id, 1);
        step(set_option(id, variants[i].level, variants[i].name, value, variants[i].length),
             "%s, space %#x: SET_OPTION %d of level %d, %d bytes", state, space, variants[i].name, variants[i].level,
             variants[i].length);
        destroy(id);
    }
    uint32_t id = create_id(space); /* idle in every `state` */
    const uint8_t too_large = 32; /* ACK_TIMEOUT has 5 bits */
    step(set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &too_large, 1),
         "%s, space %#x: ACK_TIMEOUT of 32", state, space);
    step(set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, (void *)UNMAPPED, 1),
         "%s, space %#x: TOS at a bad address", state, space);
    destroy(id);
}

static void bindings(void)
{
    static const char *const addresses[] = {"own", "0.0.0.0", "127.0.0.1", "::", "::1", "1.2.3.4", "2001:db8::7",
                                            "239.1.2.3", "0", "1", "27", "99"};
    for (size_t i = 0; i < LENGTH(addresses); i++) {
        struct sockaddr_storage address = parse_address(addresses[i], 0);
        uint32_t id = create_id(RDMA_PS_TCP);
        step(bind_to(id, address), "BIND to %s", addresses[i]);
        destroy(id);
        id = create_id(RDMA_PS_TCP);
        step(bind_ip(id, address), "BIND_IP to %s", addresses[i]);
        destroy(id);
    }
    uint32_t id = create_id(RDMA_PS_TCP);
    for (int size = 0; size <= 200; size += 20) {
        struct sockaddr_storage address = parse_address("own", 0);
        struct rdma_ucm_bind in = {.id = id, .addr_size = size};
        memcpy(&in.addr, &address, sizeof in.addr);
        step(WRITE_COMMAND(BIND, in, 0), "BIND with an address of %d bytes", size);
    }
    destroy(id);
    id = create_id(RDMA_PS_TCP);
    struct sockaddr_storage address = parse_address("own", 0);
    struct rdma_ucm_bind reserved = {.id = id, .addr_size = size_of(&address), .reserved = 1};
    memcpy(&reserved.addr, &address, sizeof reserved.addr);
    step(WRITE_COMMAND(BIND, reserved, 0), "BIND with reserved bits");
    destroy(id);
    id = create_id(RDMA_PS_TCP);
    step(bind_to(id, parse_address("own", 7000)), "BIND to a port");
    step(bind_to(id, parse_address("own", 7000)), "BIND again");
    uint32_t other = create_id(RDMA_PS_TCP);
    step(bind_to(other, parse_address("own", 7000)), "BIND to a port in use");
    step(bind_to(other, parse_address("0.0.0.0", 7000)), "BIND to a port in use, any address");
    step(bind_to(other, parse_address("::", 7000)), "BIND to a port in use, any address of IPv6");
    destroy(other);
    other = create_id(RDMA_PS_UDP);
    step(bind_to(other, parse_address("own", 7000)), "BIND to the same port of UDP");
    destroy(other);
    const int on = 1, off = 0;
    step(set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &on, 4), "REUSEADDR of a bound one");
    other = create_id(RDMA_PS_TCP);
    set_option(other, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &on, 4);
    step(bind_to(other, parse_address("own", 7000)), "BIND to a shared port");
    step(set_option(other, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &off, 4), "REUSEADDR taken back");
    step(listen_on(id, 0), "LISTEN on a shared port");
    step(listen_on(other, 0), "LISTEN on a shared port that has a listener");
    destroy(id);
    step(listen_on(other, 0), "LISTEN after that one is gone");
    step(listen_on(other, 0), "LISTEN again");
    step(set_option(other, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &on, 4), "REUSEADDR of a listener");
    id = create_id(RDMA_PS_TCP);
    set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &on, 4);
    step(bind_to(id, parse_address("own", 7000)), "BIND to the port of a listener, shared");
    destroy(other);
    destroy(id);
    static const int backlogs[] = {-1, (1 << 19) - 1, (1 << 20) - 1};
    for (size_t i = 0; i < LENGTH(backlogs); i++) {
        id = create_id(RDMA_PS_TCP);
        step(listen_on(id, backlogs[i]), "LISTEN unbound, backlog %d", backlogs[i]);
        destroy(id);
    }
}

static void resolutions(void)
{
    static const char *const targets[] = {"own", "0.0.0.0", "127.0.0.1", "::1", "0", "99", "::"};
    for (size_t i = 0; i < LENGTH(targets); i++) {
        struct sockaddr_storage to = parse_address(targets[i], 7001);
        uint32_t id = create_id(RDMA_PS_TCP);
        if (step(resolve(id, NULL, to), "RESOLVE_ADDR of %s", targets[i]) >= 0)
            print_event("of it");
        destroy(id);
        id = create_id(RDMA_PS_TCP);
        if (step(resolve_ip(id, to), "RESOLVE_IP of %s", targets[i]) >= 0)
            print_event("of it");
        destroy(id);
    }
    struct sockaddr_storage mine = parse_address("own", 0), any = parse_address("0.0.0.0", 0);
    struct sockaddr_storage any6 = parse_address("::", 0), foreign = parse_address("1.2.3.4", 0);
    uint32_t id = create_id(RDMA_PS_TCP);
    step(resolve(id, &foreign, parse_address("own", 7001)), "RESOLVE_ADDR from a foreign address");
    step(resolve(id, &any6, parse_address("own", 7001)), "RESOLVE_ADDR from the other family");
    destroy(id);
    id = create_id(RDMA_PS_TCP);
    step(resolve_route(id), "RESOLVE_ROUTE of an idle one");
    step(resolve(id, &any, parse_address("own", 7001)), "RESOLVE_ADDR from any");
    print_event("of it");
    step(resolve(id, NULL, parse_address("own", 7001)), "RESOLVE_ADDR again");
    commands_without_effect("address resolved", id);
    queries("address resolved", id);
    step(resolve_route(id), "RESOLVE_ROUTE");
    print_event("of it");
    step(resolve_route(id), "RESOLVE_ROUTE again");
    step(bind_to(id, mine), "BIND of a resolved one");
    step(listen_on(id, 0), "LISTEN of a resolved one");
    queries("route resolved", id);
    for (int state = IBV_QPS_RESET; state <= IBV_QPS_UNKNOWN; state++)
        if (step(init_qp(id, state), "route resolved: INIT_QP_ATTR %d", state) >= 0)
            printf("  mask %#x access %#x\n", attributes.qp_attr_mask, attributes.qp_access_flags);
    /* A REQ has room for 56 bytes behind the CM's own header. */
    static const int too_long[] = {100, 156, 175, 194, 213, 232, 251};
    for (size_t i = 0; i < LENGTH(too_long); i++)
        step(connect_to(id, too_long[i]), "CONNECT with %d bytes of data", too_long[i]);
    step(destroy(id), "DESTROY_ID");
    printf("  events %d\n", events_reported);
    for (int size = 0; size <= 200; size += 40) {
        id = create_id(RDMA_PS_TCP);
        struct sockaddr_storage to = parse_address("own", 7001);
        struct rdma_ucm_resolve_addr in = {.id = id, .timeout_ms = 1000, .src_size = size, .dst_size = size_of(&to)};
        memcpy(&in.dst_addr, &to, sizeof in.dst_addr);
        memcpy(&in.src_addr, &mine, sizeof in.src_addr);
        step(WRITE_COMMAND(RESOLVE_ADDR, in, 0), "RESOLVE_ADDR, source of %d bytes", size);
        destroy(id);
        id = create_id(RDMA_PS_TCP);
        in.id = id;
        in.src_size = 0;
        in.dst_size = size;
        step(WRITE_COMMAND(RESOLVE_ADDR, in, 0), "RESOLVE_ADDR, destination of %d bytes", size);
        destroy(id);
    }
}

static uint32_t create_listener(int space, int port)
{
    uint32_t id = create_id(space);
    if (bind_to(id, parse_address("own", port)) < 0 || listen_on(id, 5) < 0)
        stop("LISTEN");
    return id;
}

/* A new identifier in the state "route resolved", towards `port` of the own address. */
static uint32_t create_routed(int space, int port)
{
    uint32_t id = create_id(space);
    if (resolve(id, NULL, parse_address("own", port)) < 0 || !wait_for_event() || get_event() < 0 ||
        resolve_route(id) < 0 || !wait_for_event() || get_event() < 0 || event.event != EVENT_ROUTE_RESOLVED)
        stop("RESOLVE");
    return id;
}

static void connections(void)
{
    uint32_t listener = create_listener(RDMA_PS_TCP, 7002), client = create_routed(RDMA_PS_TCP, 7002);
    commands_without_effect("listening", listener);
    queries("listening", listener);
    step(connect_to(client, 20), "CONNECT");
    step(connect_to(client, 20), "CONNECT again");
    uint32_t server = print_event("of the listener");
    queries("requested", server);
    for (int state = IBV_QPS_INIT; state <= IBV_QPS_RTS; state++)
        if (step(init_qp(server, state), "requested: INIT_QP_ATTR %d", state) >= 0)
            print_attributes();
    static const int refused_reasons[] = {1, 8, 27, 29, 34, 36, 255};
    for (size_t i = 0; i < LENGTH(refused_reasons); i++)
        step(reject_with(server, 0, refused_reasons[i]), "REJECT with reason %d", refused_reasons[i]);
    /* A REJ has room for 148 bytes, a REP for 196. */
    step(reject_with(server, 200, 0), "REJECT with 200 bytes of data");
    step(reject_with(server, 100, CONSUMER_REJECT), "REJECT");
    print_event("of the client");
    step(reject_with(server, 0, 0), "REJECT again");
    step(accept_with(server, 0), "ACCEPT of a rejected one");
    step(destroy(server), "DESTROY_ID of the rejected one");
    printf("  events %d\n", events_reported);
    step(init_qp(client, IBV_QPS_RTR), "rejected: INIT_QP_ATTR 2");
    step(accept_without_parameters(client), "ACCEPT of the reject");
    step(disconnect(client), "DISCONNECT of the rejected client");
    destroy(client);

    client = create_routed(RDMA_PS_TCP, 7002);
    step(connect_to(client, 0), "CONNECT");
    server = print_event("of the listener");
    step(accept_with(server, 197), "ACCEPT with 197 bytes of data");
    step(accept_with(server, 30), "ACCEPT after that");
    print_event("of the client");
    destroy(server);
    destroy(client);

    client = create_routed(RDMA_PS_TCP, 7002);
    step(connect_to(client, 0), "CONNECT");
    server = print_event("of the listener");
    step(accept_with(server, 30), "ACCEPT");
    print_event("of the client");
    for (int state = IBV_QPS_INIT; state <= IBV_QPS_RTS; state++)
        if (step(init_qp(client, state), "answered: INIT_QP_ATTR %d", state) >= 0)
            print_attributes();
    step(accept_without_parameters(client), "ACCEPT of the answer");
    print_event("of the server");
    step(accept_without_parameters(client), "ACCEPT of the answer again");
    step(notify(server, IBV_EVENT_COMM_EST), "NOTIFY of an established one");
    step(reject_with(server, 0, 0), "REJECT of an established one");
    step(connect_to(client, 0), "CONNECT of an established one");
    step(resolve_route(client), "RESOLVE_ROUTE of an established one");
    queries("established", client);
    queries("established, server", server);
    step(destroy(listener), "DESTROY_ID of the listener");
    printf("  events %d\n", events_reported);
    step(disconnect(client), "DISCONNECT");
    print_event("of the server");
    step(disconnect(server), "DISCONNECT of the server");
    print_event("of the client");
    step(disconnect(client), "DISCONNECT again");
    step(connect_to(client, 0), "CONNECT of a disconnected one");
    step(init_qp(client, IBV_QPS_RTS), "disconnected: INIT_QP_ATTR 3");
    /* TIMEWAIT may have ended by now, so the number of events is not printed. */
    step(destroy(client), "DESTROY_ID of the client");
    step(destroy(server), "DESTROY_ID of the server");
    client = create_routed(RDMA_PS_TCP, 7002);
    step(connect_to(client, 0), "CONNECT to nobody");
    print_event("of it");
    destroy(client);
}

/* Destroys one side in each state of the connection. */
static void endings(void)
{
    uint32_t listener = create_listener(RDMA_PS_TCP, 7003);
    enum { REQUESTED, ANSWERED, ESTABLISHED };
    static const char *const states[] = {"requested", "answered", "established"};
    for (int state = REQUESTED; state <= ESTABLISHED; state++)
        for (int is_client = 0; is_client < 2; is_client++) {
            uint32_t client = create_routed(RDMA_PS_TCP, 7003);
            connect_to(client, 0);
            uint32_t server = print_event("of the listener");
            if (state >= ANSWERED) {
                accept_with(server, 0);
                print_event("of the client");
            }
            if (state >= ESTABLISHED) {
                accept_without_parameters(client);
                print_event("of the server");
            }
            step(destroy(is_client ? client : server), "DESTROY_ID of the %s that is %s",
                 is_client ? "client" : "server", states[state]);
            print_event("of its peer");
            destroy(is_client ? server : client);
        }
    uint32_t client = create_routed(RDMA_PS_TCP, 7003);
    connect_to(client, 0);
    uint32_t server = print_event("of the listener");
    step(accept_with(server, 0), "ACCEPT");
    print_event("of the client");
    step(accept_with(server, 0), "ACCEPT again");
    print_event("of the client");
    destroy(server);
    destroy(client);
    client = create_routed(RDMA_PS_TCP, 7003);
    connect_to(client, 0);
    wait_for_event();
    step(destroy(listener), "DESTROY_ID of a listener with an unread request");
    printf("  events %d\n", events_reported);
    print_event("of the client");
    destroy(client);
}

/* Port spaces of UD: CONNECT sends a SIDR request, and the queue pair number and Q_Key come with the answer. */
static void datagrams(int space, int port)
{
    uint32_t idle = create_id(space);
    step(bind_to(idle, parse_address("own", port)), "space %#x: BIND", space);
    destroy(idle);
    if (space == RDMA_PS_IPOIB) /* not for RoCE */
        return;
    uint32_t listener = create_listener(space, port), client = create_routed(space, port);
    for (int state = IBV_QPS_RESET; state <= IBV_QPS_RTS; state++)
        if (step(init_qp(client, state), "space %#x: INIT_QP_ATTR %d", space, state) >= 0)
            printf("  mask %#x qkey %#x\n", attributes.qp_attr_mask, attributes.qkey);
    /* A SIDR REQ has room for 180 bytes behind the CM's own header, a SIDR REP for 136. */
    step(connect_to(client, 181), "space %#x: CONNECT with 181 bytes of data", space);
    step(connect_to(client, 10), "space %#x: CONNECT", space);
    uint32_t server = print_event("of the listener");
    step(disconnect(server), "space %#x: DISCONNECT", space);
    step(reject_with(server, 3, 0), "space %#x: REJECT", space);
    print_event("of the client");
    destroy(server);
    destroy(client);
    client = create_routed(space, port);
    step(join(client, parse_address("239.77.0.1", 0), 0), "space %#x, route resolved: JOIN_MCAST", space);
    step(connect_to(client, 10), "space %#x: CONNECT again", space);
    server = print_event("of the listener");
    step(accept_with(server, 137), "space %#x: ACCEPT with 137 bytes of data", space);
    step(accept_with(server, 5), "space %#x: ACCEPT after that", space);
    print_event("of the client");
    printf("  qkey %#x data %d\n", event.param.ud.qkey, event.param.ud.private_data_len);
    destroy(server);
    destroy(client);
    client = create_routed(space, port);
    step(connect_to(client, 10), "space %#x: CONNECT", space);
    server = print_event("of the listener");
    step(accept_with(server, 5), "space %#x: ACCEPT", space);
    print_event("of the client");
    printf("  qkey %#x data %d\n", event.param.ud.qkey, event.param.ud.private_data_len);
    step(accept_without_parameters(client), "space %#x: ACCEPT of the answer", space);
    step(disconnect(client), "space %#x: DISCONNECT of the client", space);
    step(join(client, parse_address("239.77.0.1", 0), 0), "space %#x, established: JOIN_MCAST", space);
    destroy(client);
    client = create_id(space);
    step(join(client, parse_address("239.77.0.1", 0), 0), "space %#x, idle: JOIN_MCAST", space);
    bind_to(client, parse_address("own", 0));
    for (int flags = 0; flags < 4; flags++) {
        const struct sockaddr_storage address = parse_address("239.77.0.1", 0);
        if (step(join(client, address, flags), "space %#x: JOIN_MCAST flags %d", space, flags) < 0)
            continue;
        uint32_t group = created_id;
        print_event("of the group");
        if (step(join(client, parse_address("239.77.0.1", 0), flags), "space %#x: JOIN_MCAST again", space) >= 0) {
            print_event("of the group");
            step(leave(created_id), "space %#x: LEAVE_MCAST of the second", space);
            printf("  events %d\n", events_reported);
        }
        step(leave(group), "space %#x: LEAVE_MCAST", space);
        printf("  events %d\n", events_reported);
        step(leave(group), "space %#x: LEAVE_MCAST again", space);
    }
    for (int flags = 0; flags < 2; flags++) {
        struct sockaddr_storage group = parse_address("239.77.0.1", 0);
        struct rdma_ucm_join_mcast in = {
            .response = UNMAPPED, .id = client, .addr_size = size_of(&group), .join_flags = flags};
        memcpy(&in.addr, &group, sizeof in.addr);
        step(WRITE_COMMAND(JOIN_MCAST, in, 4), "space %#x: JOIN_MCAST with a bad response", space);
    }
    struct sockaddr_storage mine = parse_address("own", 0);
    if (step(resolve(client, NULL, mine), "space %#x: RESOLVE_ADDR of a member", space) >= 0)
        print_event("of it");
    if (step(join_ip(client, parse_address("239.77.0.2", 0)), "space %#x: JOIN_IP_MCAST", space) >= 0)
        print_event("of the group");
    static const char *const groups[] = {"own", "0.0.0.0", "99"};
    for (size_t i = 0; i < LENGTH(groups); i++) {
        if (step(join(client, parse_address(groups[i], 0), 0), "space %#x: JOIN_MCAST of %s", space, groups[i]) >= 0)
            print_event("of the group");
    }
    const uint32_t ids[] = {client, server, listener};
    for (size_t i = 0; i < LENGTH(ids); i++)
        step(destroy(ids[i]), "space %#x: DESTROY_ID", space);
}

static void migration(void)
{
    const int first = channel, second = open_channel();
    uint32_t id = create_id(RDMA_PS_TCP);
    resolve(id, NULL, parse_address("own", 7005));
    print_event("of it");
    resolve_route(id);
    wait_for_event(); /* stays unread, and moves with the identifier */
    channel = second;
    step(destroy(id), "DESTROY_ID by another channel");
    step(query(id, RDMA_USER_CM_QUERY_ADDR), "QUERY by another channel");
    step(migrate(id, second), "MIGRATE_ID from the wrong channel");
    step(migrate(id, first), "MIGRATE_ID with an unread event");
    printf("  events %d\n", events_reported);
    print_event("of it");
    step(get_event(), "GET_EVENT of the new channel");
    channel = first;
    step(get_event(), "GET_EVENT of the old channel");
    step(destroy(id), "DESTROY_ID by the old channel");
    step(migrate(id, second), "MIGRATE_ID back");
    printf("  events %d\n", events_reported);
    step(migrate(id, first), "MIGRATE_ID to its own channel");
    printf("  events %d\n", events_reported);
    struct rdma_ucm_migrate_id in = {.response = UNMAPPED, .id = id, .fd = first};
    step(WRITE_COMMAND(MIGRATE_ID, in, 4), "MIGRATE_ID with a bad response");
    step(close(second), "close of the other channel");
    step(migrate(id, second), "MIGRATE_ID from a closed channel");
    step(destroy(id), "DESTROY_ID");
    printf("  events %d\n", events_reported);
}

int main(int argc, char **argv)
{
    if (argc != 1) {
        fprintf(stderr, "usage: %s\n", argv[0]);
        return 1;
    }
    find_own_gid();
    channel = open_channel();
    malformed_commands();
    creations();
    uint32_t idle = create_id(RDMA_PS_TCP);
    queries("idle", idle);
    destroy(idle);
    bindings();
    static const char *const states[] = {"idle", "bound", "listening"};
    for (size_t i = 0; i < LENGTH(states); i++) {
        options(states[i], RDMA_PS_TCP);
        options(states[i], RDMA_PS_UDP);
    }
    idle = create_id(RDMA_PS_TCP);
    bind_to(idle, parse_address("own", 0));
    queries("bound", idle);
    destroy(idle);
    resolutions();
    connections();
    endings();
    datagrams(RDMA_PS_UDP, 7004);
    datagrams(RDMA_PS_IPOIB, 7004);
    migration();
    return 0;
}
