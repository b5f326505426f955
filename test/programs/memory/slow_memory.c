/*
 * A program whose memory blocks every access forever: a WRITE between two of its queue pairs accesses pages that are
 * never provided. It prints how the WRITE completed, and runs until its standard input ends.
 *
 *   slow_memory fuse           a mapping of a file system in user space that takes a request and never answers (root)
 *   slow_memory late           the same, but the file system answers the first read; then the pages are dropped
 *   slow_memory dirty          the same, a shared mapping: the file system never answers its writeback
 *   slow_memory userfaultfd    memory whose missing pages userfaultfd would have to provide
 *   slow_memory argument       such memory is the argument of a call on the device; no WRITE
 *   slow_memory descriptor     the file of an XRC domain is on such a file system; no WRITE
 *   slow_memory lock           a thread of the program reads such a page and so keeps the lock of the address space
 *                              (mmap_lock), while other memory is registered
 *
 * A second argument is the UID that it takes before it opens the device.
 */
#define _GNU_SOURCE
#include "slow_file.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static void *anonymous(void)
{
    void *memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
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

static void *synchronise(void *memory)
{
    sleeping_thread[0] = gettid();
    msync(memory, LENGTH, MS_SYNC);
    fail("msync has returned");
}

/* From now on the pages of the mapping are under writeback. */
static void write_back(void *memory)
{
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, synchronise, memory) == 0, "pthread_create");
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
    const bool answer_once = strcmp(kind, "late") == 0, argument = strcmp(kind, "argument") == 0;
    const bool descriptor = strcmp(kind, "descriptor") == 0;
    const bool lock = strcmp(kind, "lock") == 0, dirty = strcmp(kind, "dirty") == 0;
    NEED(answer_once || argument || lock || descriptor || dirty || strcmp(kind, "fuse") == 0 ||
             strcmp(kind, "userfaultfd") == 0,
         "usage: %s fuse|late|dirty|userfaultfd|argument|descriptor|lock [USER]", arguments[0]);
    const bool fuse = answer_once || lock || descriptor || dirty || strcmp(kind, "fuse") == 0;
    if (descriptor)
        attributes_valid = 0;
    void *memory = fuse ? file_mapping(user, dirty ? 100 : answer_once, dirty ? MAP_SHARED : MAP_PRIVATE) : anonymous();
    if (!fuse)
        register_missing(memory);
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
        if (answer_once) {
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
    /* Threads that wait for the server can end only after it. */
    if (server)
        kill(server, SIGKILL);
    return 0;
}
