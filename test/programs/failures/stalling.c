/*
 * A client without the preload library that tries to block the daemon with files and processes. It prints "sent" after
 * its messages (shim/protocol.h), and runs until its standard input ends.
 *
 *   stalling passed      HELLO has a file whose file system never answers the close
 *   stalling attached    ATTACH names such a file
 *   stalling linger      HELLO has the last descriptor of a TCP connection whose close waits ten minutes
 *   stalling queued      that descriptor is in a message that the daemon never reads: an earlier one ends the session
 *   stalling doorbell    a doorbell has that descriptor
 *   stalling written     the response of a call is in a file that a never-ending write has locked
 *   stalling exec        programs that connect and whose exec never ends, because mmap_lock is held
 *   stalling shown       another process sends ATTACH on the session of such a program
 *   stalling mapped      another process registers memory of such a program
 *   stalling unread      asks in its call slot without end, and leaves the answers
 *   stalling slot        asks in its call slot, whose file a never-ending write has locked, and ends the session
 *
 * A second argument is the UID and GID that the client takes before it connects.
 */
#define _GNU_SOURCE
#include "../../../shim/protocol.h"
#include "../memory/slow_file.h"
#include <netinet/in.h>
#include <rdma/ib_user_verbs.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* of Linux 6.16 */
#endif

/* EXECS: maximum number of programs in exec. PASSED_BYTES: of the file that HELLO passes. */
enum { EXECS = 40, NO_FD = -1, PASSED_BYTES = 65536 };

static int connect_session(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv(USERDMA_ENV_SOCKET);
    NEED(path, "%s is not set", USERDMA_ENV_SOCKET);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const int session = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    NEED(connect(session, (struct sockaddr *)&address, sizeof address) == 0, "%s: %s", path, strerror(errno));
    return session;
}

/* `fd`: NO_FD for none. Returns whether the kernel accepted the message. */
static bool send_with_fd(int to, const void *bytes, size_t length, int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof fd)];
    } control = {.header = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec iov = {(void *)bytes, length};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (fd != NO_FD) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control.bytes;
    }
    return sendmsg(to, &message, MSG_NOSIGNAL) == (ssize_t)length;
}

static bool send_message(int session, uint32_t type, struct userdma_header header, const void *body, size_t length,
                         int fd)
{
    uint8_t message[sizeof header + 256];
    header.type = type;
    header.size = (uint32_t)(sizeof header + length);
    memcpy(message, &header, sizeof header);
    if (length)
        memcpy(message + sizeof header, body, length);
    return send_with_fd(session, message, header.size, fd);
}

static bool send_hello(int session, int fd)
{
    const struct userdma_hello hello = {.version = USERDMA_SESSION_VERSION};
    return send_message(session, USERDMA_HELLO, (struct userdma_header){0}, &hello, sizeof hello, fd);
}

/* Stores at most `length` bytes of the reply's body. Returns its last descriptor, or NO_FD. */
static int receive_reply(int session, void *body, size_t length)
{
    struct userdma_header header;
    char control[256];
    struct iovec iov[2] = {{&header, sizeof header}, {body, length}};
    struct msghdr message = {
        .msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
    int fd = NO_FD;
    NEED(recvmsg(session, &message, 0) >= (ssize_t)sizeof header, "the daemon has hung up");
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, (char *)c + c->cmsg_len - sizeof fd, sizeof fd);
    return fd;
}

static void exchange_hello(int session, int fd)
{
    struct userdma_hello_reply reply;
    NEED(send_hello(session, fd), "HELLO: %s", strerror(errno));
    receive_reply(session, &reply, sizeof reply);
    NEED(reply.error == 0, "HELLO: %s", strerror(reply.error));
}

