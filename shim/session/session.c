/*
 * The connection to the daemon: one per process, opened at the first access to an RDMA path, used by one thread at a
 * time.
 *
 * A request is one message followed by its reply (protocol.h). Signals are blocked meanwhile, since a handler that
 * called ioctl() would wait for its own thread. If the daemon does not answer for two seconds they are unblocked, so
 * that a call to a hung daemon can be ended with Ctrl-C, siglongjmp or pthread_cancel. The thread then waits without
 * the lock, on a connection that it owns until the answer arrives; other threads open another one. After fork the child
 * closes its copy of the socket and opens its own; it attaches inherited contexts to its session (ATTACH) on first use.
 * The socket may also disappear when a program closes all descriptors by raw system calls: its inode is checked before
 * each use.
 *
 * A dead daemon is detected by a failing send or the end of the stream: the call returns EIO. Contexts of a dead daemon
 * stay dead; opening a device or an RDMA path connects again, since another daemon may serve the same path by then.
 */
#define _GNU_SOURCE
#include "session_internal.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include "../check/outstanding.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#endif

/* Seconds without an answer after which signals are unblocked, and after which HELLO is abandoned. */
#define UNBLOCK_SECONDS 2
#define HELLO_SECONDS 8
/* Seconds without further attempts after HELLO was abandoned: a program may check many paths. */
#define RETRY_SECONDS 60
/* How long to poll for an answer before sleeping: most answers arrive faster than a wake-up. */
#define SPIN_NS 50000
/* A sched_yield that took longer indicates a program that competes for the processor: no spinning for a while. */
#define LOST_NS 500000
#define WITHOUT_SPIN_NS 20000000

pid_t shim_pid;
const volatile uint32_t *session_parked;

/*
 * Error-checking: a signal handler that runs while its own thread waits for the daemon gets EIO instead of a deadlock.
 */
static pthread_mutex_t lock = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static __thread pid_t thread_id __attribute__((tls_model("initial-exec")));
/* Bits of the used entries of `waits`. */
static __thread unsigned waits_of_thread __attribute__((tls_model("initial-exec")));

static struct {
    int fd;
    /* Identity of the socket, to notice that its number was reused. */
    dev_t dev;
    ino_t ino;
    /* Counts connections, across forks; 0 before the first. */
    uint16_t generation;
    uint32_t serial;
    char root[sizeof(((struct userdma_hello_reply *)0)->root)];
} session = {.fd = -1};

/*
 * A thread that waits without the lock, and its connection. `frame` is a word in the waiting function's stack frame
 * that contains `stamp` while it waits.
 */
static struct wait {
    int fd; /* 0: free, descriptors of ours are high */
    pid_t thread;
    const volatile uint64_t *frame;
    uint64_t stamp;
} waits[16];

/* ---- locking ---- */

void shim_guard_enter(struct shim_guard *guard)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &guard->mask);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &guard->cancel);
}

void shim_guard_leave(const struct shim_guard *guard)
{
    pthread_setcancelstate(guard->cancel, NULL);
    pthread_sigmask(SIG_SETMASK, &guard->mask, NULL);
}

static void end_wait(struct wait *wait)
{
    fd_forget_hidden(wait->fd);
    REAL(close)(wait->fd);
    wait->fd = 0;
}

/* A word of this process's memory, 0 if it is unmapped: the stack of a coroutine may have been freed. */
static uint64_t word_at(const volatile uint64_t *address)
{
    uint64_t word = 0;
    struct iovec to = {.iov_base = &word, .iov_len = sizeof word};
    struct iovec from = {.iov_base = (void *)address, .iov_len = sizeof word};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == sizeof word ? word : 0;
}

/* With the lock held: releases calls of threads that have ended. */
static void close_waits_of_ended_threads(void)
{
    for (unsigned i = 0; i < sizeof waits / sizeof waits[0]; i++)
        if (waits[i].fd != 0 && syscall(SYS_tgkill, shim_pid, waits[i].thread, 0) != 0 && errno == ESRCH)
            end_wait(&waits[i]);
}

/*
 * Whether siglongjmp has left a call of this thread. A signal handler that interrupts the call runs below it, unless it
 * has a stack of its own. Otherwise the call has been left if its frame was overwritten since.
 */
