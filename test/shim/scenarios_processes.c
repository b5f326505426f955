/*
 * Scenarios (scenarios.c) of descriptors and processes.
 */
#include "scenarios.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

/*
 * A thread that waits for an answer releases the session's lock after UNBLOCK_SECONDS (shim/session/connection.h).
 * Milliseconds below and above this time.
 */
enum { LOCKED_MS = 300, UNLOCKED_MS = 2600 };

/* Fills the descriptor table with copies, and returns the last number. */
static int fill_table(void)
{
    int last = -1;
    for (int i; (i = dup(2)) >= 0; last = i)
        ;
    EXPECT(errno == EMFILE);
    return last;
}

static void expect_dev_null(int fd)
{
    struct stat st;
    EXPECT(fstat(fd, &st) == 0 && st.st_rdev == makedev(1, 3));
}

union fd_control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static int receive_fd(int socket)
{
    union fd_control control = {0};
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    EXPECT(recvmsg(socket, &message, 0) == 1);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void send_fd(int socket, int fd)
{
    union fd_control control = {0};
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    EXPECT(sendmsg(socket, &message, 0) == 1);
}

/* ---- descriptors ---- */

void copies(void)
{
    int watcher = open_device();
    int fd = open_device();
    EXPECT(order(watcher, CONTEXTS, 0) == 2 && hidden_count() == 3);
    int by_dup = dup(fd), by_dupfd = fcntl(fd, F_DUPFD, 50), by_dupfd_cloexec = fcntl(fd, F_DUPFD_CLOEXEC, 60);
    int by_dup2 = dup2(fd, 70), by_dup3 = dup3(fd, 71, O_CLOEXEC);
    EXPECT(by_dup > fd && by_dupfd == 50 && by_dupfd_cloexec == 60 && by_dup2 == 70 && by_dup3 == 71);
    EXPECT(hidden_count() == 8);
    struct stat st;
    EXPECT(fstat(by_dup3, &st) == 0 && S_ISCHR(st.st_mode));
    EXPECT(close(fd) == 0 && close(by_dup) == 0 && close(by_dupfd) == 0);
    EXPECT(close(by_dupfd_cloexec) == 0 && close(by_dup2) == 0);
    EXPECT(order(by_dup3, ECHO, 5) == 5 && order(watcher, CONTEXTS, 0) == 2 && hidden_count() == 3);
    EXPECT(dup2(by_dup3, by_dup3) == by_dup3 && order(by_dup3, ECHO, 6) == 6);
    int null = open("/dev/null", O_RDWR);
    EXPECT(dup2(null, by_dup3) == by_dup3 && order(watcher, CONTEXTS, 0) == 1 && hidden_count() == 2);
    expect_dev_null(by_dup3);
    FAILS(order(by_dup3, ECHO, 6), ENOTTY);
    EXPECT(dup2(watcher, null) == null && order(null, ECHO, 3) == 3);
    FAILS(dup2(-1, watcher), EBADF);
    EXPECT(order(watcher, ECHO, 4) == 4);
    EXPECT(close(watcher) == 0 && order(null, CONTEXTS, 0) == 1);
}

/* The hidden sockets that exec would not close. */
static int inheritable_count(void)
{
    int count = 0;
    for (int fd = FIRST_HIDDEN; fd < HIDDEN_END; fd++)
        count += fcntl(fd, F_GETFD) == 0;
    return count;
}

static void expect_copy(int copy, bool is_inheritable)
{
    EXPECT(copy >= 0 && fcntl(copy, F_GETFD) == (is_inheritable ? 0 : FD_CLOEXEC));
    EXPECT(inheritable_count() == is_inheritable && close(copy) == 0);
}

/* The flag of a context's descriptor is also that of its doorbell socket. */
void close_on_exec(void)
{
    int fd = open(NODE, O_RDWR), pair[2];
    EXPECT(order(fd, PARK, 1) == 0 && inheritable_count() == 1);
    EXPECT(ioctl(fd, FIOCLEX) == 0 && inheritable_count() == 0 && ioctl(fd, FIONCLEX) == 0 && inheritable_count() == 1);
    EXPECT(close_range(fd, fd, CLOSE_RANGE_CLOEXEC) == 0 && inheritable_count() == 0);
    EXPECT(fcntl(fd, F_SETFD, 0) == 0 && inheritable_count() == 1);
    EXPECT(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && inheritable_count() == 0);
    expect_copy(dup(fd), true);
    expect_copy(dup2(fd, 50), true);
    expect_copy(dup3(fd, 50, 0), true);
    expect_copy(dup3(fd, 50, O_CLOEXEC), false);
    expect_copy(fcntl(fd, F_DUPFD, 50), true);
    expect_copy(fcntl(fd, F_DUPFD_CLOEXEC, 50), false);
    /* Another process gets a doorbell socket of its own. */
    EXPECT_IN_CHILD(order(fd, ECHO, 3) == 3 && inheritable_count() == 0);
    EXPECT(fcntl(fd, F_SETFD, 0) == 0);
    EXPECT_IN_CHILD(order(fd, ECHO, 3) == 3 && inheritable_count() == 1);
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    const pid_t pid = fork();
    if (pid == 0) {
        EXPECT(close(fd) == 0);
        for (int is_inheritable = 0; is_inheritable < 2; is_inheritable++) {
            const int received = receive_fd(pair[0]);
            EXPECT(fcntl(received, F_SETFD, is_inheritable ? 0 : FD_CLOEXEC) == 0 && order(received, ECHO, 4) == 4);
            expect_copy(received, is_inheritable);
        }
        _exit(0);
    }
    send_fd(pair[1], fd);
    send_fd(pair[1], fd);
    expect_exit_0(pid);
}

void hidden_sockets(void)
{
    int fd = open_device();
    char byte;
    const struct iovec vector = {&byte, 1};
    for (int i = FIRST_HIDDEN - 10; i < HIDDEN_END; i++) {
        FAILS(read(i, &byte, 1), EBADF);
        FAILS(readv(i, &vector, 1), EBADF);
        FAILS(write(i, &byte, 1), EBADF);
        FAILS(close(i), EBADF);
    }
    EXPECT(order(fd, ECHO, 1) == 1);
    closefrom(fd + 1);
    EXPECT(order(fd, ECHO, 2) == 2 && close_range(fd + 1, ~0u, 0) == 0 && order(fd, ECHO, 3) == 3);
    FAILS(close_range(fd, ~0u, 64), EINVAL); /* an unknown flag */
    EXPECT(hidden_count() == 2 && order(fd, ECHO, 4) == 4);
    /* The C library flushes a stream and closes its number. */
    FILE *stream = fdopen(FIRST_HIDDEN, "w");
    EXPECT(stream && fputs("flushed by fclose", stream) > 0);
    FAILS(fclose(stream), EBADF);
    EXPECT(hidden_count() == 2 && order(fd, ECHO, 4) == 4);
    /* A dup2 that fails leaves no copy of a hidden socket at the number. */
    FAILS(dup2(-1, FIRST_HIDDEN + 1), EBADF);
    FAILS(dup3(fd, FIRST_HIDDEN, O_APPEND), EINVAL);
    EXPECT(hidden_count() == 2 && order(fd, ECHO, 4) == 4);
    EXPECT(order(fd, SESSIONS, 0) == 1);
    EXPECT(close_range(FIRST_HIDDEN - 5, FIRST_HIDDEN + 50, CLOSE_RANGE_CLOEXEC) == 0 && order(fd, ECHO, 4) == 4);
    /* The program uses numbers of hidden sockets. */
    int null = open("/dev/null", O_RDWR);
    for (int i = FIRST_HIDDEN - 5; i < FIRST_HIDDEN + 10; i++)
        EXPECT(dup2(null, i) == i);
    EXPECT(order(fd, ECHO, 5) == 5 && order(fd, SESSIONS, 0) == 1 && ring_doorbell(fd, 1));
    EXPECT(order(fd, DOORBELLS, 0) == 1);
    for (int i = FIRST_HIDDEN - 5; i < FIRST_HIDDEN + 10; i++)
        EXPECT(close(i) == 0);
    EXPECT(order(fd, ECHO, 6) == 6 && order(fd, CONTEXTS, 0) == 1);
    /* The hidden sockets are closed behind the shim's back, and their numbers reused. */
    for (int i = FIRST_HIDDEN - 5; i < HIDDEN_END; i++)
        syscall(SYS_dup3, null, i, 0);
    FAILS(write(fd, doorbell(1), DOORBELL_BYTES), EIO);
    int again = open_device();
    EXPECT(order(again, ECHO, 7) == 7);
    /* The range includes the device. */
    EXPECT(close_range(3, ~0u, 0) == 0);
    FAILS(order(fd, ECHO, 1), EBADF);
    again = open_device();
    EXPECT(again == 3 && order(again, CONTEXTS, 0) == 1);
}

/* The program closes the first hidden sockets, those of the session and of `fd`, and uses their numbers. */
void lost_sockets(void)
{
    int fd = open_device(), copy = dup(fd), null = open("/dev/null", O_RDWR);
    EXPECT(order(fd, PARK, 1) == 0 && hidden_count() == 3);
    /* A child of which the shim does not know. */
    const pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        EXPECT(dup2(null, FIRST_HIDDEN) == FIRST_HIDDEN && order(fd, ECHO, 5) == 5);
        expect_dev_null(FIRST_HIDDEN);
        _exit(0);
    }
    expect_exit_0(pid);
    EXPECT_IN_CHILD(syscall(SYS_close, FIRST_HIDDEN + 1) == 0 && order(fd, ECHO, 5) == 5);
    /* The next session's socket gets the number of a netlink socket that the shim does not see closed. */
    EXPECT(syscall(SYS_close, socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA)) == 0);
    for (int i = FIRST_HIDDEN; i < FIRST_HIDDEN + 2; i++)
        EXPECT(syscall(SYS_dup3, null, i, 0) == i);
    EXPECT(order(fd, ECHO, 6) == 6);
    expect_dev_null(FIRST_HIDDEN);
    expect_dev_null(FIRST_HIDDEN + 1);
    EXPECT(order(fd, PARK, 1) == 0 && ring_doorbell(fd, 1) && order(fd, DOORBELLS, 0) == 1);
    EXPECT(close(fd) == 0 && order(copy, CONTEXTS, 0) == 1 && hidden_count() == 2);
    expect_dev_null(FIRST_HIDDEN + 1);
    /* All hidden sockets are closed behind the shim's back: new ones get their numbers. */
    fd = dup(copy);
    for (int i = FIRST_HIDDEN; i < HIDDEN_END; i++)
        syscall(SYS_close, i);
    EXPECT(open_device() >= 0 && hidden_count() == 2);
    FAILS(order(fd, ECHO, 7), EIO); /* the context has ended with its doorbell sockets */
    for (int i = FIRST_HIDDEN; i < HIDDEN_END; i++)
        FAILS(close(i), EBADF);
    EXPECT(hidden_count() == 2);
}

