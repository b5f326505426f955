/*
 * For programs that try to block the daemon: a FUSE file system (needs root) that leaves some requests unanswered, and
 * an mmap_lock that is never released.
 */
#ifndef SLOW_FILE_H
#define SLOW_FILE_H

#include "../endpoint.h"
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define LENGTH 16384 /* bytes of the file */

/* Takes `user` as UID and GID. Stays dumpable, so that the daemon can access its memory. */
static void become(const char *user)
{
    if (!user)
        return;
    NEED(setgid((gid_t)atoi(user)) == 0 && setuid((uid_t)atoi(user)) == 0, "user %s: %s", user, strerror(errno));
    NEED(prctl(PR_SET_DUMPABLE, 1) == 0, "PR_SET_DUMPABLE: %s", strerror(errno));
}

/* `error`: an errno, or 0. */
static void answer(int fd, uint64_t unique, int error, const void *data, size_t length)
{
    struct fuse_out_header header = {.len = (uint32_t)(sizeof header + length), .error = -error, .unique = unique};
    static char reply[LENGTH + sizeof header];
    memcpy(reply, &header, sizeof header);
    if (length)
        memcpy(reply + sizeof header, data, length);
    NEED(write(fd, reply, header.len) == (ssize_t)header.len, "an answer to the kernel: %s", strerror(errno));
}

/* How long the kernel may cache the attributes of the file. */
static unsigned attribute_seconds = 1000;

/* A file system with one file. Only the first `answered_reads` reads are answered, and no writes. */
static void serve(int fd, int answered_reads)
{
    static char request[1 << 17], zeros[LENGTH];
    while (read(fd, request, sizeof request) > 0) {
        const struct fuse_in_header *in = (const void *)request;
        if (in->opcode == FUSE_INIT) {
            const struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_GETATTR) {
            const struct fuse_attr_out out = {
                .attr_valid = attribute_seconds,
                .attr = {.ino = 1, .size = LENGTH, .mode = S_IFREG | 0600, .nlink = 1},
            };
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_OPEN) {
            const struct fuse_open_out out = {.fh = 1};
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_READ && answered_reads-- > 0) {
            answer(fd, in->unique, 0, zeros, ((const struct fuse_read_in *)(in + 1))->size);
        } else if (in->opcode != FUSE_READ && in->opcode != FUSE_WRITE) {
            answer(fd, in->unique, ENOSYS, NULL, 0);
        }
    }
}

/* `file_server`: the process of the file system. */
static int slow_file;
static pid_t file_server;

/* Returns a mapping of the file. `user`: of the file system's process. `flags`: of mmap. */
static void *map_slow_file(const char *user, int answered_reads, int flags)
{
    char path[] = "slow-XXXXXX", mount_options[100];
    const int mounted_on = mkstemp(path);
    const int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    NEED(fuse >= 0, "cannot: /dev/fuse: %s", strerror(errno));
    snprintf(mount_options, sizeof mount_options, "fd=%d,rootmode=100600,user_id=0,group_id=0", fuse);
    NEED(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
         "cannot: a mount namespace: %s", strerror(errno));
    NEED(mount("slow", path, "fuse", 0, mount_options) == 0, "cannot: a FUSE mount: %s", strerror(errno));
    file_server = fork();
    NEED(file_server >= 0, "fork: %s", strerror(errno));
    if (file_server == 0) {
        become(user);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(fuse, answered_reads);
        _exit(0);
    }
    close(fuse);
    close(mounted_on);
    slow_file = open(path, O_RDWR);
    struct stat status;
    NEED(slow_file >= 0 && fstat(slow_file, &status) == 0 && status.st_size == LENGTH, "%s: %s", path, strerror(errno));
    void *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, flags, slow_file, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* Threads that will sleep in the kernel. The second one waits until `may_lock` is 1. */
static _Atomic pid_t sleeping_thread[2];
static atomic_int may_lock;

/* A read of a missing page through /proc/self/mem holds the lock; a page fault does not. */
static void *hold_lock(void *memory)
{
    char byte;
    const int self = open("/proc/self/mem", O_RDONLY);
    sleeping_thread[0] = gettid();
    const ssize_t length = pread(self, &byte, 1, (off_t)(uintptr_t)memory);
    fail("/proc/self/mem has answered: %zd, %s", length, strerror(errno));
}

/* A waiting writer blocks later readers. */
static void *wait_for_lock(void *unused)
{
    while (may_lock == 0)
        sched_yield();
    sleeping_thread[1] = gettid();
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return unused;
}

static void wait_until_asleep(_Atomic pid_t *thread)
{
    char path[64], stat[64] = "";
    while (*thread == 0)
        sched_yield();
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", *thread);
    do {
        const int fd = open(path, O_RDONLY);
        NEED(fd >= 0 && read(fd, stat, sizeof stat - 1) > 0, "%s: %s", path, strerror(errno));
        close(fd);
    } while (strstr(stat, ") R")); /* PID (name) state; R: running */
}

/* Makes mmap_lock unavailable for ever. The pages of `memory` must never come. */
UNUSED static void lock_address_space(void *memory)
{
    pthread_t reader, writer;
    NEED(pthread_create(&writer, NULL, wait_for_lock, NULL) == 0, "pthread_create");
    NEED(pthread_create(&reader, NULL, hold_lock, memory) == 0, "pthread_create");
    wait_until_asleep(&sleeping_thread[0]);
    may_lock = 1;
    wait_until_asleep(&sleeping_thread[1]);
}

#endif