static bool is_left(const struct wait *wait)
{
    const bool is_above = (uintptr_t)__builtin_frame_address(0) > (uintptr_t)wait->frame;
    if (is_above && !shim_on_signal_stack())
        return true;
    return word_at(wait->frame) != wait->stamp;
}

/* With the lock held: releases this thread's calls that siglongjmp has left. */
static void close_left_waits(void)
{
    if (LIKELY(waits_of_thread == 0))
        return;
    for (unsigned i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        if (!(waits_of_thread & 1u << i) || !is_left(&waits[i]))
            continue;
        waits_of_thread &= ~(1u << i);
        end_wait(&waits[i]);
    }
}

bool session_enter(struct shim_guard *guard)
{
    shim_guard_enter(guard);
    if (pthread_mutex_lock(&lock) == 0) {
        close_left_waits();
        return true;
    }
    shim_guard_leave(guard);
    errno = EIO;
    return false;
}

void session_leave(const struct shim_guard *guard)
{
    int saved = errno;
    pthread_mutex_unlock(&lock);
    shim_guard_leave(guard);
    errno = saved;
}

static void forget_socket(void)
{
    if (session.fd >= 0)
        fd_forget_hidden(session.fd);
    session.fd = -1;
}

static void hang_up(void)
{
    int fd = session.fd;
    forget_socket();
    if (fd >= 0)
        REAL(close)(fd);
}

/* In the child of a fork: the connection is the parent's, and our copy of it must not keep it alive. */
IN_CHILD static void disown(void)
{
    shim_pid = getpid();
    thread_id = 0;
    waits_of_thread = 0;
    for (unsigned i = 0; i < sizeof waits / sizeof waits[0]; i++)
        if (waits[i].fd != 0)
            end_wait(&waits[i]);
    hang_up();
}

/* What the parent's other threads were doing under the locks is lost; the table is written entry by entry. */
IN_CHILD static void after_fork(void)
{
    static const pthread_mutex_t fresh = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
    lock = fresh;
    fd_after_fork();
    disown();
    if (shim_stacks)
        outstanding_child();
}

/* Adapters' memory is not kept from the child. */
static void before_fork(void)
{
    if (shim_stacks && !verbs_fork_safe()) {
        stack_fork();
        outstanding_fork();
    }
}

void session_own_process(void)
{
    shim_pid = getpid();
    pthread_atfork(before_fork, NULL, after_fork);
}

/* ---- one request, one reply ---- */

void reply_close_all(struct reply *reply)
{
    while (reply->fd_count > 0)
        REAL(close)(reply->fds[--reply->fd_count]);
}

/* recvmsg without blocking, repeated for at most SPIN_NS; the daemon may need our processor to answer. */
static ssize_t receive_soon(int fd, struct msghdr *header)
{
    static uint64_t spin_from;
    const uint64_t begin = shim_nanoseconds();
    for (uint64_t now = begin;;) {
        const ssize_t length = REAL(recvmsg)(fd, header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (length >= 0 || errno != EAGAIN || now < spin_from || now - begin >= SPIN_NS)
            return length;
        sched_yield();
        const uint64_t after = shim_nanoseconds();
        if (after - now > LOST_NS)
            spin_from = after + WITHOUT_SPIN_NS;
        now = after;
    }
}

/*
 * Receives one message into `reply`; its length, 0 at the end of the stream, -1 with errno (EAGAIN: nothing for
 * UNBLOCK_SECONDS).
 */
static ssize_t receive(int fd, struct reply *reply)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof reply->fds)];
    } control;
    struct iovec iov = {.iov_base = &reply->message, .iov_len = sizeof reply->message};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t length = receive_soon(fd, &header);
    if (length < 0 && errno == EAGAIN)
        do
            length = REAL(recvmsg)(fd, &header, MSG_CMSG_CLOEXEC);
        while (length < 0 && errno == EINTR);
    reply->fd_count = 0;
    reply->truncated = false;
    if (length < 0)
        return -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        reply->fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(reply->fds, CMSG_DATA(c), reply->fd_count * sizeof(int));
    }
    /* Our descriptor table is full: some did not arrive. */
    reply->truncated = (header.msg_flags & MSG_CTRUNC) != 0;
    return length;
}

/*
 * Waits for the next message on `fd`, the connection, with the program's own signal mask and cancellation, and without
 * the lock. Meanwhile the connection is `*fd` (its number may change) and belongs to this thread alone; afterwards it
 * is the session's again unless another one was opened. False if nothing arrived in `seconds` (-1: no limit).
 */
