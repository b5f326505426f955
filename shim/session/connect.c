/*
 * Connects to the daemon at USERDMA_SOCKET and exchanges HELLO: checks the daemon's user, permits the daemon to access
 * our memory, and maps the page with the parked word (device.c).
 */
#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/un.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#endif

/* After a HELLO without an answer, no attempts for this time: each look at an RDMA path would wait for one. */
#define RETRY_SECONDS 60

const volatile uint32_t *session_parked_page;
int session_userfaultfd_refusal;

/*
 * The process that called listen(2) on the socket, and its user. pid 0: a process of an outer PID namespace. uid -1:
 * unknown, and so not trusted.
 */
static struct ucred server_of(int fd)
{
    struct ucred server = {.uid = -1};
    socklen_t length = sizeof server;
    fd_socket_option(fd, SO_PEERCRED, &server, &length);
    return server;
}

/* A daemon can read and change our memory: only daemons of root and of our user are trusted. */
static bool is_trusted(uid_t daemon_user)
{
    return daemon_user == 0 || daemon_user == geteuid();
}

/* Passes the wait table. If that fails, nobody is told what the program waits for. */
static void pass_waits(const struct shim_guard *guard)
{
    struct request request = {.header = {.type = USERDMA_WAITS, .fd = -1}};
    struct reply reply;
    const int file = waiting_file();
    if (file >= 0 && session_exchange_with(&request, 0, file, &reply, guard) == 0)
        reply_close_all(&reply);
}

/*
 * Exchanges HELLO on the new connection. 0 or -errno; closes the connection after a failure. If the answer is late,
 * another thread may have connected: then 0, and the session keeps the other connection.
 */
static int exchange_hello(const struct shim_guard *guard)
{
    struct request request = {.header = {.type = USERDMA_HELLO, .fd = -1}};
    request.hello.version = USERDMA_SESSION_VERSION;
    memcpy(request.hello.tag, shim_tag, sizeof request.hello.tag);
    struct reply reply;
    const struct ucred server = server_of(session.fd);
    if (!is_trusted(server.uid)) {
        diagnose_untrusted_daemon(server.uid);
        session_disconnect();
        return -EACCES;
    }
    /* With Yama, the daemon may need this permission to access our memory. Without Yama prctl fails. */
    if (server.pid > 0)
        prctl(PR_SET_PTRACER, (unsigned long)server.pid, 0, 0, 0);
    /*
     * By the userfaultfd the daemon learns what we unmap. Unmapping blocks until the event is read or all copies are
     * closed, so only the daemon keeps a copy. Valgrind does not know the system call.
     */
    const int userfaultfd =
        sanitizers_valgrind ? -1 : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    session_userfaultfd_refusal = 0;
    request.hello.wants = USERDMA_HELLO_ADOPTION;
    if (userfaultfd >= 0)
        request.hello.wants |= USERDMA_HELLO_UNMAPPING;
    else
        session_userfaultfd_refusal = sanitizers_valgrind ? ENOSYS : errno;
    if (sanitizers_valgrind) /* written.c asks what the daemon has written */
        request.hello.wants |= USERDMA_HELLO_WRITTEN;
    const char *calls = getenv(USERDMA_ENV_CALLS);
    /* Valgrind would not see what the daemon has written. */
    if (!sanitizers_valgrind && (!calls || strcmp(calls, "messages") != 0))
        request.hello.wants |= USERDMA_HELLO_SLOT;
    if (shim_finds_races)
        request.hello.wants |= USERDMA_HELLO_EVENTS;
    int error = session_exchange_with(&request, sizeof request.hello, userfaultfd, &reply, guard);
    /* An error has closed our connection: an open one is another thread's. */
    const bool has_other_connection = session.fd >= 0 && (error || reply.generation != session.generation);
    if (has_other_connection) {
        reply_close_all(&reply);
        return 0;
    }
    if (error)
        return error;
    const struct userdma_hello_reply *hello = &reply.message.hello;
    if (reply.body < sizeof *hello || (hello->error == 0 && (reply.fd_count == 0 || reply.fd_count > 2))) {
        error = -EPROTO;
    } else if (hello->error) {
        error = -hello->error;
        if (error == -EACCES)
            diagnose_memory_access(&server);
        else if (error == -EPERM)
            diagnose_refused_user();
    } else {
        /* The page of an earlier connection stays mapped: a doorbell in another thread may read it. */
        void *page = mmap(NULL, USERDMA_PARKED_PAGE_BYTES, PROT_READ, MAP_SHARED, reply.fds[0], 0);
        if (page == MAP_FAILED)
            error = -errno;
        else
            __atomic_store_n(&session_parked_page, page, __ATOMIC_RELEASE);
        if (error == 0 && reply.fd_count == 2)
            slot_take(reply.fds[1]);
        memcpy(session.root, hello->root, sizeof session.root);
        session.root[sizeof session.root - 1] = 0;
    }
    reply_close_all(&reply);
    if (error)
        session_disconnect();
    else if (recorder_is_on)
        pass_waits(guard);
    return error;
}

#define TEXT(value) #value
#define TEXT_OF(value) TEXT(value)
/* `userdma --version` reads it from the file (src/cli/version.ts). */
__attribute__((used)) static const char version_text[] =
    "userdma session protocol " TEXT_OF(USERDMA_SESSION_VERSION);

/* Of the monotonic clock. */
static time_t seconds_now(void)
{
    return (time_t)(shim_nanoseconds() / 1000000000);
}

/* What `session_refusal` returns. */
static int refusal = -EIO;

static void set_refusal(int error)
{
    if (error == EPERM)
        refusal = -EACCES;
    else if (error == EACCES || error == EMFILE || error == ENFILE)
        refusal = -error;
    else
        refusal = -EIO;
}

int session_refusal(void)
{
    return refusal;
}

int session_no_device_errno(void)
{
    return refusal == -EMFILE || refusal == -ENFILE ? -refusal : ENOENT;
}

bool session_connect(const struct shim_guard *guard)
{
    static time_t no_attempt_before;
    refusal = -EIO;
    if (no_attempt_before && seconds_now() < no_attempt_before)
        return false;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, shim_socket_path, sizeof address.sun_path);
    const struct timeval timeout = {.tv_sec = UNBLOCK_SECONDS}, patience = {.tv_sec = USERDMA_CONNECT_SECONDS};
    int fd = fd_opened(REAL(socket)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* for a full backlog */
    }
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        const int cause = errno;
        char no_server[192];
        set_refusal(cause);
        snprintf(no_server, sizeof no_server, "no daemon serves this socket; start `userdma daemon --socket %s`",
                 shim_socket_path);
        if (cause == EACCES)
            diagnose_refused_user();
        else
            diagnose_no_daemon(cause == ECONNREFUSED || cause == ENOENT ? no_server
                               : cause == EAGAIN                       ? "its backlog is full"
                                                                       : strerror(cause));
        if (fd >= 0)
            REAL(close)(fd);
        return false;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    fd = fd_hide(fd, -1, true);
    if (fd < 0) {
        set_refusal(errno);
        diagnose_no_daemon(strerror(errno));
        return false;
    }
    session_take_socket(fd);
    int error = exchange_hello(guard);
    if (error == 0)
        return true;
    if (error == -ETIMEDOUT)
        no_attempt_before = seconds_now() + RETRY_SECONDS;
    set_refusal(-error);
    if (error == -EPROTO)
        diagnose_other_version();
    else
        diagnose_no_daemon(error == -ETIMEDOUT ? "it does not answer" : strerror(-error));
    return false;
}
