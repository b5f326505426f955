/*
 * A program whose memory blocks every access for ever: a WRITE between two of its queue pairs accesses pages that are
 * never provided. It prints how the WRITE completed, and runs until its standard input ends.
 *
 *   slow_memory fuse           a mapping of a file system in user space that takes a request and never answers (root)
 *   slow_memory late           the same, but it answers the first time; then the pages are dropped
 *   slow_memory dirty          the same, shared; written pages never reach its disk
 *   slow_memory userfaultfd    memory whose missing pages userfaultfd would have to provide
 *   slow_memory argument       the same, as the argument of a call on the device
 *   slow_memory descriptor     no memory: the file is that of an XRC domain
 *   slow_memory lock           a page of a file system that never answers keeps the lock of its own address space, while
 *                              other memory is registered
 *
 * A second argument is the number of the user that it becomes before it opens the device.
 */
#define _GNU_SOURCE
#include "endpoint.h"
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LENGTH 16384

/* Does nothing without a user. */
static void become(const char *user)
{
    if (!user)
        return;
    NEED(setgid((gid_t)atoi(user)) == 0 && setuid((uid_t)atoi(user)) == 0, "user %s: %s", user, strerror(errno));
    NEED(prctl(PR_SET_DUMPABLE, 1) == 0, "PR_SET_DUMPABLE: %s", strerror(errno));
}

