/*
 * A program with memory that blocks accesses forever. It prints how a WRITE to this memory completes, and runs until
 * its standard input ends.
 *
 *   slow_memory fuse           a mapping of a FUSE file system that never answers (root)
 *   slow_memory late           the file system answers the first read; then the pages are dropped, and a second WRITE
 *                              follows
 *   slow_memory dirty          a shared mapping: the file system answers reads, but not the writeback between two
 *                              WRITEs
 *   slow_memory userfaultfd    memory whose missing pages userfaultfd would have to provide
 *   slow_memory argument       the argument of a call on the device is in such memory; no WRITE
 *   slow_memory descriptor     the file of an XRC domain is on such a file system; no WRITE
 *   slow_memory lock           as argument, in other memory, while mmap_lock is held (slow_file.h); no WRITE
 *
 * A second argument is the UID and GID that the program takes before it opens the device.
 */
#define _GNU_SOURCE
#include "slow_file.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static void *map_anonymous(void)
{
    void *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* A call on the device with its argument at `argument`. */
static void call_with(struct ibv_context *context, const void *argument)
{
    const ssize_t done = write(context->cmd_fd, argument, 24);
    printf("write: %s\n", done < 0 ? strerror(errno) : "done");
}

/* From now on the missing pages of `memory` are never provided. */
static void register_missing(void *memory)
{
    const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    NEED(fd >= 0, "cannot: userfaultfd: %s", strerror(errno));
    struct uffdio_api api = {.api = UFFD_API};
    NEED(ioctl(fd, UFFDIO_API, &api) == 0, "UFFDIO_API: %s", strerror(errno));
    struct uffdio_register range = {.range = {(uintptr_t)memory, LENGTH}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    NEED(ioctl(fd, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER: %s", strerror(errno));
}

static void *synchronise_mapping(void *memory)
{
    sleeping_thread[0] = gettid();
    msync(memory, LENGTH, MS_SYNC);
    fail("msync has returned");
}

/* From now on the pages of the mapping are under writeback. */
static void write_back(void *memory)
{
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, synchronise_mapping, memory) == 0, "pthread_create");
    wait_until_asleep(&sleeping_thread[0]);
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
    const bool is_late = strcmp(kind, "late") == 0, is_argument = strcmp(kind, "argument") == 0;
    const bool is_descriptor = strcmp(kind, "descriptor") == 0;
    const bool is_lock = strcmp(kind, "lock") == 0, is_dirty = strcmp(kind, "dirty") == 0;
    NEED(is_late || is_argument || is_lock || is_descriptor || is_dirty || strcmp(kind, "fuse") == 0 ||
             strcmp(kind, "userfaultfd") == 0,
         "usage: %s fuse|late|dirty|userfaultfd|argument|descriptor|lock [USER]", arguments[0]);
    const bool uses_fuse = is_late || is_lock || is_descriptor || is_dirty || strcmp(kind, "fuse") == 0;
    /* Without cached attributes the daemon's fstat of the file needs the file server, which is stopped below. */
    if (is_descriptor)
        attribute_seconds = 0;
    const int answered_reads = is_dirty ? 100 /* all */ : is_late ? 1 : 0;
    void *memory =
        uses_fuse ? map_slow_file(user, answered_reads, is_dirty ? MAP_SHARED : MAP_PRIVATE) : map_anonymous();
    if (!uses_fuse)
        register_missing(memory);
    become(user);
    struct ibv_context *context = open_named(NULL);
    struct endpoint from, to;
    create_pair(&from, &to, context, &options);
    if (is_descriptor) {
        struct ibv_xrcd_init_attr attr = {
            .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = slow_file, .oflags = O_CREAT};
        kill(file_server, SIGSTOP);
        printf("ibv_open_xrcd: %s\n", ibv_open_xrcd(context, &attr) ? "done" : strerror(errno));
    } else if (is_lock) {
        /* The first output allocates the buffer of stdout, which may block when the address space is locked. */
        printf("ready\n");
        lock_address_space(memory);
        call_with(context, to.buffer);
    } else if (is_argument) {
        call_with(context, memory);
    } else {
        struct ibv_mr *mr = ibv_reg_mr(to.pd, memory, LENGTH, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        NEED(mr, "ibv_reg_mr: %s", strerror(errno));
        if (is_dirty) {
            write_to(&from, memory, mr);
            write_back(memory);
        }
        if (is_late) {
            write_to(&from, memory, mr);
            NEED(madvise(memory, LENGTH, MADV_DONTNEED) == 0, "madvise: %s", strerror(errno));
            NEED(posix_fadvise(slow_file, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise: %s", strerror(errno));
        }
        write_to(&from, memory, mr);
    }
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    /* Threads that wait for the file system cannot end before the file server. */
    if (file_server)
        kill(file_server, SIGKILL);
    return 0;
}
