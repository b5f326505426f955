/*
 * Regions of memory behind a descriptor (ibv_reg_dmabuf_mr). Prints a line per step.
 *
 *   dmabuf DEVICE rc|ud KIND
 *
 * rc: READs, WRITEs, atomics and SENDs between two queue pairs of this program; ud: a SEND of a queue pair to itself.
 * KIND: of the memory: memfd, huge (a memfd of huge pages), udmabuf (a dma-buf of a memfd) or heap (a dma-buf of
 * /dev/dma_heap/system). If the system has none of the kind, it prints "absent".
 */
#define _GNU_SOURCE
#include "../endpoint.h"
#include <fcntl.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define PAGE 4096
#define HUGE (2 << 20)
#define REGIONS 1000
#define QKEY 0x1234567
#define GRH_BYTES 40
/* Those of every device. */
#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

static struct ibv_context *context;
static struct ibv_pd *pd;
static size_t size = 4 * PAGE;

static const char *result_of(const void *object)
{
    return object ? "OK" : strerrorname_np(errno);
}

static void absent(void)
{
    printf("absent\n");
    exit(0);
}

/* A memory file of `size` zero bytes. */
static int create_file(unsigned flags)
{
    const int fd = memfd_create("memory", MFD_CLOEXEC | flags);
    NEED(fd >= 0 && ftruncate(fd, (off_t)size) == 0, "memfd_create: %s", strerror(errno));
    return fd;
}

static int create_udmabuf(void)
{
    const int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
    if (device < 0)
        absent();
    struct udmabuf_create create = {.memfd = (uint32_t)create_file(MFD_ALLOW_SEALING), .size = size};
    NEED(fcntl((int)create.memfd, F_ADD_SEALS, F_SEAL_SHRINK) == 0, "F_SEAL_SHRINK: %s", strerror(errno));
    const int fd = ioctl(device, UDMABUF_CREATE, &create);
    NEED(fd >= 0, "UDMABUF_CREATE: %s", strerror(errno));
    close((int)create.memfd);
    close(device);
    return fd;
}

static int allocate_from_heap(void)
{
    const int heap = open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC);
    if (heap < 0)
        absent();
    struct dma_heap_allocation_data allocation = {.len = size, .fd_flags = O_RDWR | O_CLOEXEC};
    NEED(ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &allocation) == 0, "DMA_HEAP_IOCTL_ALLOC: %s", strerror(errno));
    close(heap);
    return (int)allocation.fd;
}

static int create_memory(const char *kind)
{
    if (strcmp(kind, "udmabuf") == 0)
        return create_udmabuf();
    if (strcmp(kind, "heap") == 0)
        return allocate_from_heap();
    if (strcmp(kind, "huge") != 0)
        return create_file(0);
    size = HUGE;
    return create_file(MFD_HUGETLB);
}

static const char *wait_for(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(cq, 1, &wc)) == 0)
        ;
    NEED(found > 0, "ibv_poll_cq: %d", found);
    return ibv_wc_status_str(wc.status);
}

/* ---- rc ---- */

static struct endpoint one, other;