static bool wait_apart(int *fd, const struct shim_guard *guard, int seconds)
{
    static uint64_t stamps = 0x7573657264ull << 24;
    volatile uint64_t frame = ++stamps;
    const struct timespec limit = {.tv_sec = seconds};
    const uint16_t generation = session.generation;
    close_waits_of_ended_threads();
    struct wait *wait = waits;
    while (wait < waits + sizeof waits / sizeof waits[0] && wait->fd != 0)
        wait++;
    if (wait == waits + sizeof waits / sizeof waits[0]) {
        /* With the lock: signals stay blocked, since siglongjmp would leave it locked. */
        struct pollfd poll = {.fd = *fd, .events = POLLIN};
        return ppoll(&poll, 1, seconds < 0 ? NULL : &limit, NULL) != 0;
    }
    const unsigned bit = 1u << (wait - waits);
    *wait = (struct wait){.fd = *fd, .thread = thread_id, .frame = &frame, .stamp = frame};
    waits_of_thread |= bit;
    if (session.fd == *fd)
        session.fd = -1;
    pthread_mutex_unlock(&lock);
    pthread_setcancelstate(guard->cancel, NULL);
    struct pollfd poll = {.fd = *fd, .events = POLLIN};
    const bool came = ppoll(&poll, 1, seconds < 0 ? NULL : &limit, &guard->mask) != 0;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_mutex_lock(&lock);
    frame = 0;
    if (!(waits_of_thread & bit)) {
        /* A signal handler has forked, and this is the child: the connection is the parent's. */
        *fd = -1;
        errno = EIO;
        return true;
    }
    waits_of_thread &= ~bit;
    *fd = wait->fd;
    wait->fd = 0;
    if (session.fd < 0 && session.generation == generation)
        session.fd = *fd;
    return came;
}

/* The connection on which a call waited was its own. */
static void close_apart(int fd)
{
    if (fd == session.fd || fd < 0)
        return;
    fd_forget_hidden(fd);
    REAL(close)(fd);
}

static void break_off(int fd)
{
    if (fd >= 0 && fd == session.fd)
        hang_up();
    else
        close_apart(fd);
}

/* Sends a message with a descriptor attached, unless that is -1. Like send(2). */
static ssize_t send_with(int fd, const struct request *request, size_t size, int passed)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof passed)];
    } control = {.align = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof passed)}};
    struct iovec iov = {.iov_base = (void *)request, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (passed >= 0) {
        memcpy(CMSG_DATA(&control.align), &passed, sizeof passed);
        header.msg_control = control.room;
        header.msg_controllen = sizeof control.room;
    }
    return REAL(sendmsg)(fd, &header, MSG_NOSIGNAL);
}

/* Like session_exchange; a descriptor `passed` other than -1 is attached to the request, and closed. */
static int exchange(struct request *request, size_t body, int passed, struct reply *reply,
                    const struct shim_guard *guard)
{
    struct userdma_header *header = &request->header;
    int fd = session.fd;
    if (thread_id == 0)
        thread_id = gettid();
    header->size = sizeof *header + body;
    header->serial = ++session.serial;
    header->pid = shim_pid;
    header->tid = thread_id;
    reply->generation = session.generation;
    ssize_t length;
    do
        length = send_with(fd, request, header->size, passed);
    while (length < 0 && (errno == EINTR || errno == EAGAIN));
    if (passed >= 0)
        REAL(close)(passed);
    if (length < 0)
        goto broken;
    do {
        length = receive(fd, reply);
    } while (length < 0 && errno == EAGAIN &&
             wait_apart(&fd, guard, header->type == USERDMA_HELLO ? HELLO_SECONDS : -1));
    if (length < 0 && errno == EAGAIN) {
        break_off(fd);
        return -ETIMEDOUT;
    }
    if (length < (ssize_t)sizeof reply->message.header || reply->message.header.serial != header->serial)
        goto broken;
    if (reply->message.header.type != (USERDMA_REPLY | header->type) || reply->message.header.size != (size_t)length)
        goto broken;
    close_apart(fd);
    if (reply->truncated) {
        reply_close_all(reply);
        return -EMFILE;
    }
    reply->body = length - sizeof reply->message.header;
    return 0;
broken:
    break_off(fd);
    return -EIO;
}