/* Returns the daemon's number of the context, and stores its doorbell socket. */
static uint32_t open_device(int session, int *doorbell)
{
    const struct userdma_open open = {0};
    struct userdma_open_reply reply;
    NEED(send_message(session, USERDMA_OPEN, (struct userdma_header){0}, &open, sizeof open, NO_FD), "OPEN");
    *doorbell = receive_reply(session, &reply, sizeof reply);
    NEED(reply.error == 0, "OPEN: %s", strerror(reply.error));
    return reply.context;
}

/* A TCP socket whose close waits ten minutes: the peer does not read. */
static int lingering_socket(void)
{
    static const char data[1 << 16];
    const struct linger linger = {1, 600};
    const int size = 4096;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(server, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    NEED(bind(server, (struct sockaddr *)&address, length) == 0 && listen(server, 1) == 0 &&
             getsockname(server, (struct sockaddr *)&address, &length) == 0,
         "a TCP server: %s", strerror(errno));
    connect(client, (struct sockaddr *)&address, length);
    NEED(accept(server, NULL, NULL) >= 0, "accept: %s", strerror(errno));
    while (send(client, data, sizeof data, 0) > 0)
        continue;
    NEED(setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0, "SO_LINGER");
    return client;
}

/* What HELLO passes as the program's memory: addresses in calls are offsets in this file. */
static int passed_file;
static uint8_t *passed_bytes;

/* Makes a write command. If `waits`, returns the first word of the response; else 0. */
static uint32_t command(int session, uint32_t context, uint32_t number, const void *body, size_t length, bool waits)
{
    enum { RESPONSE = 4096 };
    const struct ib_uverbs_cmd_hdr head = {
        .command = number, .in_words = (uint16_t)((sizeof head + 8 + length) / 4), .out_words = 16};
    const uint64_t response = RESPONSE;
    const struct userdma_write write = {0, sizeof head + 8 + length};
    struct userdma_call_reply reply;
    uint32_t first;
    memcpy(passed_bytes, &head, sizeof head);
    memcpy(passed_bytes + sizeof head, &response, 8);
    memcpy(passed_bytes + sizeof head + 8, body, length);
    NEED(send_message(session, USERDMA_WRITE, (struct userdma_header){.context = context}, &write, sizeof write,
                      NO_FD),
         "WRITE: %s", strerror(errno));
    if (!waits)
        return 0;
    receive_reply(session, &reply, sizeof reply);
    NEED(reply.ret > 0, "command %u: %s", number, strerror(-(int)reply.ret));
    memcpy(&first, passed_bytes + RESPONSE, sizeof first);
    return first;
}

static void make_passed_file(void)
{
    passed_file = memfd_create("passed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    NEED(passed_file >= 0 && ftruncate(passed_file, PASSED_BYTES) == 0 &&
             fcntl(passed_file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0,
         "a memory file: %s", strerror(errno));
    passed_bytes = mmap(NULL, PASSED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, passed_file, 0);
    NEED(passed_bytes != MAP_FAILED, "mmap: %s", strerror(errno));
}

static int locked_file;

/* The write holds the lock of the file, and waits for pages that never come. */
static void *write_slowly(void *slow)
{
    sleeping_thread[0] = gettid();
    pwrite(locked_file, slow, 64, 0);
    fail("the file has been written");
}

static void lock_file(int file, void *slow)
{
    pthread_t thread;
    locked_file = file;
    NEED(pthread_create(&thread, NULL, write_slowly, slow) == 0, "pthread_create");
    wait_until_asleep(&sleeping_thread[0]);
}

static void answer_into_locked_file(void *slow)
{
    const int session = connect_session();
    int doorbell;
    exchange_hello(session, passed_file);
    const uint32_t context = open_device(session, &doorbell);
    lock_file(passed_file, slow);
    command(session, context, IB_USER_VERBS_CMD_GET_CONTEXT, NULL, 0, false);
}

static void prepare_session(int session)
{
    exchange_hello(session, NO_FD);
}

static void send_attach(int session)
{
    send_message(session, USERDMA_ATTACH, (struct userdma_header){.fd = 0}, NULL, 0, NO_FD);
}

/* Of the session of a program that waits in its exec. */
static uint32_t exec_context, exec_pd;

static void prepare_registration(int session)
{
    int doorbell;
    exchange_hello(session, passed_file);
    exec_context = open_device(session, &doorbell);
    command(session, exec_context, IB_USER_VERBS_CMD_GET_CONTEXT, NULL, 0, true);
    exec_pd = command(session, exec_context, IB_USER_VERBS_CMD_ALLOC_PD, NULL, 0, true);
}

static void register_memory(int session)
{
    const struct {
        uint64_t start, length, hca_va;
        uint32_t pd, access;
    } region = {(uintptr_t)passed_bytes, 4096, (uintptr_t)passed_bytes, exec_pd, IB_UVERBS_ACCESS_LOCAL_WRITE};
    command(session, exec_context, IB_USER_VERBS_CMD_REG_MR, &region, sizeof region, false);
}

/* Written before the lock is held: later page faults would wait for it. */
static char stacks[EXECS + 1][65536];
static atomic_bool is_prepared;
/* `prepare`: what each program does before its exec. `act`: what this process does with its session meanwhile. */
static void (*prepare)(int session), (*act)(int session);
static int sessions[EXECS];

static int connect_and_exec(void *session)
{
    *(int *)session = connect_session();
    if (prepare)
        prepare(*(int *)session);
    is_prepared = true;
    execl("/bin/true", "true", NULL);
    return 1;
}

/* The process shares this address space until its exec. */
static pid_t start_exec(int i)
{
    is_prepared = false;
    const pid_t pid = clone(connect_and_exec, stacks[i + 1], CLONE_VM | CLONE_FILES | SIGCHLD, &sessions[i]);
    NEED(pid >= 0, "clone: %s", strerror(errno));
    return pid;
}

/* Returns false if the exec has ended. */
static bool waits_in_exec(pid_t pid)
{
    char path[64], status[512];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    for (;;) {
        const int fd = open(path, O_RDONLY);
        const ssize_t length = fd < 0 ? -1 : read(fd, status, sizeof status - 1);
        close(fd);
        NEED(length > 0, "%s: %s", path, strerror(errno));
        status[length] = 0;
        if (is_prepared && strstr(status, "State:\tD"))
            return true;
        if (strstr(status, "State:\tZ"))
            return false;
        sched_yield();
    }
}

/* Returns when the daemon has ended the session; if there is a `slow`, after one call, in a slot that is locked. */
static void ask_in_slot(void *slow)
{
    const int session = connect_session();
    const struct userdma_hello hello = {.version = USERDMA_SESSION_VERSION, .wants = USERDMA_HELLO_SLOT};
    struct userdma_hello_reply reply;
    struct userdma_header call = {.fd = NO_FD};
    int doorbell;
    NEED(send_message(session, USERDMA_HELLO, call, &hello, sizeof hello, NO_FD), "HELLO: %s", strerror(errno));
    /* The last descriptor is that of the slot. */
    const int file = receive_reply(session, &reply, sizeof reply);
    uint8_t *const slot = mmap(NULL, USERDMA_SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    NEED(reply.error == 0 && slot != MAP_FAILED, "a call slot: %s", strerror(errno));
    struct {
        struct userdma_header header;
        struct userdma_write write;
    } request = {{.type = USERDMA_WRITE, .size = sizeof request, .fd = NO_FD}, {(uintptr_t)slot, 16}};
    request.header.context = open_device(session, &doorbell);
    memcpy(slot + USERDMA_SLOT_REQUEST, &request, sizeof request);
    if (slow)
        lock_file(file, slow);
    do
        __atomic_add_fetch((uint32_t *)(slot + USERDMA_SLOT_ASKED), 1, __ATOMIC_SEQ_CST);
    while (send_message(session, USERDMA_CALL, call, NULL, 0, NO_FD) && !slow);
    if (slow)
        while (__atomic_load_n((uint32_t *)(slot + USERDMA_SLOT_ANSWER), __ATOMIC_SEQ_CST) == 0)
            sched_yield();
    close(session);
}

int main(int count, char **arguments)
{
    static const char *const kinds[] = {"passed",   "queued",  "attached", "linger", "doorbell",
                                        "written", "exec",    "shown",    "mapped", "unread", "slot", NULL};
    const char *kind = count > 1 ? arguments[1] : "", *user = count > 2 ? arguments[2] : NULL;
    int i = 0;
    while (kinds[i] && strcmp(kind, kinds[i]) != 0)
        i++;
    NEED(kinds[i], "usage: %s passed|queued|attached|linger|doorbell|written|exec|shown|mapped|unread|slot [USER]",
         arguments[0]);
    const bool needs_no_file = strcmp(kind, "linger") == 0 || strcmp(kind, "queued") == 0 ||
                               strcmp(kind, "doorbell") == 0 || strcmp(kind, "unread") == 0;
    void *slow = needs_no_file ? NULL : map_slow_file(user, 0, MAP_PRIVATE);
    become(user);
    make_passed_file();
    /* The first output allocates the buffer of stdout, which may block when the address space is locked. */
    printf("ready\n");
    if (strcmp(kind, "passed") == 0) {
        kill(file_server, SIGSTOP);
        NEED(send_hello(connect_session(), slow_file), "HELLO: %s", strerror(errno));
    } else if (strcmp(kind, "queued") == 0) {
        const int session = connect_session(), last_fd = lingering_socket();
        send_with_fd(session, "?", 1, NO_FD);
        /* If the message is refused, this program has the last descriptor, and would wait. */
        if (send_with_fd(session, "?", 1, last_fd))
            close(last_fd);
    } else if (strcmp(kind, "attached") == 0) {
        const int session = connect_session();
        kill(file_server, SIGSTOP);
        exchange_hello(session, NO_FD);
        send_message(session, USERDMA_ATTACH, (struct userdma_header){.fd = slow_file}, NULL, 0, NO_FD);
    } else if (strcmp(kind, "linger") == 0) {
        const int session = connect_session(), last_fd = lingering_socket();
        NEED(send_hello(session, last_fd), "HELLO: %s", strerror(errno));
        close(last_fd);
    } else if (strcmp(kind, "doorbell") == 0) {
        const int session = connect_session(), last_fd = lingering_socket();
        int doorbell;
        const int off = 0;
        NEED(setsockopt(socket(AF_UNIX, SOCK_SEQPACKET, 0), SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off) == 0,
             "cannot: before Linux 6.16 every socket takes descriptors");
        exchange_hello(session, NO_FD);
        open_device(session, &doorbell);
        if (send_with_fd(doorbell, "bell", 4, last_fd))
            close(last_fd);
    } else if (strcmp(kind, "written") == 0) {
        answer_into_locked_file(slow);
    } else if (strcmp(kind, "unread") == 0 || strcmp(kind, "slot") == 0) {
        ask_in_slot(slow);
    } else {
        if (strcmp(kind, "shown") == 0) {
            prepare = prepare_session;
            act = send_attach;
        } else if (strcmp(kind, "mapped") == 0) {
            prepare = prepare_registration;
            act = register_memory;
        }
        memset(stacks, 1, sizeof stacks);
        /* `prepare` needs its pages before the lock is held. */
        if (prepare)
            prepare(connect_session());
        lock_address_space(slow);
        for (int program = 0; program < EXECS; program++)
            if (waits_in_exec(start_exec(program)) && act) {
                act(sessions[program]);
                break;
            }
    }
    printf("sent\n");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    /* Threads that wait for the file system cannot end before the file server. */
    if (file_server)
        kill(file_server, SIGKILL);
    return 0;
}