/* `one` makes a request of 8 bytes of its buffer, or of `lkey` at `local`, to or from `remote`. */
static const char *request(enum ibv_wr_opcode opcode, uint64_t local, uint32_t lkey, uint64_t remote, uint32_t rkey)
{
    struct ibv_sge sge = {local, 8, lkey};
    struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED}, *bad;
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        send.wr.atomic.remote_addr = remote;
        send.wr.atomic.rkey = rkey;
        send.wr.atomic.compare_add = 1;
    } else {
        send.wr.rdma.remote_addr = remote;
        send.wr.rdma.rkey = rkey;
    }
    NEED(ibv_post_send(one.qp, &send, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    return wait_for(one.cq);
}

/* Requests of `one` to the last page of the memory, a region of each end. */
static void connected(int fd, uint8_t *memory)
{
    const uint64_t offset = size - PAGE, iova = 0x7000000;
    uint64_t *const buffer = (uint64_t *)one.buffer, mine = (uintptr_t)one.buffer;
    struct ibv_mr *mr = ibv_reg_dmabuf_mr(other.pd, offset, PAGE, iova, fd, RIGHTS | IBV_ACCESS_REMOTE_ATOMIC);
    struct ibv_mr *own = ibv_reg_dmabuf_mr(one.pd, offset, PAGE, iova, fd, 0);
    NEED(mr && own, "ibv_reg_dmabuf_mr: %s", strerror(errno));
    close(fd);

    *buffer = 7;
    const char *status = request(IBV_WR_RDMA_WRITE, mine, one.mr->lkey, iova + 8, mr->rkey);
    printf("WRITE: %s, %d\n", status, memory[offset + 8]);
    memory[offset + 16] = 9;
    status = request(IBV_WR_RDMA_READ, mine, one.mr->lkey, iova + 16, mr->rkey);
    printf("READ: %s, %d\n", status, (int)*buffer);
    status = request(IBV_WR_ATOMIC_FETCH_AND_ADD, mine, one.mr->lkey, iova + 16, mr->rkey);
    printf("atomic: %s, %d, then %d\n", status, (int)*buffer, memory[offset + 16]);
    struct ibv_sge sge = {iova + PAGE - 8, 8, mr->lkey};
    struct ibv_recv_wr receive = {.sg_list = &sge, .num_sge = 1}, *bad;
    NEED(ibv_post_recv(other.qp, &receive, &bad) == 0, "ibv_post_recv: %s", strerror(errno));
    status = request(IBV_WR_SEND, iova + 16, own->lkey, 0, 0);
    wait_for(other.cq);
    printf("SEND from the region to its end: %s, %d\n", status, memory[offset + PAGE - 8]);
    status = request(IBV_WR_RDMA_READ, mine, one.mr->lkey, iova + PAGE, mr->rkey);
    printf("READ beyond the region: %s\n", status);
    NEED(ibv_dereg_mr(mr) == 0 && ibv_dereg_mr(own) == 0, "ibv_dereg_mr: %s", strerror(errno));
}

/* The program shortens the file of a region. */
static void truncated(int fd)
{
    for (int is_write = 1; is_write >= 0; is_write--) {
        create_pair(&one, &other, context, &default_options);
        NEED(ftruncate(fd, (off_t)size) == 0, "ftruncate: %s", strerror(errno));
        struct ibv_mr *mr = ibv_reg_dmabuf_mr(other.pd, 0, size, 0, fd, RIGHTS);
        NEED(mr && ftruncate(fd, 0) == 0, "a file to be truncated: %s", strerror(errno));
        const char *status = request(is_write ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ, (uintptr_t)one.buffer,
                                     one.mr->lkey, 0, mr->rkey);
        printf("%s behind the end of a shortened file: %s\n", is_write ? "WRITE" : "READ", status);
    }
}

/* ---- ud ---- */

static void datagram(int fd, uint8_t *memory)
{
    struct ibv_cq *cq = ibv_create_cq(context, 4, NULL, NULL, 0);
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .cap = {1, 1, 1, 1, 0}, .qp_type = IBV_QPT_UD};
    struct ibv_qp *qp = cq ? ibv_create_qp(pd, &init) : NULL;
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY};
    int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
    attr.qp_state = IBV_QPS_RTR;
    error = error ? error : ibv_modify_qp(qp, &attr, IBV_QP_STATE);
    attr.qp_state = IBV_QPS_RTS;
    error = error ? error : ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN);
    NEED(error == 0, "ibv_modify_qp: %s", strerror(error));
    struct ibv_ah_attr path = {.is_global = 1, .port_num = 1, .grh.hop_limit = 64};
    NEED(ibv_query_gid(context, 1, 0, &path.grh.dgid) == 0, "ibv_query_gid: %s", strerror(errno));
    struct ibv_ah *ah = ibv_create_ah(pd, &path);
    struct ibv_mr *mr = ibv_reg_dmabuf_mr(pd, 0, size, 0x7000000, fd, IBV_ACCESS_LOCAL_WRITE);
    NEED(ah && mr, "ibv_create_ah and ibv_reg_dmabuf_mr: %s", strerror(errno));
    close(fd);

    memory[0] = 5;
    struct ibv_sge from = {0x7000000, 8, mr->lkey}, to = {0x7000000 + PAGE, GRH_BYTES + 8, mr->lkey};
    struct ibv_recv_wr receive = {.sg_list = &to, .num_sge = 1}, *bad_receive;
    struct ibv_send_wr send = {.sg_list = &from, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad_send;
    send.wr.ud.ah = ah;
    send.wr.ud.remote_qpn = qp->qp_num;
    send.wr.ud.remote_qkey = QKEY;
    NEED(ibv_post_recv(qp, &receive, &bad_receive) == 0, "ibv_post_recv: %s", strerror(errno));
    NEED(ibv_post_send(qp, &send, &bad_send) == 0, "ibv_post_send: %s", strerror(errno));
    const char *statuses[] = {wait_for(cq), wait_for(cq)};
    printf("SEND and receive: %s, %s, %d\n", statuses[0], statuses[1], memory[PAGE + GRH_BYTES]);
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
}

/* ---- registrations ---- */