void low_limit(void)
{
    struct rlimit limit = {64, 64};
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int fd = open_device();
    EXPECT(fd == 3 && order(fd, ECHO, 3) == 3);
    const int last = fill_table();
    FAILS(open(NODE, O_RDWR), EMFILE);
    int32_t number = -1;
    FAILS(order(fd, EVENT_4, (unsigned long)&number), EMFILE);
    EXPECT(number == -1 && order(fd, ECHO, 4) == 4 && close(last) == 0 && order(fd, CONTEXTS, 0) == 1);
}

/* The program lowers its limit below the numbers of its hidden sockets. */
void lowered_limit(void)
{
    const struct rlimit limit = {64, 64};
    int fd = open_device();
    EXPECT(order(fd, PARK, 1) == 0 && setrlimit(RLIMIT_NOFILE, &limit) == 0);
    int copy = dup(fd);
    EXPECT(copy >= 0 && order(copy, ECHO, 3) == 3 && ring_doorbell(copy, 1) && close(copy) == 0);
    const pid_t pid = fork();
    if (pid == 0) {
        EXPECT(order(fd, ECHO, 4) == 4 && ring_doorbell(fd, 1) && order(fd, DOORBELLS, 0) == 2);
        EXPECT(hidden_count() == 0 && close(fd) == 0);
        _exit(0);
    }
    expect_exit_0(pid);
    EXPECT(order(fd, ECHO, 5) == 5 && order(fd, CONTEXTS, 0) == 1 && order(fd, SESSIONS, 0) == 1);
}

