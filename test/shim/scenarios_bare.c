/*
 * Scenarios (scenarios.c) of programs that bypass the C library's functions for files.
 */
#include "scenarios.h"

#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <spawn.h>

extern char **environ;

void bare_calls(void)
{
    struct statx seen;
    EXPECT(syscall(SYS_statx, AT_FDCWD, NODE, 0, STATX_BASIC_STATS, &seen) == 0 && S_ISCHR(seen.stx_mode));
    EXPECT(seen.stx_rdev_major == 231 && seen.stx_rdev_minor == 192);
    EXPECT(syscall(SYS_statx, AT_FDCWD, "/sys/class/infiniband/rxe0", 0, STATX_BASIC_STATS, &seen) == 0);
    EXPECT(S_ISDIR(seen.stx_mode));
    FAILS(syscall(SYS_statx, AT_FDCWD, "/sys/class/infiniband/rxe7", 0, STATX_BASIC_STATS, &seen), ENOENT);

    struct open_how how = {.flags = O_RDWR | O_CLOEXEC};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, NODE, &how, sizeof how);
    EXPECT(fd == 3 && order(fd, ECHO, 7) == 7 && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    /* statx by descriptor is not redirected: it shows the context's memory file. */
    EXPECT(syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &seen) == 0 && seen.stx_size > 0);
    how.flags = O_RDONLY;
    int file = (int)syscall(SYS_openat2, AT_FDCWD, "/sys/class/infiniband/rxe0/node_type", &how, sizeof how);
    char text[16] = {0};
    EXPECT(file >= 0 && read(file, text, sizeof text) == 6 && strcmp(text, "1: CA\n") == 0 && close(file) == 0);
    /* openat2 of another path, or with a wrong address (8), a wrong size (8 bytes) or `resolve`, goes to the kernel. */
    EXPECT((file = (int)syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, sizeof how)) >= 0 && close(file) == 0);
    FAILS(syscall(SYS_openat2, AT_FDCWD, "/dev/null", 8, sizeof how), EFAULT);
    FAILS(syscall(SYS_openat2, AT_FDCWD, NODE, 8, sizeof how), EFAULT);
    FAILS(syscall(SYS_openat2, AT_FDCWD, NODE, &how, (size_t)8), EINVAL);
    how.resolve = RESOLVE_BENEATH;
    FAILS(syscall(SYS_openat2, AT_FDCWD, NODE, &how, sizeof how), EXDEV);
    how.resolve = RESOLVE_IN_ROOT;
    FAILS(syscall(SYS_openat2, AT_FDCWD, NODE, &how, sizeof how), ENOENT);
    /* Files of the tree are read-only. */
    how = (struct open_how){.flags = O_WRONLY};
    FAILS(syscall(SYS_openat2, AT_FDCWD, "/sys/class/infiniband/rxe0/node_type", &how, sizeof how), EACCES);
    /* Other system calls go to the kernel. */
    void *mapped = (void *)syscall(SYS_mmap, NULL, 4096l, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0l);
    EXPECT(mapped != MAP_FAILED && syscall(SYS_munmap, mapped, 4096l) == 0 && syscall(SYS_getpid) == getpid());
}

/* The program that posix_spawn starts. It has two descriptors of a context: one inherited, one a copy (adddup2). */
void spawned(const char *number, const char *copy)
{
    const int fds[] = {atoi(number), atoi(copy)};
    for (int i = 0; i < 2; i++) {
        struct stat st;
        EXPECT(fstat(fds[i], &st) == 0 && S_ISCHR(st.st_mode) && order(fds[i], ECHO, 40 + i) == 40 + i);
        EXPECT(ring_doorbell(fds[i], 1));
    }
    EXPECT(order(fds[0], CONTEXTS, 0) == 1 && close(fds[0]) == 0 && order(fds[1], ECHO, 3) == 3);
    exit(0);
}

