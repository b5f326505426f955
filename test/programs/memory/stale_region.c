/*
 * Regions whose memory is unmapped: later WRITEs must not reach memory that is mapped there afterwards. The peers are
 * queue pairs of this program.
 *
 *   stale_region CASE          WRITEs to a region, unmaps its memory, maps other memory there, WRITEs with the old rkey
 *                              and with that of a new region; prints the results of the three WRITEs, and the memory's
 *                              first byte after each of the last two
 *   stale_region limit BYTES   registers up to 64 regions of BYTES until one is refused, and prints their number;
 *                              deregisters one, and prints whether another can be registered
 *   stale_region mappings COUNT
 *                              registers and deregisters COUNT separate ranges of one mapping, one after the other, and
 *                              prints how many mappings more the program has (userfaultfd splits mappings at the
 *                              ends of watched ranges)
 *
 * CASE is how the memory is unmapped:
 *
 *   munmap   by munmap
 *   fixed    by the new mapping (MAP_FIXED)
 *   mremap   by mremap, which moves it
 *   part     one page by munmap, the rest by the new mapping
 *   window   by munmap; the old rkey is that of a memory window
 *   twice    by munmap, after another region of the same memory was deregistered
 */
#define _GNU_SOURCE
#include "../endpoint.h"
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define LENGTH (1 << 20)
#define MAX_REGIONS 64
#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