/* A copy takes the last free number. */
void last_number(void)
{
    const struct rlimit limit = {64, 64};
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    const int fd = open_device(), last = fill_table();
    EXPECT(close(last) == 0 && order(fd, PARK, 1) == 0);
    EXPECT(dup(fd) == last && order(last, ECHO, 3) == 3 && ring_doorbell(last, 5));
    EXPECT(close(last) == 0 && ring_doorbell(fd, 5) && order(fd, DOORBELLS, 0) == 1);
}

/* The program's descriptor table is full before its first access to a device. */
void full_table(void)
{
    struct rlimit limit = {64, 64};
    struct stat st;
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    const int last = fill_table();
    FAILS(open(NODE, O_RDWR), EMFILE);
    FAILS(stat("/sys/class/infiniband", &st), EMFILE);
    EXPECT(!opendir("/sys/class/infiniband_verbs") && errno == EMFILE);
    for (int i = 0; i < 4; i++)
        EXPECT(close(last - i) == 0);
    int fd = open_device();
    EXPECT(order(fd, ECHO, 3) == 3);
}

/* The reply to HELLO loses descriptors; the next access connects again. */
void truncated_hello(void)
{
    struct stat st;
    FAILS(stat("/sys/class/infiniband", &st), EMFILE);
    EXPECT(stat("/sys/class/infiniband", &st) == 0);
    EXPECT(order(open_device(), ECHO, 3) == 3);
}

/* The daemon has no free descriptors. */
void daemon_full(void)
{
    struct stat st;
    FAILS(open(NODE, O_RDWR), EMFILE);
    FAILS(stat("/sys/class/infiniband", &st), EMFILE);
}

/* ---- processes ---- */

void forks(void)
{
    int fd = open_device();
    EXPECT(order(fd, PARK, 1) == 0 && order(fd, SESSIONS, 0) == 1);
    pid_t pid = fork();
    if (pid == 0) {
        EXPECT(ring_doorbell(fd, 5)); /* before any call of its own */
        EXPECT(order(fd, ECHO, 9) == 9 && order(fd, DOORBELLS, 0) == 1 && order(fd, CONTEXTS, 0) == 1);
        EXPECT(order(fd, SESSIONS, 0) == 2 && hidden_count() == 2);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            EXPECT(order(fd, ECHO, 2) == 2 && ring_doorbell(fd, 6) && order(fd, DOORBELLS, 0) == 2);
            EXPECT(close(fd) == 0);
            _exit(0);
        }
        expect_exit_0(grandchild);
        EXPECT(order(fd, ECHO, 9) == 9);
        _exit(0);
    }
    expect_exit_0(pid);
    EXPECT(order(fd, ECHO, 1) == 1 && order(fd, CONTEXTS, 0) == 1 && order(fd, SESSIONS, 0) == 1);
    /* A child keeps the context that its parent closes. */
    int go[2], watcher = open_device();
    EXPECT(pipe(go) == 0);
    pid = fork();
    char byte;
    if (pid == 0) {
        EXPECT(read(go[0], &byte, 1) == 1);
        EXPECT(order(fd, CONTEXTS, 0) == 2 && order(fd, ECHO, 8) == 8);
        EXPECT(close(fd) == 0 && order(watcher, CONTEXTS, 0) == 1);
        _exit(0);
    }
    EXPECT(close(fd) == 0 && order(watcher, CONTEXTS, 0) == 2 && write(go[1], "", 1) == 1);
    expect_exit_0(pid);
    EXPECT(order(watcher, CONTEXTS, 0) == 1);
}

/* In a child: a pipe and a device work, whichever gets the number `absent`. */
static void expect_free(int absent)
{
    EXPECT_IN_CHILD(order(open_device(), ECHO, 4) == 4);
    int ends[2];
    char byte;
    EXPECT_IN_CHILD(pipe(ends) == 0 && ends[0] == absent && write(ends[1], "x", 1) == 1 && read(absent, &byte, 1) == 1);
}

/*
 * fork copies the descriptors before the memory: of a descriptor that another thread opens meanwhile, the child has the
 * shim's entry only. Here such a state is made by a close that the shim does not see.
 */
void half_copied(void)
{
    const int fd = open_device(), channel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);
    syscall(SYS_close, channel);
    expect_free(channel);
    int32_t event = -1;
    EXPECT(order(fd, EVENT_4, (uintptr_t)&event) == 0 && event == channel);
    syscall(SYS_close, event);
    expect_free(event);
    int64_t driver = -1;
    EXPECT(order(fd, DRIVER_8, (uintptr_t)&driver) == 0 && driver == channel);
    syscall(SYS_close, (int)driver);
    expect_free((int)driver);
    /* A context without its doorbell socket, whose number another file gets. */
    const int other = open_device(), doorbell = FIRST_HIDDEN + 2;
    EXPECT(other == channel && syscall(SYS_close, doorbell) == 0);
    EXPECT_IN_CHILD(syscall(SYS_fcntl, 2, F_DUPFD, doorbell) == doorbell && fcntl(other, F_SETFD, FD_CLOEXEC) == 0 &&
                    close(other) == 0 && syscall(SYS_fcntl, doorbell, F_GETFD) == 0);
    syscall(SYS_close, other);
    expect_free(other);
}