void spawns(void)
{
    int fd = open(NODE, O_RDWR);
    posix_spawn_file_actions_t actions;
    EXPECT(fd == 3 && posix_spawn_file_actions_init(&actions) == 0);
    EXPECT(posix_spawn_file_actions_adddup2(&actions, fd, 30) == 0);
    char *arguments[] = {(char *)self, "spawned", "3", "30", NULL};
    pid_t child;
    EXPECT(posix_spawn(&child, self, &actions, NULL, arguments, environ) == 0);
    expect_exit_0(child);
    EXPECT(order(fd, ECHO, 5) == 5 && order(fd, CONTEXTS, 0) == 1 && hidden_count() == 2);
}

/* ---- io_uring ---- */

static struct {
    int fd;
    unsigned *sq_tail, *sq_array, sq_mask, *cq_head, *cq_tail, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring;

/* Returns false if io_uring is missing or forbidden. */
static bool set_up_ring(void)
{
    struct io_uring_params params = {0};
    ring.fd = (int)syscall(SYS_io_uring_setup, 4 /* entries */, &params);
    if (ring.fd < 0)
        return false;
    char *sq = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
    ring.sqes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQES);
    EXPECT(sq != MAP_FAILED && cq != MAP_FAILED && ring.sqes != MAP_FAILED);
    ring.sq_tail = (unsigned *)(sq + params.sq_off.tail);
    ring.sq_array = (unsigned *)(sq + params.sq_off.array);
    ring.sq_mask = *(unsigned *)(sq + params.sq_off.ring_mask);
    ring.cq_head = (unsigned *)(cq + params.cq_off.head);
    ring.cq_tail = (unsigned *)(cq + params.cq_off.tail);
    ring.cq_mask = *(unsigned *)(cq + params.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
    return true;
}

/* Submits one request; with `should_wait` returns when the request is complete. */
static void submit(struct io_uring_sqe request, bool should_wait)
{
    const unsigned slot = *ring.sq_tail & ring.sq_mask;
    ring.sqes[slot] = request;
    ring.sq_array[slot] = slot;
    __atomic_store_n(ring.sq_tail, *ring.sq_tail + 1, __ATOMIC_RELEASE);
    EXPECT(syscall(SYS_io_uring_enter, ring.fd, 1, should_wait ? 1 : 0, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
}

/* Waits for the next completion; returns its result, -errno if the request failed. */
static int next_result(void)
{
    while (__atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) == *ring.cq_head)
        EXPECT(syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) >= 0);
    const int result = ring.cqes[*ring.cq_head & ring.cq_mask].res;
    __atomic_store_n(ring.cq_head, *ring.cq_head + 1, __ATOMIC_RELEASE);
    return result;
}

/* Exits with 77 if io_uring is missing or forbidden. */
void uring(void)
{
    if (!set_up_ring())
        exit(77);
    char bytes[16] = {0};
    int fd = open_device();
    int32_t channel = -1;
    EXPECT(order(fd, EVENT_4, (uintptr_t)&channel) == 0);
    const struct io_uring_sqe read_event = {
        .opcode = IORING_OP_READ, .fd = channel, .addr = (uintptr_t)bytes, .len = sizeof bytes, .off = -1ull};
    /* Each read gets one event, which may arrive before or after the read is submitted. */
    EXPECT(order(fd, RECORD, 8) == 0 && order(fd, RECORD, 8) == 0);
    submit(read_event, true);
    EXPECT(next_result() == 8 && bytes[7] == 8 && bytes[8] == 0);
    EXPECT(read(channel, bytes, sizeof bytes) == 8);
    submit(read_event, false);
    EXPECT(order(fd, RECORD, 8) == 0 && next_result() == 8);
    submit((struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = channel, .poll32_events = POLLIN}, false);
    EXPECT(order(fd, RECORD, 8) == 0 && next_result() == POLLIN && read(channel, bytes, sizeof bytes) == 8);
    /* End of file on a channel is 0 for io_uring, and EIO for read(2). */
    EXPECT(order(fd, HANG_UP_EVENT, 0) == 0);
    submit(read_event, true);
    EXPECT(next_result() == 0);
    FAILS(read(channel, bytes, sizeof bytes), EIO);
    /* io_uring opens files without the shim: there is no device. */
    submit((struct io_uring_sqe){
        .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)NODE, .open_flags = O_RDWR}, true);
    EXPECT(next_result() == -ENOENT);
    EXPECT(order(fd, ECHO, 9) == 9);
}