int session_exchange(struct request *request, size_t body, struct reply *reply, const struct shim_guard *guard)
{
    return exchange(request, body, -1, reply, guard);
}

/* ---- connecting ---- */

/* Prints once per process, and never again in its children, why there is no device. */
static void complain_about(const char *what, const char *why)
{
    static bool said;
    if (said)
        return;
    said = true;
    dprintf(STDERR_FILENO, "userdma: %s at %s: %s\n", what, shim_socket_path, why);
}

static void complain(const char *why)
{
    complain_about("no daemon", why);
}

/* The user of the socket's server at the time of listen; pid 0 for a process of an outer PID namespace. */
static struct ucred server_of(int fd)
{
    struct ucred server = {.uid = -1};
    socklen_t length = sizeof server;
    fd_socket_option(fd, SO_PEERCRED, &server, &length);
    return server;
}

/*
 * A daemon can read and change our memory: only root's and our own are trusted. Prints once to which user another one
 * belongs.
 */
static bool is_trusted(const struct ucred *server)
{
    if (server->uid == 0 || server->uid == geteuid())
        return true;
    char why[256], who[48];
    user_text(server->uid, who, sizeof who);
    snprintf(why, sizeof why,
             "it runs as %s, who could read and change this program's memory; only daemons of root and of user %u are "
             "used: start one of your own (`userdma run --private`)",
             who, (unsigned)geteuid());
    complain_about("the daemon", why);
    return false;
}

/* Prints once that the daemon refuses this user. */
static void complain_of_user(void)
{
    char why[160];
    snprintf(why, sizeof why, "it does not serve user %u; root's daemon does if it is started with `--allow-user %u`",
             (unsigned)geteuid(), (unsigned)outer_user(geteuid()));
    complain_about("the daemon", why);
}

/* Prints once why the daemon may not access our memory, and the remedy. */
static void complain_of_access(const struct ucred *server)
{
    char why[256];
    if (server->uid != geteuid())
        snprintf(why, sizeof why,
                 "it runs as root without the right to access the memory of this program of user %u (CAP_SYS_PTRACE); "
                 "give it that, or start it as user %u",
                 (unsigned)geteuid(), (unsigned)geteuid());
    else if (prctl(PR_GET_DUMPABLE) != 1)
        snprintf(why, sizeof why,
                 "this program does not let it access its memory (it is not dumpable, as after setuid); start the "
                 "daemon as root");
    else
        snprintf(why, sizeof why,
                 "the system does not let it access this program's memory; see "
                 "/proc/sys/kernel/yama/ptrace_scope and the container's rules, or start the daemon as root");
    complain_about("the daemon", why);
}

/* Sends HELLO on the new socket. 0 or -errno. */
static int greet(const struct shim_guard *guard)
{
    struct request request = {.header = {.type = USERDMA_HELLO, .fd = -1}};
    request.hello.version = USERDMA_SESSION_VERSION;
    const char *tag = getenv(USERDMA_ENV_TAG);
    if (tag)
        strncpy(request.hello.tag, tag, sizeof request.hello.tag - 1);
    struct reply reply;
    const struct ucred server = server_of(session.fd);
    if (!is_trusted(&server)) {
        hang_up();
        return -EACCES;
    }
    /* Where kernels restrict access to memory (yama), the daemon needs our permission; elsewhere this fails. */
    if (server.pid > 0)
        prctl(PR_SET_PTRACER, (unsigned long)server.pid, 0, 0, 0);
    /*
     * The userfaultfd by which the daemon learns what we unmap. Unmapping blocks until the event is read or all copies
     * are closed, so only the daemon may keep one.
     */
    const int unmapping =
        shim_valgrind ? -1 /* which does not know it */
                      : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (unmapping >= 0)
        request.hello.wants |= USERDMA_HELLO_UNMAPPING;
    if (shim_valgrind)
        request.hello.wants |= USERDMA_HELLO_WRITTEN;
    if (shim_events)
        request.hello.wants |= USERDMA_HELLO_EVENTS;
    int error = exchange(&request, sizeof request.hello, unmapping, &reply, guard);
    if (error)
        return error;
    const struct userdma_hello_reply *hello = &reply.message.hello;
    if (reply.body < sizeof *hello || (hello->error == 0 && reply.fd_count != 1)) {
        error = -EPROTO;
    } else if (hello->error) {
        error = -hello->error;
        if (error == -EACCES)
            complain_of_access(&server);
        else if (error == -EPERM)
            complain_of_user();
    } else {
        /* A page of an earlier daemon stays mapped: a doorbell in another thread may be reading it. */
        void *page = mmap(NULL, USERDMA_PARKED_PAGE_BYTES, PROT_READ, MAP_SHARED, reply.fds[0], 0);
        if (page == MAP_FAILED)
            error = -errno;
        else
            __atomic_store_n(&session_parked, page, __ATOMIC_RELEASE);
        memcpy(session.root, hello->root, sizeof session.root);
        session.root[sizeof session.root - 1] = 0;
    }
    reply_close_all(&reply);
    if (error)
        hang_up();
    return error;
}