const char *self;

/* After exec. `number`: an inherited descriptor of a context; `remaining`: contexts after that descriptor is closed. */
void inherited(const char *number, const char *remaining)
{
    int fd = atoi(number);
    EXPECT(hidden_count() == 1); /* the inherited doorbell socket */
    EXPECT(ring_doorbell(fd, 1) && order(fd, ECHO, 44) == 44 && hidden_count() == 2);
    struct stat st;
    EXPECT(fstat(fd, &st) == 0 && S_ISCHR(st.st_mode));
    int watcher = open_device();
    EXPECT(order(watcher, CONTEXTS, 0) == 2 && close(fd) == 0);
    EXPECT(order(watcher, CONTEXTS, 0) == atoi(remaining) && hidden_count() == 2);
    exit(0);
}

void exec(void)
{
    int fd = open(NODE, O_RDWR); /* survives exec */
    int cloexec_fd = open_device();
    EXPECT(order(fd, CONTEXTS, 0) == 2 && cloexec_fd > fd);
    char number[16];
    snprintf(number, sizeof number, "%d", fd);
    execl(self, self, "inherited", number, "1", NULL);
    EXPECT(!"exec");
}

/* A file with the number of a closed descriptor of the daemon must behave as a plain file. */
void expect_reusable(int fd)
{
    char path[] = "/tmp/userdma-reuse-XXXXXX", text[8] = {0};
    int file = mkstemp(path);
    EXPECT(file >= 0 && unlink(path) == 0);
    EXPECT(file == fd || dup2(file, fd) == fd);
    EXPECT(write(fd, "hello", 5) == 5 && lseek(fd, 0, SEEK_SET) == 0);
    EXPECT(read(fd, text, 5) == 5 && strcmp(text, "hello") == 0);
    EXPECT(close(fd) == 0);
}

static int open_event(int fd)
{
    int32_t channel = -1;
    EXPECT(order(fd, EVENT_4, (uintptr_t)&channel) == 0 && channel >= 0);
    return channel;
}

/* After exec, before any request to the daemon: the numbers of closed descriptors are reused. */
void inherited_events(const char *number, const char *context)
{
    int fd = atoi(number), by_dup = dup(fd), by_dup2 = dup2(fd, 60);
    EXPECT(close(fd) == 0 && close(by_dup) == 0 && close(by_dup2) == 0);
    /* The doorbell socket is closed with the context, also if another file replaces the context. */
    int plain = open("/dev/null", O_RDONLY);
    EXPECT(hidden_count() == 1 && dup2(plain, atoi(context)) == atoi(context) && hidden_count() == 0);
    EXPECT(close(plain) == 0 && close(atoi(context)) == 0);
    expect_reusable(fd);
    expect_reusable(by_dup);
    expect_reusable(by_dup2);
    expect_reusable(atoi(context));
    exit(0);
}

void exec_events(void)
{
    int fd = open(NODE, O_RDWR), channel = open_event(fd);
    EXPECT(fcntl(channel, F_SETFD, 0) == 0);
    char number[16], context[16];
    snprintf(number, sizeof number, "%d", channel);
    snprintf(context, sizeof context, "%d", fd);
    execl(self, self, "inherited_events", number, context, NULL);
    EXPECT(!"exec");
}

void vforks(void)
{
    int fd = open_device(), kept = fcntl(fd, F_DUPFD, 40);
    pid_t pid = vfork();
    if (pid == 0) {
        /* Neither the calls nor the changes may affect the parent's connection and table. */
#ifndef __SANITIZE_THREAD__ /* with it vfork is fork */
        if (order(fd, ECHO, 5) != -1 || errno != EIO || access("/sys/class/infiniband_verbs", F_OK) != -1)
            _exit(8);
#endif
        close(kept);
        dup2(fd, 20);
        close(fd);
        execl(self, self, "inherited", "20", "2", NULL);
        _exit(9);
    }
    expect_exit_0(pid);
    EXPECT(order(fd, ECHO, 3) == 3 && order(kept, ECHO, 4) == 4);
    EXPECT(close(fd) == 0 && order(kept, CONTEXTS, 0) == 1 && hidden_count() == 2);
}

/* ---- passed over a socket ---- */

/* First calls of a receiver. */
enum {
    FIRST_ORDER,
    FIRST_DOORBELL,
    FIRST_FSTAT,
    FIRST_READ,
    FIRST_LSEEK,
    FIRST_MMAP,
    FIRST_DUP,
    FIRST_IN_CHILD,
    FIRST_CALLS,
};

static void make_first_call(int fd, int first)
{
    struct stat st;
    char byte;
    switch (first) {
    case FIRST_ORDER: EXPECT(order(fd, ECHO, 21) == 21); break;
    case FIRST_DOORBELL: EXPECT(ring_doorbell(fd, 1) && order(fd, DOORBELLS, 0) == 1); break;
    case FIRST_FSTAT: EXPECT(fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(231, 192)); break;
    case FIRST_READ: FAILS(read(fd, &byte, 1), EINVAL); break;
    case FIRST_LSEEK: FAILS(lseek(fd, 0, SEEK_CUR), ESPIPE); break;
    case FIRST_MMAP: EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096) != MAP_FAILED); break;
    case FIRST_DUP: {
        const int copy = dup(fd);
        EXPECT(close(fd) == 0 && ring_doorbell(copy, 1) && dup2(copy, fd) == fd && close(copy) == 0);
        break;
    }
    case FIRST_IN_CHILD: EXPECT_IN_CHILD((make_first_call(fd, FIRST_DOORBELL), true)); break;
    }
    EXPECT(order(fd, ECHO, 22) == 22);
}

