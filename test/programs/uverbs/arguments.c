/*
 * Calls with arguments out of range, as libibverbs makes them: which errno comes, and so which check comes first.
 * test/system/devices/arguments.test.ts has Linux's.
 *
 *   arguments DEVICE
 *
 * Prints a line per call: its name, then OK or the name of the errno.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>

#include "../endpoint.h"

#define PAGE 4096
#define BYTES 65536

static struct ibv_context *context;
static struct ibv_pd *pd;

static void show(const char *name, const void *object)
{
    printf("%s: %s\n", name, object ? "OK" : strerrorname_np(errno));
    errno = 0;
}

static void files(int file)
{
    const struct {
        const char *name;
        uint64_t offset;
        size_t length;
        uint64_t iova;
        int fd, access;
    } rows[] = {
        {"dmabuf: descriptor -1", 0, PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor 999", 0, PAGE, 0, 999, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, length 0", 0, 0, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, offset 1, iova 0", 1, PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, the end overflows", -PAGE, 2 * PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: descriptor -1, remote write alone", 0, PAGE, 0, -1, IBV_ACCESS_REMOTE_WRITE},
        {"dmabuf: descriptor -1, remote atomic alone", 0, PAGE, 0, -1, IBV_ACCESS_REMOTE_ATOMIC},
        {"dmabuf: descriptor -1, remote atomic", 0, PAGE, 0, -1, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC},
        {"dmabuf: descriptor -1, on demand", 0, PAGE, 0, -1, IBV_ACCESS_ON_DEMAND},
        {"dmabuf: the context's descriptor", 0, PAGE, 0, context->cmd_fd, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: beyond the end", BYTES, PAGE, 0, file, IBV_ACCESS_LOCAL_WRITE},
        {"dmabuf: right", 0, PAGE, 0, file, IBV_ACCESS_LOCAL_WRITE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        show(rows[i].name, ibv_reg_dmabuf_mr(pd, rows[i].offset, rows[i].length, rows[i].iova, rows[i].fd, rows[i].access));
}

static void regions(char *buffer)
{
    const struct {
        const char *name;
        size_t length;
        uint64_t iova;
        unsigned int access;
    } rows[] = {
        {"mr: length 0", 0, 0, IBV_ACCESS_LOCAL_WRITE},
        {"mr: iova 1", PAGE, 1, IBV_ACCESS_LOCAL_WRITE},
        {"mr: remote write alone", PAGE, 0, IBV_ACCESS_REMOTE_WRITE},
        {"mr: remote atomic", PAGE, 0, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC},
        {"mr: remote atomic, iova 1", PAGE, 1, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC},
        {"mr: memory windows", PAGE, 0, IBV_ACCESS_MW_BIND},
        {"mr: zero-based", PAGE, 0, IBV_ACCESS_ZERO_BASED},
        {"mr: an unknown flag", PAGE, 0, 1u << 15},
        {"mr: an optional flag", PAGE, 0, 1u << 25},
        {"mr: 2^31 pages", (size_t)1 << 43, 0, IBV_ACCESS_LOCAL_WRITE},
        {"mr: 2^32 pages", (size_t)1 << 44, 0, IBV_ACCESS_LOCAL_WRITE},
        {"mr: the end overflows", SIZE_MAX, 0, IBV_ACCESS_LOCAL_WRITE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        show(rows[i].name, ibv_reg_mr_iova(pd, buffer, rows[i].length, rows[i].iova, rows[i].access));
}

static void queues(void)
{
    static const int channels[] = {-1, 0, 999};
    for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++) {
        struct ibv_comp_channel channel = {.context = context, .fd = channels[i]};
        char name[64];
        snprintf(name, sizeof name, "cq: channel %d", channels[i]);
        show(name, ibv_create_cq(context, 1, NULL, &channel, 0));
    }
    show("cq: vector -1", ibv_create_cq(context, 1, NULL, NULL, -1));
    show("cq: 2^30 entries", ibv_create_cq(context, 1 << 30, NULL, NULL, 0));
}

static void domains(int file)
{
    const struct {
        const char *name;
        int fd, flags;
    } rows[] = {
        {"xrcd: descriptor -1", -1, 0},
        {"xrcd: descriptor -1, O_EXCL", -1, O_EXCL},
        {"xrcd: descriptor -2", -2, O_CREAT},
        {"xrcd: descriptor 999", 999, O_CREAT},
        {"xrcd: a file without a domain", file, 0},
        {"xrcd: a file, O_CREAT", file, O_CREAT},
        {"xrcd: a file with a domain, O_EXCL", file, O_CREAT | O_EXCL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ibv_xrcd_init_attr attr = {.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                          .fd = rows[i].fd,
                                          .oflags = rows[i].flags};
        show(rows[i].name, ibv_open_xrcd(context, &attr));
    }
}

static void addresses(void)
{
    union ibv_gid gid;
    const int index = choose_gid(context, -1);
    NEED(ibv_query_gid(context, 1, index, &gid) == 0, "ibv_query_gid: %s", strerror(errno));
    const struct ibv_ah_attr right = {
        .is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = (uint8_t)index, .hop_limit = 1}};
    struct ibv_ah_attr wrong = right;
    show("ah: right", ibv_create_ah(pd, &wrong));
    wrong.is_global = 0;
    show("ah: without a GID", ibv_create_ah(pd, &wrong));
    wrong = right;
    wrong.grh.sgid_index = 255;
    show("ah: GID index 255", ibv_create_ah(pd, &wrong));
}

int main(int argc, char **argv)
{
    NEED(argc == 2 && argv[1][0] != '-', "usage: arguments DEVICE");
    const int file = memfd_create("arguments", MFD_CLOEXEC);
    NEED(file >= 0 && ftruncate(file, BYTES) == 0, "memfd_create: %s", strerror(errno));
    char *buffer = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(buffer != MAP_FAILED, "mmap: %s", strerror(errno));
    context = open_named(argv[1]);
    pd = ibv_alloc_pd(context);
    NEED(pd, "ibv_alloc_pd: %s", strerror(errno));
    files(file);
    regions(buffer);
    queues();
    domains(file);
    addresses();
    return 0;
}