static void refusals(int fd)
{
    int pipes[2], sockets[2];
    NEED(pipe(pipes) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, "pipe: %s", strerror(errno));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const int read_only = open(path, O_RDONLY | O_CLOEXEC), appending = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
    const struct {
        const char *name;
        int fd;
        uint64_t offset, length, iova;
        int access;
    } cases[] = {
        {"length 0", fd, 0, 0, 0, RIGHTS},
        {"one byte too many", fd, 0, size + 1, 0, RIGHTS},
        {"from the end on", fd, size, 1, 0, RIGHTS},
        {"2^63 bytes", fd, 0, 1ull << 63, 0, RIGHTS},
        {"2^64 - 1 bytes", fd, 0, -1ull, 0, RIGHTS},
        {"an offset that wraps around", fd, -(uint64_t)PAGE, 2 * PAGE, 0, RIGHTS},
        {"an offset of 2^53", fd, 1ull << 53, PAGE, 0, RIGHTS},
        {"an iova of another offset in its page", fd, 0, PAGE, 8, RIGHTS},
        {"an iova that wraps around", fd, 0, PAGE, -(uint64_t)PAGE, RIGHTS},
        {"remote write without local write", fd, 0, PAGE, 0, IBV_ACCESS_REMOTE_WRITE},
        {"on-demand paging", fd, 0, PAGE, 0, IBV_ACCESS_ON_DEMAND},
        {"local write of a read-only descriptor", read_only, 0, PAGE, 0, IBV_ACCESS_LOCAL_WRITE},
        {"remote read of a read-only descriptor", read_only, 0, PAGE, 0, IBV_ACCESS_REMOTE_READ},
        {"a descriptor that appends", appending, 0, PAGE, 0, RIGHTS},
        {"a pipe", pipes[0], 0, PAGE, 0, RIGHTS},
        {"a socket", sockets[0], 0, PAGE, 0, RIGHTS},
        {"an eventfd", eventfd(0, 0), 0, PAGE, 0, RIGHTS},
        {"a folder", open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0, PAGE, 0, RIGHTS},
        {"a file of a file system", open("/proc/self/exe", O_RDONLY | O_CLOEXEC), 0, PAGE, 0, 0},
        {"a device", open("/dev/zero", O_RDWR | O_CLOEXEC), 0, PAGE, 0, RIGHTS},
        {"no descriptor", 999999, 0, PAGE, 0, RIGHTS},
        {"descriptor -1", -1, 0, PAGE, 0, RIGHTS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ibv_mr *mr = ibv_reg_dmabuf_mr(pd, cases[i].offset, cases[i].length, cases[i].iova, cases[i].fd,
                                              cases[i].access);
        printf("%s: %s\n", cases[i].name, result_of(mr));
        if (mr)
            NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    }
    /* Sockets of the preload library with the daemon, and others that this program has not opened. */
    for (int any = 3; any < 1024; any++) {
        struct stat file;
        struct ibv_mr *mr =
            fstat(any, &file) == 0 && S_ISSOCK(file.st_mode) ? ibv_reg_dmabuf_mr(pd, 0, PAGE, 0, any, 0) : NULL;
        NEED(!mr, "socket %d is registered", any);
    }
}

static void many(int fd)
{
    static struct ibv_mr *regions[REGIONS];
    int count = 0;
    while (count < REGIONS && (regions[count] = ibv_reg_dmabuf_mr(pd, 0, size, 0, fd, RIGHTS)))
        count++;
    const char *last = count == REGIONS ? "OK" : strerrorname_np(errno);
    for (int i = 0; i < count; i++)
        NEED(ibv_dereg_mr(regions[i]) == 0, "ibv_dereg_mr: %s", strerror(errno));
    struct ibv_mr *again = ibv_reg_dmabuf_mr(pd, 0, size, 0, fd, RIGHTS);
    printf("many: %s, and after they are gone: %s\n", last, result_of(again));
}

int main(int argc, char **argv)
{
    NEED(argc == 4, "usage: dmabuf DEVICE rc|ud memfd|huge|udmabuf|heap");
    const char *kind = argv[3];
    const bool is_connected = strcmp(argv[2], "rc") == 0;
    const int fd = create_memory(kind);
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED && strcmp(kind, "huge") == 0)
        absent();
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    context = open_named(argv[1]);
    if (is_connected) {
        create_pair(&one, &other, context, &default_options);
        pd = one.pd;
        connected(dup(fd), memory);
    } else {
        pd = ibv_alloc_pd(context);
        NEED(pd, "ibv_alloc_pd: %s", strerror(errno));
        datagram(dup(fd), memory);
    }
    refusals(fd);
    many(fd);
    if (is_connected && (strcmp(kind, "memfd") == 0 || strcmp(kind, "huge") == 0))
        truncated(fd);
    return 0;
}