void passed_descriptors(void)
{
    for (int first = 0; first < FIRST_CALLS; first++) {
        int pair[2];
        EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
        pid_t pid = fork();
        char byte = 0;
        int fd, event;
        if (pid == 0) {
            fd = receive_fd(pair[0]);
            event = receive_fd(pair[0]);
            EXPECT(hidden_count() == 0); /* no request yet */
            make_first_call(fd, first);
            EXPECT(write(pair[0], "", 1) == 1 && read(pair[0], &byte, 1) == 1);
            EXPECT(order(fd, ECHO, 22) == 22 && order(fd, CONTEXTS, 0) == 1);
            /* A received event descriptor behaves like an event descriptor that the program has created. */
            FAILS(write(event, "x", 1), EBADF);
            FAILS(read(event, &byte, 1), EINVAL);
            EXPECT(order(fd, HANG_UP_EVENT, 0) == 0);
            EXPECT(read(event, (char[64]){0}, 64) == 8);
            FAILS(read(event, (char[64]){0}, 64), EIO);
            _exit(0);
        }
        fd = open_device();
        EXPECT(order(fd, PARK, 1) == 0 && order(fd, EVENT_4, (unsigned long)&event) == 0 && order(fd, RECORD, 8) == 0);
        send_fd(pair[1], fd);
        send_fd(pair[1], event);
        EXPECT(read(pair[1], &byte, 1) == 1);
        EXPECT(close(fd) == 0 && close(event) == 0 && write(pair[1], "", 1) == 1);
        expect_exit_0(pid);
    }
    /* Another memory file is no context, whatever its name and however it arrives. */
    int other = memfd_create("userdma-contextual", 0);
    FAILS(order(other, ECHO, 1), ENOTTY);
    int forged = memfd_create("userdma-context", 0), pair[2], received;
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    send_fd(pair[1], forged);
    received = receive_fd(pair[0]);
    EXPECT(write(received, "mine", 4) == 4 && lseek(received, 0, SEEK_END) == 4);
    FAILS(order(forged, ECHO, 1), ENOTTY);
    /* The daemon marks event descriptors by a send timeout. A socket with another timeout is none. */
    EXPECT(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = 5}, sizeof(struct timeval)) == 0);
    send_fd(pair[0], pair[0]);
    received = receive_fd(pair[1]);
    EXPECT(write(received, "x", 1) == 1 && read(pair[1], &(char){0}, 1) == 1);
}

/* The receiver makes no call of a device. */
void passed_and_closed(void)
{
    int pair[2], fd, event;
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        fd = receive_fd(pair[0]);
        event = receive_fd(pair[0]);
        EXPECT(close(fd) == 0 && close(event) == 0);
        expect_reusable(fd);
        expect_reusable(event);
        _exit(0);
    }
    fd = open_device();
    event = open_event(fd);
    send_fd(pair[1], fd);
    send_fd(pair[1], event);
    expect_exit_0(pid);
}

/* The program receives a context's file whose daemon does not serve the program. */
void not_served(void)
{
    int context = memfd_create("userdma-context", 0), pair[2], fd;
    struct stat st;
    char byte;
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && ftruncate(context, 8192) == 0);
    send_fd(pair[1], context);
    fd = receive_fd(pair[0]);
    FAILS(write(fd, "x", 1), EACCES);
    FAILS(writev(fd, &(struct iovec){&byte, 1}, 1), EACCES);
    FAILS(read(fd, &byte, 1), EACCES);
    FAILS(order(fd, ECHO, 1), EACCES);
    EXPECT(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096) == MAP_FAILED && errno == EACCES);
    FAILS(lseek(fd, 0, SEEK_END), ESPIPE);
    EXPECT(fstat(context, &st) == 0 && st.st_size == 8192 && hidden_count() == 0);
    const int copy = dup(fd);
    EXPECT(close(fd) == 0 && copy >= 0);
    FAILS(write(copy, "x", 1), EACCES);
    /* The number is that of a plain socket again. */
    EXPECT(dup2(pair[0], copy) == copy && write(copy, "x", 1) == 1);
}

/* ---- signals and threads ---- */

static int signalled_fd;
static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
    (void)number;
    alarms++;
    int saved = errno;
    /* The interrupted call may be using the buffer of doorbell(). */
    uint32_t response, command[DOORBELL_BYTES / 4];
    fill_doorbell(command, 3, &response);
    if (write(signalled_fd, command, sizeof command) != sizeof command ||
        ioctl(signalled_fd, _IOWR(0xdb, ECHO, uint64_t), 6L) != 6)
        _exit(3);
    errno = saved;
}

void signals(void)
{
    signalled_fd = open_device();
    struct sigaction action = {.sa_handler = on_alarm};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval every_500_us = {{0, 500}, {0, 500}};
    EXPECT(setitimer(ITIMER_REAL, &every_500_us, NULL) == 0);
    for (int i = 0; alarms < 50 || i < 500; i++)
        EXPECT(order(signalled_fd, ECHO, (unsigned long)i) == i);
}

static void *call_often(void *argument)
{
    int fd = *(int *)argument;
    for (int i = 0; i < 200; i++) {
        EXPECT(order(fd, ECHO, (unsigned long)i) == i);
        int thread_fd = open_device();
        EXPECT(order(thread_fd, ECHO, 3) == 3 && ring_doorbell(thread_fd, 1) && close(thread_fd) == 0);
    }
    return NULL;
}

void threads(void)
{
    int fd = open_device();
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_create(&thread[i], NULL, call_often, &fd) == 0);
    /* Forks while other threads may hold locks of the shim. */
    for (int i = 0; i < 20; i++)
        EXPECT_IN_CHILD(order(fd, ECHO, 1) == 1);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(thread[i], NULL) == 0);
    EXPECT(order(fd, CONTEXTS, 0) == 1 && hidden_count() == 2);
}

static void *open_sockets(void *stops)
{
    while (!__atomic_load_n((bool *)stops, __ATOMIC_RELAXED)) {
        const int channel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA), fd = open_device();
        EXPECT(channel >= 0 && close(channel) == 0 && close(fd) == 0);
    }
    return NULL;
}

