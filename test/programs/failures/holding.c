/*
 * A program that holds the lock of a memory file which the daemon uses, by a write from a page that never comes, and
 * then has the daemon free memory of this file or write to it. It prints "sent", and runs until its standard input
 * ends.
 *
 *   holding cq         a CQ, in the context's file
 *   holding doorbell   a page of doorbells, in the context's file (EFA)
 *   holding placed     device memory, in the context's file (mlx5)
 *   holding region     a memory file of the program's own that is registered: the device writes to it
 *
 * A second argument is the UID and GID that the program takes before it opens the device.
 */
#define _GNU_SOURCE
#include "../memory/slow_file.h"
#include <sys/syscall.h>

enum { REGION_BYTES = 1 << 20, HELD_AT = REGION_BYTES / 2 };

static int held_file;

/* Not by the C library's function, which the preload library interposes. */
static void *write_slowly(void *slow)
{
    sleeping_thread[0] = gettid();
    syscall(SYS_pwrite64, held_file, slow, 64, (off_t)HELD_AT);
    fail("the file has been written");
}

static void hold(int file, void *slow)
{
    pthread_t thread;
    held_file = file;
    NEED(pthread_create(&thread, NULL, write_slowly, slow) == 0, "pthread_create");
    wait_until_asleep(&sleeping_thread[0]);
}

static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct ibv_dm *dm;

/* Frees what the kind is about. The preload library returns the memory of a CQ itself, and waits. */
static void *free_it(void *unused)
{
    if (dm)
        ibv_free_dm(dm);
    else if (qp)
        ibv_destroy_qp(qp);
    else
        ibv_destroy_cq(cq);
    return unused;
}

static void write_to_region(struct ibv_context *context, void *slow)
{
    const struct options options = default_options;
    const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    struct endpoint from, to;
    struct ibv_wc wc;
    const int file = memfd_create("region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    NEED(file >= 0 && ftruncate(file, REGION_BYTES) == 0, "a memory file: %s", strerror(errno));
    create_pair(&from, &to, context, &options);
    struct ibv_mr *mr = ibv_reg_dmabuf_mr(to.pd, 0, REGION_BYTES, 0, file, access);
    NEED(mr, "ibv_reg_dmabuf_mr: %s", strerror(errno));
    hold(file, slow);
    from.buffer[0] = 42;
    struct ibv_sge source = {.addr = (uintptr_t)from.buffer, .length = 64, .lkey = from.mr->lkey};
    struct ibv_send_wr *bad, send = {.sg_list = &source,
                                     .num_sge = 1,
                                     .opcode = IBV_WR_RDMA_WRITE,
                                     .send_flags = IBV_SEND_SIGNALED,
                                     .wr.rdma = {0, mr->rkey}};
    NEED(ibv_post_send(from.qp, &send, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    while (ibv_poll_cq(from.cq, 1, &wc) == 0)
        ;
    const uint8_t *bytes = mmap(NULL, REGION_BYTES, PROT_READ, MAP_SHARED, file, 0);
    printf("%s, %d\n", ibv_wc_status_str(wc.status), bytes == MAP_FAILED ? -1 : bytes[0]);
}

int main(int count, char **arguments)
{
    const char *kind = count > 1 ? arguments[1] : "", *user = count > 2 ? arguments[2] : NULL;
    const bool is_cq = strcmp(kind, "cq") == 0, is_doorbell = strcmp(kind, "doorbell") == 0;
    const bool is_placed = strcmp(kind, "placed") == 0, is_region = strcmp(kind, "region") == 0;
    NEED(is_cq || is_doorbell || is_placed || is_region, "usage: %s cq|doorbell|placed|region [USER]", arguments[0]);
    void *slow = map_slow_file(user, 0, MAP_PRIVATE);
    become(user);
    struct ibv_context *context = open_named(NULL);
    struct ibv_alloc_dm_attr memory = {.length = 4096};
    pthread_t freeing;
    if (is_region) {
        write_to_region(context, slow);
    } else {
        NEED(cq = ibv_create_cq(context, 30000, NULL, NULL, 0), "ibv_create_cq: %s", strerror(errno));
        struct ibv_qp_init_attr attr = {
            .send_cq = cq, .recv_cq = cq, .cap = {16, 16, 1, 1, 0}, .qp_type = IBV_QPT_UD, .sq_sig_all = 1};
        NEED(!is_placed || (dm = ibv_alloc_dm(context, &memory)), "ibv_alloc_dm: %s", strerror(errno));
        NEED(!is_doorbell || (qp = ibv_create_qp(ibv_alloc_pd(context), &attr)), "ibv_create_qp: %s", strerror(errno));
        hold(context->cmd_fd, slow);
        NEED(pthread_create(&freeing, NULL, free_it, NULL) == 0, "pthread_create");
    }
    printf("sent\n");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    /* Threads that wait for the file system cannot end before the file server. */
    kill(file_server, SIGKILL);
    return 0;
}
