/*
 * A server and a client with libibumad: the client requests a number of bytes, which the server sends by RMPP if they
 * need more than one datagram. For test/system/management/umad.test.ts.
 *
 *   umad_talk server CA                      prints "ready"; ends with its input or when a client stops it
 *   umad_talk client CA GID BYTES [RETRIES [INDEX]]
 *                                            requests and checks the bytes. GID: the server's, 32 hex digits; INDEX:
 *                                            index of the client's own GID, default 1
 *   umad_talk client CA GID stop [RETRIES [INDEX]]
 *                                            ends the server
 *
 * The library is loaded with dlopen, as some programs do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <rdma/ib_user_mad.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VENDOR_CLASS 0x32 /* one of the classes with an OUI and RMPP (IBA 16.5) */
#define GET 1
#define GET_RESPONSE 0x81
#define HEADERS 40 /* bytes of the MAD, RMPP and vendor headers */
#define RMPP_FLAGS 26 /* offset */
#define OUI 37 /* offset */
#define MAD_BYTES 256
#define MAX_BYTES (600 * 1024)
#define TIMEOUT_MS 1000
/* As a number of bytes: ends the server. */
#define STOP UINT32_MAX

static int (*umad_init)(void);
static int (*umad_open_port)(const char *ca, int port);
static int (*umad_close_port)(int port);
static int (*umad_register_oui)(int port, int class, uint8_t rmpp, uint8_t oui[3], long mask[16 / sizeof(long)]);
static int (*umad_send)(int port, int agent, void *umad, int length, int timeout, int retries);
static int (*umad_recv)(int port, void *umad, int *length, int timeout);
static int (*umad_get_fd)(int port);

static uint8_t oui[3] = {0x00, 0x14, 0x05};
static struct {
    struct ib_user_mad_hdr header;
    uint8_t mad[HEADERS + MAX_BYTES];
} message;

static int fail(const char *call, long result)
{
    fprintf(stderr, "%s: %ld\n", call, result);
    return 1;
}

static int load(void)
{
    void *library = dlopen("libibumad.so.3", RTLD_NOW);
    if (!library)
        return fail(dlerror(), -1);
#define LOAD(name) *(void **)&name = dlsym(library, #name)
    LOAD(umad_init);
    LOAD(umad_open_port);
    LOAD(umad_close_port);
    LOAD(umad_register_oui);
    LOAD(umad_send);
    LOAD(umad_recv);
    LOAD(umad_get_fd);
    return umad_init() == 0 ? 0 : fail("umad_init", -1);
}

/* Writes the headers of an RMPP DATA message. */
static void begin(int method)
{
    uint8_t *mad = message.mad;
    mad[0] = 1; /* base version */
    mad[1] = VENDOR_CLASS;
    mad[2] = 1; /* class version */
    mad[3] = method;
    mad[24] = 1; /* RMPP version */
    mad[25] = 1; /* RMPP type DATA */
    mad[RMPP_FLAGS] = 1; /* active */
    memcpy(mad + OUI, oui, sizeof oui);
}

static uint8_t byte_at(uint32_t i)
{
    return (uint8_t)(i * 11 + (i >> 8));
}

static int serve(int port, int agent)
{
    struct pollfd inputs[2] = {{.fd = umad_get_fd(port), .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (poll(inputs, 2, -1) < 0)
            return fail("poll", -1);
        if (inputs[1].revents)
            return 0;
        int length = sizeof message.mad;
        const int received = umad_recv(port, &message, &length, 0);
        if (received < 0)
            return fail("umad_recv", received);
        uint32_t bytes;
        memcpy(&bytes, message.mad + HEADERS, sizeof bytes);
        if (bytes > MAX_BYTES)
            return bytes == STOP ? 0 : fail("bytes", bytes);
        begin(GET_RESPONSE);
        for (uint32_t i = 0; i < bytes; i++)
            message.mad[HEADERS + i] = byte_at(i);
        const int sent = umad_send(port, agent, &message, HEADERS + (int)bytes, 0, 20);
        /* EINVAL: the request was a retransmission, and its answer is still in flight. */
        if (sent < 0 && errno != EINVAL)
            return fail("umad_send", sent);
    }
}

static int request_bytes(int port, int agent, const char *gid, uint32_t bytes, int retries, int gid_index)
{
    begin(GET);
    message.mad[RMPP_FLAGS] = 0; /* no RMPP: one datagram */
    memcpy(message.mad + HEADERS, &bytes, sizeof bytes);
    message.header.qpn = __builtin_bswap32(1); /* the general service interface */
    message.header.grh_present = 1;
    message.header.gid_index = (uint8_t)gid_index;
    for (int i = 0; i < 16; i++)
        sscanf(gid + 2 * i, "%2hhx", message.header.gid + i);
    const int sent = umad_send(port, agent, &message, MAD_BYTES, bytes == STOP ? 0 : TIMEOUT_MS, retries);
    if (sent < 0)
        return fail("umad_send", sent);
    if (bytes == STOP)
        return 0;
    /* Offers one MAD at first: a longer answer fails, and sets `length` for the second call. */
    int length = MAD_BYTES;
    int agent_of_answer = umad_recv(port, &message, &length, 60000);
    if (agent_of_answer < 0 && length > MAD_BYTES)
        agent_of_answer = umad_recv(port, &message, &length, 0);
    if (agent_of_answer < 0)
        return fail("umad_recv", agent_of_answer);
    if (message.header.status)
        return fail("status", message.header.status);
    for (uint32_t i = 0; i < bytes; i++)
        if (message.mad[HEADERS + i] != byte_at(i))
            return fail("wrong byte", i);
    printf("%d bytes\n", length - HEADERS);
    return 0;
}

static uint32_t parse_bytes(const char *text)
{
    return strcmp(text, "stop") == 0 ? STOP : (uint32_t)atol(text);
}

int main(int argc, char **argv)
{
    const int is_server = argc == 3 && strcmp(argv[1], "server") == 0;
    if (!is_server && !(argc >= 5 && argc <= 7 && strcmp(argv[1], "client") == 0 && strlen(argv[3]) == 32)) {
        fprintf(stderr, "usage: umad_talk server CA | client CA GID BYTES|stop [RETRIES [INDEX]]\n");
        return 1;
    }
    if (load() != 0)
        return 1;
    const int port = umad_open_port(argv[2], 1);
    if (port < 0)
        return fail("umad_open_port", port);
    long mask[16 / sizeof(long)] = {is_server ? 1 << GET : 0};
    const int agent = umad_register_oui(port, VENDOR_CLASS, 1, oui, mask);
    if (agent < 0)
        return fail("umad_register_oui", agent);
    const int retries = argc > 5 ? atoi(argv[5]) : 0, gid_index = argc > 6 ? atoi(argv[6]) : 1;
    const int result = is_server ? serve(port, agent)
                                 : request_bytes(port, agent, argv[3], parse_bytes(argv[4]), retries, gid_index);
    umad_close_port(port);
    return result;
}