/* Forks 500 children, which open a device, while other threads open and close devices. */
void many_forks(void)
{
    bool stops = false;
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_create(&thread[i], NULL, open_sockets, &stops) == 0);
    for (int i = 0; i < 500; i++)
        EXPECT_IN_CHILD(order(open_device(), ECHO, 1) == 1);
    __atomic_store_n(&stops, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_join(thread[i], NULL) == 0);
}

/* ---- two threads connect while the daemon is slow ---- */

static sem_t is_waiting;

static void on_waiting(int number)
{
    (void)number;
    sem_post(&is_waiting);
}

static void *open_and_call(void *argument)
{
    const int fd = open_device();
    EXPECT(order(fd, ECHO, 6) == 6);
    *(int *)argument = fd;
    return NULL;
}

/* The path of a file beside the daemon's socket, in a static buffer. */
static const char *beside_socket(const char *name)
{
    static char path[256];
    const char *socket = getenv("USERDMA_SOCKET");
    snprintf(path, sizeof path, "%.*s%s", (int)(strlen(socket) - strlen("sock")), socket, name);
    return path;
}

static void wait_for_file(const char *name)
{
    while (access(beside_socket(name), F_OK) != 0)
        poll(NULL, 0, 1);
}

/* Returns when the thread, which has sent a request, waits for the answer without the session's lock. */
static void wait_without_lock(pthread_t thread)
{
    /* While the thread has the lock, signals are blocked. */
    EXPECT(pthread_kill(thread, SIGUSR1) == 0);
    while (sem_wait(&is_waiting) != 0)
        EXPECT(errno == EINTR);
}

/*
 * Starts a thread that opens a device. Returns when the thread waits for the daemon without the session's lock.
 * `hello`: the file that the daemon creates when it has the thread's HELLO.
 */
static pthread_t start_waiting(int *fd, const char *hello)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, open_and_call, fd) == 0);
    wait_for_file(hello);
    wait_without_lock(thread);
    return thread;
}

void late_hellos(void)
{
    int fds[2];
    struct sigaction action = {.sa_handler = on_waiting};
    EXPECT(sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    const pthread_t first = start_waiting(&fds[0], "hello1"), second = start_waiting(&fds[1], "hello2");
    EXPECT(close(open(beside_socket("answer"), O_CREAT | O_WRONLY, 0600)) == 0);
    EXPECT(pthread_join(first, NULL) == 0 && pthread_join(second, NULL) == 0);
    EXPECT(order(fds[0], ECHO, 7) == 7 && order(fds[1], ECHO, 8) == 8);
    /* The daemon notices later that the shim has closed the other connection. */
    while (order(fds[0], SESSIONS, 0) != 1)
        poll(NULL, 0, 1);
    EXPECT(order(fds[0], CONTEXTS, 0) == 2);
    EXPECT(hidden_count() == 3);
}

static void *call_delayed(void *argument)
{
    const int fd = ((int *)argument)[0], milliseconds = ((int *)argument)[1];
    EXPECT(order(fd, DELAY, (unsigned long)milliseconds) == milliseconds);
    return NULL;
}

/* The number of the session's socket: the only hidden one that is connected to a path. */
static int session_socket(void)
{
    for (int fd = FIRST_HIDDEN; fd < HIDDEN_END; fd++) {
        struct sockaddr_un peer = {0};
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sun_path[0] == '/')
            return fd;
    }
    EXPECT(!"there is a session");
    return -1;
}

/*
 * The program takes the number of the session's socket while another thread waits for an answer: with the session's
 * lock, and then without it.
 */
void replaced_session(void)
{
    static const int delays[] = {LOCKED_MS, UNLOCKED_MS};
    struct sigaction action = {.sa_handler = on_waiting};
    EXPECT(sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    int fd = open_device(), null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        int arguments[2] = {fd, delays[i]}, number = session_socket();
        unlink(beside_socket("delay"));
        EXPECT(pthread_create(&thread, NULL, call_delayed, arguments) == 0);
        wait_for_file("delay");
        if (delays[i] > LOCKED_MS)
            wait_without_lock(thread);
        EXPECT(dup2(null, number) == number && pthread_join(thread, NULL) == 0);
        expect_dev_null(number);
        EXPECT(order(fd, ECHO, 4) == 4 && order(fd, SESSIONS, 0) == 1 && hidden_count() == 2);
    }
}

static int interrupted_fd;
static volatile pid_t children[2];
static volatile sig_atomic_t is_child, handled;

/* Makes a call, and two children. The shim does not know of the second child. */
static void on_interrupt(int number)
{
    (void)number;
    if (ioctl(interrupted_fd, _IOWR(0xdb, ECHO, uint64_t), 7L) != 7)
        _exit(3);
    handled++;
    for (int i = 0; i < 2 && !is_child; i++) {
        children[i] = i == 0 ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        is_child = children[i] == 0;
    }
}

/*
 * A signal handler interrupts a call that waits for its answer: the answer is the parent's, and the children continue
 * without it.
 */
void interrupted_call(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    struct itimerval once = {.it_value = {0, 100000}};
    interrupted_fd = open_device();
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &once, NULL) == 0);
    const long result = order(interrupted_fd, DELAY, UNLOCKED_MS);
    if (is_child) {
        EXPECT(result == -1 && errno == EIO);
        EXPECT(order(interrupted_fd, ECHO, 8) == 8);
        _exit(0);
    }
    EXPECT(result == UNLOCKED_MS && handled == 1);
    expect_exit_0(children[0]);
    expect_exit_0(children[1]);
    EXPECT(order(interrupted_fd, ECHO, 9) == 9 && order(interrupted_fd, SESSIONS, 0) == 1 && hidden_count() == 2);
}