static time_t now(void)
{
    return (time_t)(shim_nanoseconds() / 1000000000);
}

/* Why the last attempt to connect failed, as -errno for callers with a descriptor: EACCES, EMFILE, ENFILE, or EIO. */
static int refusal = -EIO;

static void refuse(int error)
{
    refusal = error == EPERM ? -EACCES : error == EACCES || error == EMFILE || error == ENFILE ? -error : -EIO;
}

int session_refusal(void)
{
    return refusal;
}

int session_no_device(void)
{
    return refusal == -EMFILE || refusal == -ENFILE ? -refusal : ENOENT;
}

static bool dial(const struct shim_guard *guard)
{
    static time_t silent_until;
    refusal = -EIO;
    if (silent_until && now() < silent_until)
        return false;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, shim_socket_path, sizeof address.sun_path);
    const struct timeval patience = {.tv_sec = UNBLOCK_SECONDS};
    int fd = REAL(socket)(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* for a full backlog */
    }
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        char why[192];
        refuse(errno);
        snprintf(why, sizeof why, "no daemon serves this socket; start `userdma daemon --socket %s`", shim_socket_path);
        if (errno == EACCES)
            complain_of_user();
        else
            complain(errno == ECONNREFUSED || errno == ENOENT ? why : strerror(errno));
        if (fd >= 0)
            REAL(close)(fd);
        return false;
    }
    struct stat stat;
    session.fd = fd_hide(fd, -1, true);
    if (session.fd < 0 || REAL(fstat)(session.fd, &stat) != 0) {
        refuse(errno);
        complain(strerror(errno));
        hang_up();
        return false;
    }
    session.dev = stat.st_dev;
    session.ino = stat.st_ino;
    if (++session.generation == 0)
        session.generation = 1;
    int error = greet(guard);
    if (error == 0)
        return true;
    if (error == -ETIMEDOUT)
        silent_until = now() + RETRY_SECONDS;
    refuse(-error);
    complain(error == -ETIMEDOUT ? "it does not answer"
             : error == -EPROTO  ? "it speaks another protocol"
                                 : strerror(-error));
    return false;
}

static bool is_still_ours(void)
{
    struct stat stat;
    return REAL(fstat)(session.fd, &stat) == 0 && stat.st_ino == session.ino && stat.st_dev == session.dev;
}

bool session_ensure(const struct shim_guard *guard, bool check_alive)
{
    if (shim_foreign())
        disown(); /* a fork that ran no handlers */
    if (session.fd >= 0 && !is_still_ours())
        forget_socket(); /* the number is no longer ours to close */
    if (session.fd >= 0 && check_alive) {
        struct pollfd hung = {.fd = session.fd};
        if (poll(&hung, 1, 0) > 0)
            hang_up();
    }
    return session.fd >= 0 || dial(guard);
}

void session_moved(int from, int to)
{
    if (session.fd == from)
        session.fd = to;
    for (unsigned i = 0; i < sizeof waits / sizeof waits[0]; i++)
        if (waits[i].fd == from)
            waits[i].fd = to;
}

uint16_t session_generation(void)
{
    return session.generation;
}

bool session_connected(void)
{
    return session.fd >= 0;
}

bool session_root(char root[sizeof session.root])
{
    struct shim_guard guard;
    int saved = errno;
    if (!session_enter(&guard))
        return false;
    bool there = session_ensure(&guard, true);
    if (there)
        memcpy(root, session.root, sizeof session.root);
    errno = there ? saved : session_no_device();
    session_leave(&guard);
    return there;
}