/* `address`: NULL for any. */
static uint8_t *map_at(void *address)
{
    uint8_t *memory = mmap(address, LENGTH, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | (address ? MAP_FIXED : 0), -1, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* Returns the status, and stores the vendor_err. */
static enum ibv_wc_status post_and_wait(struct endpoint *end, struct ibv_send_wr *send, unsigned *vendor)
{
    struct ibv_send_wr *bad;
    struct ibv_wc wc;
    int found;
    send->send_flags = IBV_SEND_SIGNALED;
    NEED(ibv_post_send(end->qp, send, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        ;
    NEED(found > 0, "ibv_poll_cq: %d", found);
    *vendor = wc.vendor_err;
    return wc.status;
}

static void write_to(struct endpoint *end, const void *memory, uint32_t rkey)
{
    struct ibv_sge source = {.addr = (uintptr_t)end->buffer, .length = 64, .lkey = end->mr->lkey};
    struct ibv_send_wr send = {
        .sg_list = &source, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .wr.rdma = {(uintptr_t)memory, rkey}};
    unsigned vendor;
    const enum ibv_wc_status status = post_and_wait(end, &send, &vendor);
    printf("%s, vendor_err 0x%x\n", ibv_wc_status_str(status), vendor);
}

static struct ibv_mr *register_memory(struct ibv_pd *pd, void *memory, int rights)
{
    struct ibv_mr *mr = ibv_reg_mr(pd, memory, LENGTH, rights);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    return mr;
}

static struct ibv_pd *alloc_pd(struct ibv_context *context)
{
    struct ibv_pd *pd = ibv_alloc_pd(context);
    NEED(pd, "ibv_alloc_pd: %s", strerror(errno));
    return pd;
}

static void count_registrations(struct ibv_context *context, size_t bytes)
{
    struct ibv_pd *pd = alloc_pd(context);
    struct ibv_mr *regions[MAX_REGIONS];
    int count = 0;
    uint8_t *memory = map_at(NULL);
    NEED(bytes <= LENGTH, "at most %d bytes", LENGTH);
    while (count < MAX_REGIONS && (regions[count] = ibv_reg_mr(pd, memory, bytes, IBV_ACCESS_LOCAL_WRITE)))
        count++;
    printf("%d, then %s\n", count, count == MAX_REGIONS ? "stopped" : strerror(errno));
    if (count == 0)
        return;
    NEED(ibv_dereg_mr(regions[0]) == 0, "ibv_dereg_mr: %s", strerror(errno));
    const struct ibv_mr *second = ibv_reg_mr(pd, memory, bytes, IBV_ACCESS_LOCAL_WRITE);
    printf("after a deregistration: %s\n", second ? "registered" : strerror(errno));
}

static int count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    int lines = 0;
    NEED(maps, "/proc/self/maps: %s", strerror(errno));
    for (int character; (character = fgetc(maps)) != EOF;)
        lines += character == '\n';
    fclose(maps);
    return lines;
}

static void register_ranges(struct ibv_context *context, size_t count)
{
    struct ibv_pd *pd = alloc_pd(context);
    /* Longer than MAX_UNWATCH_BYTES (registered-ranges.ts): a range stays watched after its deregistration. */
    const size_t bytes = LENGTH + 4096, step = bytes + 4096;
    uint8_t *memory =
        mmap(NULL, count * step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    const int before = count_mappings();
    for (size_t i = 0; i < count; i++) {
        struct ibv_mr *region = ibv_reg_mr(pd, memory + i * step, bytes, IBV_ACCESS_LOCAL_WRITE);
        NEED(region && ibv_dereg_mr(region) == 0, "region %zu: %s", i, strerror(errno));
    }
    printf("%d\n", count_mappings() - before);
}

int main(int count, char **arguments)
{
    const struct options options = default_options;
    const char *kind = count > 1 ? arguments[1] : "";
    static const char *const kinds[] = {"munmap", "fixed", "mremap", "part", "window", "twice"};
    const bool is_limit = strcmp(kind, "limit") == 0 && count == 3;
    const bool is_mappings = strcmp(kind, "mappings") == 0 && count == 3;
    bool is_known = is_limit || is_mappings;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        is_known |= strcmp(kind, kinds[i]) == 0;
    NEED(is_known, "usage: %s munmap|fixed|mremap|part|window|twice, limit BYTES, or mappings COUNT",
         arguments[0]);
    struct ibv_context *context = open_named(NULL);
    if (is_limit) {
        count_registrations(context, strtoul(arguments[2], NULL, 10));
        return 0;
    }
    if (is_mappings) {
        register_ranges(context, strtoul(arguments[2], NULL, 10));
        return 0;
    }
    /* userdma uses userfaultfd to notice that memory is unmapped. */
    NEED(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY) >= 0, "cannot: userfaultfd: %s", strerror(errno));
    struct endpoint from, to, other_from, other_to;
    create_pair(&from, &to, context, &options);
    create_pair(&other_from, &other_to, context, &options);
    const bool is_window = strcmp(kind, "window") == 0;
    uint8_t *memory = map_at(NULL);
    memset(memory, 1, LENGTH);
    struct ibv_pd *pd = to.qp->pd;
    struct ibv_mr *old = register_memory(pd, memory, RIGHTS | (is_window ? IBV_ACCESS_MW_BIND : 0));
    uint32_t rkey = old->rkey;
    if (is_window) {
        struct ibv_mw *mw = ibv_alloc_mw(pd, IBV_MW_TYPE_1);
        NEED(mw, "ibv_alloc_mw: %s", strerror(errno));
        struct ibv_mw_bind bind = {.send_flags = IBV_SEND_SIGNALED,
                                   .bind_info = {old, (uintptr_t)memory, LENGTH, IBV_ACCESS_REMOTE_WRITE}};
        struct ibv_wc wc;
        NEED(ibv_bind_mw(to.qp, mw, &bind) == 0, "ibv_bind_mw: %s", strerror(errno));
        while (ibv_poll_cq(to.cq, 1, &wc) == 0)
            ;
        NEED(wc.status == IBV_WC_SUCCESS, "bind: %s", ibv_wc_status_str(wc.status));
        rkey = mw->rkey;
    }
    if (strcmp(kind, "twice") == 0)
        NEED(ibv_dereg_mr(register_memory(pd, memory, RIGHTS)) == 0, "ibv_dereg_mr: %s", strerror(errno));
    write_to(&from, memory, rkey);
    if (strcmp(kind, "fixed") == 0) {
        map_at(memory);
    } else if (strcmp(kind, "mremap") == 0) {
        NEED(mremap(memory, LENGTH, LENGTH, MREMAP_MAYMOVE | MREMAP_FIXED, map_at(NULL)) != MAP_FAILED, "mremap: %s",
             strerror(errno));
        map_at(memory);
    } else if (strcmp(kind, "part") == 0) {
        NEED(munmap(memory + LENGTH / 2, 4096) == 0, "munmap: %s", strerror(errno));
        map_at(memory);
    } else {
        NEED(munmap(memory, LENGTH) == 0, "munmap: %s", strerror(errno));
        map_at(memory);
    }
    memset(from.buffer, 7, 64);
    memset(other_from.buffer, 9, 64);
    write_to(&from, memory, rkey);
    printf("the memory has %d\n", memory[0]);
    write_to(&other_from, memory, register_memory(other_to.qp->pd, memory, RIGHTS)->rkey);
    printf("the memory has %d\n", memory[0]);
    return 0;
}