static void on_interrupt_in_sandbox(int number)
{
    (void)number;
    handled += ioctl(interrupted_fd, _IOWR(0xdb, ECHO, uint64_t), 7L) == 7;
}

/* From now on the system call fails with `error` in this process. */
static void forbid(unsigned int call, unsigned int error)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* A program whose sandbox forbids access to the memory of processes, its own too. */
void sandbox(void)
{
    forbid(SYS_process_vm_readv, EPERM);
    forbid(SYS_process_vm_writev, EPERM);
    interrupted_fd = open_device();
    EXPECT(close(open_event(interrupted_fd)) == 0);
    /* A signal handler makes a call while another call waits. */
    struct sigaction action = {.sa_handler = on_interrupt_in_sandbox};
    struct itimerval once = {.it_value = {0, 100000}};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &once, NULL) == 0);
    EXPECT(order(interrupted_fd, DELAY, UNLOCKED_MS) == UNLOCKED_MS && handled == 1);
}

/* As with a kernel before Linux 5.9. */
void without_close_range(void)
{
    forbid(SYS_close_range, ENOSYS);
    enum { ABOVE_HIDDEN = 2000 };
    const int fd = open_device(), other = open_device(), null = open("/dev/null", O_RDONLY);
    EXPECT(dup2(null, ABOVE_HIDDEN) == ABOVE_HIDDEN || errno == EBADF); /* EBADF: above the limit */
    FAILS(close_range(other, ~0u, 0), ENOSYS);
    errno = 7;
    closefrom(other);
    EXPECT(errno == 7);
    FAILS(fcntl(null, F_GETFD), EBADF);
    FAILS(fcntl(ABOVE_HIDDEN, F_GETFD), EBADF);
    EXPECT(hidden_count() == 2 && order(fd, ECHO, 3) == 3 && order(fd, CONTEXTS, 0) == 1);
}

/* A child of which the shim does not know, made while another thread holds the session's lock. */
void unknown_child(void)
{
    pthread_t thread;
    int arguments[2] = {open_device(), LOCKED_MS};
    EXPECT(pthread_create(&thread, NULL, call_delayed, arguments) == 0);
    wait_for_file("delay");
    const pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(order(arguments[0], ECHO, 5) == 5 ? 0 : 1);
    EXPECT(pthread_join(thread, NULL) == 0);
    expect_exit_0(pid);
}

/* ---- late replies to ATTACH ---- */

static void *call_once(void *argument)
{
    const int fd = *(int *)argument;
    EXPECT(order(fd, ECHO, 31) == 31);
    return NULL;
}

static void *call_closed(void *argument)
{
    FAILS(order(*(int *)argument, ECHO, 31), EBADF);
    return NULL;
}

/* Starts a thread whose call needs a delayed reply. Returns when the thread waits for the reply without the lock. */
static pthread_t start_delayed(void *(*call)(void *), int *fd)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, call, fd) == 0);
    wait_for_file("delay");
    wait_without_lock(thread);
    EXPECT(unlink(beside_socket("delay")) == 0);
    return thread;
}

/*
 * Threads of children wait for the reply to ATTACH. Meanwhile another thread opens the session's next connection, or
 * uses the number of the context for another file.
 */