static void *anonymous(void)
{
    void *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* From now on the missing pages of `memory` are never provided. */
static void neglect(void *memory)
{
    const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    NEED(fd >= 0, "cannot: userfaultfd: %s", strerror(errno));
    struct uffdio_api api = {.api = UFFD_API};
    NEED(ioctl(fd, UFFDIO_API, &api) == 0, "UFFDIO_API: %s", strerror(errno));
    struct uffdio_register range = {.range = {(uintptr_t)memory, LENGTH}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    NEED(ioctl(fd, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER: %s", strerror(errno));
}

static void answer(int fd, uint64_t unique, int error, const void *data, size_t length)
{
    struct fuse_out_header header = {.len = (uint32_t)(sizeof header + length), .error = -error, .unique = unique};
    static char reply[LENGTH + sizeof header];
    memcpy(reply, &header, sizeof header);
    if (length)
        memcpy(reply + sizeof header, data, length);
    NEED(write(fd, reply, header.len) == (ssize_t)header.len, "an answer to the kernel: %s", strerror(errno));
}

/* Seconds for which the kernel may cache attributes. */
static unsigned attributes_valid = 1000;

/* A file system with one file, which answers `times` reads. */
static void serve(int fd, int times)
{
    static char request[1 << 17], zeros[LENGTH];
    while (read(fd, request, sizeof request) > 0) {
        const struct fuse_in_header *in = (const void *)request;
        if (in->opcode == FUSE_INIT) {
            const struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_GETATTR) {
            const struct fuse_attr_out out = {
                .attr_valid = attributes_valid, .attr = {.ino = 1, .size = LENGTH, .mode = S_IFREG | 0600, .nlink = 1}};
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_OPEN) {
            const struct fuse_open_out out = {.fh = 1};
            answer(fd, in->unique, 0, &out, sizeof out);
        } else if (in->opcode == FUSE_READ && times-- > 0) {
            answer(fd, in->unique, 0, zeros, ((const struct fuse_read_in *)(in + 1))->size);
        } else if (in->opcode != FUSE_READ && in->opcode != FUSE_WRITE) {
            answer(fd, in->unique, ENOSYS, NULL, 0);
        }
    }
}

static int file;
static pid_t server;

static void *file_mapping(const char *user, int times, int flags)
{
    char place[] = "slow-XXXXXX", how[100];
    const int mounted_on = mkstemp(place);
    const int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    NEED(fuse >= 0, "cannot: /dev/fuse: %s", strerror(errno));
    snprintf(how, sizeof how, "fd=%d,rootmode=100600,user_id=0,group_id=0", fuse);
    NEED(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
         "cannot: a mount namespace: %s", strerror(errno));
    NEED(mount("slow", place, "fuse", 0, how) == 0, "cannot: a FUSE mount: %s", strerror(errno));
    server = fork();
    NEED(server >= 0, "fork: %s", strerror(errno));
    if (server == 0) {
        become(user);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(fuse, times);
        _exit(0);
    }
    close(fuse);
    close(mounted_on);
    file = open(place, O_RDWR);
    struct stat status;
    NEED(file >= 0 && fstat(file, &status) == 0 && status.st_size == LENGTH, "%s: %s", place, strerror(errno));
    void *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, flags, file, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* Threads that are about to sleep in the kernel, and those that may. */
static _Atomic pid_t sleeper[2];
static atomic_int turn;

/* A read that holds the lock meanwhile; page faults do not hold it. */
static void *hold_lock(void *memory)
{
    char byte;
    const int self = open("/proc/self/mem", O_RDONLY);
    sleeper[0] = gettid();
    pread(self, &byte, 1, (off_t)(uintptr_t)memory);
    fail("/proc/self/mem has answered");
}

/* A waiting writer blocks later readers. */
static void *wait_for_lock(void *nothing)
{
    while (turn == 0)
        sched_yield();
    sleeper[1] = gettid();
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return nothing;
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
    } while (strstr(stat, ") R"));
}

static void lock_address_space(void *memory)
{
    pthread_t reader, writer;
    NEED(pthread_create(&writer, NULL, wait_for_lock, NULL) == 0, "pthread_create");
    NEED(pthread_create(&reader, NULL, hold_lock, memory) == 0, "pthread_create");
    wait_until_asleep(&sleeper[0]);
    turn = 1;
    wait_until_asleep(&sleeper[1]);
}

static void *synchronise(void *memory)
{
    sleeper[0] = gettid();
    msync(memory, LENGTH, MS_SYNC);
    fail("msync has returned");
}

/* From now on the pages of the mapping are under writeback. */
static void write_back(void *memory)
{
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, synchronise, memory) == 0, "pthread_create");
    wait_until_asleep(&sleeper[0]);
}

static void write_to(struct endpoint *end, const void *memory, const struct ibv_mr *mr)
{
    struct ibv_sge source = {.addr = (uintptr_t)end->buffer, .length = 64, .lkey = end->mr->lkey};
    struct ibv_send_wr send = {.sg_list = &source,
                               .num_sge = 1,
                               .opcode = IBV_WR_RDMA_WRITE,
                               .send_flags = IBV_SEND_SIGNALED,
                               .wr.rdma = {(uintptr_t)memory, mr->rkey}};
    struct ibv_send_wr *bad;
    struct ibv_wc wc;
    int found;
    NEED(ibv_post_send(end->qp, &send, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        ;
    NEED(found > 0, "ibv_poll_cq: %d", found);
    printf("%s, vendor_err 0x%x\n", ibv_wc_status_str(wc.status), wc.vendor_err);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    const struct options options = default_options;
    const char *kind = count > 1 ? arguments[1] : "", *user = count > 2 ? arguments[2] : NULL;
    const bool late = strcmp(kind, "late") == 0, argument = strcmp(kind, "argument") == 0;
    const bool descriptor = strcmp(kind, "descriptor") == 0;
    const bool lock = strcmp(kind, "lock") == 0, dirty = strcmp(kind, "dirty") == 0;
    NEED(late || argument || lock || descriptor || dirty || strcmp(kind, "fuse") == 0 || strcmp(kind, "userfaultfd") == 0,
         "usage: %s fuse|late|dirty|userfaultfd|argument|descriptor|lock [USER]", arguments[0]);
    const bool fuse = late || lock || descriptor || dirty || strcmp(kind, "fuse") == 0;
    if (descriptor)
        attributes_valid = 0;
    void *memory = fuse ? file_mapping(user, dirty ? 100 : late, dirty ? MAP_SHARED : MAP_PRIVATE) : anonymous();
    if (!fuse)
        neglect(memory);
    become(user);
    struct ibv_context *context = open_named(NULL);
    struct endpoint from, to;
    create_endpoint(&from, context, &options, 4096, 1);
    create_endpoint(&to, context, &options, 4096, 2);
    const struct address ends[] = {address_of(&from), address_of(&to)};
    connect_to(&from, &ends[1], &options);
    connect_to(&to, &ends[0], &options);
    if (descriptor) {
        struct ibv_xrcd_init_attr attr = {
            .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = file, .oflags = O_CREAT};
        kill(server, SIGSTOP);
        printf("ibv_open_xrcd: %s\n", ibv_open_xrcd(context, &attr) ? "done" : strerror(errno));
    } else if (lock) {
        printf("ready\n");
        lock_address_space(memory);
        struct ibv_mr *mr = ibv_reg_mr(to.pd, to.buffer, 4096, IBV_ACCESS_LOCAL_WRITE);
        printf("ibv_reg_mr: %s\n", mr ? "done" : strerror(errno));
    } else if (argument) {
        const ssize_t done = write(context->cmd_fd, memory, 24);
        printf("write: %s\n", done < 0 ? strerror(errno) : "done");
    } else {
        struct ibv_mr *mr = ibv_reg_mr(to.pd, memory, LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        NEED(mr, "ibv_reg_mr: %s", strerror(errno));
        if (dirty) {
            write_to(&from, memory, mr);
            write_back(memory);
        }
        if (late) {
            write_to(&from, memory, mr);
            NEED(madvise(memory, LENGTH, MADV_DONTNEED) == 0, "madvise: %s", strerror(errno));
            NEED(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise: %s", strerror(errno));
        }
        write_to(&from, memory, mr);
    }
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    /* First, because threads that still wait for it could not end. */
    if (server)
        kill(server, SIGKILL);
    return 0;
}