void late_attaches(void)
{
    struct sigaction action = {.sa_handler = on_waiting};
    int fd = open_device(), pair[2];
    EXPECT(sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(order(fd, PARK, 1) == 0 && order(fd, DELAY_ATTACH, UNLOCKED_MS) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        const pthread_t thread = start_delayed(call_once, &fd);
        EXPECT(access("/sys/class/infiniband", F_OK) == 0 && pthread_join(thread, NULL) == 0);
        EXPECT(order(fd, ECHO, 5) == 5 && hidden_count() == 2);
        _exit(0);
    }
    expect_exit_0(pid);
    EXPECT(order(fd, DELAY_ATTACH, UNLOCKED_MS) == 0);
    pid = fork();
    if (pid == 0) {
        const pthread_t thread = start_delayed(call_closed, &fd);
        EXPECT(close(fd) == 0 && open_device() == fd && ring_doorbell(fd, 9));
        EXPECT(pthread_join(thread, NULL) == 0 && order(fd, LAST_HANDLE, 0) == 9 && hidden_count() == 2);
        _exit(0);
    }
    expect_exit_0(pid);
    EXPECT(order(fd, DELAY_ATTACH, UNLOCKED_MS) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    pid = fork();
    if (pid == 0) {
        int received = receive_fd(pair[0]);
        const pthread_t thread = start_delayed(call_closed, &received);
        char path[] = "/tmp/userdma-late-XXXXXX", text[8] = {0};
        EXPECT(close(received) == 0 && mkstemp(path) == received && unlink(path) == 0);
        EXPECT(pthread_join(thread, NULL) == 0 && write(received, "hello", 5) == 5);
        EXPECT(pread(received, text, 8, 0) == 5 && strcmp(text, "hello") == 0);
        _exit(0);
    }
    send_fd(pair[1], fd);
    expect_exit_0(pid);
}

/* While a thread waits for the reply to STACK, another thread opens the next connection, which has other stacks. */
void late_stack(void)
{
    struct sigaction action = {.sa_handler = on_waiting};
    int fd = open_device();
    EXPECT(sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(order(fd, DELAY_STACK, UNLOCKED_MS) == 0);
    const pthread_t thread = start_delayed(call_once, &fd);
    EXPECT(access("/sys/class/infiniband", F_OK) == 0 && order(fd, ECHO, 5) == 5);
    EXPECT(pthread_join(thread, NULL) == 0 && order(fd, ECHO, 6) == 6);
}

/* The daemon has ended the connection of a program that receives a context. */
void attach_again(void)
{
    int own = open_device(), pair[2];
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    const pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        send_fd(pair[1], open_device());
        EXPECT(read(pair[1], &(char){0}, 1) == 1);
        _exit(0);
    }
    int fd = receive_fd(pair[0]);
    EXPECT(order(own, END_SESSION, 0) == 0 && poll(&(struct pollfd){.fd = session_socket()}, 1, -1) == 1);
    EXPECT(order(fd, ECHO, 5) == 5 && write(pair[0], "", 1) == 1);
    expect_exit_0(pid);
}

/* ---- signals while a call waits for an event ---- */

static void *get_event(void *argument)
{
    /* RDMA_USER_CM_CMD_GET_EVENT: 8 bytes follow the header, and the response has 336. */
    static const uint32_t command[4] = {12, 8 | 336 << 16};
    EXPECT(write(*(int *)argument, command, sizeof command) == sizeof command);
    return NULL;
}

/* Like a system call on Linux, a wait for an event continues after a handler with SA_RESTART. */
void restarted_wait(void)
{
    struct sigaction action = {.sa_handler = on_waiting, .sa_flags = SA_RESTART};
    int fd = open_device(), channel = open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC);
    pthread_t thread;
    EXPECT(channel >= 0 && sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    EXPECT(pthread_create(&thread, NULL, get_event, &channel) == 0);
    for (int i = 0; i < 100; i++) {
        wait_without_lock(thread);
        poll(NULL, 0, 1);
    }
    EXPECT(order(fd, RECORD, 24) == 0 && pthread_join(thread, NULL) == 0);
}

/* ---- cancelled threads ---- */

static void *call_and_end(void *argument)
{
    call_delayed(argument);
    pthread_testcancel();
    return NULL;
}

static void *read_event(void *argument)
{
    const int *arguments = argument;
    char record[32];
    read(arguments[0], record, (size_t)arguments[1]);
    return NULL;
}

static void expect_cancelled(pthread_t thread)
{
    void *result;
    EXPECT(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
}

/* Threads are cancelled in calls that wait: with the session's lock, without it, and for an event. */
void cancelled_threads(void)
{
    static const int delays[] = {LOCKED_MS, 2 * UNLOCKED_MS};
    struct sigaction action = {.sa_handler = on_waiting};
    int32_t channel = -1;
    char record[32];
    EXPECT(sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    int fd = open_device();
    EXPECT(order(fd, EVENT_4, (uintptr_t)&channel) == 0);
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        int arguments[2] = {fd, delays[i]};
        unlink(beside_socket("delay"));
        EXPECT(pthread_create(&thread, NULL, call_and_end, arguments) == 0);
        wait_for_file("delay");
        if (delays[i] > LOCKED_MS)
            wait_without_lock(thread);
        expect_cancelled(thread);
        EXPECT(order(fd, ECHO, 3) == 3);
    }
    /* With a small buffer, the length of the record is looked up first. */
    static const int buffer_bytes[] = {4, 32};
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        int arguments[2] = {channel, buffer_bytes[i]};
        EXPECT(pthread_create(&thread, NULL, read_event, arguments) == 0);
        expect_cancelled(thread);
        EXPECT(order(fd, RECORD, 8) == 0 && read(channel, record, sizeof record) == 8);
    }
    EXPECT(close(fd) == 0 && order(open_device(), ECHO, 4) == 4);
}

/* Handled signals do not extend the time that a program waits for a daemon that does not answer. */
void no_hello(void)
{
    struct sigaction action = {.sa_handler = on_waiting};
    struct itimerval each_second = {{1, 0}, {1, 0}};
    EXPECT(sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    EXPECT(setitimer(ITIMER_REAL, &each_second, NULL) == 0);
    FAILS(open(NODE, O_RDWR), ENOENT);
    EXPECT(sem_trywait(&is_waiting) == 0);
}

static void *open_node(void *argument)
{
    (void)argument;
    open(NODE, O_RDWR);
    return NULL;
}

/* A thread is cancelled while it waits for HELLO's reply; then another thread waits, in vain too. */
void no_hello_after_cancel(void)
{
    struct sigaction action = {.sa_handler = on_waiting};
    EXPECT(sem_init(&is_waiting, 0, 0) == 0 && sigaction(SIGUSR1, &action, NULL) == 0);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, open_node, NULL) == 0);
    wait_for_file("hello1");
    wait_without_lock(thread);
    expect_cancelled(thread);
    FAILS(open(NODE, O_RDWR), ENOENT);
}

/* ---- a call abandoned by siglongjmp ---- */

static sigjmp_buf jump_target;

static void leave_call(int number)
{
    (void)number;
    siglongjmp(jump_target, 1);
}

/* 64 KiB deeper in the stack. */
__attribute__((noinline)) static void hold_deep_in_stack(int fd)
{
    volatile char padding[1 << 16];
    padding[0] = 1;
    order(fd, HOLD, 0);
    /* Used after the call: a tail call would free the padding first. */
    EXPECT(padding[0] == 1);
}

void left_by_longjmp(void)
{
    struct sigaction action = {.sa_handler = leave_call};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    int fd = open_device();
    /* The second call, with a saved signal mask, is so deep that no later call overwrites its frames. */
    for (volatile int saves_mask = 0; saves_mask < 2; saves_mask++) {
        if (sigsetjmp(jump_target, saves_mask) == 0) {
            alarm(1);
            if (saves_mask)
                hold_deep_in_stack(fd);
            else
                order(fd, HOLD, 0);
            EXPECT(!"the daemon answered");
        }
        int cancel;
        sigset_t mask, only_alarm;
        sigemptyset(&only_alarm);
        sigaddset(&only_alarm, SIGALRM);
        EXPECT(sigprocmask(SIG_UNBLOCK, &only_alarm, &mask) == 0 && !sigismember(&mask, SIGUSR1));
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, call_once, &fd) == 0 && pthread_join(thread, NULL) == 0);
        EXPECT(order(fd, ECHO, 30) == 30);
        EXPECT(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &cancel) == 0 && cancel == PTHREAD_CANCEL_ENABLE);
        EXPECT(order(fd, SESSIONS, 0) == 1 && hidden_count() == 2);
    }
}
